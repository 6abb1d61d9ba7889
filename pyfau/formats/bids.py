"""Event files in the style of BIDS: `*_events.tsv` with a sidecar of JSON."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.analysis.events import EventRules
from pyfau.aus import full_name
from pyfau.errors import InputError, OptionError
from pyfau.files import read_file, reason_of
from pyfau.limits import LIMITS, Limits
from pyfau.tables.metadata import write_whole
from pyfau.tables.rows import AURows
from pyfau.tables.schema import check_header
from pyfau.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.types import StrPath

_ENDING = "_events.tsv"
_ADDED = {"onset_s", "duration_s", "code"}  # the columns that `read_bids_events` adds
_MISSING = "n/a"  # how BIDS writes a missing value


def write_bids(result: AURows, path: StrPath, rules: EventRules) -> Path:
    """See `AUResult.to_bids`."""
    path = Path(path)
    if not path.name.endswith(_ENDING):
        raise OptionError(f"BIDS events are written to a file *{_ENDING}, got {path.name!r}")
    found = rules.find_timed(result, path, "BIDS")
    table = _table(found)
    sidecar = path.with_name(path.name.removesuffix(".tsv") + ".json")
    described = json.dumps(
        _description(rules.names(result.aus), result), indent=2, ensure_ascii=False
    )
    # Names of models can contain bytes that are not text.
    write_whole(sidecar, described.encode(errors="backslashreplace").decode() + "\n")
    return write_whole(
        path, table.to_csv(index=False, sep="\t", na_rep=_MISSING, lineterminator="\n")
    )


def _table(found: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame(
        {
            "onset": found["onset_s"].round(6),
            "duration": (found["offset_s"] - found["onset_s"]).round(6),
            "trial_type": found["au"],
            "face_id": found["face_id"],
            "peak": found["peak"].round(6),
            "peak_frame": found["peak_frame"],
            "onset_seen": found["onset_seen"].astype(np.int64),
            "offset_seen": found["offset_seen"].astype(np.int64),
        }
    )
    # BIDS sorts events by onset.
    ordered: pd.DataFrame = table.sort_values(["onset", "face_id"], kind="stable")
    return ordered


def _description(aus: list[str], result: AURows) -> dict[str, Any]:
    """The sidecar: what each column means."""
    seen = {"0": "the face was not scored there", "1": "the face was scored there"}
    return {
        "onset": {"Description": "First active frame, from the start of the video", "Units": "s"},
        "duration": {"Description": "To the end of the last active frame", "Units": "s"},
        "trial_type": {
            "LongName": "Action unit",
            "Description": "Facial action unit (FACS) that is active, not a stimulus",
            "Levels": {au: full_name(au) for au in aus},
        },
        "face_id": {"Description": "Number of the face in this video, from 0; not an identity"},
        "peak": {
            "Description": "Highest score of the event: probability that the action unit is "
            "present, not an intensity, in [0, 1]"
        },
        "peak_frame": {"Description": "Frame of the highest score, from 0"},
        "onset_seen": {"Description": "Frame before the event", "Levels": seen},
        "offset_seen": {"Description": "Frame after the event", "Levels": seen},
        "GeneratedBy": [
            {
                "Name": "pyfau",
                "Version": __version__,
                "Model": result.metadata.get("model"),
                "ModelVersion": result.metadata.get("model_version"),
            }
        ],
    }


def read_bids_events(path: StrPath, limits: Limits = LIMITS) -> pd.DataFrame:
    """Read an events file of BIDS, such as that of the stimuli.

    Args:
        path: The file.
        limits: Larger files are refused.

    Returns:
        The columns of the file. In addition, at the start:

        - onset_s: float64, the column onset
        - duration_s: float64, the column duration; NaN for "n/a"
        - code: str, the column trial_type; otherwise value; otherwise "marker"

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    try:
        table = _read_tabs(Path(path), limits)
        onset = table["onset"].astype(np.float64)
        nothing = pd.Series(np.nan, table.index)
        duration = table.get("duration", nothing).astype(np.float64)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"cannot read {path} as events of BIDS: {reason_of(error)}") from None
    if not np.isfinite(onset).all():
        raise InputError(f"cannot read {path} as events of BIDS: an onset is not a number")
    taken = _ADDED & set(table.columns)
    if taken:
        raise InputError(
            f"cannot read {path} as events of BIDS: the names {', '.join(sorted(taken))} are "
            "those of columns that pyfau adds"
        )
    names = [name for name in ("trial_type", "value") if name in table.columns]
    code = table[names[0]].astype("string").fillna(_MISSING) if names else "marker"
    table.insert(0, "onset_s", onset)
    table.insert(1, "duration_s", duration)
    table.insert(2, "code", code)
    typed: pd.DataFrame = table.astype({"code": str})
    return typed


def _read_tabs(path: Path, limits: Limits) -> pd.DataFrame:
    import pandas as pd

    # From bytes, because pandas decompresses a file by the end of its name.
    data = read_file(path, limits.file_bytes)
    check_header(data, "\t", path, limits)
    with warnings.catch_warnings():
        # pandas would only warn, and drop the fields that are too many.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table: pd.DataFrame = pd.read_csv(
                io.BytesIO(data),
                sep="\t",
                na_values=[_MISSING],
                encoding="utf-8-sig",
                index_col=False,
            )
        except pd.errors.ParserWarning:
            raise ValueError("its rows have more fields than its header") from None
    return table
