"""The smaller parts of a report: grades of intensity, quality over time, events, two recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.analysis.summary import summarize
from pyfau.aus import full_name
from pyfau.errors import InputError
from pyfau.messages import printable

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows

GRADES = "ABCDE"
MOST_EVENTS = 500  # listed of one face
_EVENT_COLUMNS = ("au", "onset_frame", "onset_s", "offset_s", "peak")
_WIDTH, _HEIGHT = 900, 70  # of a strip, in the units of its drawing
_MOST_POINTS = 900  # of a line in a strip
_QUIET = 0.05  # intensity up to which an action unit counts as absent
# Columns of a strip with the range of their values. A table may lack them.
_STRIPS = {
    "yaw": (-60.0, 60.0, "degrees, right of the image above 0"),
    "pitch": (-60.0, 60.0, "degrees, up above 0"),
    "roll": (-60.0, 60.0, "degrees, clockwise above 0"),
    "quality": (0.0, 1.0, "below 0.5: outside the validated range"),
}


@dataclass(frozen=True, slots=True)
class Strip:
    """One measure of a face over time.

    Attributes:
        name: The column.
        about: Unit and direction.
        path: The line, in the format of SVG, for a box of `width` x `height`.
        low: The smallest value.
        middle: The median.
        high: The largest value.
        outside: Share of the frames that have a quality below 0.5, or are turned by more than 30
            degrees.
    """

    name: str
    about: str
    path: str
    low: float
    middle: float
    high: float
    outside: float
    width: int = _WIDTH
    height: int = _HEIGHT


def grade_bands(rows: pd.DataFrame, aus: tuple[str, ...]) -> dict[str, list[tuple[str, float]]]:
    """For each action unit, the share of the frames with each grade, "" (absent) and A to E.

    Args:
        rows: One face's rows, with columns such as "AU12_r"; without them the result is empty.
        aus: The action units.
    """
    bands: dict[str, list[tuple[str, float]]] = {}
    for au in aus:
        if f"{au}_r" not in rows:
            continue
        values = rows[f"{au}_r"].to_numpy(np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        # Above 0 to 1 is A, to 2 B, to 3 C, to 4 D, above 4 E.
        grade = np.where(values <= _QUIET, 0, np.clip(np.ceil(values), 1, 5)).astype(int)
        shares = np.bincount(grade, minlength=6) / len(values)
        bands[au] = list(zip(("", *GRADES), shares.tolist(), strict=True))
    return bands


def quality_strips(rows: pd.DataFrame, timed: bool) -> list[Strip]:
    """The measures of one face over time; empty for tables without them.

    Args:
        rows: One face's rows, by frame.
        timed: Whether the rows have times.
    """
    if not len(rows):
        return []
    x = rows["time_s" if timed else "frame"].to_numpy(np.float64)
    strips = []
    for name, (low, high, about) in _STRIPS.items():
        if name not in rows:
            continue
        values = rows[name].to_numpy(np.float64)
        finite = values[np.isfinite(values)]
        if not len(finite):
            continue
        outside = finite < 0.5 if name == "quality" else np.abs(finite) > 30
        strips.append(
            Strip(
                name,
                about,
                _path(x, values, low, high),
                float(finite.min()),
                float(np.median(finite)),
                float(finite.max()),
                float(outside.mean()),
            )
        )
    return strips


def _path(
    x: npt.NDArray[np.float64], values: npt.NDArray[np.float64], low: float, high: float
) -> str:
    """A line in the format of SVG. Of many frames, the lowest and highest of each group remain."""
    span = max(float(x[-1] - x[0]), 1e-9)
    across = (x - x[0]) / span * _WIDTH
    down = (1 - (np.clip(values, low, high) - low) / (high - low)) * _HEIGHT
    keep = np.arange(len(x))
    if len(x) > 2 * _MOST_POINTS:
        parts = np.array_split(np.where(np.isfinite(down), down, 0), _MOST_POINTS)
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        ends = [(part.argmin(), part.argmax()) for part in parts]
        pairs = [{s + int(a), s + int(b)} for s, (a, b) in zip(starts, ends, strict=True)]
        keep = np.array(sorted(set().union(*pairs)))
    pieces, pen = [], "M"
    for i in keep.tolist():
        if not np.isfinite(down[i]):
            pen = "M"
            continue
        pieces.append(f"{pen}{across[i]:.1f} {down[i]:.1f}")
        pen = "L"
    return "".join(pieces)


def list_events(found: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The events of a face by time, at most 500; empty without events."""
    if found is None or not len(found):
        return []
    # Arrays, not data frames: a recording can have thousands of faces, and each of them comes here.
    columns = {name: found[name].to_numpy() for name in _EVENT_COLUMNS}
    order = np.argsort(columns["onset_frame"], kind="stable")[:MOST_EVENTS]
    chosen = (columns[name][order].tolist() for name in _EVENT_COLUMNS)
    records = [
        dict(zip(_EVENT_COLUMNS, values, strict=True)) for values in zip(*chosen, strict=True)
    ]
    for record in records:
        record["label"] = printable(full_name(str(record["au"])))
    return records


def compare_recordings(first: AURows, second: AURows) -> list[dict[str, Any]]:
    """The figures of two recordings for each action unit, over all faces together.

    Returns:
        One dict for each action unit: label, and share, rate and mean, each a pair (of the first
        and of the second recording; NaN where there is nothing to count).

    Raises:
        InputError: The recordings were scored by models with other action units.
    """
    if first.aus != second.aus:
        raise InputError(
            f"the two recordings have scores of {', '.join(first.aus)} and of "
            f"{', '.join(second.aus)}: score both with one model"
        )
    figures = [summarize(result, "clip").iloc[0] for result in (first, second)]
    names = {"share": "active_share", "rate": "onsets_per_min", "mean": "mean"}
    return [
        {"label": printable(full_name(au))}
        | {
            key: [float(figure[f"{au}_{name}"]) for figure in figures]
            for key, name in names.items()
        }
        for au in first.aus
    ]
