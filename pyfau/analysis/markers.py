"""Markers of stimuli: the row that belongs to each, and averages of the scores around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.analysis.events import frame_interval
from pyfau.analysis.series import FaceSeries
from pyfau.checks import is_number
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows

_CODE = "marker"  # of markers without a code


def join_markers(table: pd.DataFrame, markers: pd.DataFrame | Sequence[float]) -> pd.DataFrame:
    """Add a column `marker` to a table of rows: the code of the marker that falls in a frame.

    A marker belongs to the frame that is shown at its time: the last frame that starts at or before
    it. Several markers in one frame are joined by ";". A marker before the first frame belongs to
    the first frame. Every row of a frame gets the marker, also one without a face.

    Args:
        table: The columns of `AUResult.to_dataframe`, with times.
        markers: Columns onset_s (seconds, by the clock of the table) and code (text), such as
            `pyfau.formats.bids.read_bids_events` returns; or a list of seconds.

    Returns:
        A copy of the table with the column marker: string, missing where there is no marker.

    Raises:
        InputError: The table has no times, the markers have no onset_s, or all of them are after
            the end of the recording, for example because they are in milliseconds.
    """
    import pandas as pd

    found = as_markers(markers)
    joined: pd.DataFrame = table.copy()
    codes = pd.Series(pd.NA, index=table.index, dtype="string")
    frames = table.dropna(subset=["time_s"]).drop_duplicates("frame").sort_values("time_s")
    if len(found) and not len(frames):
        raise InputError("markers need a table with times: score images with fps")
    starts = frames["time_s"].to_numpy(np.float64)
    _check_end(found, frames)
    texts: dict[int, list[str]] = {}
    for onset, code in zip(found["onset_s"], found["code"], strict=True):
        # Tables have six decimals.
        place = max(0, int(np.searchsorted(starts, onset + 1e-6, side="right")) - 1)
        texts.setdefault(int(frames["frame"].iloc[place]), []).append(str(code))
    for frame, own in texts.items():
        codes[table["frame"] == frame] = ";".join(own)
    joined["marker"] = codes
    return joined


def _check_end(found: pd.DataFrame, frames: pd.DataFrame) -> None:
    """Check that a marker is not after the end of the last frame."""
    step = frame_interval(frames, None)
    if not len(found) or not math.isfinite(step):
        return
    first, end = float(found["onset_s"].iloc[0]), float(frames["time_s"].iloc[-1]) + step
    if first > end:
        raise InputError(
            f"all markers are after the end of the recording at {end:.3f} s, the first at "
            f"{first:.3f} s: give seconds from the start of the recording"
        )


def as_markers(markers: Any) -> pd.DataFrame:
    """Markers as a table with the columns onset_s (float64) and code (str), by time.

    Raises:
        InputError: There is no column onset_s, or it is not numbers.
    """
    import pandas as pd

    if not isinstance(markers, pd.DataFrame):
        markers = pd.DataFrame({"onset_s": list(markers)})
    if "onset_s" not in markers.columns:
        raise InputError(
            f"markers need a column onset_s, got {', '.join(map(str, markers.columns))}"
        )
    try:
        onset = markers["onset_s"].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the onset_s of markers must be seconds: {error}") from None
    if not np.isfinite(onset).all():
        raise InputError("the onset_s of markers must be finite numbers of seconds")
    code = markers["code"].astype(str) if "code" in markers.columns else _CODE
    made = pd.DataFrame({"onset_s": onset, "code": code})
    ordered: pd.DataFrame = made.sort_values("onset_s", kind="stable", ignore_index=True)
    return ordered


def find_epochs(
    result: AURows,
    markers: pd.DataFrame | Sequence[float],
    *,
    before_s: float = 1.0,
    after_s: float = 3.0,
    baseline_s: tuple[float, float] | None = (-1.0, 0.0),
    aus: Sequence[str] | None = None,
    face_id: int | None = None,
    step_s: float | None = None,
) -> pd.DataFrame:
    """Cut out the scores around markers.

    Args:
        result: Rows with times.
        markers: See `join_markers`.
        before_s: Seconds before a marker, 0 or more.
        after_s: Seconds after a marker.
        baseline_s: From and to, in seconds relative to the marker: the mean of this time (without
            its end) is subtracted from the epoch. None subtracts nothing. An epoch without a score
            in this time has NaN.
        aus: The action units; None for all.
        face_id: The face; None for the one in most frames.
        step_s: Seconds between samples; None for the frame interval of the recording.

    Returns:
        One row for each marker, action unit and time:

        - epoch: int64, number of the marker by time, from 0
        - code: str, code of the marker
        - au: str
        - time_s: float64, relative to the marker
        - score: float64, minus the baseline; NaN where the face is missing

    Raises:
        InputError: There is no marker, no face, or there are no times.
        OptionError: An option has an invalid value.
    """
    import pandas as pd

    found = as_markers(markers)
    if not len(found):
        raise InputError("there are no markers")
    series = FaceSeries(result, aus, face_id)
    step = series.step_s if step_s is None else step_s
    _check_window(before_s, after_s, baseline_s, step)
    first, last = math.ceil(-before_s / step - 1e-6), math.floor(after_s / step + 1e-6)
    offsets = np.arange(first, last + 1) * step
    parts = []
    for number, (onset, code) in enumerate(zip(found["onset_s"], found["code"], strict=True)):
        scores = series.at(onset + offsets)
        if baseline_s is not None:
            early = (offsets >= baseline_s[0] - 1e-6) & (offsets < baseline_s[1] - 1e-6)
            known = np.isfinite(scores[early])
            count = known.sum(axis=0)
            total = np.where(known, scores[early], 0).sum(axis=0)
            scores = scores - np.where(count > 0, total / np.maximum(count, 1), np.nan)
        part = pd.DataFrame(
            {
                "epoch": number,
                "code": code,
                "au": np.repeat(series.aus, len(offsets)),
                "time_s": np.tile(offsets.round(6), len(series.aus)),
                "score": scores.T.ravel(),
            }
        )
        parts.append(part)
    epochs: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return epochs


def average_epochs(epochs: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Average epochs, with confidence intervals.

    Args:
        epochs: The table of `find_epochs`; for several people, their tables one after the other
            with a column `person`. Each person then counts once: the epochs of a person are
            averaged first.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        One row for each code, action unit and time:

        - code, au: str
        - time_s: float64
        - mean: float64
        - low, high: float64, the confidence interval by Student's t; NaN with one unit
        - units: int64, number of people, or of epochs without a column `person`

    Raises:
        OptionError: A column is missing, or `confidence` is not in (0, 1).
    """
    import pandas as pd
    from scipy.stats import t

    if not is_number(confidence) or not 0 < confidence < 1:
        raise OptionError(f"confidence must be a number between 0 and 1, got {confidence!r}")
    if missing := {"code", "au", "time_s", "score"} - set(epochs.columns):
        raise OptionError(f"epochs need the columns of find_epochs: {min(missing)!r} is missing")
    keys = ["code", "au", "time_s"]
    table = epochs.assign(time_s=epochs["time_s"].round(6))
    if "person" in table.columns:
        table = table.groupby(["person", *keys], sort=True)["score"].mean().reset_index()
    groups = table.groupby(keys, sort=True)["score"]
    units = groups.count()
    half = t.ppf(0.5 + confidence / 2, units - 1) * groups.std(ddof=1) / np.sqrt(units)
    mean = groups.mean()
    averages: pd.DataFrame = pd.DataFrame(
        {"mean": mean, "low": mean - half, "high": mean + half, "units": units}
    ).reset_index()
    return averages


def _check_window(before_s: Any, after_s: Any, baseline_s: Any, step: Any) -> None:
    numbers = {"before_s": before_s, "after_s": after_s, "step_s": step}
    for name, value in numbers.items():
        least_ok = is_number(value) and math.isfinite(value) and value >= 0
        if not least_ok or (name == "step_s" and value == 0):
            raise OptionError(f"{name} must be a number of seconds, got {value!r}")
    if baseline_s is None:
        return
    try:
        start, end = baseline_s
    except (TypeError, ValueError):
        start = end = math.nan
    if not (is_number(start) and is_number(end) and -before_s - 1e-6 <= start < end <= after_s):
        raise OptionError(
            f"baseline_s must be two times inside the epoch, got {baseline_s!r} with before_s "
            f"{before_s} and after_s {after_s}"
        )
