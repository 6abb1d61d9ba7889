"""Boxes, landmarks and action units drawn onto pictures, and the video writer for them."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pyfau.aus import AU_NAMES
from pyfau.errors import InputError, OptionError
from pyfau.types import AURow, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self

StrPath = str | os.PathLike[str]
_Rect = tuple[int, int, int, int]  # left, top, right, bottom

DEFAULT_FPS = 25.0
_FONT = cv2.FONT_HERSHEY_SIMPLEX  # OpenCV 5 draws a TrueType face under this name
_INK, _DARK = (245, 245, 245), (18, 20, 24)
_COLOURS = [(82, 190, 172), (236, 178, 86), (122, 166, 236), (226, 128, 138), (172, 148, 226), (158, 196, 98)]
_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)
# First choice first. The pip wheels for Linux have no H.264 encoder. VP9 would do in .mp4 too, but OpenCV passes no
# settings on to it: a 720p frame takes 235 ms on one core, against 4 ms with mp4v and 50 ms with VP8, which only .webm
# and .mkv can hold. Of these, browsers play H.264, VP8 and VP9.
_CODECS = {".mp4": ("avc1", "mp4v"), ".mkv": ("avc1", "mp4v"), ".avi": ("XVID", "MJPG"), ".webm": ("VP80", "VP90")}
_MIN_SIDE = 32
_STDERR = threading.Lock()


def draw_overlay(rgb: UInt8Array, rows: Iterable[AURow]) -> UInt8Array:
    """Draw every face of a frame: its box, number, landmarks, and the active action units, the surest first.

    The length of a bar is the score, how surely the action unit is present, and not its intensity.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        rows: The rows of this frame; those without a face are passed over.

    Returns:
        (H, W, 3) uint8, RGB, a new picture.

    Raises:
        InputError: `rgb` is no such picture.
    """
    picture: UInt8Array = _checked(rgb).copy()
    faces = [row for row in rows if row.success and np.isfinite(row.box_xyxy).all()]
    style = _Style(picture)
    boxes = [style.visible(row) for row in faces]
    for row, box in zip(faces, boxes, strict=True):
        style.draw_face(row, box)
    for row, box in zip(faces, boxes, strict=True):
        style.draw_tag(row, box)
    for i, row in enumerate(faces):
        style.draw_panel(row, boxes[i], boxes[:i] + boxes[i + 1 :])
    return picture


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
        return _COLOURS[(row.face_id or 0) % len(_COLOURS)]

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

    def draw_tag(self, row: AURow, box: _Rect) -> None:
        """The face's number, above its box or, where that is not free, below or inside it."""
        label = "face" if row.face_id is None else f"face {row.face_id}"
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

    def draw_panel(self, row: AURow, box: _Rect, others: list[_Rect]) -> None:
        """The active action units beside the box; how many find no room stands on a tab."""
        order = [int(i) for i in np.argsort(-row.scores, kind="stable") if row.active[i]]
        most = min(len(order), (self.height - self.pad) // self.row)
        long = [f"{au} {AU_NAMES.get(au, '')}".rstrip() for au in row.aus]
        # First nothing may hide a face, then only this one, then any. Fewer lines are better than a hidden face.
        for hiding, least in ((0, min(most, 3)), (1, 1), (2, 1)):
            for count in range(most, max(least, 1) - 1, -1):
                for labels in (long, row.aus):
                    # Of all labels, so that the width does not flicker in video.
                    label_width = max(self.measure(label) for label in labels) + 2 * self.pad
                    width = label_width + self.measure("0.00") + 2 * self.pad
                    rect = self.place(box, others, width, count * self.row + self.pad, hiding)
                    if rect:
                        lines = [(labels[i], float(row.scores[i])) for i in order[:count]]
                        self.fill_panel(rect, label_width, lines, row)
                        if count < len(order):
                            self.draw_count(rect, len(order) - count, [box, *others])
                        return

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

    def place(self, box: _Rect, others: list[_Rect], width: int, height: int, hiding: int) -> _Rect | None:
        """Where a panel goes: clear of all labels, on the side with more room if it can be."""
        gap = self.pad + self.line
        x0, y0, x1, y1 = box
        sides = (x1 + gap, x0 - gap - width)
        ys, xs = (y0, (y0 + y1 - height) // 2, y1 - height), (x0, (x0 + x1 - width) // 2, x1 - width)
        spots = [(x, y) for x in (sides if self.width - x1 >= x0 else sides[::-1]) for y in ys]
        spots += [(x, y) for y in (y1 + gap, y0 - gap - self.row - height) for x in xs]
        best, least = None, math.inf
        for x, y in spots:
            x, y = max(0, min(x, self.width - width)), max(0, min(y, self.height - height))
            rect = (x, y, x + width, y + height)
            own, other = _overlap(rect, box), sum(_overlap(rect, face) for face in others)
            allowed = (hiding >= 1 or not own) and (hiding >= 2 or not other)
            if allowed and own + 4 * other < least and self.is_free(rect):
                best, least = rect, own + 4 * other
        return best

    def fill_panel(self, rect: _Rect, label_width: int, lines: list[tuple[str, float]], row: AURow) -> None:
        self.taken.append(rect)
        self.shade(rect, _DARK, 0.66)
        left, y = rect[0] + self.pad // 2, rect[1] + self.pad // 2
        for label, score in lines:
            length = round((label_width - self.pad) * min(max(score, 0.0), 1.0))
            self.shade((left, y + self.line, left + length, y + self.row - self.line), self.colour(row), 0.5)
            self.write(label, left + self.pad // 2, y, _INK)
            self.write(f"{score:.2f}", rect[0] + label_width + self.pad // 2, y, _INK)
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

    H.264 is used where OpenCV can encode it, which the pip wheels for Linux cannot; the fallbacks are MPEG-4 (mp4v)
    in .mp4 and .mkv, which players show but browsers do not, and MPEG-4 (XVID) in .avi. Use .webm (VP8, slower) for
    a file that browsers play everywhere.

    Args:
        path: The video: .mp4, .webm, .avi or .mkv. Folders on the way are created, an existing file is replaced.
        fps: Frames per second; None or NaN for 25.
        codec: Four letters that force a codec, such as "vp09" or "MJPG"; None to choose by the suffix.

    Raises:
        OptionError: The suffix is unknown, the file cannot be written, or `fps` is not above 0.
    """

    def __init__(self, path: StrPath, fps: float | None, codec: str | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _CODECS:
            raise OptionError(f"overlay video is written as {', '.join(_CODECS)}, got {os.fspath(path)!r}")
        self.fps = DEFAULT_FPS if fps is None or math.isnan(fps) else float(fps)
        if not 0 < self.fps < 1000:
            raise OptionError(f"fps must be above 0 and below 1000, got {fps!r}")
        if codec is not None and len(codec) != 4:
            raise OptionError(f"codec must be four letters, got {codec!r}")
        self.codec = codec
        self._writer: Any = None
        self._closed = False
        self._size = (0, 0)
        _check_writable(self.path)

    def write(self, rgb: UInt8Array, rows: Iterable[AURow]) -> None:
        """Draw a frame and add it.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: The rows of this frame; see `draw_overlay`.

        Raises:
            InputError: `rgb` is no such picture.
            OptionError: No codec of this OpenCV makes such a video, or the writer is closed.
        """
        if self._closed:
            raise OptionError(f"cannot write {self.path}: it is closed")
        picture = draw_overlay(rgb, rows)
        if self._writer is None:
            # Codecs halve the resolution of colour, and OpenCV overruns its buffers with MJPG at 4x4.
            self._open(*(max(_MIN_SIDE, side + side % 2) for side in (picture.shape[1], picture.shape[0])))
        self._writer.write(cv2.cvtColor(_fitted(picture, self._size), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file. Calling it again does nothing.

        Raises:
            OptionError: The file cannot be read back: OpenCV reports no errors while it writes.
        """
        self._closed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()
            if not _first_frames(self.path, 1):
                raise OptionError(f"cannot write {self.path}: what was written does not play; is the disk full?")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OptionError:
            if kind is None:
                raise

    def _open(self, width: int, height: int) -> None:
        suffix = self.path.suffix.lower()
        tried = _CODECS[suffix] if self.codec is None else (self.codec,)
        for codec in tried:
            if _makes_video(suffix, codec, self.fps, width, height):
                writer = _video_writer(self.path, codec, self.fps, width, height)
                if writer.isOpened():
                    self._writer, self._size, self.codec = writer, (width, height), codec
                    return
        raise OptionError(
            f"cannot write {self.path}: this OpenCV makes no {suffix} video of {width}x{height} at {self.fps:g} frames "
            f"per second with {' or '.join(tried)}"
        )


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


@lru_cache(maxsize=64)
def _makes_video(suffix: str, codec: str, fps: float, width: int, height: int) -> bool:
    """Whether a short video can be written, and read back as it was."""
    with tempfile.TemporaryDirectory(prefix="pyfau-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"probe{suffix}"
        writer = _video_writer(path, codec, fps, width, height)
        if not writer.isOpened():
            return False
        for _ in range(3):
            writer.write(np.zeros((height, width, 3), np.uint8))
        writer.release()
        return [frame.shape for frame in _first_frames(path, 4)] == [(height, width, 3)] * 3


def _first_frames(path: Path, count: int) -> list[Any]:
    with _quiet():
        video = cv2.VideoCapture(str(path))
        frames = [video.read()[1] for _ in range(count)]
        video.release()
    return [frame for frame in frames if frame is not None]


def _video_writer(path: Path, codec: str, fps: float, width: int, height: int) -> Any:
    with _quiet():
        return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the codecs' messages off the terminal: C code prints several for each codec that is not to be had."""
    with _STDERR:  # interleaved, two threads would put back each other's file
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        try:
            with Path(os.devnull).open("wb") as null:
                os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
