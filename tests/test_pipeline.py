"""Threads of the pipeline."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfau import AUDetector, pipeline
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
    for cores in (1, 2):
        monkeypatch.setattr(pipeline, "usable_cores", lambda cores=cores: cores)
        used.clear()
        results[cores] = detector.detect_frames(frames, fps=25)
        assert any(name.startswith("pyfau-score") for name in used) == (cores > 1)
    assert len(results[1]) == FRAMES
    np.testing.assert_array_equal(results[1].scores, results[2].scores)
