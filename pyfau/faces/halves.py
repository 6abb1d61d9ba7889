"""An image with halved copies of its parts, which all crops of its faces share."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from pyfau.planes import Planes
from pyfau.types import UInt8Array

# A part is halved with a margin of one part in this number, because the next crop of the same face
# shows a little more on one side.
_SHARE = 16


class Part(NamedTuple):
    """A part of an image that was halved one or more times.

    Attributes:
        pixels: (h, w, 3) or (h, w) uint8.
        x: Column of the first pixel in the halved image.
        y: Row of the first pixel in the halved image.
    """

    pixels: UInt8Array
    x: int
    y: int

    def inner(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array | None:
        """The pixels of a rectangle of the halved image; None if the part does not contain it."""
        height, width = self.pixels.shape[:2]
        left, top = x0 - self.x, y0 - self.y
        right, bottom = x1 - self.x, y1 - self.y
        if left < 0 or top < 0 or right > width or bottom > height:
            return None
        return self.pixels[top:bottom, left:right]


class Pyramid:
    """Pixels and halved copies of the parts that were needed so far.

    Halving begins at the first pixel of the image. The pixels of the halved image therefore stay in
    place when a face moves.

    Args:
        pixels: (H, W, 3) or (H, W) uint8. They must not change afterwards.
    """

    def __init__(self, pixels: UInt8Array) -> None:
        self._pixels = pixels
        self._parts: dict[int, list[Part]] = {}

    def size(self, times: int) -> tuple[int, int]:
        """Width and height after some halvings, rounded up."""
        height, width = self._pixels.shape[:2]
        unit = 1 << times
        return -(-width // unit), -(-height // unit)

    def part(self, times: int, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """A part of the halved pixels; see `Halves.part`."""
        if not times:
            return self._pixels[y0:y1, x0:x1]
        parts = self._parts.setdefault(times, [])
        known = _find(parts, x0, y0, x1, y1)
        if known is not None:
            return known
        # Only the first step takes long, so only its result has a margin.
        margin = max(x1 - x0, y1 - y0) // _SHARE if times == 1 else 0
        width, height = self.size(times)
        left, top = max(0, x0 - margin), max(0, y0 - margin)
        right, bottom = min(width, x1 + margin), min(height, y1 + margin)
        finer = self._twice(times - 1, 2 * left, 2 * top, 2 * right, 2 * bottom)
        size = (right - left, bottom - top)
        halved = np.asarray(cv2.resize(finer, size, interpolation=cv2.INTER_AREA), np.uint8)
        parts.append(Part(halved, left, top))
        return halved[y0 - top : y1 - top, x0 - left : x1 - left]

    def _twice(self, times: int, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """As `part`; the last column or row of an odd image is repeated."""
        width, height = self.size(times)
        finer = self.part(times, x0, y0, min(x1, width), min(y1, height))
        right, bottom = max(0, x1 - width), max(0, y1 - height)
        if not (right or bottom):
            return finer
        border = cv2.copyMakeBorder(finer, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return np.asarray(border, np.uint8)


class Halves:
    """An image and halved copies of the parts that were needed so far.

    To halve a large face takes longer than to cut its crop out of the halved image. The crops of a
    face overlap, so each place is halved only once.

    An image in `Planes` is halved in its own colours. Only the parts that a crop needs become RGB.

    Args:
        image: (H, W, 3) uint8, RGB, or `Planes`. It must not change afterwards.
    """

    def __init__(self, image: UInt8Array | Planes) -> None:
        self._planes: Planes | None = None
        self._rgb: UInt8Array | None = None
        if isinstance(image, Planes):
            self._planes = image
            self._pyramids = [Pyramid(plane) for plane in (image.luma, image.blue, image.red)]
        else:
            self._rgb = image
            self._pyramids = [Pyramid(image)]
        self._converted: dict[int, list[Part]] = {}

    @property
    def rgb(self) -> UInt8Array:
        """(H, W, 3) uint8, RGB: the whole image. `Planes` are converted once."""
        if self._rgb is None:
            assert self._planes is not None
            self._rgb = self._planes.convert()
        return self._rgb

    def grey(self, size: tuple[int, int]) -> UInt8Array:
        """A small grey copy (h, w) of the image.

        Args:
            size: Its width and height in pixels.
        """
        if self._planes is not None:
            luma = cv2.resize(self._planes.luma, size, interpolation=cv2.INTER_AREA)
            return np.asarray(luma, np.uint8)
        small = cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)

    def size(self, times: int) -> tuple[int, int]:
        """Width and height of the image after it was halved some times, rounded up."""
        return self._pyramids[0].size(times)

    def part(self, times: int, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """A part of the halved image.

        Args:
            times: How many times the image is halved, from 0.
            x0: First column, in pixels of the halved image.
            y0: First row.
            x1: Column after the last one, inside the halved image.
            y1: Row after the last one.

        Returns:
            (y1 - y0, x1 - x0, 3) uint8, RGB.
        """
        if self._planes is None:
            return self._pyramids[0].part(times, x0, y0, x1, y1)
        parts = self._converted.setdefault(times, [])
        known = _find(parts, x0, y0, x1, y1)
        if known is not None:
            return known
        luma, *colours = self._pyramids
        if times:
            blue, red = (plane.part(times - 1, x0, y0, x1, y1) for plane in colours)
        else:
            blue, red = (_doubled(plane, x0, y0, x1, y1) for plane in colours)
        merged = cv2.merge([luma.part(times, x0, y0, x1, y1), blue, red])
        rgb = np.asarray(cv2.transform(merged, self._planes.to_rgb), np.uint8)
        parts.append(Part(rgb, x0, y0))
        return rgb


def _find(parts: list[Part], x0: int, y0: int, x1: int, y1: int) -> UInt8Array | None:
    """The pixels of a rectangle if one of the parts contains it."""
    inner = (part.inner(x0, y0, x1, y1) for part in parts)
    return next((pixels for pixels in inner if pixels is not None), None)


def _doubled(plane: Pyramid, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
    """A part (y1 - y0, x1 - x0) of a plane with twice its width and height.

    Each pixel becomes four, as in FFmpeg's conversion to RGB.
    """
    part = plane.part(0, x0 // 2, y0 // 2, (x1 + 1) // 2, (y1 + 1) // 2)
    doubled = cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    # If the first column or row is odd, the part begins one pixel before it.
    left, top = x0 % 2, y0 % 2
    inner = doubled[top : top + y1 - y0, left : left + x1 - x0]
    return np.asarray(inner, np.uint8)


Image = UInt8Array | Planes | Halves


def halves_of(image: Image) -> Halves:
    """The image with its halved copies; an array or `Planes` have none so far."""
    return image if isinstance(image, Halves) else Halves(image)
