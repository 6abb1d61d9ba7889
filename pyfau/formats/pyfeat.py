"""Tables with the columns of py-feat's `Fex`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pyfau.formats.openface import read_table

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import AUResult, StrPath

_PERSON = "Person_"  # what py-feat calls the faces that it takes for one person


def to_pyfeat(result: AUResult) -> pd.DataFrame:
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
    columns |= {au: table[au] for au in result.aus}
    columns["Identity"] = (_PERSON + table["face_id"].astype("string")).astype("string")
    source = str(result.metadata.get("source") or "").encode(errors="backslashreplace").decode()
    names = table["file"] if "file" in table else pd.Series(source, table.index, "string")
    columns["input"] = names.str.replace("\r", r"\r", regex=False)  # unquoted in CSV before Python 3.13
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def read_pyfeat(path: StrPath) -> pd.DataFrame:
    """Read a CSV that py-feat wrote, or `AUResult.to_pyfeat().to_csv(path, index=False)`.

    Returns:
        The columns of `AUResult.to_dataframe` that py-feat has: frame (int64), time_s (float64, NaN in files of
        py-feat, which gives whole seconds), face_id (Int64, the number in Identity, or 0 where there is none; missing
        without a face), success (int64), confidence, x1, y1, x2, y2, and AU01 ... (float64). What the action units mean
        depends on py-feat's detector: probabilities ("xgb", and the heads of Detectorv2) or 0 and 1 ("svm").

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    box = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore")
    text = ("Identity", "input", "approx_time")
    table = read_table(path, "py-feat", ("frame", *box), text)
    success = table["FaceRectX"].notna()
    person = table["Identity"] if "Identity" in table else pd.Series(f"{_PERSON}0", table.index)
    columns = {
        "frame": table["frame"].astype(np.int64),
        "time_s": table["time_s"] if "time_s" in table else pd.Series(np.nan, table.index),
        "face_id": person.astype("string").str.extract(r"(\d+)$")[0].where(success).astype("Int64"),
        "success": success.astype(np.int64),
        "confidence": table["FaceScore"].fillna(0),
        "x1": table["FaceRectX"],
        "y1": table["FaceRectY"],
        "x2": table["FaceRectX"] + table["FaceRectWidth"],
        "y2": table["FaceRectY"] + table["FaceRectHeight"],
    }
    columns |= {str(name): table[name] for name in table.columns if re.fullmatch(r"AU\d\d", str(name))}
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame
