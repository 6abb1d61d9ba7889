"""Blinks: closures of the eyes under half a second, which FACS codes as AU45 instead of AU43."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.checks import is_number
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

BLINK = "AU45"
CLOSED = "AU43"
LONGEST_BLINK_S = 0.5


def blink_source(aus: tuple[str, ...]) -> str | None:
    """The action unit whose events are blinks: AU45, otherwise AU43; None without both."""
    return next((au for au in (BLINK, CLOSED) if au in aus), None)


def blink_rows(
    found: pd.DataFrame, source: str, step_s: float, longest_s: float
) -> npt.NDArray[np.bool_]:
    """Which events are blinks.

    A closure at the start or end of a track is no blink, because its length is unknown.

    Args:
        found: The events of `find_events`.
        source: See `blink_source`.
        step_s: Seconds per frame, for events without times.
        longest_s: A shorter closure is a blink.

    Returns:
        (E,) bool.
    """
    length = (found["offset_s"] - found["onset_s"]).to_numpy(np.float64)
    frames = (found["offset_frame"] - found["onset_frame"] + 1).to_numpy(np.float64)
    length = np.where(np.isfinite(length), length, frames * step_s)
    whole = (found["onset_seen"] & found["offset_seen"]).to_numpy(bool)
    closure = (found["au"] == source).to_numpy(bool)
    # Times have six decimals in files: 15 frames at 30 per second must last 0.5 s, not less.
    short = length < longest_s - 1e-5
    blinks: npt.NDArray[np.bool_] = closure & whole & short
    return blinks


def check_blinks(aus: tuple[str, ...], longest_s: Any) -> str:
    """Check that blinks can be found; returns `blink_source`.

    Raises:
        InputError: The model scores neither AU43 nor AU45.
        OptionError: `longest_s` is not a number of seconds above 0.
    """
    if not is_number(longest_s) or not 0 < longest_s < float("inf"):
        raise OptionError(f"longest_s must be a number of seconds above 0, got {longest_s!r}")
    source = blink_source(aus)
    if source is None:
        raise InputError(
            f"blinks need scores of {CLOSED} or {BLINK}, and these rows have {', '.join(aus)}"
        )
    return source
