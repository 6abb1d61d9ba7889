"""Faces that are made unrecognisable in overlays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pyfau.faces.boxes import overlap_of_smaller
from pyfau.overlay.drawing import LastFaces, check_image
from pyfau.types import AURow, UInt8Array

_MARGIN = 0.35  # added on each side, in widths and heights of the face box: hair, ears and chin
_CELLS = 6  # of the mosaic, along the longer side: too few to recognise a person
_HOLD = 90  # frames for which the last place of a missing face stays covered
_GROWTH = 0.02  # of the box and per frame that a face is missing, because it may have moved
_SEARCH_EVERY = 5  # frames between searches for faces that have no rows
_LOOK_BACK = 15  # frames before a face was found in which its place is covered
_BACKWARD_GROWTH = 0.05  # larger, because a face that enters the image moves
_MOST_HELD_BYTES = 256 << 20  # of the images that wait for `_LOOK_BACK`
_SAME_PLACE = 0.3  # boxes with a larger overlap, as a share of the smaller one, show one face

Box = npt.NDArray[np.float32]
FindFaces = Callable[[UInt8Array], Sequence[Box]]


def hide_faces(rgb: UInt8Array, boxes: Iterable[Box]) -> UInt8Array:
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
    """Where to cover the faces of a video, also if a face is missing for some frames.

    A face that is missing stays covered at its last place for 90 frames; the covered area grows,
    because the face may have moved. A face that was never found is not covered.
    """

    def __init__(self) -> None:
        self._last = LastFaces(_HOLD)

    def boxes(self, rgb: UInt8Array, rows: Iterable[AURow]) -> list[Box]:
        """The boxes to cover in the next frame, (4,) float32 each.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: All rows of the frame.
        """
        rows = list(rows)
        frame = max((row.frame for row in rows), default=0)
        missing = self._last.missing(rows, check_image(rgb).shape)
        boxes = [row.box_xyxy for row in rows if row.success]
        boxes += [_grown(row.box_xyxy, _GROWTH * max(0, frame - row.frame)) for row in missing]
        return boxes


@dataclass(slots=True)
class HeldFrame:
    """A frame that waits until the next frames were searched for faces.

    Attributes:
        rgb: (H, W, 3) uint8, RGB.
        rows: All rows of the frame.
        time_s: When it is shown, in seconds.
        boxes: Where it shows faces, (4,) float32 each.
    """

    rgb: UInt8Array
    rows: Sequence[AURow]
    time_s: float
    boxes: list[Box] = field(default_factory=list)

    def hidden(self) -> UInt8Array:
        """The image with its faces covered, (H, W, 3) uint8."""
        return hide_faces(self.rgb, self.boxes)


class DelayedHider:
    """Covers the faces of a video, also before they are found and where they have no rows.

    The tracker searches the image for newcomers only now and then, and with `max_faces` it does not
    follow all faces. So this class searches every fifth frame itself. It holds the last 15 frames
    (fewer if they are large), and covers the place of a new face in these frames as well.

    Args:
        find: Finds the faces of a whole image; None to cover only faces that have rows.
    """

    def __init__(self, find: FindFaces | None = None) -> None:
        self._find = find
        self._hider = FaceHider()
        self._held: deque[HeldFrame] = deque()
        self._shape: tuple[int, ...] = ()
        self._count = 0
        self._tracked: set[int | None] = set()  # ids of the faces in the last frame
        self._strays: list[tuple[int, Box]] = []  # faces without rows, and when they were found

    def push(
        self, rgb: UInt8Array, rows: Sequence[AURow], time_s: float = float("nan")
    ) -> Iterator[HeldFrame]:
        """Take the next frame.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: All rows of the frame.
            time_s: When it is shown, in seconds.

        Yields:
            The frames that need not wait any more, in their order.

        Raises:
            InputError: `rgb` is no such image.
        """
        if check_image(rgb).shape != self._shape:  # another scene
            yield from self.finish()
            self._shape, self._strays, self._tracked = rgb.shape, [], set()
            self._count = 0
        boxes = self._hider.boxes(rgb, rows)
        for box in self._newcomers(rgb, rows):
            for age, frame in enumerate(reversed(self._held), 1):
                frame.boxes.append(_grown(box, _BACKWARD_GROWTH * age))
        boxes += [_grown(box, _GROWTH * (self._count - since)) for since, box in self._strays]
        self._held.append(HeldFrame(rgb.copy(), rows, time_s, boxes))
        self._count += 1
        while len(self._held) > min(_LOOK_BACK, _MOST_HELD_BYTES // rgb.nbytes):
            yield self._held.popleft()

    def finish(self) -> Iterator[HeldFrame]:
        """The frames that still wait; the next frame starts a new scene."""
        while self._held:
            yield self._held.popleft()
        self._shape = ()

    def _newcomers(self, rgb: UInt8Array, rows: Sequence[AURow]) -> list[Box]:
        """The faces that are new in this frame; keeps those without rows."""
        found = [row for row in rows if row.success]
        known = [row.box_xyxy for row in found]
        new = [row.box_xyxy for row in found if row.face_id not in self._tracked]
        self._tracked = {row.face_id for row in found}
        self._strays = [
            (since, box)
            for since, box in self._strays
            if self._count - since <= _HOLD and not _is_among(box, known)
        ]
        if self._find is None or self._count % _SEARCH_EVERY:
            return new
        strays = [box for box in self._find(rgb) if not _is_among(box, known)]
        before = [box for _, box in self._strays]
        new += [box for box in strays if not _is_among(box, before)]
        kept = [(since, box) for since, box in self._strays if not _is_among(box, strays)]
        self._strays = kept + [(self._count, box) for box in strays]
        return new


def _is_among(box: Box, others: Iterable[Box]) -> bool:
    """Whether one of the boxes is at the place of this one."""
    return any(overlap_of_smaller(box, other) > _SAME_PLACE for other in others)


def _grown(box: Box, share: float) -> Box:
    """The box with a margin on each side, as a share of its width and height."""
    width, height = box[2] - box[0], box[3] - box[1]
    margin = np.array([-width, -height, width, height], np.float32) * share
    grown: Box = box + margin
    return grown


def _area(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
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
