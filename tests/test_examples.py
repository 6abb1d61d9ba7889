"""The examples run, on a clip and pictures made here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from pyfau.demo import demo_frames, write_demo_clip

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_demo_clip(folder / "clip.mp4")
    (folder / "pictures").mkdir()
    for i, frame in enumerate(demo_frames()[::25]):
        cv2.imwrite(str(folder / "pictures" / f"{i}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    (folder / "pictures" / "broken.jpg").write_bytes(b"not a picture")
    return folder


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == {
        "score_video.py",
        "score_pictures.py",
        "stream_frames.py",
        "network_tensors.py",
    }


def test_score_video(inputs: Path, tmp_path: Path) -> None:
    out = run("score_video.py", inputs / "clip.mp4", tmp_path)
    assert "a face in 75 of 75 rows" in out
    assert (tmp_path / "scores.csv").read_text().count("\n") == 76
    assert (tmp_path / "overlay.mp4").stat().st_size > 10_000


def test_score_pictures(inputs: Path) -> None:
    out = run("score_pictures.py", inputs / "pictures")
    assert out.count(".png") == 3
    assert "could not read" in out
    assert "broken.jpg" in out


def test_stream_frames(inputs: Path) -> None:
    lines = run("stream_frames.py", inputs / "clip.mp4").splitlines()
    assert len(lines) == 8
    assert all("smile" in line for line in lines)


def test_network_tensors() -> None:
    out = run("network_tensors.py")
    assert "clip (1, 16, 16) inner (1, 10, 16)" in out
