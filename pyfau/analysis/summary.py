"""Features of a clip: one row of numbers for models of affect, see docs/formats.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.analysis.blinks import LONGEST_BLINK_S, blink_rows, blink_source
from pyfau.analysis.events import find_events, frame_interval, frame_lengths, scored_rows
from pyfau.checks import check_choice
from pyfau.choices import SummaryUnit
from pyfau.faces.ranges import LEAST_QUALITY
from pyfau.tables.rows import AURows, intensity_columns

if TYPE_CHECKING:
    import pandas as pd


PERCENTILES = (10, 50, 90)
_Array = npt.NDArray[np.float64]


def summarize(result: AURows, per: SummaryUnit = "face") -> pd.DataFrame:
    """Features for each face, or for all faces together; see `AUResult.summary`."""
    import pandas as pd

    check_choice(per, "per", SummaryUnit)
    scored = scored_rows(result)
    if per == "face":
        ids, starts = np.unique(scored["face_id"].to_numpy(np.int64), return_index=True)
        bounds = np.append(starts, len(scored))
    else:
        ids, bounds = np.zeros(1, np.int64), np.array([0, len(scored)])
    columns = _shares(result, scored, bounds)
    sequence = not result.metadata.get("independent")
    step = frame_interval(scored, result.metadata.get("fps")) if sequence else np.nan
    # The frame rate can vary, so the frames are not counted.
    lengths = frame_lengths(scored, step)
    sums = [part.sum() for part in np.split(lengths, bounds[1:-1])][: len(bounds) - 1]
    columns["seconds"] = np.array(sums, np.float64) if len(scored) else columns["frames"] * step
    # Independent images have no events.
    found = find_events(result if sequence else AURows(result.aus, {}))
    groups = np.searchsorted(ids, found["face_id"]) if per == "face" else np.zeros(len(found), int)
    features = _scores(result, scored, bounds)
    features |= _events(result.aus, found, groups, columns["seconds"])
    for number, au in enumerate(result.aus):
        columns |= {f"{au}_{name}": values[:, number] for name, values in features.items()}
    source = blink_source(result.aus)
    if source is not None:
        blinks = blink_rows(found, source, step, LONGEST_BLINK_S)
        columns |= _blinks(found[blinks], groups[blinks], columns["seconds"])
    index = pd.Index(ids, name="face_id", dtype="int64") if per == "face" else None
    summary: pd.DataFrame = pd.DataFrame(columns, index).astype(np.float64)
    return summary


def _shares(result: AURows, scored: pd.DataFrame, bounds: npt.NDArray[Any]) -> dict[str, Any]:
    """The columns that do not depend on an AU, for the rows between the bounds.

    `seconds` is filled in later; it is here for the order of the columns.
    """
    frame = scored["frame"].to_numpy(np.int64)
    confidence = scored["confidence"].to_numpy(np.float64)
    frames = len(np.unique(result.frames))
    shown = [len(np.unique(part)) for part in np.split(frame, bounds[1:-1])]
    share = np.array(shown) / frames if frames else np.full(len(shown), np.nan)
    groups = len(bounds) - 1
    means = [_mean(part) for part in np.split(confidence, bounds[1:-1])]
    columns: dict[str, Any] = {
        "frames": np.diff(bounds),
        "seconds": None,
        "face_share": share[:groups],
        "confidence_mean": means[:groups],
    }
    if result.has_measures:
        quality = scored["quality"].to_numpy(np.float64)
        parts = np.split(quality, bounds[1:-1])[:groups]
        parts = [part[~np.isnan(part)] for part in parts]
        columns["quality_mean"] = [_mean(part) for part in parts]
        columns["quality_low_share"] = [_mean(part < LEAST_QUALITY) for part in parts]
    return columns


def _scores(result: AURows, scored: pd.DataFrame, bounds: npt.NDArray[Any]) -> dict[str, _Array]:
    """Figures of the scores: for each of G groups and N AUs, (G, N)."""
    aus = list(result.aus)
    scores = scored[aus].to_numpy(np.float64)
    active = scored[[f"{au}_c" for au in aus]].to_numpy(np.float64)
    features = {"mean": _each(scores, bounds, np.mean), "std": _each(scores, bounds, np.std)}
    for percent in PERCENTILES:
        features[f"p{percent}"] = _each(scores, bounds, np.percentile, percent)
    active[np.isnan(scores)] = np.nan
    features["active_share"] = _each(active, bounds, np.mean)
    # The events come between; a dict keeps the place of its first entry.
    features |= {"onsets_per_min": active[:0], "event_mean_s": active[:0]}
    if result.has_intensity:
        grades = scored[intensity_columns(aus)].to_numpy(np.float64)
        features["r_mean"] = _each(grades, bounds, np.mean)
        features["r_p90"] = _each(grades, bounds, np.percentile, 90)
    return features


def _events(
    aus: tuple[str, ...], found: pd.DataFrame, groups: npt.NDArray[Any], seconds: _Array
) -> dict[str, _Array]:
    """Figures of the events: for each of G groups and N AUs, (G, N)."""
    shape = (len(seconds), len(aus))
    numbers = {au: number for number, au in enumerate(aus)}
    cell = groups * len(aus) + found["au"].map(numbers).to_numpy(np.int64)
    length = (found["offset_s"] - found["onset_s"]).to_numpy(np.float64)

    def add_up(weights: npt.NDArray[Any]) -> _Array:
        """The sum of the weights for each group and AU."""
        total: _Array = np.bincount(cell, weights, shape[0] * shape[1]).astype(np.float64)
        return total.reshape(shape)

    onsets = add_up(found["onset_seen"].to_numpy(np.float64))
    minutes = np.where(seconds == 0, np.nan, seconds / 60)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_length = add_up(np.nan_to_num(length)) / add_up(np.isfinite(length))
    return {"onsets_per_min": onsets / minutes, "event_mean_s": mean_length}


def _blinks(
    blinks: pd.DataFrame, groups: npt.NDArray[Any], seconds: npt.NDArray[Any]
) -> dict[str, _Array]:
    """Figures of the blinks: for each of G groups, (G,). NaN without times."""
    seconds = np.asarray(seconds, np.float64)
    count = np.bincount(groups, minlength=len(seconds)).astype(np.float64)
    length = (blinks["offset_s"] - blinks["onset_s"]).to_numpy(np.float64)
    total = np.bincount(groups, length, minlength=len(seconds))
    timed = np.isfinite(seconds) & (seconds > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_length = total / count
        rate = count / (seconds / 60)
    return {
        "blinks": np.where(timed, count, np.nan),
        "blinks_per_min": np.where(timed, rate, np.nan),
        "blink_mean_s": mean_length,
    }


def _each(values: _Array, bounds: npt.NDArray[Any], figure: Any, *args: Any) -> _Array:
    """A figure of each column of (R, N) values, for the rows between the bounds: (G, N).

    Missing values do not count.
    """

    def of_known(part: _Array) -> Any:
        if len(part) and not np.isnan(part).any():
            return figure(part, *args, axis=0)
        columns = [column[~np.isnan(column)] for column in part.T]
        return [figure(column, *args) if len(column) else np.nan for column in columns]

    groups = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    parts = [of_known(values[start:end]) for start, end in groups]
    return np.array(parts, np.float64).reshape(len(bounds) - 1, values.shape[1])


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else np.nan
