"""Lists of events: face, action unit, onset and offset."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from pyfau.analysis.events import EventRules, find_events
from pyfau.errors import InputError
from pyfau.files import read_file, reason_of
from pyfau.limits import LIMITS, Limits
from pyfau.tables.cells import is_formula
from pyfau.tables.metadata import write_whole
from pyfau.tables.readers import read_fields
from pyfau.tables.rows import AURows
from pyfau.tables.schema import MOST_WHOLE, between, check_ranges

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.types import StrPath

_NUMBER = between(0, MOST_WHOLE, whole=True, missing=False)
_RULES = {
    "face_id": _NUMBER,
    "onset_frame": _NUMBER,
    "offset_frame": _NUMBER,
    "peak_frame": _NUMBER,
    "onset_s": between(-1e12, 1e12),
    "offset_s": between(-1e12, 1e12),
    "peak": between(0, 1),
}


def write_events(result: AURows, path: StrPath, rules: EventRules) -> Path:
    """See `AUResult.to_events`."""
    found = rules.find(result)
    found = found.round({"onset_s": 6, "offset_s": 6, "peak": 6})
    return write_whole(path, found.to_csv(index=False, lineterminator="\n"))


def read_events(path: StrPath, limits: Limits = LIMITS) -> pd.DataFrame:
    """Read what `AUResult.to_events` wrote.

    Args:
        path: The file.
        limits: Larger files are refused.

    Returns:
        The table of `pyfau.analysis.find_events`, with the same types.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    types = dict(find_events(AURows((), {})).dtypes)
    what = f"{path} as a list of events"
    try:
        data = read_file(path, limits.file_bytes)
        read_fields(data, what, limits)
        table: pd.DataFrame = pd.read_csv(
            io.BytesIO(data), dtype=types, encoding="utf-8-sig", index_col=False
        )[list(types)]
    except InputError:
        raise
    # pandas raises OverflowError for whole numbers of more than 64 bits.
    except (OSError, ValueError, KeyError, OverflowError, csv.Error) as error:
        raise InputError(f"cannot read {what}: {reason_of(error)}") from None
    check_ranges(table, _RULES, what)
    for au in table["au"].unique():
        if not isinstance(au, str) or not au.isprintable() or is_formula(au):
            raise InputError(f"cannot read {what}: {au!r:.80} is not a name of an action unit")
    for first, last in (("onset_frame", "offset_frame"), ("onset_s", "offset_s")):
        wrong = table[first] > table[last]
        if wrong.any():
            row = int(wrong.to_numpy().argmax()) + 1
            raise InputError(f"cannot read {what}: {first} is after {last} in row {row}")
    return table
