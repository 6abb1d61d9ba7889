"""Events: runs of frames in which an action unit of a face is active."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import AUResult

_COLUMNS: dict[str, Any] = {
    "face_id": "int64",
    "au": "str",
    "onset_frame": "int64",
    "offset_frame": "int64",
    "onset_s": "float64",
    "offset_s": "float64",
    "peak": "float64",
    "peak_frame": "int64",
    "onset_seen": "bool",
    "offset_seen": "bool",
}


def events(result: AUResult, *, min_frames: int = 1, join_frames: int = 0) -> pd.DataFrame:
    """Find the events: runs of consecutive frames in which an AU of a face is active (score >= threshold).

    A frame in which the face was not found ends a run, as does a frame that is missing. Every run counts, also one that
    is under way when the face appears: then its onset is where the face appears, and `onset_seen` is False.

    Args:
        result: Rows of a video or of another sequence of frames.
        min_frames: Shorter events are left out. They are counted after joining, with the frames between.
        join_frames: Two events of a face and AU with at most so many frames between them, active or not, are one.

    Returns:
        One row an event, by face, AU (in the order of `result.aus`) and time, with the columns
        face_id (int64), au (str), onset_frame and offset_frame (int64; the first and last active frame), onset_s
        (float64; time of the first active frame), offset_s (float64; where the last active frame ends, so that
        offset_s - onset_s is the length), peak (float64; highest score), peak_frame (int64), onset_seen and offset_seen
        (bool; whether the face was scored in the frame just before and just after). Without times, onset_s and offset_s
        are NaN.

    Raises:
        InputError: The result is of pictures that have nothing to do with each other.
        OptionError: A number of frames is not a whole number, or too small.
    """
    import pandas as pd

    min_frames, join_frames = _count("min_frames", min_frames, 1), _count("join_frames", join_frames, 0)
    if result.metadata.get("independent"):
        raise InputError("pictures that were scored independently have no events: expected frames of one sequence")
    table = scored_rows(result)
    step = frame_interval(table, result.metadata.get("fps"))
    found: list[tuple[Any, ...]] = []
    for face_id, rows in table.groupby("face_id"):
        frame, time_s = rows["frame"].to_numpy(), rows["time_s"].to_numpy()
        follows = np.diff(frame) == 1
        before, after = np.r_[False, follows], np.r_[follows, False]  # is the face in the frame just before, after?
        next_s = np.append(time_s[1:], np.inf)
        end_s = np.where(after, next_s, np.minimum(time_s + step, next_s))
        for au in result.aus:
            active, scores = rows[f"{au}_c"].to_numpy(bool), rows[au].to_numpy()
            first = np.flatnonzero(active & ~(np.roll(active, 1) & before))
            last = np.flatnonzero(active & ~(np.roll(active, -1) & after))
            apart = frame[first[1:]] - frame[last[:-1]] - 1 > join_frames
            first, last = first[np.r_[True, apart][: len(first)]], last[np.r_[apart, True][: len(last)]]
            for i, j in zip(first, last, strict=True):
                if frame[j] - frame[i] + 1 >= min_frames:
                    peak = i + int(scores[i : j + 1].argmax())
                    where = (frame[i], frame[j], time_s[i], end_s[j], scores[peak], frame[peak])
                    found.append((face_id, au, *where, before[i], after[j]))
    listed: pd.DataFrame = pd.DataFrame(found, columns=list(_COLUMNS)).astype(_COLUMNS)
    return listed


def scored_rows(result: AUResult) -> pd.DataFrame:
    """The rows of `AUResult.to_dataframe` that have a face and scores, by face and frame."""
    table = result.to_dataframe()
    scored = table[table["face_id"].notna() & (table["success"] == 1)]
    rows: pd.DataFrame = scored.sort_values(["face_id", "frame"], kind="stable")
    return rows


def _count(name: str, value: int, least: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return count


def frame_interval(table: pd.DataFrame, fps: Any) -> float:
    """Seconds from one frame to the next: the median of what the times say, else 1 / fps, else NaN."""
    times = table.dropna(subset=["time_s"]).drop_duplicates("frame").sort_values("frame")
    if len(times) > 1:
        return float(np.median(np.diff(times["time_s"]) / np.diff(times["frame"])))
    return 1.0 / fps if isinstance(fps, int | float) and fps > 0 else float("nan")
