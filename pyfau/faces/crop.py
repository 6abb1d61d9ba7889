"""Aligned face crops: the similarity transform from five landmarks to a model's template."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.faces.halves import Image, halves_of
from pyfau.types import FloatArray, UInt8Array

# Pixels around a crop that are read as well, in pixels of the halved image.
_MARGIN = 3
# A crop whose pixels are larger than those of the image by less than this is not smoothed.
_LEAST_STEP = 1.001
# Smoothing with 5 pixels: its variance in square pixels for each sigma.
_SIGMAS = np.linspace(0.3, 1.2, 181)
_WEIGHTS = np.exp(-(np.arange(-2, 3) ** 2) / (2 * _SIGMAS[:, None] ** 2))
_VARIANCES = (_WEIGHTS @ np.arange(-2, 3) ** 2) / _WEIGHTS.sum(axis=1)


def fit_similarity(points: npt.ArrayLike, targets: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Least-squares similarity (rotation, uniform scale, shift) that takes `points` to `targets`.

    With the points as complex numbers z and the targets as w, this is the linear fit w ~ a z + b.

    Args:
        points: (K, 2) x and y.
        targets: (K, 2) x and y.

    Returns:
        (2, 3) float64 matrix M with `targets ~ M[:, :2] @ point + M[:, 2]`.

    Raises:
        InputError: The points are not finite, or they coincide, so that they have no scale.
    """
    source = np.asarray(points, dtype=np.float64)
    target = np.asarray(targets, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise InputError(
            f"expected two (K, 2) arrays of points, got {source.shape} and {target.shape}"
        )
    # Few calls on small arrays: each of them takes longer than its arithmetic.
    z_mean, w_mean = source.sum(axis=0) / len(source), target.sum(axis=0) / len(target)
    z, w = source - z_mean, target - w_mean
    spread = float(np.vdot(z, z))
    if not math.isfinite(spread) or spread < 1e-9:
        raise InputError(f"expected finite landmarks that do not coincide, got {source.tolist()}")
    (xx, xy), (yx, yy) = (z.T @ w).tolist()
    real, imaginary = (xx + yy) / spread, (xy - yx) / spread
    least = 1e-9 * math.sqrt(float(np.vdot(w, w)) / spread)
    if not math.hypot(real, imaginary) > least:
        raise InputError(f"expected landmarks that resemble their targets, got {source.tolist()}")
    (x, y), (to_x, to_y) = z_mean.tolist(), w_mean.tolist()
    return np.array(
        [
            [real, -imaginary, to_x - real * x + imaginary * y],
            [imaginary, real, to_y - imaginary * x - real * y],
        ]
    )


def cut(rgb: Image, matrix: npt.NDArray[np.float64], size: int) -> UInt8Array:
    """Sample a square crop through a similarity, with anti-aliasing and replicated edges.

    Coordinates are continuous: the centre of the first pixel is at (0.5, 0.5), so that a template
    given in fractions of the crop means the same at every crop size.

    Args:
        rgb: (H, W, 3) uint8, RGB; `Planes`; or its `Halves`, which several crops can share.
        matrix: (2, 3) image to crop.
        size: Side of the crop in pixels.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    halves = halves_of(rgb)
    to_image = cv2.invertAffineTransform(matrix)
    (xx, xy, x), (yx, yy, y) = to_image.tolist()
    step = math.hypot(xx, yx)  # from one pixel of the crop to the next
    times = max(0, int(math.log2(step)))
    # The crop shows this part of the image. The margin is for smoothing and interpolation.
    reach = size / 2
    margin = _MARGIN << times
    x0, x1 = _span((xx + xy) * reach + x, (abs(xx) + abs(xy)) * reach + margin, halves.size(0)[0])
    y0, y1 = _span((yx + yy) * reach + y, (abs(yx) + abs(yy)) * reach + margin, halves.size(0)[1])
    if min(x1 - x0, y1 - y0) < 1 << times:  # a small image, or a face that lies outside
        times = 0
    unit = 1 << times
    width, height = halves.size(times)
    x0, x1 = x0 // unit, min(-(-x1 // unit), width)
    y0, y1 = y0 // unit, min(-(-y1 // unit), height)
    part = halves.part(times, x0, y0, x1, y1)
    if step > _LEAST_STEP:
        part = _smooth(part, step / unit)
    # OpenCV counts from pixel centres: shift both sides by half a pixel.
    to_part = to_image / unit
    to_part[0, 2] += (xx + xy) / (2 * unit) - 0.5 - x0
    to_part[1, 2] += (yx + yy) / (2 * unit) - 0.5 - y0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(part, to_part, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def _smooth(part: UInt8Array, step: float) -> UInt8Array:
    """Smooth a part of an image, so that bilinear sampling every `step` pixels skips no pixel.

    The crop is then about as smooth as if the part were first resized with exact area averages,
    which takes several times as long.
    """
    # The averages have the variance (step^2 + 1) / 12. Interpolation between them adds step^2 / 6
    # instead of 1 / 6.
    sigma = float(np.interp((3 * step**2 - 1) / 12, _VARIANCES, _SIGMAS))
    smooth = cv2.GaussianBlur(part, (5, 5), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, np.uint8)


def _span(centre: float, reach: float, side: int) -> tuple[int, int]:
    """The range of pixels within `reach` of `centre`; at least one pixel of 0..side."""
    low = min(max(math.floor(centre - reach), 0), side - 1)
    return low, min(max(math.ceil(centre + reach), low + 1), side)


def warp(
    rgb: UInt8Array, matrices: npt.NDArray[np.float64], size: int, *, spare: int = 4
) -> UInt8Array:
    """Sample square crops through similarities, as `cut`, but closer to exact area averages.

    It takes several times as long. The landmarks of MTCNN and of other aligners depend on it.

    Args:
        rgb: (H, W, 3) uint8.
        matrices: (V, 2, 3) image to crop: views of one place, of about the same scale.
        size: Side of the crops in pixels.
        spare: An image that must shrink is first halved as often as its pixels stay at least this
            many times smaller than the pixels of the crop. 1 is the fastest; larger values are
            closer to exact area averages.

    Returns:
        (V, size, size, 3) uint8.
    """
    height, width = rgb.shape[:2]
    scale = float(np.hypot(matrices[:, 0, 0], matrices[:, 1, 0]).max())
    to_image = np.stack([cv2.invertAffineTransform(matrix) for matrix in matrices])
    corners = to_image @ np.array(
        [[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], dtype=np.float64
    )
    # Only the part of the image that the crops show is read. At least one pixel stays, because its
    # edges are replicated into a crop that lies outside the image.
    margin = 2.0 + 1.0 / scale
    low = np.floor(corners.min(axis=(0, 2)) - margin)
    high = np.ceil(corners.max(axis=(0, 2)) + margin)
    x0, y0 = (int(np.clip(v, 0, side - 1)) for v, side in zip(low, (width, height), strict=True))
    x1, y1 = (
        int(np.clip(v, first + 1, side))
        for v, first, side in zip(high, (x0, y0), (width, height), strict=True)
    )
    ratio = np.ones(2)
    if scale < 1.0:
        # Area averaging brings the part to about the crops' resolution; the bilinear step that
        # follows skips no pixel. Halving is ten times faster than other ratios, so it goes first.
        halvings = max(0, int(-math.log2(scale * spare)))
        x0, x1 = _widened(x0, x1, width, 1 << halvings)
        y0, y1 = _widened(y0, y1, height, 1 << halvings)
        part: npt.NDArray[Any] = rgb[y0:y1, x0:x1]
        for _ in range(halvings if min(x1 - x0, y1 - y0) >= 1 << halvings else 0):
            part = cv2.resize(
                part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA
            )
        small = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        ratio = np.array([small[0] / (x1 - x0), small[1] / (y1 - y0)])
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    else:
        part = rgb[y0:y1, x0:x1]
    to_image[:, :, 2] -= (x0, y0)
    to_part = to_image * ratio[:, None]
    # OpenCV counts from pixel centres: shift both sides by half a pixel.
    to_part[:, :, 2] += to_part[:, :, :2].sum(axis=2) / 2 - 0.5
    crops = np.empty((len(matrices), size, size, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for crop, matrix in zip(crops, to_part, strict=True):
        cv2.warpAffine(
            part, matrix, (size, size), dst=crop, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return crops


def _widened(low: int, high: int, side: int, step: int) -> tuple[int, int]:
    """The range, widened inside 0..side to a length that is a multiple of `step`.

    A range that is shorter than a step stays as it is.
    """
    length = high - low
    if length < step:
        return low, high
    length = min(-(-length // step), side // step) * step
    low = max(0, min(low, side - length))
    return low, low + length


def square_view(
    corners: npt.NDArray[np.float64], sides: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float64]:
    """Matrices for `warp` that show upright squares of the image.

    Args:
        corners: (..., 2) top left corners, pixels.
        sides: (...) sides, pixels.
        size: Side of the crop in pixels.

    Returns:
        (..., 2, 3) image to crop.
    """
    scales = size / sides
    matrices = np.zeros((*sides.shape, 2, 3))
    matrices[..., 0, 0] = matrices[..., 1, 1] = scales
    matrices[..., 2] = -scales[..., None] * corners
    return matrices


def crop_face(rgb: Image, landmarks: FloatArray, template: npt.ArrayLike, size: int) -> UInt8Array:
    """Cut out an aligned face.

    Args:
        rgb: (H, W, 3) uint8, RGB, or its `Halves`.
        landmarks: (5, 2) pixels, in the order of `pyfau.types.Face`.
        template: (5, 2) target positions of the landmarks, in fractions of the crop.
        size: Side of the crop in pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The landmarks are not finite or coincide.
    """
    target = np.asarray(template, dtype=np.float64) * size
    # Landmarks are pixel coordinates with the first pixel's centre at 0.
    matrix = fit_similarity(np.asarray(landmarks, dtype=np.float64) + 0.5, target)
    return cut(rgb, matrix, size)
