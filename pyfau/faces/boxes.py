"""Boxes: (4,) XYXY arrays in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyfau.types import FloatArray

Box = FloatArray | npt.NDArray[np.float64]


def centre(box: Box) -> npt.NDArray[np.float64]:
    """(2,) x and y of the middle."""
    return (box[:2].astype(np.float64) + box[2:]) / 2


def longer_side(box: Box) -> float:
    """The larger of width and height; never 0."""
    return max(1e-6, float(np.max(box[2:] - box[:2])))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]."""
    shared = _shared_area(a, b)
    return shared / max(1e-9, _area(a) + _area(b) - shared)


def overlap_of_smaller(a: Box, b: Box) -> float:
    """Share of the smaller box that the other covers, in [0, 1]."""
    return _shared_area(a, b) / max(1e-9, min(_area(a), _area(b)))


def _area(box: Box) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0), dtype=np.float64))


def _shared_area(a: Box, b: Box) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    return float(np.prod(np.maximum(high - low, 0), dtype=np.float64))
