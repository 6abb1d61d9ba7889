"""Turning decoded images upright, and giving them square pixels."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

from pyfau.planes import Planes
from pyfau.types import UInt8Array

_Turn = Callable[[UInt8Array], "cv2.typing.MatLike"]
# The turn for the four numbers a, b, c, d of a display matrix: a pixel (x, y), y down, moves to
# (a x + c y, b x + d y).
_TURNS: dict[tuple[int, int, int, int], _Turn | None] = {
    (1, 0, 0, 1): None,
    (0, 1, -1, 0): lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE),
    (-1, 0, 0, -1): lambda rgb: cv2.rotate(rgb, cv2.ROTATE_180),
    (0, -1, 1, 0): lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (-1, 0, 0, 1): lambda rgb: cv2.flip(rgb, 1),
    (1, 0, 0, -1): lambda rgb: cv2.flip(rgb, 0),
    (0, 1, 1, 0): cv2.transpose,
    (0, -1, -1, 0): lambda rgb: cv2.rotate(cv2.transpose(rgb), cv2.ROTATE_180),
}
_UPRIGHT = (1, 0, 0, 1)
# Pixels of real recordings are between 8:9 and 2:1. Beyond these bounds the number is an error.
_MOST_STRETCH = 4


def turn_of(matrix: bytes | None) -> tuple[int, int, int, int]:
    """The nearest of the eight turns and mirrors to a display matrix.

    Args:
        matrix: Nine 32-bit integers as FFmpeg stores them, or None.
    """
    if matrix is None or len(matrix) < 36:
        return _UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    size = math.hypot(a, b, c, d)
    if size == 0:
        return _UPRIGHT

    def likeness(turn: tuple[int, int, int, int]) -> float:
        return float(turn[0] * a + turn[1] * b + turn[2] * c + turn[3] * d) / size

    return max(_TURNS, key=likeness)


def turn_planes(planes: Planes, turn: tuple[int, int, int, int]) -> Planes:
    """Turn an image with square pixels as `make_upright` does.

    Args:
        planes: An image of even width and height.
        turn: From `turn_of`.
    """
    change = _TURNS[turn]
    if change is None:
        return planes
    luma, blue, red = (
        np.asarray(change(plane), np.uint8) for plane in (planes.luma, planes.blue, planes.red)
    )

    def convert() -> UInt8Array:
        return make_upright(planes.convert(), None, turn)

    return Planes(luma, blue, red, planes.to_rgb, convert)


def make_upright(
    rgb: UInt8Array, pixel_aspect: Fraction | None, turn: tuple[int, int, int, int]
) -> UInt8Array:
    """Scale an image to square pixels and turn it.

    Args:
        rgb: (H, W, 3) uint8.
        pixel_aspect: Width of a stored pixel divided by its height; None if unknown.
        turn: From `turn_of`.

    Returns:
        (H', W', 3) uint8, contiguous.
    """
    height, width = rgb.shape[:2]
    square = square_size((width, height), pixel_aspect)
    image: cv2.typing.MatLike = rgb
    if square != (width, height):
        shrinks = square[0] * square[1] < width * height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, square, interpolation=how)
    change = _TURNS[turn]
    if change is not None:
        image = change(np.asarray(image, np.uint8))
    return np.ascontiguousarray(image, np.uint8)


def square_size(size: tuple[int, int], pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels: the height stays, the width changes."""
    if not pixel_aspect or pixel_aspect == 1:
        return size
    if not Fraction(1, _MOST_STRETCH) <= pixel_aspect <= _MOST_STRETCH:
        return size
    return max(1, round(size[0] * pixel_aspect)), size[1]
