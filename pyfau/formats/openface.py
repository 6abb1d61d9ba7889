"""CSV files as OpenFace 2 writes them for videos: presence and intensity of action units."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.errors import InputError
from pyfau.files import read_file, reason_of
from pyfau.limits import LIMITS, Limits
from pyfau.tables.metadata import write_whole
from pyfau.tables.readers import read_fields
from pyfau.tables.rows import AURows, intensity_columns
from pyfau.tables.schema import MOST_PIXELS, MOST_WHOLE, Rule, between, check_ranges
from pyfau.types import POINT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.types import StrPath

# Thousands of columns such as landmarks, and columns without a name.
_LEFT_OUT = re.compile("Unnamed|mesh_|Identity_|[xyzXYZ]_|eye_lmk|p_|$")
_NEEDED = ("frame", "timestamp", "confidence", "success")
_RULES = {
    "frame": between(1, MOST_WHOLE, whole=True, missing=False),
    "face_id": between(0, MOST_WHOLE, whole=True),
    "timestamp": between(-1e12, 1e12),
    "confidence": between(0, 1),
    "success": between(0, 1, whole=True, missing=False),
    r"AU\d\d[LR]?_c": between(0, 1, whole=True),
    r"AU\d\d[LR]?_r": between(0, 5),
    "pose_R[xyz]": between(-10, 10),
    r"[xy]_\d+": between(-MOST_PIXELS, MOST_PIXELS),
}
# OpenFace's angles are in radians. A head that looks up has a negative pose_Rx, and one that turns
# towards the right edge of the image a negative pose_Ry.
_POSE = {"pose_Rx": ("pitch", -1), "pose_Ry": ("yaw", -1), "pose_Rz": ("roll", 1)}


def write_openface(result: AURows, path: StrPath) -> Path:
    """See `AUResult.to_openface`."""
    import pandas as pd

    table = result.to_dataframe()
    columns = {
        "frame": table["frame"] + 1,
        "face_id": table["face_id"].fillna(0),
        "timestamp": table["time_s"].round(6),
        "confidence": table["confidence"].round(6),
        "success": table["success"],
    }
    if result.has_measures:
        for name, (measure, sign) in _POSE.items():
            columns[name] = np.radians(sign * table[measure]).fillna(0).round(6)
    if result.has_landmarks:
        for name in POINT_COLUMNS:
            columns[name] = _zero_without_face(table, name).round(2)
    if result.has_intensity:
        # OpenFace has two decimals; four lose nothing that matters and keep the file small.
        for name in intensity_columns(result.aus):
            columns[name] = _zero_without_face(table, name).round(4)
    columns |= {f"{au}_c": _zero_without_face(table, f"{au}_c") for au in result.aus}
    return write_whole(path, pd.DataFrame(columns).to_csv(index=False, lineterminator="\n"))


def _zero_without_face(table: pd.DataFrame, name: str) -> Any:
    """The column, with OpenFace's 0 in rows without a face.

    A field stays empty if the model has no such value for this AU.
    """
    return table[name].where(table["success"] == 1, 0)


def read_openface(path: StrPath, limits: Limits = LIMITS) -> pd.DataFrame:
    """Read a CSV of OpenFace 2 or of `AUResult.to_openface`.

    OpenFace's programs FeatureExtraction and FaceLandmarkVidMulti write such files. Gaze, position,
    landmarks in space and shape are left out.

    Args:
        path: The file.
        limits: Larger files are refused.

    Returns:
        The columns of `AUResult.to_dataframe` that OpenFace has. The two tables can be merged on
        frame.

        - frame: int64, from 0 (OpenFace counts from 1)
        - time_s: float64
        - face_id: Int64, missing without a face
        - success: int64
        - confidence: float64
        - AU01_c ...: Int64, 0 or 1, missing without a face
        - AU01_r ...: float64, intensity in [0, 5], NaN without a face; only where the file has them
        - pitch, yaw, roll: float64, degrees, with the signs of `pyfau.types.FaceMeasures`, NaN
          without a face; only where the file has them
        - x_0 ... x_67, y_0 ... y_67: float64, landmarks in pixels, NaN without a face; only where
          the file has all of them

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    table = read_table(path, "OpenFace", _NEEDED, _RULES, kept=POINT_COLUMNS, limits=limits)
    success = table["success"].eq(1)
    face_id = table["face_id"] if "face_id" in table else pd.Series(0.0, table.index)
    columns = {"frame": table["frame"].astype(np.int64) - 1, "time_s": table["timestamp"]}
    columns |= {
        "face_id": face_id.where(success).astype("Int64"),
        "success": success.astype(np.int64),
    }
    columns["confidence"] = table["confidence"]
    names = [str(name) for name in table.columns]
    columns |= {
        name: table[name].where(success).astype("Int64")
        for name in names
        if re.fullmatch(r"AU\d\d[LR]?_c", name)
    }
    columns |= {
        name: table[name].where(success) for name in names if re.fullmatch(r"AU\d\d[LR]?_r", name)
    }
    if set(_POSE) <= set(names):
        for name, (measure, sign) in _POSE.items():
            columns[measure] = np.degrees(sign * table[name]).where(success)
    if set(POINT_COLUMNS) <= set(names):
        columns |= {name: table[name].where(success) for name in POINT_COLUMNS}
    read: pd.DataFrame = pd.DataFrame(columns)
    return read


def read_table(
    path: StrPath,
    program: str,
    needed: tuple[str, ...],
    rules: Mapping[str, Rule],
    text: tuple[str, ...] = (),
    kept: Collection[str] = (),
    limits: Limits = LIMITS,
) -> pd.DataFrame:
    """Read a CSV of numbers, with blanks around the names or not.

    Args:
        path: The file.
        program: The program that writes such files, for the error.
        needed: Columns that it must have, frame among them.
        rules: What the numbers of columns must be, by a pattern for the names of the columns.
        text: Columns with text.
        kept: Columns to read although columns of their kind are left out.
        limits: Larger files are refused.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    what = f"{path} as a table of {program}"
    try:
        data = read_file(path, limits.file_bytes)
        names = read_fields(data, what, limits)
        if set(needed) - set(names):
            raise ValueError(
                f"there is no column {', '.join(name for name in needed if name not in names)}"
            )
        used = [name for name in names if name in kept or not _LEFT_OUT.match(name)]
        types = {name: str if name in text else np.float64 for name in used}
        table: pd.DataFrame = pd.read_csv(
            io.BytesIO(data),
            header=0,
            names=names,
            usecols=used,
            dtype=types,
            index_col=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
            keep_default_na=False,
            na_values=["", "nan", "-nan(ind)", "-nan"],
        )
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"cannot read {path} as a table of {program}: {reason_of(error)}"
        ) from None
    check_ranges(table, _chosen(rules, used), what)
    return table


def _chosen(rules: Mapping[str, Rule], names: Sequence[str]) -> dict[str, Rule]:
    """The rule of each column that has one."""
    chosen = {}
    for name in names:
        for pattern, rule in rules.items():
            if re.fullmatch(pattern, name):
                chosen[name] = rule
    return chosen
