"""Events: runs of frames in which an action unit of a face is active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.analysis.blinks import BLINK, LONGEST_BLINK_S, blink_rows, check_blinks
from pyfau.checks import check_whole
from pyfau.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows
    from pyfau.types import StrPath


EVENT_COLUMNS: dict[str, Any] = {
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


def find_events(
    result: AURows, *, min_frames: int = 1, join_frames: int = 0, blinks: bool = False
) -> pd.DataFrame:
    """Find the events: runs of consecutive frames in which an AU of a face is active.

    A missing frame ends a run, and so does a frame in which the face was not found. If an AU is
    already active when the face appears, this counts as a run too. Its onset is the frame in which
    the face appears, and `onset_seen` is False.

    Args:
        result: Rows of a video or of another sequence of frames.
        min_frames: Shorter events are left out. The length is counted after joining, with the
            frames between the joined events.
        join_frames: Two events of one face and AU are joined if at most this number of frames is
            between them, active or not.
        blinks: Whether closures of the eyes that are shorter than 0.5 s are listed as AU45 (blink)
            instead of AU43 (eyes closed). A closure that starts or ends outside the track stays
            AU43. If the model has an AU45, both stay unchanged.

    Returns:
        One row for each event, by face, AU (in the order of `result.aus`) and time. Columns:

        - face_id: int64
        - au: str
        - onset_frame, offset_frame: int64, the first and the last active frame
        - onset_s: float64, time of the first active frame
        - offset_s: float64, end of the last active frame; offset_s - onset_s is the length
        - peak: float64, the highest score
        - peak_frame: int64
        - onset_seen, offset_seen: bool, whether the face was scored in the frame before and after

        onset_s and offset_s are NaN in a result without times.

    Raises:
        InputError: The images were scored independently of each other; or `blinks` is set, and the
            model scores neither AU43 nor AU45.
        OptionError: A number of frames is not a whole number, or is too small.
    """
    import pandas as pd

    min_frames = check_whole(min_frames, "min_frames", 1)
    join_frames = check_whole(join_frames, "join_frames", 0)
    if result.metadata.get("independent"):
        raise InputError(
            "images that were scored independently have no events: expected frames of one sequence"
        )
    table = scored_rows(result)
    step_s = frame_interval(table, result.metadata.get("fps"))
    timeline = _timeline(table, step_s)
    parts = []
    for number, au in enumerate(result.aus):
        active, scores = table[f"{au}_c"].to_numpy(bool), table[au].to_numpy()
        first, last = _runs(active, timeline, min_frames, join_frames)
        part = pd.DataFrame(_describe(first, last, scores, timeline))
        parts.append(part.assign(au=au, number=number))
    found = pd.concat(parts) if parts else pd.DataFrame(columns=[*EVENT_COLUMNS, "number"])
    # The runs of each AU are in order already, and a stable sort keeps that.
    found = found.sort_values(["face_id", "number"], kind="stable", ignore_index=True)
    listed: pd.DataFrame = found[list(EVENT_COLUMNS)].astype(EVENT_COLUMNS)
    if blinks:
        source = check_blinks(result.aus, LONGEST_BLINK_S)
        listed.loc[blink_rows(listed, source, step_s, LONGEST_BLINK_S), "au"] = BLINK
    return listed


@dataclass(frozen=True, slots=True)
class EventRules:
    """The arguments of `find_events`, for the writers of event files."""

    min_frames: int = 1
    join_frames: int = 0
    blinks: bool = False

    def find(self, result: AURows) -> pd.DataFrame:
        """Find the events; see `find_events`."""
        return find_events(
            result, min_frames=self.min_frames, join_frames=self.join_frames, blinks=self.blinks
        )

    def find_timed(self, result: AURows, path: StrPath, program: str) -> pd.DataFrame:
        """Find the events for the file `path` of a program that needs times.

        Raises:
            InputError: The rows have no times; and as `find_events`.
        """
        found = self.find(result)
        if found[["onset_s", "offset_s"]].isna().any(axis=None):
            raise InputError(
                f"cannot write {path}: {program} needs times, and the rows have none; "
                "score images with fps"
            )
        return found

    def names(self, aus: Sequence[str]) -> list[str]:
        """The AUs that events can have, for the AUs of a model."""
        added = [BLINK] if self.blinks and BLINK not in aus else []
        return [*aus, *added]


def find_blinks(result: AURows, *, longest_s: float = LONGEST_BLINK_S) -> pd.DataFrame:
    """Find the blinks: closures of the eyes (AU43) that are shorter than half a second.

    FACS codes a closure of the eyes as AU45 (blink) if it is short and as AU43 otherwise. pyfau
    scores single frames, so the frames of a blink have AU43 active. A closure that starts or ends
    outside the track is no blink, because its length is unknown. At 25 frames per second a blink
    has 2 to 10 frames; below about 15 frames per second blinks are missed.

    Args:
        result: Rows of a video or of another sequence of frames.
        longest_s: A closure that is shorter than this number of seconds is a blink.

    Returns:
        One row for each blink, with the columns of `find_events`; `au` is "AU45".

    Raises:
        InputError: The model scores neither AU43 nor AU45, or the images were scored independently.
        OptionError: `longest_s` is not above 0.
    """
    source = check_blinks(result.aus, longest_s)
    found = find_events(result)
    table = scored_rows(result)
    step_s = frame_interval(table, result.metadata.get("fps"))
    blinks = blink_rows(found, source, step_s, longest_s)
    chosen: pd.DataFrame = found[blinks].assign(au=BLINK).reset_index(drop=True)
    typed: pd.DataFrame = chosen.astype(EVENT_COLUMNS)
    return typed


@dataclass(frozen=True, slots=True)
class _Timeline:
    """The scored rows, ordered by face and frame: R rows.

    Attributes:
        face_id: (R,) int64.
        frame: (R,) int64.
        time_s: (R,) float64.
        end_s: (R,) float64, where the frame ends.
        before: (R,) bool, whether the face was scored in the frame before.
        after: (R,) bool, whether the face was scored in the frame after.
    """

    face_id: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    time_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    before: npt.NDArray[np.bool_]
    after: npt.NDArray[np.bool_]


def _timeline(table: pd.DataFrame, step: float) -> _Timeline:
    face_id = table["face_id"].to_numpy(np.int64)
    frame = table["frame"].to_numpy(np.int64)
    time_s = table["time_s"].to_numpy(np.float64)
    same_face = np.diff(face_id) == 0
    follows = same_face & (np.diff(frame) == 1)
    if len(frame) == 0:
        nothing = np.empty(0, bool)
        return _Timeline(face_id, frame, time_s, time_s, nothing, nothing)
    before, after = np.append(False, follows), np.append(follows, False)
    next_s = np.append(np.where(same_face, time_s[1:], np.inf), np.inf)
    end_s = np.where(after, next_s, np.minimum(time_s + step, next_s))
    return _Timeline(face_id, frame, time_s, end_s, before, after)


def _runs(
    active: npt.NDArray[np.bool_], timeline: _Timeline, min_frames: int, join_frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first and the last row of each run of active frames."""
    frame, face_id = timeline.frame, timeline.face_id
    first = np.flatnonzero(active & ~(np.roll(active, 1) & timeline.before))
    last = np.flatnonzero(active & ~(np.roll(active, -1) & timeline.after))
    if len(first) == 0:
        return first, last
    gap = frame[first[1:]] - frame[last[:-1]] - 1
    apart = (gap > join_frames) | (face_id[first[1:]] != face_id[last[:-1]])
    first, last = first[np.append(True, apart)], last[np.append(apart, True)]
    long = frame[last] - frame[first] + 1 >= min_frames
    return first[long], last[long]


