"""Lists of events: face, action unit, onset and offset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyfau.errors import InputError
from pyfau.events import events
from pyfau.result import AUResult, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import StrPath


def write_events(result: AUResult, path: StrPath, *, min_frames: int = 1, join_frames: int = 0) -> Path:
    """See `AUResult.to_events`."""
    found = events(result, min_frames=min_frames, join_frames=join_frames).round(
        {"onset_s": 6, "offset_s": 6, "peak": 6}
    )
    return write_whole(path, found.to_csv(index=False, lineterminator="\n"))


def read_events(path: StrPath) -> pd.DataFrame:
    """Read what `AUResult.to_events` wrote: the table of `pyfau.events.events`, with the same types.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    types = dict(events(AUResult((), {})).dtypes)
    try:
        table: pd.DataFrame = pd.read_csv(Path(path), dtype=types, encoding="utf-8")[list(types)]
        return table
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path} as a list of events: {error}") from None
