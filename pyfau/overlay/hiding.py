"""Faces that are made unrecognisable in overlays."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from pyfau.overlay.drawing import LastFaces, check_image
from pyfau.types import AURow, UInt8Array

_MARGIN = 0.35  # added on each side, in widths and heights of the face box: hair, ears and chin
_CELLS = 6  # of the mosaic, along the longer side: too few to recognise a person
_HOLD = 90  # frames for which the last place of a missing face stays covered
_GROWTH = 0.02  # of the box and per frame that a face is missing, because it may have moved


def hide_faces(rgb: UInt8Array, boxes: Iterable[npt.NDArray[np.float32]]) -> UInt8Array:
    """Cover faces with a blurred mosaic.

    The mosaic has at most 6 x 6 colours for a face and its surroundings. They are means of the
    image, so the face cannot be computed back. Body, clothes, voice and place can still show who a
    person is.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        boxes: (4,) left, top, right, bottom of each face, in pixels. Boxes with NaN are skipped.

    Returns:
        (H, W, 3) uint8, RGB, a new image.

    Raises:
        InputError: `rgb` is not such an image.
    """
    image: UInt8Array = check_image(rgb).copy()
    for box in boxes:
        if not np.isfinite(box).all():
            continue
        area = _area(box, image.shape)
        if area is not None:
            left, top, right, bottom = area
            image[top:bottom, left:right] = _mosaic(rgb[top:bottom, left:right])
    return image


class FaceHider:
    """Covers the faces of a video frame by frame, also where a face is missing for some frames.

    A face that is missing stays covered at its last place for 90 frames; the covered area grows,
    because the face may have moved. A face that was never found is not covered.
    """

    def __init__(self) -> None:
        self._last = LastFaces(_HOLD)

    def hide(self, rgb: UInt8Array, rows: Iterable[AURow]) -> UInt8Array:
        """Cover the faces of the next frame.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: All rows of the frame.
        """
        rows = list(rows)
        frame = max((row.frame for row in rows), default=0)
        missing = self._last.missing(rows, check_image(rgb).shape)
        boxes = [row.box_xyxy for row in rows]
        boxes += [_grown(row.box_xyxy, _GROWTH * max(0, frame - row.frame)) for row in missing]
        return hide_faces(rgb, boxes)


def _grown(box: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.float32]:
    """The box with a margin on each side, as a share of its width and height."""
    width, height = box[2] - box[0], box[3] - box[1]
    margin = np.array([-width, -height, width, height], np.float32) * share
    grown: npt.NDArray[np.float32] = box + margin
    return grown


def _area(box: npt.NDArray[np.float32], shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """The pixels to cover; None outside the image."""
    height, width = shape[:2]
    grown = _grown(box, _MARGIN)
    limits = np.array([width, height, width, height])
    left, top, right, bottom = np.clip(np.rint(grown), 0, limits).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    return left, top, right, bottom


def _mosaic(part: UInt8Array) -> UInt8Array:
    """A few mean colours, blurred into each other, at the size of the part."""
    height, width = part.shape[:2]
    scale = _CELLS / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    few = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
