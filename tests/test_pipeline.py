"""Threads of the pipeline, and the form of its frames."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfau import AUDetector, pipeline
from pyfau.media.colour import RGBConverter
from pyfau.media.readers import read_video

FRAMES = 12


def test_one_core_scores_in_the_same_thread(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread helps only on several cores; the scores are the same."""
    with read_video(media / "single_face.mp4") as reader:
        frames = [frame.rgb for frame, _ in zip(reader, range(FRAMES), strict=False)]
    detector = AUDetector(device="cpu", batch_size=4)
    used: set[str] = set()
    score = pipeline.Pipeline.score

    def noted(self: pipeline.Pipeline, *batch: Any) -> Any:
        used.add(threading.current_thread().name)
        return score(self, *batch)

    monkeypatch.setattr(pipeline.Pipeline, "score", noted)
    results = {}
    # The third run gets the second core after its first batch, and loses it again.
    for name, cores in (("one", [1]), ("two", [2]), ("changing", [1, 2, 1])):
        shares = itertools.chain(cores, itertools.repeat(cores[-1]))
        monkeypatch.setattr(pipeline, "own_cores", lambda shares=shares: next(shares))
        used.clear()
        results[name] = detector.detect_frames(frames, fps=25)
        assert any(thread.startswith("pyfau-score") for thread in used) == (2 in cores)
        assert len(results[name]) == FRAMES
        np.testing.assert_array_equal(results[name].frames, np.arange(FRAMES))
        np.testing.assert_array_equal(results[name].scores, results["one"].scores)


def test_only_the_searched_frames_become_rgb(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crops are cut out of the decoder's planes; the scores are nearly the same."""
    converted = []
    convert = RGBConverter.convert

    def counted(self: RGBConverter, frame: Any) -> Any:
        converted.append(frame.pts)
        return convert(self, frame)

    detector = AUDetector(device="cpu", max_faces=1)
    clip = media / "single_face.mp4"
    with read_video(clip) as reader:
        as_arrays = detector.detect_frames([frame.rgb for frame in reader], fps=reader.fps)
    monkeypatch.setattr(RGBConverter, "convert", counted)
    result = detector.detect_video(clip)
    assert 1 <= len(set(converted)) <= 3 < len(result)
    assert len(result) == len(as_arrays)
    differences = np.abs(result.scores - as_arrays.scores)
    assert differences.mean() < 0.003
    assert np.quantile(differences, 0.99) < 0.03


def test_an_overlay_does_not_change_the_scores(media: Path, tmp_path: Path) -> None:
    detector = AUDetector(device="cpu")
    clip = media / "single_face.mp4"
    plain = detector.detect_video(clip)
    drawn = detector.detect_video(clip, overlay=tmp_path / "a.mp4")
    np.testing.assert_array_equal(plain.scores, drawn.scores)


def test_an_aligner_that_needs_whole_images_gets_arrays(media: Path) -> None:
    detector = AUDetector(device="cpu", aligner="mtcnn")
    clip = media / "single_face.mp4"
    with read_video(clip) as reader:
        as_arrays = detector.detect_frames([frame.rgb for frame in reader], fps=reader.fps)
    np.testing.assert_array_equal(detector.detect_video(clip).scores, as_arrays.scores)
