"""Sources of frames: video files, pictures, cameras and arrays, all read as a stream of `Frame`.

Files and cameras are decoded ahead of the consumer in a thread. BGR becomes RGB here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
import operator
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pyfau.errors import InputError, MediaError, OptionError
from pyfau.types import Failure, Frame, UInt8Array

StrPath = str | os.PathLike[str]
_Frames = Generator[Frame, None, None]

# HEIC and AVIF are listed although Pillow may need a plugin for them: a folder then reports them as failures
# instead of passing over them in silence. GIF is read as video, because it may move.
# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jp2", ".avif", ".heic", ".heif",
})
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif", ".y4m",
})
# fmt: on

_AHEAD_BYTES = 256 << 20  # whatever `ahead` says, frames of more than this in all are not held ready


class FrameReader(Iterator[Frame]):
    """A source of frames: an iterator that can be used in a `with` block, and closes itself at its end.

    Made by `read_frames` and its siblings. An error while reading is raised in the place of the frame that could
    not be had, after all frames before it.

    Attributes:
        name: Path, folder, "camera 0", "3 pictures" or "arrays".
        kind: "video", "images", "camera" or "arrays".
        fps: Frames per second, never rounded; None if unknown. For video with a variable rate, the average.
        frame_count: Estimate of the number of frames, None if unknown.
        failures: Picture files that were skipped; filled while reading.
        warnings: What else went wrong, in words; filled while reading.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        frames: _Frames,
        *,
        first: Frame | None = None,
        fps: float | None = None,
        frame_count: int | None = None,
        failures: list[Failure] | None = None,
        warnings: list[str] | None = None,
        ahead: int = 0,
    ) -> None:
        self.name = name
        self.kind = kind
        self.fps = fps
        self.frame_count = frame_count
        self.failures: list[Failure] = [] if failures is None else failures
        self.warnings: list[str] = [] if warnings is None else warnings
        self._first = None if ahead else first
        source = _Ahead(frames, ahead, first) if ahead else frames
        self._frames: Iterator[Frame] = source
        # Also runs when the reader is garbage or the interpreter ends; a thread that is still inside OpenCV then
        # could bring the process down. The thread must not hold the reader for this to work.
        self._finish = weakref.finalize(self, source.close)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> FrameReader:
        return self

    def __next__(self) -> Frame:
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        if self._finish.alive:
            try:
                return next(self._frames)
            except BaseException:  # the end included
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        """Stop decoding and let go of the source. May be called more than once."""
        self._first = None
        self._finish()


class _Ahead(Iterator[Frame]):
    """Runs a generator in a daemon thread, at most `depth` frames ahead of the consumer.

    The thread starts when the first frame is asked for.
    """

    def __init__(self, frames: _Frames, depth: int, first: Frame | None) -> None:
        self._frames = frames
        self._depth = depth
        self._queue: deque[Frame] = deque() if first is None else deque([first])
        self._changed = threading.Condition()
        self._stopped = False  # the consumer wants no more
        self._ended = False  # the thread has no more
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __next__(self) -> Frame:
        with self._changed:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="pyfau-read", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._queue or self._ended or self._stopped)
            if self._queue:
                self._changed.notify_all()
                return self._queue.popleft()
            error, self._error = self._error, None
        raise StopIteration if error is None else error

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._frames.close()
        elif thread is not threading.current_thread():  # which it is if the thread collects the reader as garbage
            thread.join(timeout=5.0)  # one frame's decoding; a camera that hangs is left behind

    def _run(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    break
        except BaseException as error:  # handed to the consumer
            self._error = error
        finally:
            self._frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(frame))
            if not self._stopped:
                self._queue.append(frame)
                self._changed.notify_all()
            return not self._stopped

    def _has_room(self, frame: Frame) -> bool:
        held = sum(other.rgb.nbytes for other in self._queue)
        return not held or (len(self._queue) < self._depth and held + frame.rgb.nbytes <= _AHEAD_BYTES)


def read_frames(source: int | StrPath | Iterable[Any], *, fps: float | None = None) -> FrameReader:
    """Read whatever `source` is.

    Args:
        source: Camera number; path of a video, a picture or a folder of pictures; list of picture paths; iterable of
            pictures as arrays, or one (T, H, W, 3) array.
        fps: Frames per second of pictures or arrays, which have no clock of their own.

    Raises:
        MediaError: The source cannot be read.
        InputError: The source is none of the above.
        OptionError: `fps` is not a finite number above 0, or is given for a video or camera.
    """
    if isinstance(source, str | os.PathLike):
        if is_folder(source) or is_picture(source):
            return read_images(source, fps=fps)
    elif isinstance(source, list | tuple) and source and isinstance(source[0], str | os.PathLike):
        return read_images(source, fps=fps)
    elif not isinstance(source, int):
        return read_arrays(source, fps=fps)
    if fps is not None:
        raise OptionError(f"fps={fps!r}: it is for pictures and arrays, a video or camera has its own clock")
    return read_camera(source) if isinstance(source, int) else read_video(source)


