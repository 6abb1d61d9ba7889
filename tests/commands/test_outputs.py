"""Outputs of the command line: names that make no sense, a reader that is gone, kept features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyfau.analysis.features import find_tables
from pyfau.cli import main
from pyfau.errors import InputError


@pytest.mark.parametrize("name", ["out.mp4", "out.MOV", "out.png"])
def test_a_video_or_image_is_no_output_for_tables(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")
    assert main(["detect", str(clip), "-o", str(tmp_path / name)]) == 1
    assert "has the suffix of a video or an image: give a table" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_an_existing_file_that_is_no_table_is_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, notes = tmp_path / "clip.mp4", tmp_path / "notes"
    clip.write_bytes(b"x")
    notes.write_text("mine")
    assert main(["detect", str(clip), "-o", str(notes)]) == 1
    assert "it is a file, and not a table" in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_a_folder_with_a_dot_is_an_output(tmp_path: Path) -> None:
    from pyfau.batch.scoring import _check_output

    for name in ("run.2", "out.mp4"):
        (tmp_path / name).mkdir()
        output = tmp_path / name
        _check_output(output, None, ["a.mp4"])


def test_completion_ends_quietly_without_a_reader() -> None:
    pytest.importorskip("shtab")
    shown = subprocess.run(
        f"{sys.executable} -m pyfau --print-completion bash | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in shown.stderr
    assert shown.stdout


def test_features_in_the_folder_of_the_tables_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "clip.csv").write_text("frame,time_s\n")
    (tmp_path / "features.csv").write_text("table,source,face_id,frames\n")
    assert find_tables([tmp_path]) == [tmp_path / "clip.csv"]
    assert find_tables([tmp_path], tmp_path / "other.csv") == [tmp_path / "clip.csv"]


def test_empty_text_is_no_table() -> None:
    with pytest.raises(InputError, match="an input is empty text"):
        find_tables([""])
