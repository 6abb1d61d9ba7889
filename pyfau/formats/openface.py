"""CSV files as OpenFace 2 writes them for videos: presence of action units, and no intensities."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyfau.errors import InputError
from pyfau.result import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import AUResult, StrPath


def write_openface(result: AUResult, path: StrPath) -> Path:
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
    columns |= {f"{au}_c": table[f"{au}_c"].fillna(0) for au in result.aus}
    return write_whole(path, pd.DataFrame(columns).to_csv(index=False, lineterminator="\n"))


def read_openface(path: StrPath) -> pd.DataFrame:
    """Read a CSV that OpenFace 2 (FeatureExtraction, FaceLandmarkVidMulti) or `AUResult.to_openface` wrote.

    Intensities (AU01_r ...) are on a scale from 0 to 5 that pyfau has nothing like: they are left out, with a
    UserWarning. So are gaze, pose, landmarks and shape.

    Returns:
        The columns of `AUResult.to_dataframe` that OpenFace has, so that the two can be merged on frame: frame (int64,
        from 0; OpenFace counts from 1), time_s (float64), face_id (Int64, missing without a face), success (int64),
        confidence (float64), and AU01_c ... (Int64, 0 or 1, missing without a face).

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    table = read_table(path, "OpenFace", ("frame", "timestamp", "confidence", "success"))
    success = table["success"].eq(1)
    face_id = table["face_id"] if "face_id" in table else pd.Series(0.0, table.index)
    columns = {"frame": table["frame"].astype(np.int64) - 1, "time_s": table["timestamp"]}
    columns |= {"face_id": _whole(face_id.where(success), path), "success": success.astype(np.int64)}
    columns["confidence"] = table["confidence"]
    names = [str(name) for name in table.columns]
    columns |= {name: _whole(table[name].where(success), path) for name in names if re.fullmatch(r"AU\d\d_c", name)}
    left = [name for name in names if re.fullmatch(r"AU\d\d_r", name)]
    if left:
        text = f"{path}: the intensities {left[0]} ... {left[-1]} are left out; pyfau's scores are probabilities"
        warnings.warn(text, UserWarning, stacklevel=2)
    read: pd.DataFrame = pd.DataFrame(columns)
    return read


def _whole(numbers: pd.Series[float], path: StrPath) -> pd.Series[int]:
    try:
        return numbers.astype("Int64")
    except (TypeError, ValueError):
        raise InputError(f"cannot read {path} as a table of OpenFace: {numbers.name} has fractions") from None


def read_table(path: StrPath, program: str, needed: tuple[str, ...], text: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a CSV of numbers, with blanks around the names or not.

    Args:
        path: The file.
        program: Who writes such files, for the error.
        needed: Columns that it must have, frame among them.
        text: Columns that hold text.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    try:
        data = Path(path).read_bytes()
        names = pd.read_csv(io.BytesIO(data), nrows=0, encoding="utf-8-sig").columns.str.strip()
        if set(needed) - set(names):
            raise ValueError(f"there is no column {', '.join(name for name in needed if name not in names)}")
        kept = names[~names.str.match("Unnamed|mesh_|Identity_|[xyzXYZ]_|eye_lmk|p_")]  # of which there are thousands
        types = {name: str if name in text else np.float64 for name in kept}
        table: pd.DataFrame = pd.read_csv(
            io.BytesIO(data), header=0, names=list(names), usecols=list(kept), dtype=types, encoding="utf-8-sig",
            skipinitialspace=True, keep_default_na=False, na_values=["", "nan", "-nan(ind)", "-nan"],
        )  # fmt: skip
        if not (table["frame"] % 1 == 0).all():
            raise ValueError("expected a whole number in each row of frame")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as a table of {program}: {error}") from None
    return table