def read_video(path: StrPath, *, ahead: int = 16) -> FrameReader:
    """Open a video file and decode its first frame.

    Frames come upright and with their presentation times, whether the frame rate is constant or not.

    Args:
        path: A local file in any format that OpenCV's FFmpeg decodes.
        ahead: How many frames are decoded ahead in a thread; 0 decodes in the caller's thread.

    Raises:
        MediaError: The file is missing, empty, no video, or no frame of it can be decoded.
        OptionError: `ahead` is not an integer from 0.
    """
    ahead = _check_whole(ahead, "ahead")
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected the path of a video file, got {type(path).__name__}")
    path = Path(path)
    try:
        _check_file(path)
        # Absolute, so that FFmpeg takes no "a:" at the start of a name for a protocol.
        name = str(path.absolute())
        name.encode()  # OpenCV 5.0 crashes on names that are not valid Unicode
    except MediaError as error:
        raise MediaError(f"{path}: {error}; expected a video file") from error
    except UnicodeEncodeError as error:
        raise MediaError(f"{path!r}: OpenCV cannot open a file whose name is not valid Unicode") from error
    # As many threads as OpenCV has for all else, not one for each core: every thread holds pictures of its own.
    capture = open_capture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, max(1, cv2.getNumThreads())])
    # FFmpeg draws plain text files as pictures; their codec is "ansi".
    if not capture.isOpened() or int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"ansi"):
        capture.release()
        raise MediaError(f"{path}: not a video file that OpenCV's FFmpeg can open; expected one with a video stream")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # the default, but the rotation of phone videos hangs on it
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    fps = rate if math.isfinite(rate) and rate > 0 else None
    announced = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # hugely negative where the container does not say
    frame_count = round(announced) if math.isfinite(announced) and announced > 0 else None
    warnings: list[str] = []
    frames = _video_frames(capture, fps, frame_count, warnings)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"{path}: a video file, but no frame of it could be decoded")
    return FrameReader(
        str(path), "video", frames, first=first, fps=fps, frame_count=frame_count, warnings=warnings, ahead=ahead
    )


