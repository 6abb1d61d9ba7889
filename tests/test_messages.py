"""Messages: the terminal gets only visible text, for all names and contents of files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyfau.cli import main
from pyfau.messages import printable, show
from pyfau.weights.verify import FileCheck

PACKAGE = Path(__file__).resolve().parents[1] / "pyfau"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Sets the title of a terminal, moves up a line, and forges a message.
NAME = "a\x1b]0;title\x07\x1b[Ab\npyfau: forged\u202e"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")


def printing_calls(source: str) -> list[str]:
    """Calls in a module that reach a terminal without `pyfau.messages`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        streams = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
        writes = tuple(f"{stream}.{name}" for stream in streams for name in ("write", "writelines"))
        others = ("print", "pprint", "traceback.print_exc", "traceback.print_exception")
        if called in (*writes, *others, "warnings.warn", "os.write"):
            found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    return found


# What may print by itself, and why.
ALLOWED = {
    "messages.py": 1,  # here everything is printed
    "commands/parser.py": 1,  # the script for completion, made from constants
    "locks.py": 1,  # writes the lock file
    "tables/ids.py": 1,  # a deprecation, in constant words
}


def test_nothing_is_printed_without_escapes() -> None:
    found = {}
    for path in SOURCES:
        calls = printing_calls(path.read_text(encoding="utf-8"))
        if calls:
            found[path.relative_to(PACKAGE).as_posix()] = calls
    assert {name: len(calls) for name, calls in found.items()} == ALLOWED, found


def test_printing_is_found() -> None:
    """Without this, the test above could not fail."""
    assert printing_calls("def f():\n    print('a')")
    assert printing_calls("import sys\nsys.stderr.write('a')")


def test_titles_of_progress_bars_are_escaped() -> None:
    titles = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "desc":
                titles.append(ast.unparse(node.value))
    assert len(titles) >= 4
    for title in titles:  # the number of a fold is ours
        assert title.startswith("printable(") or title == "f'fold {frames.fold}'"


def test_show_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    show("plain", NAME)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "plain"
    assert_visible(shown, "")
    assert len(shown.splitlines()) == 2


def assert_visible(out: str, err: str) -> None:
    for line in (out + err).replace("\r", "\n").split("\n"):
        assert line.isprintable(), line
        assert not line.startswith("pyfau: forged")


def run_and_check(
    arguments: Sequence[object], capsys: pytest.CaptureFixture[str], shown: bool = True
) -> None:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        assert error.code == 2  # noqa: PT017 - a command line that cannot be parsed
    out, err = capsys.readouterr()
    assert_visible(out, err)
    if shown:
        assert printable(NAME) in out + err


@posix
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "FILE", "-o", "OUT"],
        ["convert", "HERE", "-o", "FILE"],
        ["demo", "-o", "FILE"],
        ["detect", "FILE", "-o", "OUT.csv"],
        ["detect", "FILE", "FILE2", "-o", "OUT"],
        ["detect", "MISSING", "-o", "OUT.csv", "--quiet"],
        ["download", "FILE"],
        ["evaluate", "--data", "csv", "--labels", "FILE", "--scores", "FILE"],
        ["evaluate", "--data", "bp4d", "--root", "FILE", "--lists", "FILE", "--model", "FILE"],
        ["export", "FILE", "-o", "OUT"],
        ["info", "FILE"],
        ["live", "FILE"],
        ["publish", "FILE", "user/repo"],
        ["publish", "HERE", "FILE"],
        ["report", "FILE", "-o", "OUT.html"],
        ["summary", "FILE", "-o", "OUT.csv"],
        ["table", "FILE", "-o", "OUT.jsonl"],
        ["unknown", "FILE"],
        ["info", "--option", "FILE", "FILE"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_names_of_bad_files(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / NAME
    file.write_text("not what is expected")
    (tmp_path / f"{NAME}2").write_text("x")
    names = {"FILE": str(file), "FILE2": f"{file}2", "HERE": str(tmp_path)}
    names["MISSING"] = str(tmp_path / f"{NAME}3")
    filled = [names.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in arguments]
    shown = arguments[0] not in ("live", "unknown") and arguments[:2] != ["convert", "HERE"]
    run_and_check(filled, capsys, shown=shown)


def test_models_in_the_cache_with_hostile_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = FileCheck(NAME, Path(NAME), NAME, "0")
    monkeypatch.setattr("pyfau.weights.verify.check_files", lambda: [check])
    run_and_check(["verify"], capsys)


def test_an_entry_of_a_publication(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload: Callable[..., object] = lambda private: {"name": f"{NAME}\x7f"}  # noqa: E731
    facts = {"weights_licence": f"not stated {NAME}"}
    made = SimpleNamespace(facts=facts, not_stated=[NAME], upload=upload)
    monkeypatch.setattr("pyfau.weights.publish.prepare_publication", lambda folder, repo: made)
    run_and_check(["publish", "a", "b/c"], capsys)


@posix
def test_the_progress_bar_of_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clips import write

    path = tmp_path / f"{NAME}.mp4"
    write(tmp_path / "plain.mp4", "libx264").rename(path)
    run_and_check(["detect", path, "-o", tmp_path / "out.csv"], capsys)
