"""Misspelt commands get a suggestion, and the tab key completes commands, options and files."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyfau.cli import main
from pyfau.commands.options import add_detector_options
from pyfau.commands.parser import SHELLS, CommandParser
from pyfau.detector import AUDetector


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["detct", "clip.mp4", "-o", "clip.csv"], "detect"),
        (["evalute"], "evaluate"),
        (["model"], "models"),
        (["detect", "clip.mp4", "-o", "clip.csv", "--overlya", "x.mp4"], "--overlay"),
        (["detect", "clip.mp4", "-o", "clip.csv", "--resmue=1"], "--resume"),
        (["detect", "clip.mp4", "-o", "clip.csv", "--format", "parket"], "parquet"),
        (["--print-completion", "bsh"], "bash"),
    ],
)
def test_nearest_choice_is_suggested(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(arguments, capsys).endswith(f"Did you mean '{meant}'?")


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["detect", "clip.mp4", "-o", "clip.csv", "--zzzzqqq"]]
)
def test_nothing_is_suggested_for_what_resembles_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Did you mean" not in error_of(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["detect", "clip.mp4", "-o", "-"], "-o/--output"),
        (["detect", "clip.mp4", "-o", "clip.csv", "--overlay", "-"], "--overlay"),
        (["table", "clip.csv", "-o", "-"], "-o/--output"),
        (["report", "-", "-o", "page.html"], "TABLE"),
        (["live", "--record", "-"], "--record"),
    ],
)
def test_a_dash_is_not_a_path(
    arguments: list[str],
    option: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"argument {option}: expected a path, got '-'" in error_of(arguments, capsys)
    assert not list(tmp_path.iterdir())


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_with_all_commands(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab")
    script = completion(shell, capsys)
    for word in ("detect", "demo", "models", "evaluate", "overlay"):
        assert word in script


def test_shells_are_those_of_shtab() -> None:
    assert set(SHELLS) == set(pytest.importorskip("shtab").SUPPORTED_SHELLS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pyfau", "det"], "detect"),
        (["pyfau", "detect", "--over"], "--overlay"),
        (["pyfau", "detect", "--format", "par"], "parquet"),
        (["pyfau", "detect", "--window", "cl"], "clips"),
        (["pyfau", "live", "--engine", "onn"], "onnxruntime"),
        (["pyfau", "serve", "--precision", "bf"], "bfloat16"),
        (["pyfau", "demo", "--aligner", "medi"], "mediapipe"),
        (["pyfau", "detect", "clip.mp4", "--output", "resul"], "results.csv"),
    ],
)
def test_bash_completes(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine")
    (tmp_path / "results.csv").touch()
    (tmp_path / "completion.sh").write_text(completion("bash", capsys), encoding="utf-8")
    line = " ".join(f"'{word}'" for word in words)
    last = len(words) - 1
    # What bash does when the tab key is pressed: the words in COMP_WORDS, the answers in COMPREPLY.
    program = (
        "source ./completion.sh\n"
        f"COMP_WORDS=({line}); COMP_CWORD={last}\n"
        "function=$(complete -p pyfau | sed -E 's/.*-F ([^ ]+).*/\\1/')\n"
        f"\"$function\" pyfau '{words[-1]}' '{words[-2]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run([bash, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert expected in done.stdout.split(), done.stderr


def test_missing_shtab_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    line = error_of(["--print-completion", "bash"], capsys)
    assert line == ("pyfau: error: --print-completion needs the package shtab: pip install shtab")


def test_defaults_in_the_help_are_those_of_the_detector() -> None:
    parser = CommandParser()
    add_detector_options(parser)
    signature = inspect.signature(AUDetector).parameters
    stated = {}
    for action in parser._actions:
        found = re.search(r"\(default: ([\w-]+)\)", action.help or "")
        if found is not None and action.dest in signature:
            stated[action.dest] = found[1].replace("all", "None")
    assert len(stated) == 10
    assert stated == {name: str(signature[name].default) for name in stated}
    assert parser.parse_args([]).__dict__.keys().isdisjoint(stated)
