"""Finds the frames of a recording in which a face is at rest; see docs/baseline.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.checks import is_number
from pyfau.tables.rows import AURows
from pyfau.types import MEASURES

# The sum of the scores of a frame is the expected number of AUs. A face at rest shows at most one.
MOST_AUS = 1.0
GOOD_QUALITY = 0.75  # least quality: the face is near-frontal, sharp, large and not covered
STRETCH_S = 0.2  # least duration of a calm stretch; shorter ones are parts of a movement
LEAST_S = 1.0  # least total duration of the calm frames of a recording
CALMEST = 0.5  # share of the calm frames that count; in the others, movements begin and end
_USUAL_FPS = 25.0  # frame rate of images for which none is known
Indices = npt.NDArray[np.int64]


def resting_rows(result: AURows, rows: Indices) -> Indices:
    """Find the rows in which a face is at rest.

    Args:
        result: The rows of a recording.
        rows: The scored rows of one face, in the order of the frames.

    Returns:
        The rows at rest; none if the recording does not show the face at rest for long enough.
    """
    activity = np.nansum(result.raw_scores[rows].astype(np.float64), axis=1)
    calm = activity <= MOST_AUS
    if result.measures is not None:
        calm &= result.measures[rows, MEASURES.index("quality")] >= GOOD_QUALITY
    rate = _frame_rate(result)
    calm &= _in_stretch(calm, result.frames[rows], math.ceil(STRETCH_S * rate))
    if calm.sum() < LEAST_S * rate:
        return rows[:0]
    calmest = activity <= np.quantile(activity[calm], CALMEST)
    at_rest: Indices = rows[calm & calmest]
    return at_rest


def _frame_rate(result: AURows) -> float:
    fps: Any = result.metadata.get("fps")
    known = is_number(fps) and 0 < fps < math.inf
    return float(fps) if known else _USUAL_FPS


def _in_stretch(calm: npt.NDArray[np.bool_], frames: Indices, least: int) -> npt.NDArray[np.bool_]:
    """For each row, whether it is in a run of at least `least` consecutive calm frames."""
    breaks = (np.diff(frames) != 1) | (np.diff(calm) != 0)
    run = np.cumsum(np.r_[0, breaks])
    long_enough: npt.NDArray[np.bool_] = (np.bincount(run) >= least)[run]
    return long_enough
