"""FACS intensity from scores: the expected grade of an action unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyfau.types import FloatArray

# The grades on the FACS scale from 0 to 5: a trace is A, present is B to C, strong is D to E.
GRADES = {"absent": 0.0, "trace": 1.0, "present": 2.5, "strong": 4.5}
_TRACE_STEP = GRADES["trace"] - GRADES["absent"]
_PRESENT_STEP = GRADES["present"] - GRADES["trace"]
_STRONG_STEP = GRADES["strong"] - GRADES["present"]
_SMALLEST = 1e-7  # scores are kept this far from 0 and 1, where log-odds are infinite


# In the metadata of rows whose intensities are outputs of the network, not made of its scores.
FROM_NETWORK = "output of the network in [0, 5]"

# The letters of the FACS manual for intensities from 1 to 5.
LETTERS = "ABCDE"


def grade_letter(intensity: float) -> str:
    """The FACS letter of an intensity on the scale from 0 to 5.

    Each letter is the top of its interval: above 0 to 1 is A, above 1 to 2 is B, above 2 to 3 is C,
    above 3 to 4 is D, and above 4 is E.

    Args:
        intensity: On the FACS scale: A is 1, E is 5.

    Returns:
        "A" to "E"; an empty string for 0 and less, and for NaN.
    """
    if not intensity > 0:
        return ""
    return LETTERS[math.ceil(min(intensity, len(LETTERS))) - 1]


def expected_intensity(
    scores: FloatArray, grade_offsets: Sequence[tuple[float, float]]
) -> FloatArray:
    """The expected FACS intensity for each score.

    The grades are ordered, and one latent value decides between them: the proportional odds
    model of McCullagh, "Regression models for ordinal data", 1980. The log-odds of "a trace or
    more" and of "strong" are those of "present" plus a constant of the action unit.

    Args:
        scores: (..., N) probabilities in [0, 1] that each action unit is present. NaN: no face.
        grade_offsets: For each of the N action units the constants (trace, strong), as in
            `MDHRConfig.grade_offsets`.

    Returns:
        (..., N) float32 in [0, 4.5] on the FACS scale; NaN where the score is NaN.
    """
    offsets = np.asarray(grade_offsets, np.float64)
    clipped = np.clip(np.asarray(scores, np.float64), _SMALLEST, 1 - _SMALLEST)
    log_odds: npt.NDArray[np.float64] = np.log(clipped / (1 - clipped))
    trace = _sigmoid(log_odds + offsets[:, 0])
    strong = _sigmoid(log_odds + offsets[:, 1])
    intensity = _TRACE_STEP * trace + _PRESENT_STEP * clipped + _STRONG_STEP * strong
    result: FloatArray = intensity.astype(np.float32)
    return result


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    odds: npt.NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return odds
