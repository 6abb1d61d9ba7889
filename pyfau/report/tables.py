"""The numbers of a report: per AU, and of two AUs together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.events import frame_interval

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import AUResult


def thresholds_of(result: AUResult, rows: pd.DataFrame) -> dict[str, float | None]:
    """The threshold of each AU, None where the metadata does not tell one for all faces of `rows`.

    A baseline may have given each face its own.
    """

    def part(record: Any, key: str) -> Any:
        return record.get(key) if isinstance(record, Mapping) else None

    usual, own = part(result.metadata, "thresholds"), part(part(result.metadata, "baseline"), "thresholds")
    records = [part(own, str(face_id)) or usual for face_id in rows["face_id"].unique()]
    found: dict[str, float | None] = {}
    for au in result.aus:
        values = [part(record, au) for record in records]
        known = all(isinstance(value, int | float) and 0 <= value <= 1 for value in values) and len(set(values)) == 1
        found[au] = values[0] if known else None
    return found


def row_names(rows: pd.DataFrame, independent: bool) -> list[str]:
    """What rows are called on a page: by picture file, else by number."""
    if not independent:
        return [f"frame {frame}" for frame in rows["frame"]]
    files = rows["file"] if "file" in rows else [None] * len(rows)
    numbered = zip(files, rows["frame"], strict=True)
    return [Path(file).name if isinstance(file, str) else f"picture {frame}" for file, frame in numbered]


def seconds_a_frame(result: AUResult, rows: pd.DataFrame) -> float | None:
    """How long a frame lasts; None where `rows` have no times, or are pictures without order."""
    step = frame_interval(rows, result.metadata.get("fps"))
    timed = not result.metadata.get("independent") and math.isfinite(step) and bool(rows["time_s"].notna().all())
    return step if timed else None


def summarise(rows: pd.DataFrame, aus: tuple[str, ...], found: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What one face does with each AU.

    Args:
        rows: The face's rows of `AUResult.to_dataframe`, those with scores.
        aus: The columns of the scores.
        found: The face's events; None if there can be none.

    Returns:
        One dict an AU with au, share (of the rows, active), mean and peak (scores), and, of the events,
        onsets (how many were seen, as in `AUResult.summary`) and length_s (the mean length of all events; NaN if there
        is none, or no times); None without events.
    """
    lines = []
    for au in aus:
        scores = rows[au]
        line: dict[str, Any] = {
            "au": au,
            "share": float(rows[f"{au}_c"].mean()),
            "mean": float(scores.mean()),
            "peak": float(scores.max()),
            "onsets": None,
            "length_s": None,
        }
        if found is not None:
            mine = found[found["au"] == au]
            line |= {
                "onsets": int(mine["onset_seen"].sum()),
                "length_s": float((mine["offset_s"] - mine["onset_s"]).mean()),
            }
        lines.append(line)
    return lines


def co_occurrence(scores: npt.NDArray[np.float64], active: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.float64]]:
    """How often two AUs of one face go together.

    Args:
        scores: (R, N) in [0, 1].
        active: (R, N).

    Returns:
        Three symmetric (N, N) matrices, NaN where there is nothing to divide by: "jaccard", of the rows in which
        either AU is active the share in which both are; "both", the share of all rows in which both are; and
        "correlation", Pearson's r of the scores.
    """
    count = active.astype(np.float64)
    both = count.T @ count
    alone = np.diag(both)
    centred = scores - scores.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "jaccard": both / (alone[:, None] + alone[None, :] - both),
            "both": both / len(active),
            "correlation": np.where(
                np.outer(spread > 1e-9, spread > 1e-9), centred.T @ centred / np.outer(spread, spread), np.nan
            ),
        }
