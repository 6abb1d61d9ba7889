"""Intensities from the network to every table: the columns "AU12_r"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_detector_properties import STORY, ScriptedAligner, images
from test_models import tiny_model
from test_result import AUS, WRITE, empty_row, face_row

from pyfau import AUDetector, AUResult, Baseline, read_result
from pyfau.errors import InputError
from pyfau.formats.openface import read_openface
from pyfau.intensity import expected_intensity
from pyfau.tables.metadata import is_complete
from pyfau.weights.store import save_model

OFFSETS = ((1.5, -3.0), (0.5, -1.0), (2.0, -2.0), (0.0, 0.0))
META = {
    "thresholds": dict.fromkeys(AUS, 0.5),
    "grade_offsets": {au: list(pair) for au, pair in zip(AUS, OFFSETS, strict=True)},
}
GRADES = [f"{au}_r" for au in AUS]


def graded(frames: int = 40, **metadata: Any) -> AUResult:
    """A face in every frame but the third."""
    result = AUResult(AUS, META | metadata, intensity=True)
    for frame in range(frames):
        row = empty_row(frame) if frame == 2 else face_row(frame)
        result.append(dataclasses.replace(row, intensity=expected_intensity(row.scores, OFFSETS)))
    return result


def test_rows_and_columns() -> None:
    result = graded()
    assert result.has_intensity
    assert result.intensities is not None
    assert result.intensities.dtype == np.float32
    np.testing.assert_array_equal(result.intensities, expected_intensity(result.scores, OFFSETS))
    assert result[0].intensity is not None
    np.testing.assert_array_equal(result[0].intensity, result.intensities[0])
    table = result.to_dataframe()
    n = len(AUS)
    assert list(table.columns)[9:] == [*AUS, *(f"{au}_c" for au in AUS), *GRADES]
    assert list(result[0].to_dict())[9 + 2 * n :] == GRADES
    assert table[GRADES].isna().all(axis=1).tolist() == [frame == 2 for frame in range(40)]
    assert AUResult(AUS, {}).intensities is None
    assert AUResult(AUS, {})._table.dtype.itemsize < result._table.dtype.itemsize


@pytest.mark.parametrize("suffix", WRITE)
def test_every_table_has_them_and_reads_them_back(tmp_path: Path, suffix: str) -> None:
    result = graded()
    path = WRITE[suffix](result, tmp_path / f"clip{suffix}")
    back = read_result(path)
    assert back.intensities is not None
    np.testing.assert_allclose(back.intensities, result.intensities, rtol=0, atol=1e-6)
    again = read_result(WRITE[suffix](back, tmp_path / f"again{suffix}"))
    assert list(again.to_dataframe().columns) == list(result.to_dataframe().columns)
    plain = read_result(WRITE[suffix](AUResult(AUS, {}), tmp_path / f"plain{suffix}"))
    assert plain.intensities is None


def test_a_row_without_intensity_is_empty_in_a_table_with_them() -> None:
    result = graded(3)
    result.append(face_row(3))
    assert result.intensities is not None
    assert np.isnan(result.intensities[3]).all()


def test_a_baseline_lowers_intensities_with_the_scores(tmp_path: Path) -> None:
    result = graded()
    rest = Baseline(dict.fromkeys(AUS, 0.3), 10)
    adjusted = result.baseline(rest)
    assert adjusted.intensities is not None
    np.testing.assert_array_equal(
        adjusted.intensities, expected_intensity(adjusted.scores, OFFSETS)
    )
    assert np.nanmin(result.intensities - adjusted.intensities) > 0
    n = len(AUS)
    assert list(adjusted.to_dataframe().columns)[9 + 2 * n :] == [
        *GRADES,
        *(f"{au}_raw" for au in AUS),
    ]
    unchanged = result.baseline(rest, mode="threshold")
    np.testing.assert_allclose(unchanged.intensities, result.intensities, rtol=0, atol=1e-6)
    # The constants are in the metadata, so a table can be adjusted, too.
    read = read_result(adjusted.to_csv(tmp_path / "adjusted.csv")).baseline(rest)
    np.testing.assert_allclose(read.intensities, adjusted.intensities, rtol=0, atol=1e-4)


@pytest.mark.parametrize("offsets", [None, {}, {"AU01": [1, -1]}, dict.fromkeys(AUS, "x")])
def test_a_baseline_needs_the_constants(offsets: Any) -> None:
    with pytest.raises(InputError, match="grade_offsets for all AUs"):
        graded(grade_offsets=offsets).baseline()


def test_summary_has_mean_and_peak_intensity() -> None:
    result = graded()
    assert result.intensities is not None
    (row,) = result.summary().to_dict("records")
    grades = np.delete(result.intensities[:, 2].astype(float), 2)
    assert row["AU12_r_mean"] == pytest.approx(grades.mean())
    assert row["AU12_r_p90"] == pytest.approx(np.percentile(grades, 90))
    empty = AUResult(AUS, META, intensity=True).summary("clip")
    assert list(empty.columns) == list(result.summary().columns)
    assert empty["AU12_r_mean"].isna().all()


def test_openface_has_intensities_before_presence(tmp_path: Path) -> None:
    result = graded()
    path = result.to_openface(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    assert list(table.columns)[5:] == [*GRADES, *(f"{au}_c" for au in AUS)]
    assert table.loc[2, GRADES].tolist() == [0.0] * 4
    back = read_openface(path)
    np.testing.assert_allclose(back[GRADES].to_numpy(float), result.intensities, rtol=0, atol=6e-5)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AUDetector]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(21, grade_offsets=((1.5, -3.0),) * 8), folder)

    def make(**options: Any) -> AUDetector:
        return AUDetector(folder, aligner=ScriptedAligner(STORY), device="cpu", **options)

    return make


@pytest.mark.parametrize("suffix", WRITE)
def test_a_detector_writes_them_from_the_scores(
    make: Callable[..., AUDetector], tmp_path: Path, suffix: str
) -> None:
    detector = make()
    assert detector.has_intensity
    result = detector.detect_frames(images(6), fps=10, save=tmp_path / f"a{suffix}")
    assert np.isfinite(result.scores).any()
    expected = expected_intensity(result.scores, ((1.5, -3.0),) * 8)
    np.testing.assert_array_equal(result.intensities, expected)
    table = read_result(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(table.intensities, expected, rtol=0, atol=1e-6)
    assert table.metadata["grade_offsets"] == {au: [1.5, -3.0] for au in result.aus}
    row = next(row for row in detector.iter_frames(images(6)) if row.success)
    assert row.intensity is not None
    image = detector.detect_image(images(6)[4], save=tmp_path / f"b{suffix}")
    assert image.has_intensity
    assert read_result(tmp_path / f"b{suffix}").has_intensity


def test_no_intensity_leaves_the_columns_out(
    make: Callable[..., AUDetector], tmp_path: Path
) -> None:
    detector = make(intensity=False)
    assert not detector.has_intensity
    result = detector.detect_frames(images(6), save=tmp_path / "a.csv")
    assert result.intensities is None
    assert "_r" not in (tmp_path / "a.csv").read_text().splitlines()[0]
    assert result.metadata["grade_offsets"] is None
    # So a resumed run with the other setting writes the table again.
    assert is_complete(tmp_path / "a.csv", detector.settings())
    assert not is_complete(tmp_path / "a.csv", make().settings())


def test_a_model_without_grades_has_none(tmp_path: Path) -> None:
    save_model(tiny_model(21), tmp_path / "tiny")
    detector = AUDetector(tmp_path / "tiny", aligner=ScriptedAligner(STORY), device="cpu")
    result = detector.detect_frames(images(6))
    assert result.intensities is None
    assert result[0].intensity is None
