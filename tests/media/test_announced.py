"""The number of frames that a file announces is often a guess: no false warning of truncation."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from made import write_timed_clip

from pyfau.media.readers import read_video

FRAMES = [np.full((64, 64, 3), 4 * i, np.uint8) for i in range(50)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_count_from_a_wrong_rate_is_only_a_guess(tmp_path: Path, suffix: str) -> None:
    # The frames last 40 ms, and the header states another rate: by it, there would be more frames.
    path = write_timed_clip(tmp_path / f"clip{suffix}", FRAMES, [k / 25 for k in range(50)])
    reader = read_video(path)
    assert reader.frame_count is not None
    assert reader.frame_count > 54, "the file does not announce too many frames"
    assert (len(list(reader)), reader.warnings) == (50, [])


def test_a_file_that_was_cut_says_so(tmp_path: Path) -> None:
    path = write_timed_clip(tmp_path / "whole.mkv", FRAMES, [k / 25 for k in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    reader = read_video(path)
    assert len(list(reader)) < 45
    (warning,) = reader.warnings
    assert "it may be truncated" in warning


def test_ffmpeg_does_not_call_python_with_its_log(tmp_path: Path) -> None:
    # With a level, PyAV takes Python's lock in the threads of the decoder, which can deadlock.
    path = write_timed_clip(tmp_path / "clip.mp4", FRAMES, [k / 25 for k in range(50)])
    path.write_bytes(path.read_bytes()[:-40])
    with read_video(path) as reader:
        list(reader)
    assert av.logging.get_level() is None
