"""The bundled model gives what it gave when it was trained."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pyfau.weights.store import open_model


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_golden", Path(__file__).parent / "golden" / "make.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def record(make: ModuleType) -> dict[str, Any]:
    config = open_model("mdhr-lite").model.config
    stored: dict[str, Any] = json.loads(make.path(config.name, config.version).read_text())
    return stored


def test_every_version_of_the_weights_has_golden_outputs_of_its_own(record: dict[str, Any]) -> None:
    assert open_model("mdhr-lite").sha256 == record["sha256"]


def test_the_network_gives_its_golden_scores(make: ModuleType, record: dict[str, Any]) -> None:
    scores = make.network_scores(open_model("mdhr-lite").model)
    np.testing.assert_allclose(scores, record["network"], atol=2e-4)


@pytest.mark.parametrize(("aligner", "key"), [("mtcnn", "portrait"), ("mesh", "portrait_mesh")])
def test_the_whole_path_gives_its_golden_scores(
    make: ModuleType, record: dict[str, Any], aligner: str, key: str
) -> None:
    # MTCNN cuts its windows at whole pixels. So a rounding error, of another processor or number of
    # threads, moves a window by a pixel and a score by as much as noise of one grey level (.037).
    difference = np.abs(make.portrait_scores(aligner) - record[key])
    assert difference.max() < 0.05
    assert difference.mean() < 0.003


def test_the_golden_scores_are_not_all_alike(record: dict[str, Any]) -> None:
    for name in ("network", "portrait"):
        assert np.ptp(record[name]) > 0.2
