"""Boxes like those of face detectors that pyfau does not have, estimated from five landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.types import Face, FloatArray

if TYPE_CHECKING:
    from pyfau.faces.aligner import Aligner

_Array = npt.NDArray[np.float64]
_LEAST_SIZE = 1e-3  # pixels: landmarks that are closer together coincide
# For each detector (11, 4): weights of left, top, right and bottom. The rows belong to the values
# of `normalise`. `training/retinaface_box.py` fits them and measures the errors.
FITTED_BOXES = {
    "retinaface": (
        (1.1231, 0.4725, -0.3103, -0.3508),
        (-0.4617, 0.3194, 0.0347, -0.5502),
        (-0.2493, -0.9521, 0.7361, 0.0975),
        (-0.0264, 0.3978, 0.3011, 0.2002),
        (-1.1215, 0.0332, -0.8923, 0.0864),
        (0.1018, -0.2349, 0.0812, -0.479),
        (-0.0448, 0.1008, 0.2796, -0.36),
        (0.3957, -0.6362, -0.4213, 0.4735),
        (0.2925, 0.3456, 0.1869, 0.527),
        (-0.0095, 0.1539, 0.0043, 0.3554),
        (-0.7058, -0.2332, 0.6707, -0.0109),
    ),
}


def box_of(face: Face, detector: str) -> FloatArray:
    """The box of a face as a detector would draw it.

    Args:
        face: The face.
        detector: A name in `FITTED_BOXES`, or "" for the face's own box.

    Returns:
        (4,) float32, left, top, right, bottom in pixels.

    Raises:
        InputError: The landmarks are not finite, or they coincide.
    """
    if not detector:
        return face.box_xyxy
    inputs, centre, size = normalise(face.landmarks)
    edges = inputs @ np.array(FITTED_BOXES[detector])
    box: FloatArray = (edges * size + np.tile(centre, 2)).astype(np.float32)
    return box


def normalise(landmarks: FloatArray) -> tuple[_Array, _Array, float]:
    """Five landmarks without the place and the size of the face.

    Args:
        landmarks: (5, 2) pixels.

    Returns:
        (11,) x and y of the landmarks in the frame of the face, and 1; the centre (2,) of that
        frame in pixels; and its unit in pixels.

    Raises:
        InputError: The landmarks are not finite, or they coincide.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    centre = points.mean(0)
    offsets = points - centre
    size = float(np.sqrt((offsets**2).sum()))
    if not np.isfinite(size) or size < _LEAST_SIZE:
        raise InputError(f"expected finite landmarks that do not coincide, got {points.tolist()}")
    return np.append(offsets.ravel() / size, 1.0), centre, size


def detector_to_fit(detector: str, aligner: Aligner) -> str:
    """The detector whose boxes must be estimated, or "" if the aligner's own boxes are used."""
    if detector not in FITTED_BOXES or detector in getattr(aligner, "boxes_like", ()):
        return ""
    return detector
