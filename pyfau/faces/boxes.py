"""Boxes: (4,) XYXY arrays in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyfau.types import FloatArray

Box = FloatArray | npt.NDArray[np.float64]
_LEAST_AREA = 1e-9


def centre(box: Box) -> npt.NDArray[np.float64]:
    """(2,) x and y of the middle."""
    return (box[:2].astype(np.float64) + box[2:]) / 2


def longer_side(box: Box) -> float:
    """The larger of width and height; never 0."""
    left, top, right, bottom = box.tolist()
    return max(1e-6, float(max(right - left, bottom - top)))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]."""
    area_a, area_b = _area(a), _area(b)
    if not (area_a > _LEAST_AREA and area_b > _LEAST_AREA):  # also for NaN
        return 0.0
    shared = _shared_area(a, b)
    return shared / (area_a + area_b - shared)


def overlap_of_smaller(a: Box, b: Box) -> float:
    """Share of the smaller box that the other covers, in [0, 1]."""
    area_a, area_b = _area(a), _area(b)
    if not (area_a > _LEAST_AREA and area_b > _LEAST_AREA):
        return 0.0
    return _shared_area(a, b) / min(area_a, area_b)


def _area(box: Box) -> float:
    left, top, right, bottom = box.tolist()
    return float(max(right - left, 0.0) * max(bottom - top, 0.0))


def _shared_area(a: Box, b: Box) -> float:
    left, top, right, bottom = a.tolist()
    other_left, other_top, other_right, other_bottom = b.tolist()
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    return float(max(width, 0.0) * max(height, 0.0))
