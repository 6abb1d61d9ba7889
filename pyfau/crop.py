"""Aligned face crops: the similarity transform from five landmarks to a model's template."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.types import FloatArray, UInt8Array


def fit_similarity(points: npt.ArrayLike, targets: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Least-squares similarity (rotation, uniform scale, shift) that takes `points` to `targets`.

    With the points as complex numbers z and the targets as w, w ~ a z + b is an ordinary linear fit.

    Args:
        points: (K, 2) x and y.
        targets: (K, 2) x and y.

    Returns:
        (2, 3) float64 matrix M with `targets ~ M[:, :2] @ point + M[:, 2]`.

    Raises:
        InputError: The points are not finite or coincide, so that no scale can be told.
    """
    source = np.asarray(points, dtype=np.float64)
    target = np.asarray(targets, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise InputError(f"expected two (K, 2) arrays of points, got {source.shape} and {target.shape}")
    z = source[:, 0] + 1j * source[:, 1]
    w = target[:, 0] + 1j * target[:, 1]
    z_mean, w_mean = z.mean(), w.mean()
    spread = float(np.sum(np.abs(z - z_mean) ** 2))
    if not math.isfinite(spread) or spread < 1e-9:
        raise InputError(f"expected finite landmarks that do not coincide, got {source.tolist()}")
    a = np.sum(np.conj(z - z_mean) * (w - w_mean)) / spread
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp(rgb: UInt8Array, matrix: npt.NDArray[np.float64], size: int) -> UInt8Array:
    """Sample a square picture through a similarity, anti-aliased when it shrinks, edges replicated.

    Coordinates are continuous: the centre of the first pixel is at (0.5, 0.5), so that a template given in
    fractions of the crop means the same at every crop size.

    Args:
        rgb: (H, W, 3) uint8.
        matrix: (2, 3) picture to crop.
        size: Side of the crop in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = rgb.shape[:2]
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    to_picture = cv2.invertAffineTransform(matrix)
    corners = to_picture @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], dtype=np.float64)
    # Only the part that the crop sees is touched, whatever the size of the picture. One pixel is always kept,
    # because its edges are replicated into a crop that lies wholly outside.
    margin = 2.0 + 1.0 / scale
    x0 = int(np.clip(math.floor(corners[0].min() - margin), 0, width - 1))
    y0 = int(np.clip(math.floor(corners[1].min() - margin), 0, height - 1))
    x1 = int(np.clip(math.ceil(corners[0].max() + margin), x0 + 1, width))
    y1 = int(np.clip(math.ceil(corners[1].max() + margin), y0 + 1, height))
    part: npt.NDArray[Any] = rgb[y0:y1, x0:x1]
    offset = np.array([x0, y0], dtype=np.float64)
    ratio = np.ones(2)
    if scale < 1.0:
        # Area averaging brings the part to about the crop's resolution; the bilinear step that follows never
        # skips a pixel then.
        small = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        ratio = np.array([small[0] / (x1 - x0), small[1] / (y1 - y0)])
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    inverse = to_picture.copy()  # crop -> part, in continuous coordinates
    inverse[:, 2] -= offset
    inverse *= ratio[:, None]
    # OpenCV counts from pixel centres: shift both sides by half a pixel.
    inverse[:, 2] += inverse[:, :2] @ np.array([0.5, 0.5]) - 0.5
    crop = cv2.warpAffine(
        part, inverse, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(crop, dtype=np.uint8)


def crop_face(rgb: UInt8Array, landmarks: FloatArray, template: npt.ArrayLike, size: int) -> UInt8Array:
    """Cut out an aligned face.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        landmarks: (5, 2) pixels, in the order of `pyfau.types.Face`.
        template: (5, 2) where the landmarks shall come to lie, in fractions of the crop.
        size: Side of the crop in pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The landmarks are not finite or coincide.
    """
    target = np.asarray(template, dtype=np.float64) * size
    # Landmarks are pixel coordinates with the first pixel's centre at 0.
    return warp(rgb, fit_similarity(np.asarray(landmarks, dtype=np.float64) + 0.5, target), size)
