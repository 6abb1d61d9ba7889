"""A detector works across threads and after a fork, as docs/tasks/embed.md says."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from pyfau import AUDetector
from pyfau.demo import demo_frames

STARTS = [0, 3, 6, 9] * 2
LENGTH = 20


@pytest.fixture(scope="module", params=["mtcnn", "mesh"])
def detector(request: pytest.FixtureRequest) -> AUDetector:
    return AUDetector(device="cpu", max_faces=1, aligner=request.param)


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return list(demo_frames()[:30])


@pytest.fixture(scope="module")
def alone(detector: AUDetector, frames: list[Any]) -> list[Any]:
    """Scores of each part of the clip, one call after another."""
    return [detector.detect_frames(frames[start : start + LENGTH]).scores for start in STARTS]


def test_threads_may_share_a_detector(
    detector: AUDetector, frames: list[Any], alone: list[Any]
) -> None:
    def score(start: int) -> Any:
        return detector.detect_frames(frames[start : start + LENGTH]).scores

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(score, STARTS))
    for expected, given in zip(alone, together, strict=True):
        np.testing.assert_array_equal(given, expected)


def test_streams_in_threads_may_share_a_detector(
    detector: AUDetector, frames: list[Any], alone: list[Any]
) -> None:
    def score(start: int) -> Any:
        stream = detector.stream()
        rows = [row for frame in frames[start : start + LENGTH] for row in stream.push(frame)]
        return np.stack([row.scores for row in rows + stream.flush()])

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(score, STARTS))
    for expected, given in zip(alone, together, strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
def test_a_detector_works_after_a_fork(
    detector: AUDetector, frames: list[Any], alone: list[Any]
) -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()

    def score() -> None:
        torch.set_num_threads(1)  # a child that uses several of torch's threads hangs
        answers.put(detector.detect_frames(frames[:LENGTH]).scores)

    children = [fork.Process(target=score) for _ in range(2)]
    for child in children:
        child.start()
    try:
        for _ in children:
            np.testing.assert_allclose(answers.get(timeout=120), alone[0], atol=1e-5)
    finally:
        for child in children:
            child.kill()
            child.join()