def _describe(
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    timeline: _Timeline,
) -> dict[str, npt.NDArray[Any]]:
    """The columns of the events of one AU, without `au`."""
    spans = zip(first.tolist(), last.tolist(), strict=True)
    known = np.where(np.isnan(scores), -np.inf, scores)  # in the frames between joined events
    peaks = [start + int(known[start : end + 1].argmax()) for start, end in spans]
    peak = np.array(peaks, np.int64)
    return {
        "face_id": timeline.face_id[first],
        "onset_frame": timeline.frame[first],
        "offset_frame": timeline.frame[last],
        "onset_s": timeline.time_s[first],
        "offset_s": timeline.end_s[last],
        "peak": scores[peak],
        "peak_frame": timeline.frame[peak],
        "onset_seen": timeline.before[first],
        "offset_seen": timeline.after[last],
    }


def scored_rows(result: AURows) -> pd.DataFrame:
    """The rows of `AUResult.to_dataframe` that have a face and scores, by face and frame."""
    table = result.to_dataframe()
    scored = table[table["face_id"].notna() & (table["success"] == 1)]
    rows: pd.DataFrame = scored.sort_values(["face_id", "frame"], kind="stable")
    # An AU without scores is never active.
    unknown = [f"{au}_c" for au in result.aus if rows[au].isna().any()]
    flagged: pd.DataFrame = rows.assign(**{name: rows[name].fillna(0) for name in unknown})
    return flagged


def frame_lengths(table: pd.DataFrame, step_s: float) -> npt.NDArray[np.float64]:
    """For how long each row is shown, in seconds, (R,): to the next frame of its face.

    Args:
        table: The rows of `scored_rows`.
        step_s: Seconds per frame, for rows without times and before a frame without the face.
    """
    timeline = _timeline(table, step_s)
    lengths = timeline.end_s - timeline.time_s
    return np.where(np.isfinite(lengths), lengths, step_s)


def frame_interval(table: pd.DataFrame, fps: Any) -> float:
    """Seconds from one frame to the next.

    This is the median of the differences between times; without times 1 / fps; otherwise NaN.
    """
    times = table.dropna(subset=["time_s"]).drop_duplicates("frame").sort_values("frame")
    if len(times) > 1:
        return float(np.median(np.diff(times["time_s"]) / np.diff(times["frame"])))
    return 1.0 / fps if isinstance(fps, int | float) and fps > 0 else float("nan")
