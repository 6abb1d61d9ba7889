"""Tables with the columns of py-feat's `Fex`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pyfau.errors import InputError
from pyfau.formats.openface import read_table
from pyfau.limits import LIMITS, Limits
from pyfau.tables.cells import guard_cell
from pyfau.tables.schema import MOST_PIXELS, MOST_WHOLE, between
from pyfau.types import POINT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows
    from pyfau.types import StrPath

_PIXELS = between(-MOST_PIXELS, MOST_PIXELS)
_RULES = {
    "frame": between(0, MOST_WHOLE, whole=True, missing=False),
    "time_s": between(-1e12, 1e12),
    "FaceRect(X|Y|Width|Height)": _PIXELS,
    "FaceScore": between(0, 1),
    r"AU\d\d[LR]?": between(0, 1),
    "Pitch|Roll|Yaw": between(-360, 360),
}
_MOST_DIGITS = 15  # of the number of a person
_POSE = {"Pitch": "pitch", "Roll": "roll", "Yaw": "yaw"}
# py-feat 2.1 counts these angles in the other direction: its yaw is positive towards the person's
# right, which is the left of the image, and its roll is positive counterclockwise in the image.
_SIGNS = {"Pitch": 1, "Roll": -1, "Yaw": -1}
# Position of the head. Files of py-feat with these columns have angles in radians. Older files lack
# the columns, and have degrees.
_POSITION = ("X", "Y", "Z")
_PERSON = "Person_"  # prefix of the names that py-feat gives to persons


def to_pyfeat(result: AURows) -> pd.DataFrame:
    """See `AUResult.to_pyfeat`."""
    import pandas as pd

    table = result.to_dataframe()
    columns = {
        "frame": table["frame"],
        "time_s": table["time_s"],
        "FaceRectX": table["x1"],
        "FaceRectY": table["y1"],
        "FaceRectWidth": table["x2"] - table["x1"],
        "FaceRectHeight": table["y2"] - table["y1"],
        "FaceScore": table["confidence"].where(table["success"] == 1),
    }
    if result.has_landmarks:
        columns |= {name: table[name] for name in POINT_COLUMNS}
    if result.has_measures:
        columns |= {
            name: _SIGNS[name] * np.radians(table[measure]) for name, measure in _POSE.items()
        }
        # pyfau does not measure the position, but `Fex.poses` needs its columns.
        columns |= dict.fromkeys(_POSITION, pd.Series(np.nan, table.index))
    columns |= {au: table[au] for au in result.aus}
    columns["Identity"] = (_PERSON + table["face_id"].astype("string")).astype("string")
    # File names can contain bytes that are not text.
    source = str(result.metadata.get("source") or "").encode(errors="backslashreplace").decode()
    names = table["file"] if "file" in table else pd.Series(source, table.index, "string")
    # Before Python 3.13, the csv module does not quote a carriage return.
    names = names.str.replace("\r", r"\r", regex=False)
    columns["input"] = names.map(guard_cell, na_action="ignore").astype("string")
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def read_pyfeat(path: StrPath, limits: Limits = LIMITS) -> pd.DataFrame:
    """Read a CSV that py-feat wrote, or `AUResult.to_pyfeat().to_csv(path, index=False)`.

    Args:
        path: The file.
        limits: Larger files are refused.

    Returns:
        The columns of `AUResult.to_dataframe` that py-feat has as well:

        - frame and success (int64).
        - time_s (float64). It is NaN in files of py-feat, which have whole seconds only.
        - face_id (Int64), the number in Identity; 0 if the file has no Identity; missing in rows
          without a face.
        - confidence, x1, y1, x2, y2 and AU01 ... (float64). The values of the action units depend
          on the detector of py-feat: probabilities ("xgb" and Detectorv2), or 0 and 1 ("svm").
        - pitch, yaw and roll (float64, degrees), if the file has a head pose. Files with the
          columns X, Y and Z have radians, and the signs of py-feat 2.1; pyfau converts both. Older
          files have degrees, and keep their signs.

    Raises:
        InputError: The file does not exist, or py-feat did not write it.
    """
    import pandas as pd

    box = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore")
    text = ("Identity", "input", "approx_time")
    table = read_table(path, "py-feat", ("frame", *box), _RULES, text, limits=limits)
    success = table["FaceRectX"].notna()
    person = table["Identity"] if "Identity" in table else pd.Series(f"{_PERSON}0", table.index)
    columns = {
        "frame": table["frame"].astype(np.int64),
        "time_s": table["time_s"] if "time_s" in table else pd.Series(np.nan, table.index),
        "face_id": _numbers_of(person, path).where(success),
        "success": success.astype(np.int64),
        "confidence": table["FaceScore"].fillna(0),
        "x1": table["FaceRectX"],
        "y1": table["FaceRectY"],
        "x2": table["FaceRectX"] + table["FaceRectWidth"],
        "y2": table["FaceRectY"] + table["FaceRectHeight"],
    }
    columns |= {
        str(name): table[name] for name in table.columns if re.fullmatch(r"AU\d\d[LR]?", str(name))
    }
    if set(_POSE) <= set(table.columns):
        columns |= _head_pose(table)
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def _head_pose(table: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Pitch, roll and yaw in degrees, with the signs of pyfau where those of the file are known."""
    if not set(_POSITION) <= set(table.columns):
        return {measure: table[name] for name, measure in _POSE.items()}
    return {measure: _SIGNS[name] * np.degrees(table[name]) for name, measure in _POSE.items()}


def _numbers_of(person: pd.Series[str], path: StrPath) -> pd.Series[int]:
    """The number at the end of each name, such as 3 of "Person_3"; missing without one."""
    digits = person.astype("string").str.extract("([0-9]+)$")[0]
    if (digits.str.len() > _MOST_DIGITS).any():
        raise InputError(
            f"cannot read {path} as a table of py-feat: the number of a person in Identity has "
            f"more than {_MOST_DIGITS} digits"
        )
    numbers: pd.Series[int] = digits.astype("Int64")
    return numbers
