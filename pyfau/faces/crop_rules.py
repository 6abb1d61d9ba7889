"""Face crops as the authors of each network cut them out."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.faces.crop import crop_face, cut
from pyfau.faces.fitted_boxes import box_of
from pyfau.faces.halves import Image, halves_of
from pyfau.types import Face, FloatArray, UInt8Array


class CropRule(Protocol):
    """The attributes of `pyfau.models.protocol.Crop` that a crop needs."""

    @property
    def kind(self) -> str:
        """One of "template", "ffhq" and "box"."""

    @property
    def template(self) -> tuple[tuple[float, float], ...]:
        """(5, 2) landmarks in fractions of the crop, for "template"."""

    @property
    def margin(self) -> float:
        """Fraction of the box that is added on each side, for "box"."""

    @property
    def keep(self) -> float:
        """The middle part that is kept, as a fraction of the side."""

    @property
    def square(self) -> bool:
        """Whether the box grows to a square first, for "box"."""

    @property
    def outside(self) -> str:
        """How pixels outside the image are filled, for "box": "black" or "mirror"."""


def cut_face(rgb: Image, face: Face, rule: CropRule, size: int, fit_box: str = "") -> UInt8Array:
    """Cut out a face.

    Args:
        rgb: (H, W, 3) uint8, RGB, or its `Halves`.
        face: The face in this image.
        rule: How to cut it out.
        size: Side of the crop in pixels.
        fit_box: For "box", the detector whose box is estimated from the landmarks, as
            `pyfau.faces.fitted_boxes.detector_to_fit` returns it; "" for the face's own box.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The landmarks or the box are not finite, or coincide.
    """
    if rule.kind == "template":
        return crop_face(rgb, face.landmarks, rule.template, size)
    if rule.kind == "ffhq":
        return crop_ffhq(rgb, face.landmarks, size, rule.keep)
    return crop_box(
        halves_of(rgb).rgb,
        box_of(face, fit_box),
        size,
        rule.margin,
        rule.keep,
        square=rule.square,
        outside=rule.outside,
    )


def crop_ffhq(rgb: Image, landmarks: FloatArray, size: int, keep: float = 1.0) -> UInt8Array:
    """Cut out a face as in the FFHQ data set: a similarity from eyes and mouth.

    FFHQ takes means of many points of the lids and the lips. Here each eye is one landmark, and the
    mouth is the mean of its corners.

    Args:
        rgb: (H, W, 3) uint8, RGB, or its `Halves`.
        landmarks: (5, 2) pixels, in the order of `pyfau.types.Face`.
        size: Side of the crop in pixels.
        keep: The middle part that is kept, as a fraction of the side.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The landmarks are not finite or coincide.
    """
    centre, half_side = ffhq_square(np.asarray(landmarks, dtype=np.float64) + 0.5)
    length = math.hypot(*half_side)
    if not math.isfinite(length) or length < 1e-3:
        raise InputError(
            f"expected finite landmarks that do not coincide, got {landmarks.tolist()}"
        )
    across = half_side / length
    rotation = np.array([[across[0], across[1]], [-across[1], across[0]]])
    linear = rotation * (size / (2 * length * keep))
    shift = size / 2 - linear @ centre
    matrix = np.concatenate([linear, shift[:, None]], axis=1)
    return cut(rgb, matrix, size)


def ffhq_square(
    points: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The square of FFHQ: its centre (2,), and the way from there to its right edge (2,)."""
    left_eye, right_eye = points[0], points[1]
    eyes, mouth = (left_eye + right_eye) / 2, (points[3] + points[4]) / 2
    between, down = right_eye - left_eye, mouth - eyes
    direction = between + np.array([down[1], -down[0]])
    length = math.hypot(*direction)
    if length > 0:
        direction = direction / length
    # The numbers of the script that made FFHQ: NVlabs/ffhq-dataset, download_ffhq.py.
    half = max(2.0 * math.hypot(*between), 1.8 * math.hypot(*down))
    return eyes + 0.1 * down, direction * half


def crop_box(
    rgb: UInt8Array,
    box_xyxy: FloatArray,
    size: int,
    margin: float = 0.0,
    keep: float = 1.0,
    *,
    square: bool = False,
    outside: str = "black",
) -> UInt8Array:
    """Cut out a box and stretch it to a square.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        box_xyxy: (4,) pixels.
        size: Side of the crop in pixels.
        margin: Fraction of width and height that is added on each side.
        keep: The middle part of the enlarged box that is kept, as a fraction of its sides.
        square: The box grows to a square by its longer side first, so that nothing is stretched.
        outside: Pixels outside the image: "black", or "mirror" for its mirror image, as far as it
            reaches.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The box is not finite, or it is empty.
    """
    box = np.asarray(box_xyxy, dtype=np.float64)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    if not np.isfinite(box).all() or min(half) <= 0 or max(half) > 1e6:
        raise InputError(f"expected a finite box with an area, got {box.tolist()}")
    if square:
        half = np.full(2, max(half))
    half = half * (1 + 2 * margin) * keep
    low = np.round(centre - half).astype(int)
    high = np.maximum(np.round(centre + half).astype(int), low + 1)
    inside_low = np.clip(low, 0, (rgb.shape[1], rgb.shape[0]))
    inside_high = np.clip(high, 0, (rgb.shape[1], rgb.shape[0]))
    part = np.zeros((high[1] - low[1], high[0] - low[0], 3), np.uint8)
    (x0, y0), (x1, y1) = inside_low - low, inside_high - low
    inside = rgb[inside_low[1] : inside_high[1], inside_low[0] : inside_high[0]]
    part[y0:y1, x0:x1] = inside
    if outside == "mirror" and inside.size:
        edges = (y0, part.shape[0] - y1, x0, part.shape[1] - x1)
        part = np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_REFLECT), np.uint8)
    shrinks = min(part.shape[:2]) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (size, size), interpolation=method), np.uint8)