def open_capture(*arguments: Any) -> cv2.VideoCapture:
    """`cv2.VideoCapture`, without the lines that OpenCV prints for every way in which a source cannot be opened."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(*arguments)
    finally:
        log.setLogLevel(level)


def read_camera(index: int) -> FrameReader:
    """Open a camera. No frame is dropped here; a consumer slower than the camera loses those the driver drops.

    Times count from the first frame, by a clock that never goes back.

    Args:
        index: OpenCV's number of the camera, from 0.

    Raises:
        MediaError: The camera cannot be opened or delivers nothing.
        OptionError: `index` is not an integer from 0.
    """
    index = _check_whole(index, "the camera number")
    if index >= 2**31:
        raise OptionError(f"the camera number: expected less than 2**31, got {index}")
    name = f"camera {index}"
    capture = open_capture(index)
    if not capture.isOpened():
        capture.release()
        raise MediaError(f"{name} could not be opened")
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    warnings: list[str] = []
    frames = _camera_frames(capture, name, warnings)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"{name} was opened but delivers no pictures")
    fps = rate if math.isfinite(rate) and rate > 0 else None
    return FrameReader(name, "camera", frames, first=first, fps=fps, warnings=warnings, ahead=2)  # each is delay


def read_images(source: StrPath | Iterable[StrPath], *, fps: float | None = None) -> FrameReader:
    """Read picture files as a sequence.

    A file that cannot be read is noted in `failures` and skipped; its index stays unused, so that `Frame.index` is
    the position among the files.

    Args:
        source: A folder: all picture files directly inside, in natural order (img2 before img10), hidden files left
            out. Or one path. Or several, which keep their order.
        fps: Gives the frames times, index / fps. Without it they are NaN.

    Raises:
        MediaError: There are no picture files, or not one of them can be read.
        InputError: `source` is neither a path nor paths.
        OptionError: `fps` is not a finite number above 0.
    """
    fps = _check_fps(fps)
    if isinstance(source, str | os.PathLike):
        paths, name = [Path(source)], str(source)
        if is_folder(paths[0]):
            paths = _pictures_in(paths[0])
    else:
        try:
            paths = [Path(path) for path in source]
        except TypeError as error:
            raise InputError(f"expected picture paths, got {type(source).__name__} ({error})") from error
        name = f"{len(paths)} pictures"
        if not paths:
            raise MediaError("expected picture paths, got an empty list")
    failures: list[Failure] = []
    frames = _picture_frames(paths, fps, failures)
    first = next(frames, None)
    if first is None:
        what = f"{failures[0].source}: {failures[0].error}"
        raise MediaError(what if len(paths) == 1 else f"{name}: no picture could be read; the first is {what}")
    return FrameReader(name, "images", frames, first=first, fps=fps, frame_count=len(paths), failures=failures, ahead=4)


def read_arrays(frames: Iterable[Any], *, fps: float | None = None, color: str = "rgb") -> FrameReader:
    """Read pictures that are in memory, or come from a generator, which runs in the caller's thread.

    Args:
        frames: Pictures as `check_frame` takes them, or one (T, H, W, C) array. Contiguous uint8 RGB is passed on
            without a copy and must not be overwritten while in use.
        fps: Gives the frames times, index / fps. Without it they are NaN.
        color: "rgb", or "bgr" for arrays that come from OpenCV.

    Raises:
        InputError: `frames` is one picture, or no iterable. While reading: a picture is not as `check_frame` wants
            it, which is named by its index; or there are none.
        OptionError: `fps` is not a finite number above 0, or `color` is unknown.
    """
    fps = _check_fps(fps)
    _check_color(color)
    if not isinstance(frames, Iterable) or isinstance(frames, str | Image.Image):
        raise InputError(f"expected an iterable of pictures, got {type(frames).__name__}")
    if getattr(frames, "ndim", 4) != 4:
        shape = tuple(getattr(frames, "shape", ()))
        raise InputError(f"expected (T, H, W, 3) or a list of pictures, got one array of shape {shape}")
    count = len(frames) if isinstance(frames, Sized) else None
    return FrameReader("arrays", "arrays", _array_frames(frames, fps, color), fps=fps, frame_count=count)


def read_picture(path: StrPath) -> UInt8Array:
    """Read one picture file, turned upright by its EXIF orientation.

    Transparent parts are laid on white, as `check_frame` does. 16-bit grey is divided by 257; of 16-bit colour
    Pillow keeps the high byte, which is the same to within one level. Of several pictures in a file, the first.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        MediaError: The file is missing, empty, damaged, larger than Pillow's limit, or not a picture.
    """
    try:
        return _decode_picture(Path(path))
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error.__cause__


def check_frame(picture: Any, *, color: str = "rgb", name: str = "picture") -> UInt8Array:
    """Check a picture and bring it to RGB.

    Args:
        picture: (H, W, 3), (H, W) or (H, W, 1) grey, or (H, W, 4) with alpha, which is laid on white; uint8, uint16
            (divided by 257), or float in [0, 1] (multiplied by 255). Anything that numpy makes such an array of,
            or a PIL image (turned upright by its EXIF orientation).
        color: "rgb" or "bgr": the order of the channels in an array. A PIL image knows its own.
        name: What to call the picture in errors.

    Returns:
        (H, W, 3) uint8, RGB, contiguous. An array that is so already is passed on without a copy.

    Raises:
        InputError: Wrong type, dtype, shape or range; says what was given and what is expected.
        OptionError: `color` is unknown.
    """
    _check_color(color)
    expected = "expected an (H, W, 3) array of uint8"
    if isinstance(picture, str | os.PathLike):
        raise InputError(f"{name}: {expected}, got a path; read_picture reads picture files")
    if isinstance(picture, Image.Image):
        picture, color = _image_array(picture), "rgb"
    try:
        array = np.asarray(picture)
    except Exception as error:  # ragged lists, tensors on a GPU: whatever __array__ raises
        raise InputError(f"{name}: {expected}, got {type(picture).__name__} ({error})") from error
    shape = array.shape
    if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise InputError(f"{name}: {expected}, uint16 or float in [0, 1], got {array.dtype} of shape {shape}")
    if 0 in shape or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3, 4))):
        hint = "; channels come last: transpose(1, 2, 0)" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise InputError(f"{name}: {expected}, got shape {shape}{hint}")

    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN too
            raise InputError(f"{name}: expected float values in [0, 1], got {low:g} to {high:g}")
        array = np.rint(array.astype(np.float32) * 255.0).astype(np.uint8)
    elif array.dtype.itemsize == 2:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2 or shape[2] == 1:
        return np.repeat(array.reshape(*shape[:2], 1), 3, axis=2)
    rgb = array[:, :, 2::-1] if color == "bgr" else array[:, :, :3]
    if shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        rgb = ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def is_folder(path: StrPath) -> bool:
    """Whether there is such a folder; a name that the system refuses is none."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def file_record(path: StrPath) -> dict[str, Any]:
    """What tells a file, or a folder of pictures, from another, and from itself when it has changed."""
    path = Path(path).resolve()
    try:
        status = path.stat()
        if not path.is_dir():
            return {"path": str(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
        pictures = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.iterdir()) if is_picture(p)]
    except OSError:
        return {"path": str(path)}
    digest = hashlib.sha256(repr(pictures).encode(errors="backslashreplace")).hexdigest()
    return {"path": str(path), "pictures": len(pictures), "sha256_of_listing": digest}


