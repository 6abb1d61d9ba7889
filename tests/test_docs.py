"""The code on the pages runs, and what they say about columns, messages and models is true.

The blocks of a page run in a folder with real media (`workspace`). The Python blocks of a page
share a namespace. A block after `<!-- not run: reason -->` is only checked: Python must compile,
and `pyfau` must accept the options. The same holds for `<!-- ci: ... -->` in README, whose blocks
`.ci/run` runs.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml
from browser import chromium, complaints
from made import load, write_clip
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

import pyfau
from pyfau.cli import _parser, main
from pyfau.demo import demo_frames
from pyfau.weights.manifest import read_manifest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [
    page
    for page in PAGES
    if re.search("^```(python|bash)$", page.read_text(encoding="utf-8"), flags=re.M)
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files that the pages name: clips, a folder of frames, unrelated images.

    All are made from the portrait of the demo.
    """
    folder = tmp_path_factory.mktemp("workspace")
    frames = demo_frames()
    for name in ("clip.mp4", "long.mp4", "neutral.mp4"):
        write_clip(folder / name, frames[:30])
    for i, name in enumerate(("p01-film.mp4", "p01-rest.mp4", "p02-film.mp4", "p02-rest.mp4")):
        write_clip(folder / "recordings" / name, frames[15 * i : 15 * i + 15])
    write_clip(folder / "more" / "p03-film.mov", frames[20:30])
    for name, images in (("frames", frames[:10]), ("portraits", frames[::30])):
        (folder / name).mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / name / f"img{i}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    for name in ("photo.jpg", "portrait.jpg"):
        shutil.copy(folder / "frames" / "img0.jpg", folder / name)
    return folder


@pytest.fixture(scope="module")
def names(workspace: Path) -> dict[str, Any]:
    """Names that Python blocks may use without defining them."""
    result = pyfau.AUDetector().detect_video(workspace / "clip.mp4")
    frames = demo_frames()[:30]
    return {
        "frames": frames,
        "rgb": frames[0],
        "result": result,
        "results": [result] * 4,
        "labels": [0, 1, 0, 1],
    }


def is_only_checked(example: Example) -> bool:
    return (
        re.search(r"<!-- (not run|ci): [^>]+ -->\s*$", example.document.text[: example.start])
        is not None
    )


def run_python(example: Example) -> None:
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec")
    if not is_only_checked(example):
        exec(code, example.namespace)


def commands(block: str) -> Iterator[list[str]]:
    """Yield the simple commands of a block, each as a list of words, without comments."""
    for line in block.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def run_bash(example: Example) -> None:
    for words in commands(example.parsed):
        variables = {}
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, variables[name] = words.pop(0).partition("=")
        if words[0] == "pyfau" and (is_only_checked(example) or words[1] in ("serve", "live")):
            _parser().parse_args(words[1:])
        elif words[0] == "pyfau":
            with pytest.MonkeyPatch.context() as patch:  # in this process, which has torch already
                for name, value in variables.items():
                    patch.setenv(name, value)
                quiet = ["--quiet"] if words[1] in ("detect", "demo") else []
                assert main([*words[1:], *quiet]) == 0, shlex.join(words)
        elif not is_only_checked(example) and "pip" not in words[:3]:
            subprocess.run(words, env=os.environ | variables, check=True, timeout=120)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_pages(
    page: Path,
    workspace: Path,
    names: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsers = CodeBlockParser("python", run_python), CodeBlockParser("bash", run_bash)
    document = Document.parse(str(page), *parsers)
    monkeypatch.setenv("MPLBACKEND", "agg")
    folder = tmp_path / "work"
    shutil.copytree(workspace, folder)
    monkeypatch.chdir(folder)
    document.namespace.update(names, __name__="page")
    for example in document.examples():
        try:
            example.evaluate()
        except (Exception, SystemExit) as error:
            raise AssertionError(
                f"{page.relative_to(ROOT)}, line {example.line}: {error!r}"
            ) from error


def test_tables_of_the_au_guide_are_those_of_manifest_and_card() -> None:
    page = (DOCS / "action-units.md").read_text(encoding="utf-8")
    assert page == load(DOCS / "au_tables.py").rendered(page), "run python docs/au_tables.py"


def test_au_guide_describes_what_the_models_give() -> None:
    page = (DOCS / "action-units.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (AU\d\d) (.+)$", page, flags=re.M))
    # Of MDHR; networks of other projects have more.
    records = [entry.record for entry in read_manifest().values()]
    own = [record for record in records if record["network"] == "mdhr"]
    given = {f"AU{number:02d}" for record in own for number in record["aus"]}
    assert sections == {au: pyfau.AU_NAMES[au] for au in sorted(given)}


