"""Intensity from scores, and the field of the config with its constants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyfau.errors import ConfigError
from pyfau.intensity import expected_intensity
from pyfau.models.config import MDHRConfig
from pyfau.models.paper import paper_config

OFFSETS = ((1.5, -3.0), (0.5, -1.0))


def graded_config() -> MDHRConfig:
    config = paper_config("disfa", "resnet50")
    return dataclasses.replace(config, grade_offsets=((1.5, -3.0),) * 8)


def test_intensity_is_the_expected_grade() -> None:
    # Log-odds 0 of "present": the three cumulative probabilities by hand.
    trace, strong = 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(3.0))
    absent = 1 - trace
    only_trace, only_present = trace - 0.5, 0.5 - strong
    expected = 0 * absent + 1 * only_trace + 2.5 * only_present + 4.5 * strong
    found = expected_intensity(np.array([[0.5, 0.5]], np.float32), OFFSETS)
    assert found[0, 0] == pytest.approx(expected, abs=1e-6)


def test_intensity_rises_with_the_score_and_stays_on_the_scale() -> None:
    scores = np.linspace(0, 1, 101, dtype=np.float32)
    found = expected_intensity(np.stack([scores, scores], axis=1), OFFSETS)
    assert found.dtype == np.float32
    assert (np.diff(found, axis=0) > 0).all()
    assert found[0].max() < 0.01
    assert 4.49 < found[-1].min() <= found.max() <= 4.5


def test_a_frame_without_a_face_has_no_intensity() -> None:
    found = expected_intensity(np.array([[np.nan, 0.5]], np.float32), OFFSETS)
    assert np.isnan(found[0, 0])
    assert np.isfinite(found[0, 1])


def test_the_config_keeps_its_offsets() -> None:
    config = graded_config()
    assert config.has_intensity
    assert MDHRConfig.from_json(config.to_json()) == config


def test_a_paper_network_has_no_intensity() -> None:
    config = paper_config("disfa", "resnet50")
    assert not config.has_intensity
    assert MDHRConfig.from_json(config.to_json()).grade_offsets == ()


@pytest.mark.parametrize(
    "offsets",
    [
        ((1.0, -1.0),),
        ((-0.1, -1.0),) * 8,
        ((1.0, 0.1),) * 8,
        ((float("inf"), -1.0),) * 8,
        ((1.0, float("nan")),) * 8,
    ],
)
def test_wrong_offsets_are_refused(offsets: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ConfigError, match="grade_offsets"):
        dataclasses.replace(graded_config(), grade_offsets=offsets)