def is_picture(path: StrPath) -> bool:
    """Whether the name ends like that of a picture file."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def is_video(path: StrPath) -> bool:
    """Whether the name ends like that of a video file."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key that orders numbers in names by value: img2 before img10. Ignores case, except between equals."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.casefold())], name


def _video_frames(
    capture: cv2.VideoCapture, fps: float | None, frame_count: int | None, warnings: list[str]
) -> _Frames:
    index, lost = 0, 0
    last, clock_ok = -math.inf, True
    try:
        while capture.grab():
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0  # of the frame just grabbed; 0 if it has none
            if not time_s > last:
                time_s = last + (1.0 / fps if fps else math.nan)
                if clock_ok:
                    clock_ok = False
                    rule = f"one step of {fps:g} fps after the frame before" if fps else "unknown (NaN)"
                    warnings.append(f"frame {index} has a missing or backward time stamp; such times are {rule}")
            last = time_s
            found, bgr = capture.retrieve()
            if found:
                yield Frame(index, time_s, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8))
            else:
                lost += 1
            index += 1
        if lost:
            warnings.append(f"{lost} of {index} frames could not be decoded")
        # By frames and by time: where the rate varies, the announced count may be a wrong guess of FFmpeg's.
        reached = max(index, last * fps + 1) if fps and index else index
        if frame_count is not None and frame_count - reached > max(4, 0.02 * frame_count):
            warnings.append(f"the file announces {frame_count} frames, but holds {index}: it may be truncated")
    finally:
        capture.release()


def _camera_frames(capture: cv2.VideoCapture, name: str, warnings: list[str]) -> _Frames:
    index, start = 0, 0.0
    try:
        while True:
            found, bgr = capture.read()
            now = time.monotonic()
            if not found:
                break
            start = start if index else now
            yield Frame(index, now - start, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8))
            index += 1
        warnings.append(f"{name} stopped after {index} frames")
    finally:
        capture.release()


def _picture_frames(paths: Sequence[Path], fps: float | None, failures: list[Failure]) -> _Frames:
    for index, path in enumerate(paths):
        try:
            rgb = _decode_picture(path)
        except MediaError as error:
            failures.append(Failure(str(path), str(error)))
        else:
            yield Frame(index, index / fps if fps else math.nan, rgb, str(path))


def _array_frames(frames: Iterable[Any], fps: float | None, color: str) -> _Frames:
    index = -1
    for index, picture in enumerate(frames):
        rgb = check_frame(picture, color=color, name=f"frame {index}")
        yield Frame(index, index / fps if fps else math.nan, rgb)
    if index < 0:
        raise InputError("expected pictures, got an empty sequence")


def _pictures_in(folder: Path) -> list[Path]:
    try:
        names = [path.name for path in folder.iterdir() if is_picture(path) and not path.is_dir()]
    except OSError as error:
        raise MediaError(f"{folder}: {error.strerror}; expected a folder of pictures") from error
    names = sorted((name for name in names if not name.startswith(".")), key=natural_key)
    if not names:
        raise MediaError(
            f"{folder}: no pictures or videos here (subfolders are not searched); expected names such as .jpg"
        )
    return [folder / name for name in names]


def _decode_picture(path: Path) -> UInt8Array:
    """As `read_picture`, but its errors do not name the file."""
    _check_file(path)
    try:
        with Image.open(path) as image:
            return check_frame(image)
    except UnidentifiedImageError as error:
        raise MediaError("not a picture in a format that Pillow reads") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise MediaError(f"could not be read as a picture: {' '.join(str(error).split())}") from error


def _image_array(image: Image.Image) -> np.ndarray[Any, Any]:
    """Pixels of a PIL image as an array that `check_frame` takes."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":  # how Pillow holds some 16-bit grey files
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise InputError(f"expected at most 16 bit, got grey values from {array.min()} to {array.max()}")
        return array.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise MediaError("is a folder")
        if not path.is_file():
            raise MediaError("not a regular file" if os.path.lexists(path) else "no such file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise MediaError(str(error.strerror)) from error
    if empty:
        raise MediaError("is empty (0 bytes)")


def _check_fps(fps: float | None) -> float | None:
    if fps is None:
        return None
    try:
        value = float(fps)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise OptionError(f"fps: expected a finite number above 0, got {fps!r}")
    return value


def _check_whole(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise OptionError(f"{name}: expected an integer from 0, got {value!r}")
    return number


def _check_color(color: str) -> None:
    if color not in ("rgb", "bgr"):
        raise OptionError(f'color: expected "rgb" or "bgr", got {color!r}')
