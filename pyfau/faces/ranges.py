"""The range of faces in which models are validated, and a quality in [0, 1] for each face.

The limits are those of the faces on which `mdhr-lite` was validated; see docs/output.md. No limits
were measured for other models yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_QUALITY = 0.5  # a face with less is outside the range

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limit:
    """The range of one measure.

    The quality falls in a straight line: 1 at `best`, 0.5 at `limit`.

    Attributes:
        measure: Name of the measure, such as "yaw".
        text: What is wrong with a face outside the range.
        best: From here on, the measure does not lower the quality.
        limit: The end of the range.
    """

    measure: str
    text: str
    best: float
    limit: float

    def quality(self, values: Array) -> Array:
        """(F,) values of the measure to (F,) qualities in [0, 1]; NaN stays NaN."""
        outside = (np.abs(values) - self.best) / (self.limit - self.best)
        return np.clip(1 - (1 - LEAST_QUALITY) * outside, 0, 1)


# A head that tilts in the image plane is turned upright before it is scored: roll has no limit.
LIMITS = (
    Limit("pitch", "looks up or down", best=15, limit=25),
    Limit("yaw", "turned to the side", best=20, limit=30),
    Limit("eye_distance", "too small", best=24, limit=12),
    Limit("sharpness", "blurred", best=0.08, limit=0.04),
    Limit("inside", "partly outside the image", best=1, limit=0.8),
    Limit("covered", "covered", best=0.1, limit=0.25),
)


def quality_of(values: dict[str, Array]) -> Array:
    """The quality of F faces: that of the worst measure.

    Args:
        values: (F,) for each measure in `LIMITS`.

    Returns:
        (F,) in [0, 1]; 0 where a measure is NaN.
    """
    worst: Array = np.min([limit.quality(values[limit.measure]) for limit in LIMITS], axis=0)
    return np.nan_to_num(worst)
