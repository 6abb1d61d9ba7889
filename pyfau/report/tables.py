"""The numbers of a report: for each AU, and for pairs of AUs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.analysis.events import frame_interval

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows


def thresholds_of(result: AURows, rows: pd.DataFrame) -> dict[str, float | None]:
    """The threshold of each AU; None where the faces of `rows` have different ones, or none.

    A baseline can give each face its own threshold.
    """

    def part(record: Any, key: str) -> Any:
        return record.get(key) if isinstance(record, Mapping) else None

    usual, own = (
        part(result.metadata, "thresholds"),
        part(part(result.metadata, "baseline"), "thresholds"),
    )
    records = [part(own, str(face_id)) or usual for face_id in rows["face_id"].unique()]
    found: dict[str, float | None] = {}
    for au in result.aus:
        values = [part(record, au) for record in records]
        known = (
            all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
            and len(set(values)) == 1
        )
        found[au] = values[0] if known else None
    return found


def row_names(rows: pd.DataFrame, independent: bool) -> list[str]:
    """The names of rows on the page: the image file, or the frame number."""
    if not independent:
        return [f"frame {frame}" for frame in rows["frame"]]
    files = rows["file"] if "file" in rows else [None] * len(rows)
    numbered = zip(files, rows["frame"], strict=True)
    return [
        Path(file).name if isinstance(file, str) else f"image {frame}" for file, frame in numbered
    ]


def seconds_a_frame(result: AURows, rows: pd.DataFrame) -> float | None:
    """Duration of a frame; None if `rows` have no times, or are independent images."""
    step = frame_interval(rows, result.metadata.get("fps"))
    timed = (
        not result.metadata.get("independent")
        and math.isfinite(step)
        and bool(np.isfinite(rows["time_s"].to_numpy(np.float64)).all())
    )
    return step if timed else None


def column_matrix(rows: pd.DataFrame, names: Sequence[str], dtype: type[Any]) -> npt.NDArray[Any]:
    """Columns of a table as an array (rows, columns).

    One column after the other: for the few rows of a face, pandas takes several times as long to
    look up a list of names.
    """
    return np.stack([rows[name].to_numpy(dtype) for name in names], axis=1)


def summarize_aus(
    rows: pd.DataFrame, aus: tuple[str, ...], found: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """The figures of one face for each AU.

    Args:
        rows: The face's rows of `AUResult.to_dataframe`, those with scores.
        aus: The columns of the scores.
        found: The events of the face; None for independent images.

    Returns:
        One dict an AU with au, share (of the rows, active), mean and peak (scores), and, of the
        events, onsets (how many were seen, as in `AUResult.summary`) and length_s (the mean length
        of all events; NaN if there is none, or no times); None without events. Rows with
        intensities add intensity (the mean while the AU is active) and intensity_peak (of all
        rows), in [0, 5] with NaN where there is nothing to average; None without intensities.
    """
    # Arrays, not data frames: a recording can have thousands of faces, and each of them comes here.
    scores = column_matrix(rows, aus, np.float64)
    active = column_matrix(rows, [f"{au}_c" for au in aus], bool)
    columns = [f"{au}_r" for au in aus]
    graded = column_matrix(rows, columns, np.float64) if columns[0] in rows else None
    lengths = _event_lengths(found, aus)
    lines = []
    for i, au in enumerate(aus):
        line: dict[str, Any] = {
            "au": au,
            "share": _mean(np.where(np.isnan(scores[:, i]), np.nan, active[:, i])),
            "mean": _mean(scores[:, i]),
            "peak": _largest(scores[:, i]),
            "onsets": None,
            "length_s": None,
            "intensity": None,
            "intensity_peak": None,
        }
        if lengths is not None:
            line["onsets"], seconds = lengths[au]
            line["length_s"] = _mean(np.array(seconds))
        if graded is not None:
            line["intensity"] = _mean(graded[active[:, i], i])
            line["intensity_peak"] = _largest(graded[:, i])
        lines.append(line)
    return lines


def _event_lengths(
    found: pd.DataFrame | None, aus: tuple[str, ...]
) -> dict[str, tuple[int, list[float]]] | None:
    """The number of onsets that were seen and the lengths in seconds of the events of each AU."""
    if found is None:
        return None
    onsets = dict.fromkeys(aus, 0)
    seconds: dict[str, list[float]] = {au: [] for au in aus}
    lengths = found["offset_s"].to_numpy() - found["onset_s"].to_numpy()
    for au, seen, length in zip(found["au"], found["onset_seen"], lengths, strict=True):
        onsets[au] += bool(seen)
        seconds[au].append(float(length))
    return {au: (onsets[au], seconds[au]) for au in aus}


def _mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN; NaN without one."""
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _largest(values: npt.NDArray[np.float64]) -> float:
    """The largest of the values that are not NaN; NaN without one."""
    finite = values[~np.isnan(values)]
    return float(finite.max()) if len(finite) else math.nan
