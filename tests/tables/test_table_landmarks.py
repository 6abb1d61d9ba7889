"""68 landmarks, irises and eye openness from the rows to every table and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_result import AUS, META, WRITE, empty_row, face_row

from pyfau import AUResult, read_result
from pyfau.errors import InputError
from pyfau.formats.openface import read_openface
from pyfau.limits import Limits
from pyfau.types import MEASURES, MESH, NO_MEASURES, NO_MESH, POINT_COLUMNS, FaceMesh, mesh_from
from pyfau.types import mesh_values as values_of

NAMES = list(MESH)
UNSEEN, EMPTY = 1, 2  # a face in which the network sees none, and a frame without a face


def mesh(seed: int) -> FaceMesh:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-20, 1900, (68, 2)).astype(np.float32)
    irises = rng.uniform(0, 1900, (2, 2)).astype(np.float32)
    return FaceMesh(points, irises, rng.random(2, dtype=np.float32), float(np.float32(0.75)))


def located(frames: int = 5, measures: bool = False) -> AUResult:
    record = META | {"thresholds": dict.fromkeys(AUS, 0.5)}
    result = AUResult(AUS, record, measures=measures, landmarks=True)
    for frame in range(frames):
        row = empty_row(frame) if frame == EMPTY else face_row(frame)
        seen = NO_MESH if frame in (UNSEEN, EMPTY) else mesh(frame)
        result.append(
            dataclasses.replace(row, mesh=seen, measures=NO_MEASURES if measures else None)
        )
    return result


def test_columns_have_the_names_of_openface() -> None:
    assert len(NAMES) == len(set(NAMES)) == 2 * 68 + 4 + 2 + 1
    assert NAMES[:2] == ["x_0", "x_1"]
    assert NAMES[67:69] == ["x_67", "y_0"]
    assert NAMES[136:] == [
        "iris_left_x",
        "iris_left_y",
        "iris_right_x",
        "iris_right_y",
        "eye_openness_left",
        "eye_openness_right",
        "landmarks_visible",
    ]


def test_values_and_mesh_are_inverse() -> None:
    one = mesh(3)
    values = values_of(one)
    assert values[NAMES.index("y_8")] == one.points[8, 1]
    assert values[NAMES.index("iris_right_x")] == one.irises[1, 0]
    again = mesh_from(values)
    for name in ("points", "irises", "openness"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
        assert getattr(again, name).dtype == np.float32
    assert again.visible == one.visible


def test_rows_and_arrays() -> None:
    result = located()
    assert result.has_landmarks
    assert result.landmarks is not None
    assert result.irises is not None
    assert result.eye_openness is not None
    assert (result.landmarks.shape, result.landmarks.dtype) == ((5, 68, 2), np.float32)
    assert result.irises.shape == (5, 2, 2)
    assert result.eye_openness.shape == (5, 2)
    np.testing.assert_array_equal(result.landmarks[3], mesh(3).points)
    np.testing.assert_array_equal(result.irises[3], mesh(3).irises)
    np.testing.assert_array_equal(result.eye_openness[3], mesh(3).openness)
    missing = [frame in (UNSEEN, EMPTY) for frame in range(5)]
    assert np.isnan(result.landmarks).all((1, 2)).tolist() == missing
    with pytest.raises(ValueError, match="read-only"):
        result.landmarks[0, 0, 0] = 1
    stored = result[3].mesh
    assert stored is not None
    np.testing.assert_array_equal(stored.points, mesh(3).points)
    assert result[UNSEEN].to_dict()["x_0"] is None
    assert list(result[0].to_dict()) == list(result.to_dataframe().columns)
    assert list(result.to_dataframe().columns)[-len(NAMES) :] == NAMES


def test_without_the_option_there_are_none() -> None:
    plain = AUResult(AUS, META)
    plain.append(dataclasses.replace(face_row(0), mesh=mesh(0)))
    assert not plain.has_landmarks
    assert plain.landmarks is plain.irises is plain.eye_openness is plain[0].mesh is None
    assert not set(NAMES) & set(plain.to_dataframe().columns)
    asked = AUResult(AUS, META, landmarks=True)
    assert asked.landmarks is not None
    assert asked.landmarks.shape == (0, 68, 2)
    asked.append(face_row(0))
    assert np.isnan(asked.landmarks).all()


@pytest.mark.parametrize("measures", [False, True])
@pytest.mark.parametrize("suffix", WRITE)
def test_every_table_reads_them_back(tmp_path: Path, suffix: str, measures: bool) -> None:
    result = located(measures=measures)
    back = read_result(WRITE[suffix](result, tmp_path / f"clip{suffix}"))
    atol = 0 if suffix == ".parquet" else 0.00501
    np.testing.assert_allclose(back.landmarks, result.landmarks, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(back.irises, result.irises, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(back.eye_openness, result.eye_openness, rtol=1e-6, atol=atol)
    assert list(back.to_dataframe().columns) == list(result.to_dataframe().columns)
    assert set(MEASURES) <= set(back.to_dataframe().columns) or not measures


def test_text_has_two_decimals(tmp_path: Path) -> None:
    line = located().to_csv(tmp_path / "clip.csv").read_text().splitlines()
    fields = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert fields["x_5"] == f"{mesh(0).points[5, 0]:.2f}"
    assert fields["eye_openness_left"] == f"{mesh(0).openness[0]:.2f}"
    empty = dict(zip(line[0].split(","), line[1 + EMPTY].split(","), strict=True))
    assert {empty[name] for name in NAMES} == {""}


def test_tables_with_them_are_within_the_default_limits() -> None:
    assert len(located(measures=True).to_dataframe().columns) < Limits().table_columns / 10


def test_a_baseline_keeps_them() -> None:
    np.testing.assert_array_equal(located(40).baseline().landmarks, located(40).landmarks)


@pytest.mark.parametrize(("name", "value"), [("eye_openness_left", 1.5), ("x_3", 1e12)])
def test_values_out_of_range_are_refused(tmp_path: Path, name: str, value: float) -> None:
    path = located().to_csv(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    table.loc[0, name] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"{name} must be a number from"):
        read_result(path)


def test_openface_has_its_own_names_and_order(tmp_path: Path) -> None:
    path = located(measures=True).to_openface(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    columns = list(table.columns)
    start = columns.index("pose_Rz") + 1
    assert columns[start : start + 2 * 68] == list(POINT_COLUMNS)
    assert columns[start + 2 * 68] == f"{AUS[0]}_c"
    assert not [name for name in columns if "iris" in name or "eye" in name]
    np.testing.assert_allclose(table.loc[0, "x_0":"x_67"], mesh(0).points[:, 0], atol=0.00501)
    assert set(table.loc[EMPTY, list(POINT_COLUMNS)]) == {0}  # as OpenFace
    assert table.loc[UNSEEN, list(POINT_COLUMNS)].isna().all()
    back = read_openface(path)
    assert back.loc[[UNSEEN, EMPTY], list(POINT_COLUMNS)].isna().all(axis=None)
    np.testing.assert_allclose(back.loc[3, "y_0":"y_67"], mesh(3).points[:, 1], atol=0.00501)
    without = read_openface(AUResult(AUS, META).to_openface(tmp_path / "plain.csv"))
    assert not set(POINT_COLUMNS) & set(without.columns)


def test_openface_columns_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    path = located().to_openface(tmp_path / "clip.csv")
    table = pd.read_csv(path)
    other = ("X_0", "Y_3", "Z_67", "eye_lmk_x_0", "eye_lmk_X_1", "p_scale", "p_0", "x_68")
    table = pd.concat([table, pd.DataFrame("text", table.index, list(other))], axis=1)
    table.to_csv(path, index=False)
    names = set(read_openface(path).columns)
    assert set(POINT_COLUMNS) <= names
    assert not names & set(other)


def test_pyfeat_has_the_points() -> None:
    table = located().to_pyfeat()
    np.testing.assert_array_equal(table.loc[0, "x_0":"x_67"].to_numpy(float), mesh(0).points[:, 0])
    assert table.loc[EMPTY, list(POINT_COLUMNS)].isna().all()
    assert "x_0" not in AUResult(AUS, META).to_pyfeat()