def first_cells(page: str, heading: str) -> set[str]:
    """Return the names in backticks in the first column of the table under a heading."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, flags=re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_output_reference_names_every_column_and_key(workspace: Path, tmp_path: Path) -> None:
    page = (DOCS / "output.md").read_text(encoding="utf-8")
    table = tmp_path / "clip.csv"
    detector = pyfau.AUDetector()
    detector.detect_video(workspace / "clip.mp4", save=table, overlay=tmp_path / "clip.mp4")
    with_file = detector.detect_images(workspace / "frames", fps=25).to_dataframe()
    based = detector.detect_images(workspace / "frames").baseline({}).to_dataframe()
    columns = {re.sub(r"^AU\d\d", "AU01", name) for name in [*with_file.columns, *based.columns]}
    assert first_cells(page, "Columns") == columns
    record = json.loads(table.with_name("clip.csv.json").read_text(encoding="utf-8"))
    assert first_cells(page, "Metadata") == set(record) | {"baseline", "anonymised_overlay"}
    assert [c for c in pyfau.AUResult.read_csv(table).to_dataframe().columns if c != "file"] == [
        c for c in with_file.columns if c != "file"
    ]


def test_api_page_shows_every_public_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"pyfau\.(\w+)", page)) | set(vars(pyfau.errors))  # errors as a module
    assert set(pyfau.__all__) <= shown


@cache
def messages() -> list[str]:
    """Return every text in pyfau's source, with … for the parts that are filled in."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return "".join(
            text(v) if isinstance(v, ast.Constant) else "…" for v in getattr(node, "values", ())
        )

    found = []
    for path in sorted((ROOT / "pyfau").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [
            text(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)
        ]
    return [message for message in found if message]


def quoted_messages() -> list[str]:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(.+)`$", page, flags=re.M)


def test_quoted_messages_are_in_the_source() -> None:
    quoted = quoted_messages()
    assert len(quoted) > 30
    gone = [message for message in quoted if not any(message in known for known in messages())]
    assert not gone, f"no longer in pyfau's source: {gone}"


def code_lines(page: Path) -> list[str]:
    """Return the lines of all code blocks of a page."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def test_code_fits_without_sideways_scrolling() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    assert len(pages) > 30
    wide = [(page.name, line) for page in pages for line in code_lines(page) if len(line) > 80]
    assert not wide


def test_files_that_pages_name_exist() -> None:
    pages = [*ROOT.glob("*.md"), ROOT / "constraints.txt", *DOCS.rglob("*.md")]
    named = [
        (page.name, path)
        for page in pages
        for path in re.findall(r"\b(?:[\w-]+/)+[\w-]+\.py\b", page.read_text(encoding="utf-8"))
    ]
    assert len(named) > 30
    gone = [
        (page, path)
        for page, path in named
        if not (ROOT / path).exists() and not (ROOT / "pyfau" / path).exists()
    ]
    assert not gone


def test_lines_of_pages_are_short() -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    long = [
        (page.name, line)
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        # Tables and badges are a line each.
        if len(line) > 120 and not re.match(r"\s*(\||\[?!\[)", line)
    ]
    assert not long


def test_every_module_is_on_the_page_of_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The folders")[2].partition("\n## ")[0]
    package = ROOT / "pyfau"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert len(modules) > 20
    assert len(folders) > 10
    assert {name for name in modules | folders if f"`{name}`" not in table} == set()


def test_private_names_on_the_page_of_oddities_exist() -> None:
    page = (DOCS / "oddities.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(_[A-Za-z]\w+)`", page))
    assert len(named) > 5
    paths = (ROOT / "pyfau").rglob("*.py")
    source = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    assert not {name for name in named if name not in source}


def test_the_first_things_to_read_are_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 120
    landing = (DOCS / "index.md").read_text(encoding="utf-8")
    start = re.search(r":caption: Start\n(?::\w+:\n)*\n(.*?)```", landing, flags=re.S)
    assert start is not None
    assert 0 < len(start[1].split("\n")) - 1 <= 6


def test_project_files() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == pyfau.__version__
    assert {"message", "title", "authors", "license", "references"} <= set(citation)
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text(encoding="utf-8")), form


@pytest.mark.slow
def test_site_in_a_browser(tmp_path: Path) -> None:
    """Pages load nothing from other servers, log no errors, and fit on a phone."""
    site = tmp_path / "site"
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-qEW",
        "-b",
        "html",
        "-c",
        "docs",
        "-d",
        str(tmp_path / "trees"),
        ".",
    ]
    subprocess.run([*build, str(site)], cwd=ROOT, check=True, timeout=300)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = f"http://127.0.0.1:{server.server_port}/"
    pages = ("index.html", "docs/output.html", "docs/api.html", "search.html?q=face_id")
    try:
        with chromium(tmp_path / "profile", size=(500, 900)) as browser:
            for page in pages:
                browser.get(own + page)
                asked = browser.execute_script(
                    "return performance.getEntriesByType('resource').map(e => e.name)"
                )
                assert all(url.startswith((own, "data:")) for url in asked), asked
                page_width = browser.execute_script("return document.documentElement.scrollWidth")
                window_width = browser.execute_script("return document.documentElement.clientWidth")
                assert page_width <= window_width, f"{page} is wider than the window"
            assert complaints(browser) == []
    finally:
        server.shutdown()
        server.server_close()
