"""Which video stream of a file is scored: from Python, on the command line, and with --resume."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pyfau import AUDetector
from pyfau.cli import main
from pyfau.errors import OptionError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two video streams of 5 frames: 64 pixels wide, then 96. No frame shows a face."""
    path = tmp_path_factory.mktemp("streams") / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width in (64, 96):
            stream = container.add_stream("mpeg4", rate=Fraction(10))
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
            streams.append(stream)
        for _ in range(5):
            for stream in streams:
                grey = np.full((64, stream.width, 3), 90, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


def test_the_chosen_stream_is_scored(clip: Path, detector: AUDetector) -> None:
    result = detector.detect_video(clip, stream=1)
    assert len(result) == 5
    assert result.metadata["stream"] == 1
    # The warning about several streams is for those who have not chosen.
    assert not [warning for warning in result.warnings if "video streams" in warning]
    default = detector.detect_video(clip)
    assert default.metadata["stream"] is None
    assert [warning for warning in default.warnings if "2 video streams" in warning]
    assert len(list(detector.iter_video(clip, stream=1))) == 5


@pytest.mark.parametrize("stream", [2, -1, "1"])
def test_no_such_stream(clip: Path, detector: AUDetector, stream: int) -> None:
    with pytest.raises(OptionError, match="stream"):
        detector.detect_video(clip, stream=stream)


def test_resume_scores_another_stream_again(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "two.csv"

    def run(*options: str) -> str:
        assert main(["detect", str(clip), "-o", str(table), "--resume", "--quiet", *options]) == 0
        return capsys.readouterr().out

    assert "done already" not in run("--stream", "1")
    assert json.loads((tmp_path / "two.csv.json").read_text())["stream"] == 1
    assert "done already" in run("--stream", "1")
    assert "done already" not in run()
    assert "done already" in run()
