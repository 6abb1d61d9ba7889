"""The files around the code agree with each other: version, change log, hooks, workflows, wheel."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import pyfau
from pyfau.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# A release of an action: a version, or the branch that PyPI's own instructions name.
ACTION = re.compile(
    r"^(\./\.github/actions/[\w-]+|[\w-]+/[\w-]+@(v\d+(\.\d+)*|release/v1|[0-9a-f]{40}))$"
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pyfau_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The version


def test_version_is_defined_in_one_file() -> None:
    defined = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pyfau").rglob("*.py")
        if re.search(r"^__version__\s*[:=]", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert defined == ["pyfau/version.py"]
    assert pyfau.__version__ == __version__
    project = pyproject()
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "pyfau/version.py"
    assert "version = release = pyfau.__version__" in text("docs/conf.py")


def test_version_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)


def test_citation_states_the_version() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["version"] == __version__


def test_change_log_has_the_version_on_top() -> None:
    headings = re.findall(r"^## (.+)$", text("CHANGELOG.md"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+\S*) - \d{4}-\d\d-\d\d", h) for h in headings[1:]]
    assert all(released), f"headings are 'VERSION - YYYY-MM-DD': {headings[1:]}"
    versions = [match[1] for match in released if match]
    if versions:
        assert __version__ in versions[:1], "the newest release in CHANGELOG.md is another version"
    else:  # nothing is released yet: the page says which version comes first
        assert f"will be {__version__}" in text("CHANGELOG.md")
    kinds = set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# Development tools


def dev_pin(name: str) -> str:
    dev = pyproject()["project"]["optional-dependencies"]["dev"]
    return next(line.partition("==")[2] for line in dev if line.startswith(f"{name}=="))


def locked_versions(name: str) -> set[str]:
    pattern = rf"^{re.escape(name)}==([^\s;]+)"
    files = ("constraints.txt", "requirements/lock.txt")
    return {v for file in files for v in re.findall(pattern, text(file), flags=re.MULTILINE)}


def test_ruff_and_mypy_have_one_version() -> None:
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    ruff = next(repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == f"v{dev_pin('ruff')}"
    assert {hook["id"] for hook in ruff["hooks"]} == {"ruff-check", "ruff-format"}
    assert locked_versions("ruff") == {dev_pin("ruff")}
    assert locked_versions("mypy") == {dev_pin("mypy")}


def test_hooks_run_what_make_check_runs() -> None:
    """Each linter of the Makefile has a hook; the site and the tests are too slow for one."""
    targets = re.search(r"^check: (.+)$", text("Makefile"), flags=re.MULTILINE)
    assert targets is not None
    linters = set()
    for target in targets[1].split():
        recipe = re.search(rf"^{target}:.*\n((?:\t.+\n)+)", text("Makefile"), flags=re.MULTILINE)
        if recipe is not None and target not in ("docs", "test", "coverage"):
            linters |= set(re.findall(r"-m (\w+)|\b(lint-imports)\b", recipe[1]))
    names = {a or b for a, b in linters}
    assert {"ruff", "mypy"} <= names
    hooks = text(".pre-commit-config.yaml")
    assert not [name for name in names if name not in hooks]


def test_editor_and_formatter_agree_on_the_line_length() -> None:
    python = text(".editorconfig").split("[*.py]")[1].split("[")[0]
    length = re.search(r"max_line_length = (\d+)", python)
    assert length is not None
    assert int(length[1]) == pyproject()["tool"]["ruff"]["line-length"]


# The forge


@pytest.mark.parametrize(
    "path",
    [
        *sorted(ROOT.glob(".github/**/*.yml")),
        ROOT / ".pre-commit-config.yaml",
        ROOT / "CITATION.cff",
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_yaml_is_valid_and_has_no_key_twice(path: Path) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path.name} has a key twice: {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load(path.read_text(encoding="utf-8"), Loader=Strict)


def test_there_are_workflows_for_tests_site_audit_and_release() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"tests", "docs", "audit", "release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_sound(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow[True]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}, "rights are granted to single jobs"
    jobs = workflow["jobs"]
    for name, job in jobs.items():
        assert job["timeout-minutes"] <= 90, name
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert ACTION.match(step.get("uses", "a/b@v1")), step
            for file in re.findall(r"(?:scripts|tests|\./\.github/actions)/[\w./-]+", str(step)):
                assert (ROOT / file).exists(), f"{path.name} names {file}, which is not there"


def test_every_promised_python_and_system_is_tested() -> None:
    matrix = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"]["tests"]["strategy"][
        "matrix"
    ]
    prefix = "Programming Language :: Python :: 3."
    promised = [c for c in pyproject()["project"]["classifiers"] if c.startswith(prefix)]
    assert matrix["python"] == [c.rpartition(" ")[2] for c in promised]
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_release_needs_no_password() -> None:
    jobs = yaml.safe_load(text(".github/workflows/release.yml"))["jobs"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    assert jobs["build"]["permissions"]["attestations"] == "write"
    assert "secrets." not in text(".github/workflows/release.yml")
    assert "password" not in str(jobs["pypi"])


def test_dev_container() -> None:
    container = json.loads(text(".devcontainer/devcontainer.json"))
    setup = container["postCreateCommand"].removeprefix("bash ")
    subprocess.run(["bash", "-n", str(ROOT / setup)], check=True)


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is missing: install pyfau[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


def test_wheel_has_all_it_needs_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"pyfau-{__version__}-py3-none-any.whl"
    assert script("check_wheel").problems(wheel) == []


def test_wheel_has_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"pyfau-{__version__}.dist-info/licenses"
        for name in ("LICENSE", "THIRD_PARTY_NOTICES.md"):
            assert archive.read(f"{folder}/{name}") == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("left_out", "added", "complaint"),
    [
        ("pyfau/assets/mtcnn/model.safetensors", None, "model.safetensors is missing"),
        ("pyfau/serve/page/page.js", None, "page.js is missing"),
        (
            f"pyfau-{__version__}.dist-info/licenses/LICENSE",
            None,
            "licence file LICENSE is missing",
        ),
        (None, "pyfau/tests/test_x.py", "should not be in the wheel"),
        (None, "tests/test_x.py", "tests lies outside the package"),
    ],
)
def test_check_finds_a_wheel_that_is_not_whole(
    wheel: Path, tmp_path: Path, left_out: str | None, added: str | None, complaint: str
) -> None:
    broken = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(broken, "w") as target:
        for name in source.namelist():
            if name != left_out:
                target.writestr(name, source.read(name))
        if added is not None:
            target.writestr(added, "")
    assert any(complaint in sentence for sentence in script("check_wheel").problems(broken))


# The bill of materials


@pytest.mark.slow
def test_sbom_lists_the_core_and_the_embedded_files(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is missing: install pyfau[dev]")
    output = tmp_path / "pyfau.cdx.json"
    command = [sys.executable, "scripts/sbom.py", "-o", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    bom = json.loads(output.read_text(encoding="utf-8"))
    assert bom["metadata"]["component"]["version"] == __version__
    names = {c["name"].lower().replace("_", "-") for c in bom["components"]}
    core = {re.split(r"[<>=;\[ ]", d)[0] for d in pyproject()["project"]["dependencies"]}
    assert core <= names
    assert {"mtcnn", "mdhr-lite", "astronaut-portrait"} <= names
    assert not names & {"pytest", "ruff", "mypy", "sphinx", "ray"}
    references = {c["bom-ref"] for c in bom["components"]} | {
        bom["metadata"]["component"]["bom-ref"]
    }
    for entry in bom["dependencies"]:
        assert {entry["ref"], *entry.get("dependsOn", [])} <= references
    assert "file:" not in output.read_text(encoding="utf-8")


def test_sbom_names_every_embedded_file_by_others() -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-bom is missing: install pyfau[dev]")
    listed = {path for path, *_ in script("sbom").EMBEDDED}
    assets = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pyfau" / "assets").rglob("*")
        if path.suffix in (".safetensors", ".webp", ".jpg", ".png")
    }
    assert listed == assets
