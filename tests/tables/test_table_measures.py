"""Measures of the face from the detector to every table: the columns pitch ... quality."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_detector_properties import STORY, ScriptedAligner, images
from test_models import tiny_model
from test_result import AUS, META, WRITE, empty_row, face_row

from pyfau import AUDetector, AUResult, read_result
from pyfau.analysis.quality import quality_warnings
from pyfau.errors import InputError
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat
from pyfau.types import MEASURES, NO_MEASURES, FaceMeasures
from pyfau.weights.store import save_model

NAMES = list(MEASURES)
GOOD = FaceMeasures(
    pitch=5.0,
    yaw=-10.0,
    roll=3.0,
    eye_distance=60.0,
    sharpness=0.4,
    inside=1.0,
    covered=0.05,
    quality=1.0,
)
TURNED = GOOD._replace(yaw=55.0, quality=0.1)


def measured(frames: int = 6) -> AUResult:
    """A face in every frame but the third; it is turned to the side in the last."""
    record = META | {"thresholds": dict.fromkeys(AUS, 0.5)}
    result = AUResult(AUS, record, measures=True)
    for frame in range(frames):
        row = empty_row(frame) if frame == 2 else face_row(frame)
        values = TURNED if frame == frames - 1 else GOOD
        result.append(dataclasses.replace(row, measures=NO_MEASURES if frame == 2 else values))
    return result


def test_rows_and_columns() -> None:
    result = measured()
    assert result.has_measures
    assert result.measures is not None
    assert result.measures.shape == (6, len(NAMES))
    first = result[0].measures
    assert first is not None
    assert first == pytest.approx(GOOD, abs=1e-6)
    table = result.to_dataframe()
    assert list(table.columns)[-len(NAMES) :] == NAMES
    assert table[NAMES].isna().all(axis=1).tolist() == [frame == 2 for frame in range(6)]
    assert result[2].to_dict()["quality"] is None
    assert list(result[0].to_dict()) == list(table.columns)
    assert AUResult(AUS, {}).measures is None


@pytest.mark.parametrize("suffix", WRITE)
def test_every_table_has_them_and_reads_them_back(tmp_path: Path, suffix: str) -> None:
    result = measured()
    back = read_result(WRITE[suffix](result, tmp_path / f"clip{suffix}"))
    assert back.measures is not None
    np.testing.assert_allclose(back.measures, result.measures, rtol=0, atol=5e-5)
    assert list(back.to_dataframe().columns) == list(result.to_dataframe().columns)
    old = AUResult(AUS, META)
    old.extend([face_row(0), empty_row(1)])
    again = read_result(WRITE[suffix](old, tmp_path / f"old{suffix}"))
    assert not again.has_measures
    assert again[0].measures is None


def test_a_baseline_keeps_them() -> None:
    result = measured(40).baseline()
    np.testing.assert_array_equal(result.measures, measured(40).measures)


@pytest.mark.parametrize(("name", "value"), [("quality", 1.5), ("inside", -0.2), ("yaw", 400)])
def test_values_out_of_range_are_refused(tmp_path: Path, name: str, value: float) -> None:
    path = measured().to_csv(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    table.loc[1, name] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"{name} must be a number from"):
        read_result(path)


def test_summary_has_the_quality() -> None:
    (row,) = measured().summary().to_dict("records")
    assert row["quality_mean"] == pytest.approx((4 * 1.0 + 0.1) / 5)
    assert row["quality_low_share"] == pytest.approx(1 / 5)
    assert "quality_mean" not in AUResult(AUS, META).summary("clip")
    assert math.isnan(AUResult(AUS, META, measures=True).summary("clip")["quality_mean"][0])


def test_openface_has_radians_with_its_signs(tmp_path: Path) -> None:
    path = measured().to_openface(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    assert list(table.columns)[5:8] == ["pose_Rx", "pose_Ry", "pose_Rz"]
    expected = np.radians([-5.0, 10.0, 3.0])
    np.testing.assert_allclose(table.iloc[0, 5:8].to_numpy(float), expected, atol=1e-6)
    assert table.iloc[2, 5:8].tolist() == [0, 0, 0]
    back = read_openface(path)
    np.testing.assert_allclose(
        back.loc[0, ["pitch", "yaw", "roll"]].to_numpy(float), (5, -10, 3), atol=1e-4
    )
    assert back.loc[2, ["pitch", "yaw", "roll"]].isna().all()


def test_pyfeat_has_radians_with_its_signs(tmp_path: Path) -> None:
    """py-feat: up, towards the person's right, and counterclockwise in the image are positive."""
    table = measured().to_pyfeat()
    np.testing.assert_allclose(
        table.loc[0, ["Pitch", "Roll", "Yaw"]].to_numpy(float), np.radians([5, -3, 10])
    )
    assert table[["X", "Y", "Z"]].isna().all(axis=None)
    assert table.loc[2, ["Pitch", "Roll", "Yaw"]].isna().all()
    path = tmp_path / "clip.csv"
    table.to_csv(path, index=False)
    names = ["pitch", "yaw", "roll"]
    np.testing.assert_allclose(read_pyfeat(path).loc[0, names].to_numpy(float), (5, -10, 3))
    old = table.drop(columns=["X", "Y", "Z"])  # as before py-feat 0.7
    old[["Pitch", "Roll", "Yaw"]] = [5.0, 3.0, -10.0]
    old.to_csv(path, index=False)
    assert read_pyfeat(path).loc[0, names].tolist() == [5, -10, 3]


def test_the_warning_counts_rows_and_reasons() -> None:
    (warning,) = quality_warnings(measured())
    assert warning.startswith("1 of 5 faces have a quality below 0.5")
    assert warning.endswith("1 turned to the side")
    good = AUResult(AUS, META, measures=True)
    good.append(dataclasses.replace(face_row(0), measures=GOOD))
    assert quality_warnings(good) == quality_warnings(AUResult(AUS, META)) == []


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AUDetector]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(21), folder)

    def make(**options: Any) -> AUDetector:
        return AUDetector(folder, aligner=ScriptedAligner(STORY), device="cpu", **options)

    return make


def test_a_detector_measures_every_face(make: Callable[..., AUDetector], tmp_path: Path) -> None:
    detector = make()
    result = detector.detect_frames(images(6), fps=10, save=tmp_path / "a.csv")
    success = result.to_dataframe()["success"].to_numpy() == 1
    assert result.measures is not None
    assert np.isfinite(result.measures[success]).all()
    assert np.isnan(result.measures[~success]).all()
    table = read_result(tmp_path / "a.csv")
    np.testing.assert_allclose(table.measures, result.measures, rtol=0, atol=1e-3)
    # Made faces of noise are outside the range: the result and the table say so.
    assert [warning for warning in table.warnings if "quality below 0.5" in warning]
    streamed = [row.measures for row in detector.iter_frames(images(6))]
    expected = [row.measures for row in result]
    for one, other in zip(streamed, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    image = detector.detect_image(images(6)[4], save=tmp_path / "b.jsonl")
    assert read_result(tmp_path / "b.jsonl").has_measures == image.has_measures is True


def test_measures_can_be_left_out(make: Callable[..., AUDetector], tmp_path: Path) -> None:
    detector = make(measures=False)
    result = detector.detect_frames(images(6), fps=10, save=tmp_path / "a.csv")
    assert result.measures is None
    assert result[5].measures is None
    assert "quality" not in read_result(tmp_path / "a.csv").to_dataframe()
    assert {row.confidence for row in result if row.success} == {0.99}
    assert detector.settings()["measures"] is False
    assert make().settings()["measures"] is True
