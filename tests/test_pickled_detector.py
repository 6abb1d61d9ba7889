"""A detector can be sent to other processes: it is made again from its arguments."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfau import AUDetector
from pyfau.limits import Limits


def score(detector: AUDetector, image: str) -> np.ndarray:
    return detector.detect_image(image).scores


def limits_of(detector: AUDetector) -> Limits:
    return detector.limits


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(
        device="cpu",
        threshold={"AU12": 0.25},
        max_faces=2,
        batch_size=4,
        limits=Limits(image_pixels=3_000_000),
    )


def test_a_copy_scores_the_same(detector: AUDetector, media: Path) -> None:
    copy = pickle.loads(pickle.dumps(detector))
    assert type(copy) is AUDetector
    assert copy.settings() == detector.settings()
    assert copy.limits == detector.limits == Limits(image_pixels=3_000_000)
    assert copy.model is not detector.model
    image = str(media / "single_face.jpg")
    np.testing.assert_array_equal(score(copy, image), score(detector, image))
    assert len(pickle.dumps(detector)) < 2000  # the arguments, not the weights


def test_a_spawned_process_gets_one(detector: AUDetector, media: Path) -> None:
    image = str(media / "single_face.jpg")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        scores = pool.submit(score, detector, image).result()
    np.testing.assert_allclose(scores, score(detector, image), rtol=0, atol=1e-5)


def test_joblib_gets_one(detector: AUDetector, media: Path) -> None:
    joblib = pytest.importorskip("joblib")
    image = str(media / "single_face.jpg")
    (scores,) = joblib.Parallel(n_jobs=2)(joblib.delayed(score)(detector, p) for p in [image])
    np.testing.assert_allclose(scores, score(detector, image), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_ray_gets_one(detector: AUDetector, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    image = str(media / "single_face.jpg")
    # The workers of Ray import this module by its name.
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    try:
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    except Exception as error:  # its processes have 30 s to start, which a busy machine exceeds
        ray.shutdown()
        pytest.skip(f"Ray does not start here: {error}")
    try:
        scores = ray.get(ray.remote(score).remote(detector, image), timeout=600)
        copy_limits = ray.get(ray.remote(limits_of).remote(detector), timeout=600)
    finally:
        ray.shutdown()
    np.testing.assert_allclose(scores, score(detector, image), rtol=0, atol=1e-5)
    assert copy_limits == detector.limits


class Person(AUDetector):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        _, (kind, arguments) = super().__reduce__()
        return _person, (kind, self.name, arguments)


def _person(kind: type[Person], name: str, options: dict[str, Any]) -> Person:
    return kind(name, **options)


def test_objects_and_subclasses_go_along() -> None:
    person = Person("x", device="cpu", window="clips")
    copy = pickle.loads(pickle.dumps(person))
    assert (type(copy), copy.name) == (Person, "x")
    assert copy.settings() == person.settings()
