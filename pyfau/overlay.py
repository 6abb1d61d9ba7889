"""Boxes, landmarks and action units drawn onto pictures, and the video writer for them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pyfau.aus import full_name
from pyfau.encoders import OPENCV_CODECS, Encoder, open_encoder
from pyfau.errors import InputError, OptionError
from pyfau.types import AURow, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self

StrPath = str | os.PathLike[str]
_Rect = tuple[int, int, int, int]  # left, top, right, bottom

DEFAULT_FPS = 25.0
_FONT = cv2.FONT_HERSHEY_SIMPLEX  # OpenCV 5 draws a TrueType face under this name
_INK, _FAINT, _DARK, _GREY = (245, 245, 245), (176, 178, 182), (18, 20, 24), (150, 150, 150)
_COLOURS = [(82, 190, 172), (236, 178, 86), (122, 166, 236), (226, 128, 138), (172, 148, 226), (158, 196, 98)]
_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)
_MIN_SIDE = 32


def draw_overlay(rgb: UInt8Array, rows: Iterable[AURow], *, all_aus: bool = False, note: str = "") -> UInt8Array:
    """Draw every face of a frame: its box, number, landmarks, and its action units as bars with their names.

    The length of a bar is the score, how surely the action unit is present, and not its intensity. A face that is lost
    is grey; see `LastFaces`.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        rows: The rows of this frame; those without a box are passed over, those with a box but without `success` are
            faces that are lost.
        all_aus: Draw all action units in their own order, those that are not active faintly, instead of the active
            ones, the surest first.
        note: A line for the upper left corner.

    Returns:
        (H, W, 3) uint8, RGB, a new picture.

    Raises:
        InputError: `rgb` is no such picture.
    """
    picture: UInt8Array = _checked(rgb).copy()
    faces = [row for row in rows if row.face_id is not None or row.success]
    faces = [row for row in faces if np.isfinite(row.box_xyxy).all()]
    style = _Style(picture)
    boxes = [style.visible(row) for row in faces]
    for row, box in sorted(zip(faces, boxes, strict=True), key=lambda face: face[0].success):
        style.draw_face(row, box)
    if note:
        style.draw_note(note)
    order = sorted(range(len(faces)), key=lambda i: not faces[i].success)  # lost ones take what room is left
    for i in order:
        style.draw_tag(faces[i], boxes[i])
    for i in order:
        style.draw_panel(faces[i], boxes[i], boxes[:i] + boxes[i + 1 :], all_aus)
    return picture


class LastFaces:
    """The faces of the last frames, so that those that are missing can still be shown, in grey.

    Args:
        hold: For how many frames a face is shown after it was last seen.
    """

    def __init__(self, hold: int = 15) -> None:
        self._hold = hold
        self._seen: dict[int, AURow] = {}
        self._shape: tuple[int, ...] = ()

    def missing(self, rows: Iterable[AURow], shape: tuple[int, ...]) -> list[AURow]:
        """Take the next frame.

        Args:
            rows: All rows of the frame.
            shape: Of its picture. Another one is another scene, and nothing is missing there.

        Returns:
            The last row of each face that is missing, with `success` False.
        """
        if shape != self._shape:
            self._shape, self._seen = shape, {}
        rows = list(rows)
        found = {row.face_id for row in rows if row.success}
        frame = max((row.frame for row in rows), default=0)
        self._seen = {i: r for i, r in self._seen.items() if frame - r.frame <= self._hold and i not in found}
        missing = [dataclasses.replace(row, success=False) for row in self._seen.values()]
        self._seen |= {row.face_id: row for row in rows if row.success and row.face_id is not None}
        return missing


class _Style:
    """A picture that is being drawn on, and the sizes that suit it."""

    def __init__(self, picture: UInt8Array) -> None:
        self.picture = picture
        self.height, self.width = picture.shape[:2]
        self.text = 4 + 0.02 * min(self.height, self.width)  # height of a capital, in pixels
        self.line = max(1, round(self.text / 10))
        self.pad = max(2, round(self.text * 0.5))
        self.row = round(self.text * 1.9)
        self.taken: list[_Rect] = []  # by labels

    def colour(self, row: AURow) -> tuple[int, int, int]:
        return _COLOURS[(row.face_id or 0) % len(_COLOURS)] if row.success else _GREY

    def visible(self, row: AURow) -> _Rect:
        """The part of the face box inside the picture."""
        ends = [self.width - 1, self.height - 1] * 2
        x0, y0, x1, y1 = (round(float(min(max(v, 0), end))) for v, end in zip(row.box_xyxy, ends, strict=True))
        return x0, y0, x1, y1

    def draw_face(self, row: AURow, box: _Rect) -> None:
        # Far outside, coordinates are cut: OpenCV counts in 32 bits with fractions.
        limit = 2 * max(self.width, self.height)
        x0, y0, x1, y1 = (round(float(v)) for v in np.clip(row.box_xyxy, -limit, limit))
        for colour, width in ((_DARK, 3 * self.line), (self.colour(row), self.line + 1)):
            cv2.rectangle(self.picture, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)
        radius = max(1.2, min(0.24 * self.text, 0.025 * (box[2] - box[0])))
        for point in np.clip(row.landmarks, -limit, limit):
            if np.isfinite(point).all():
                for colour, size in ((_DARK, radius + 0.6 * self.line), (_INK, radius)):
                    # Not cv2.circle, which makes squares of small circles. In sixteenths of a pixel.
                    corners = np.rint((point + size * _CIRCLE) * 16).astype(np.int32)
                    cv2.fillPoly(self.picture, [corners], colour, cv2.LINE_AA, shift=4)

    def draw_note(self, note: str) -> None:
        rect = (0, 0, min(self.measure(note) + 2 * self.pad, self.width), self.row)
        self.taken.append(rect)
        self.shade(rect, _DARK, 0.66)
        self.write(note, self.pad, 0, _INK)

    def draw_tag(self, row: AURow, box: _Rect) -> None:
        """The face's number, above its box or, where that is not free, below or inside it."""
        label = "face" if row.face_id is None else f"face {row.face_id}{'' if row.success else ' lost'}"
        width, height = self.measure(label) + 2 * self.pad, self.row
        x0, y0, x1, y1 = box[0] - self.line, box[1] - self.line, box[2] + self.line, box[3] + self.line
        tops = [(x0, y0 - height), (x1 - width, y0 - height), (x0, y1), (x1 - width, y1), (x0, y0), (x0, y1 - height)]
        for x, y in tops:
            x = max(0, min(x, self.width - width))
            rect = (x, y, x + width, y + height)
            if self.is_free(rect):
                self.taken.append(rect)
                self.shade(rect, self.colour(row), 0.92)
                self.write(label, x + self.pad, y, _DARK)
                return

    def draw_panel(self, row: AURow, box: _Rect, others: list[_Rect], all_aus: bool) -> None:
        """The action units beside the box; how many find no room stands on a tab."""
        order = [int(i) for i in np.argsort(-row.scores, kind="stable") if row.active[i] or all_aus]
        most = min(len(order), (self.height - self.pad) // self.row)
        long = [full_name(au) for au in row.aus]
        # Of all labels, so that the width does not flicker in video.
        wide, narrow = ((labels, max(map(self.measure, labels)) + 2 * self.pad) for labels in (long, row.aus))
        numbers = self.measure("0.00") + 2 * self.pad
        # A panel stands beside its face, or else anywhere where it hides none, or else on its own face, but not for a
        # face that is lost. Names are worth a quarter of the lines, and some lines that of standing near.
        some = min(most, 3)
        tries = [("beside", [wide], max(some, -(-3 * most // 4))), ("beside", [wide, narrow], some)]
        tries += [("anywhere", [wide, narrow], some), ("beside", [wide, narrow], 1), ("on", [wide, narrow], 1)]
        for where, kinds, least in tries if row.success else tries[:-1]:
            for count in range(most, max(least, 1) - 1, -1):
                for labels, label_width in kinds:
                    rect = self.place(box, others, label_width + numbers, count * self.row + self.pad, where)
                    if rect:
                        shown = sorted(order[:count]) if all_aus else order[:count]
                        lines = [(labels[i], float(row.scores[i]), bool(row.active[i])) for i in shown]
                        self.fill_panel(rect, label_width, lines, row)
                        if count < len(order):
                            self.draw_count(rect, len(order) - count, [box, *others])
                        return
        if order:
            self.draw_count(box, len(order), [box, *others])

    def draw_count(self, panel: _Rect, hidden: int, faces: list[_Rect]) -> None:
        """How many active action units found no room, as a tab on the panel."""
        label = f"+{hidden}"
        width, (x0, y0, x1, y1) = self.measure(label) + 2 * self.pad, panel
        spots = [(x0, y1), (x1 - width, y1), (x0, y0 - self.row), (x1 - width, y0 - self.row), (x1, y1 - self.row)]
        spots += [(x0 - width, y1 - self.row), (x1, y0), (x0 - width, y0)]
        rects = [(x, y, x + width, y + self.row) for x, y in spots]
        free = [rect for rect in rects if self.is_free(rect)]
        if free:
            rect = min(free, key=lambda rect: sum(_overlap(rect, face) for face in faces))
            self.shade(rect, _DARK, 0.66)
            self.write(label, rect[0] + self.pad, rect[1], _INK)
            self.taken.append(rect)

    def place(self, box: _Rect, others: list[_Rect], width: int, height: int, where: str) -> _Rect | None:
        """Where a panel goes, clear of all labels and other faces: "beside" its face, "anywhere" near, or "on" it."""
        gap = self.pad + self.line
        x0, y0, x1, y1 = box
        if where == "anywhere":
            tops, lefts = (range(0, side, self.row) for side in (self.height - height + 1, self.width - width + 1))
            spots = [(x, y) for y in tops for x in lefts]
            spots.sort(key=lambda spot: math.hypot(2 * spot[0] + width - x0 - x1, 2 * spot[1] + height - y0 - y1))
        else:  # on the side with more room if it can be
            sides = (x1 + gap, x0 - gap - width)
            ys, xs = _along(y0, y1, height), _along(x0, x1, width)
            spots = [(x, y) for x in (sides if self.width - x1 >= x0 else sides[::-1]) for y in ys]
            spots += [(x, y) for y in (y1 + gap, y0 - gap - self.row - height) for x in xs]
        best, least = None, math.inf
        for x, y in spots:
            x, y = max(0, min(x, self.width - width)), max(0, min(y, self.height - height))
            rect = (x, y, x + width, y + height)
            own = _overlap(rect, box)
            hides = not self.is_free(rect) or any(_overlap(rect, face) for face in others)
            if not hides and own < (least if where == "on" else min(least, 1)):
                best, least = rect, own
        return best

    def fill_panel(self, rect: _Rect, label_width: int, lines: list[tuple[str, float, bool]], row: AURow) -> None:
        self.taken.append(rect)
        self.shade(rect, _DARK, 0.66)
        left, y = rect[0] + self.pad // 2, rect[1] + self.pad // 2
        for label, score, active in lines:
            length = round((label_width - self.pad) * min(max(score, 0.0), 1.0))
            bar = (left, y + self.line, left + length, y + self.row - self.line)
            self.shade(bar, self.colour(row), 0.5 if active else 0.25)
            ink = _INK if active and row.success else _FAINT
            self.write(label, left + self.pad // 2, y, ink)
            self.write(f"{score:.2f}", rect[0] + label_width + self.pad // 2, y, ink)
            y += self.row

    def is_free(self, rect: _Rect) -> bool:
        """Whether a rectangle lies in the picture and off all labels."""
        inside = rect[0] >= 0 and rect[1] >= 0 and rect[2] <= self.width and rect[3] <= self.height
        return inside and not any(_overlap(rect, other) for other in self.taken)

    def shade(self, rect: _Rect, colour: tuple[int, int, int], opacity: float) -> None:
        part = self.picture[max(0, rect[1]) : max(0, rect[3]), max(0, rect[0]) : max(0, rect[2])]
        if part.size:
            part[...] = cv2.addWeighted(part, 1 - opacity, np.full_like(part, colour), opacity, 0)

    def measure(self, label: str) -> int:
        return int(cv2.getTextSize(label, _FONT, self.text / 22, self.line)[0][0])

    def write(self, label: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
        """Write a label into the row that begins at y."""
        base = y + round((self.row + self.text) / 2)
        cv2.putText(self.picture, label, (x, base), _FONT, self.text / 22, colour, self.line, cv2.LINE_AA)


class OverlayWriter:
    """Writes a video with the overlays drawn in: a context manager.

    The video has the size of the first frame, one pixel more where that is odd, and at least 32 pixels; later frames of
    another size are scaled into it with black bars. Leaving the `with` block, also by an exception, finishes the file,
    so that it plays. It comes into being with the first frame.

    With PyAV installed (the extra `video`), .mp4 and .mkv are H.264 and .webm is VP9, which browsers play; every frame
    has its own time, and the sound of `source` is kept. Without it, and for .avi, OpenCV writes a silent video of a
    constant rate: MPEG-4 (mp4v) in .mp4 and .mkv, which players show but browsers do not, VP8 in .webm, which both do,
    and MPEG-4 (XVID) in .avi. H.264 is used where OpenCV can encode it, which the pip wheels for Linux cannot.

    Args:
        path: The video: .mp4, .webm, .avi or .mkv. Folders on the way are created, an existing file is replaced.
        fps: Frames per second; None or NaN for 25.
        codec: Four letters that force a codec of OpenCV's, such as "vp09" or "MJPG"; None to choose by the suffix.
        source: The video that the frames are from, for its sound.
        hold: A face that is missing is drawn in grey where it was last seen, for at most so many frames.

    Attributes:
        warnings: What went wrong without stopping the work, in words; filled while writing.

    Raises:
        OptionError: The suffix is unknown, the file cannot be written, or `fps` is not above 0.
    """

    def __init__(
        self,
        path: StrPath,
        fps: float | None,
        codec: str | None = None,
        *,
        source: StrPath | None = None,
        hold: int = 15,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in OPENCV_CODECS:
            raise OptionError(f"overlay video is written as {', '.join(OPENCV_CODECS)}, got {os.fspath(path)!r}")
        self.fps = DEFAULT_FPS if fps is None or math.isnan(fps) else float(fps)
        if not 0 < self.fps < 1000:
            raise OptionError(f"fps must be above 0 and below 1000, got {fps!r}")
        if codec is not None and len(codec) != 4:
            raise OptionError(f"codec must be four letters, got {codec!r}")
        self.codec = codec
        self.warnings: list[str] = []
        self._source = source
        self._faces = LastFaces(hold)
        self._encoder: Encoder | None = None
        self._complete = True
        self._closed = False
        self._size = (0, 0)
        _check_writable(self.path)

    def write(self, rgb: UInt8Array, rows: Sequence[AURow], time_s: float = math.nan) -> None:
        """Draw a frame and add it.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: The rows of this frame; see `draw_overlay`.
            time_s: When it is shown, in seconds; NaN for one step of `fps` after the frame before.

        Raises:
            InputError: `rgb` is no such picture.
            OptionError: No codec makes such a video, the disk is full, or the writer is closed.
        """
        self.add(draw_overlay(rgb, [*rows, *self._faces.missing(rows, _checked(rgb).shape)]), time_s)

    def add(self, picture: UInt8Array, time_s: float = math.nan) -> None:
        """Add a picture as it is; otherwise as `write`."""
        if self._closed:
            raise OptionError(f"cannot write {self.path}: it is closed")
        if self._encoder is None:
            # Codecs halve the resolution of colour, and OpenCV overruns its buffers with MJPG at 4x4.
            height, width = (max(_MIN_SIDE, side + side % 2) for side in _checked(picture).shape[:2])
            self._size = (width, height)
            self._encoder = open_encoder(self.path, self.fps, self._size, self.codec, self._source)
            self.codec = self._encoder.codec
        self._encoder.write(_fitted(picture, self._size), time_s)

    def describe(self) -> dict[str, str]:
        """How the video was encoded, for metadata: its codec, and what became of the sound."""
        return {} if self._encoder is None else {"codec": self._encoder.codec, "sound": self._encoder.sound or "none"}

    def cut(self) -> None:
        """Note that not all frames of the source are there: its sound then ends with the last one."""
        self._complete = False

    def close(self) -> None:
        """Finish the file. Calling it again does nothing.

        Raises:
            OptionError: The file cannot be written to its end.
        """
        closed, self._closed = self._closed, True
        if self._encoder is not None and not closed:
            self._encoder.close(self._complete)
            self.warnings += self._encoder.warnings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.cut()
        try:
            self.close()
        except OptionError:
            if kind is None:
                raise


def write_overlay_picture(path: StrPath, rgb: UInt8Array) -> Path:
    """Write one picture.

    Args:
        path: .png, .jpg or .jpeg; folders on the way are created, an existing file is replaced.
        rgb: (H, W, 3) uint8, RGB.

    Returns:
        The path.

    Raises:
        OptionError: The suffix is unknown, or the file cannot be written.
        InputError: `rgb` is no such picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise OptionError(f"overlay pictures are written as .png or .jpg, got {os.fspath(path)!r}")
    _, data = cv2.imencode(suffix, cv2.cvtColor(_checked(rgb), cv2.COLOR_RGB2BGR))
    _check_writable(path)
    try:
        path.write_bytes(data.tobytes())  # not cv2.imwrite, which stumbles over some names on Windows
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def check_is_other(path: StrPath, source: StrPath) -> None:
    """Make sure that a table or an overlay does not replace what it is made from.

    Raises:
        OptionError: Both are the same file.
    """
    try:
        same = Path(path).samefile(source)
    except (OSError, ValueError):  # one of them is not there
        same = False
    if same:
        raise OptionError(f"{os.fspath(path)} would replace the input {os.fspath(source)}")


def _checked(rgb: UInt8Array) -> UInt8Array:
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise InputError(f"expected a uint8 (H, W, 3) picture, got {got}")
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def _overlap(a: _Rect, b: _Rect) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _along(start: int, end: int, length: int) -> tuple[int, ...]:
    """Where something of a length can begin beside a side of a box, the tidiest places first."""
    return start, (start + end - length) // 2, end - length, start - length // 2, end - length // 2


def _fitted(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Bring a picture to (width, height): at most a pixel is replicated, more than that is scaled and letterboxed."""
    width, height = size
    across, down = width - picture.shape[1], height - picture.shape[0]
    if across in (0, 1) and down in (0, 1):
        return np.asarray(cv2.copyMakeBorder(picture, 0, down, 0, across, cv2.BORDER_REPLICATE), np.uint8)
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + inner[1], left : left + inner[0]] = small
    return fitted


def _check_writable(path: Path) -> None:
    """Make the folder, and try the file without changing it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error
