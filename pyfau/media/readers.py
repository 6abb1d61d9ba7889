"""Sources of frames: video files, images, cameras and arrays.

BGR of cameras becomes RGB here and nowhere else.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pyfau.checks import check_color, check_fps, check_whole
from pyfau.cores import own_cores
from pyfau.errors import InputError, MediaError, OptionError
from pyfau.files import is_folder, natural_key
from pyfau.media.animation import Animation, kind_of
from pyfau.media.decoding import VideoDecoder
from pyfau.media.formats import CONTAINERS, is_image
from pyfau.media.frames import FrameReader, Frames
from pyfau.media.images import check_file, check_frame, decode_image
from pyfau.media.limits import LIMITS, Limits
from pyfau.types import Failure, Frame, StrPath


def read_frames(
    source: int | StrPath | Iterable[Any],
    *,
    fps: float | None = None,
    limits: Limits = LIMITS,
    planar: bool = False,
) -> FrameReader:
    """Read whatever `source` is.

    Args:
        source: Camera number; path of a video, an image or a folder of images; list of image
            paths; iterable of images as arrays, or one (T, H, W, 3) array.
        fps: Frames per second of images or arrays, which have no clock.
        limits: Larger files are refused before they are decoded.
        planar: As for `read_video`.

    Raises:
        MediaError: The source cannot be read.
        InputError: The source is none of the above.
        OptionError: `fps` is not a finite number above 0, or is given for a video or camera.
    """
    if isinstance(source, str | os.PathLike):
        if is_folder(source) or is_image(source):
            return read_images(source, fps=fps, limits=limits)
    elif isinstance(source, list | tuple) and source and isinstance(source[0], str | os.PathLike):
        return read_images(source, fps=fps, limits=limits)
    elif not isinstance(source, int):
        return read_arrays(source, fps=fps)
    if fps is not None:
        raise OptionError(
            f"fps={fps!r}: it is for images and arrays, a video or camera has its own clock"
        )
    if isinstance(source, int):
        return read_camera(source)
    return read_video(source, limits=limits, planar=planar)


def read_video(
    path: StrPath,
    *,
    ahead: int = 16,
    stream: int | None = None,
    limits: Limits = LIMITS,
    containers: Sequence[str] = CONTAINERS,
    planar: bool = False,
) -> FrameReader:
    """Open a video file and decode its first frame.

    Frames come upright, deinterlaced, with square pixels, in an ordinary dynamic range, and at
    their own times, whether the frame rate is constant or not. Time 0 is where the file starts;
    its video may start later. docs/video.md lists what is supported.

    Args:
        path: A local file.
        ahead: How many frames are decoded ahead: in a thread, or several at a time in the caller's
            thread if this process has one core. 0 decodes one by one in the caller's thread.
        stream: Which video stream of the file, from 0; None for the one that the file marks as
            its default, else the first.
        limits: Larger media are refused.
        containers: FFmpeg's names of the containers that are opened, among those of
            `pyfau.media.formats.CONTAINERS`.
        planar: Whether `Frame.image` may be `pyfau.planes.Planes`. This saves most of the
            conversion to RGB if only small parts of the frames are needed. `Frame.rgb` then
            converts.

    Raises:
        MediaError: The file is missing, empty, no video, too large, or no frame of it can be
            decoded.
        OptionError: `ahead` or `stream` is not an integer from 0, or there is no such stream.
    """
    ahead = check_whole(ahead, "ahead", 0)
    number = None if stream is None else check_whole(stream, "stream", 0)
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected the path of a video file, got {type(path).__name__}")
    path = Path(path)
    if is_image(path) and kind_of(path, limits) != "image":
        return _read_animation(path, None, limits, ahead)
    # The number of threads is that of OpenCV, because every thread keeps its own images in memory.
    threads = max(1, cv2.getNumThreads())
    try:
        check_file(path)
        decoder = VideoDecoder(path, number, limits, threads, containers, planar)
        frames = decoder.frames()
        first = next(frames, None)
    except MediaError as error:
        raise MediaError(f"{path}: {error}; expected a video file") from error
    if first is None:
        raise MediaError(f"{path}: a video file, but no frame of it could be decoded")
    return FrameReader(
        str(path),
        "video",
        frames,
        first=first,
        fps=decoder.fps,
        frame_count=decoder.frame_count,
        warnings=decoder.warnings,
        holes=decoder.clock.holes,
        ahead=ahead,
        in_bursts=own_cores() == 1,
    )


def open_capture(*arguments: Any) -> cv2.VideoCapture:
    """`cv2.VideoCapture` without the lines that OpenCV prints where a source cannot be opened."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(*arguments)
    finally:
        log.setLogLevel(level)


def read_camera(index: int) -> FrameReader:
    """Open a camera.

    No frame is dropped here. If the consumer is slower than the camera, the driver drops frames.

    Times count from the first frame, by a clock that never goes back.

    Args:
        index: OpenCV's number of the camera, from 0.

    Raises:
        MediaError: The camera cannot be opened or delivers nothing.
        OptionError: `index` is not an integer from 0.
    """
    index = check_whole(index, "the camera number", 0)
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
        raise MediaError(f"{name} was opened but delivers no images")
    fps = rate if math.isfinite(rate) and rate > 0 else None
    # Each is delay.
    return FrameReader(name, "camera", frames, first=first, fps=fps, warnings=warnings, ahead=2)


def read_images(
    source: StrPath | Iterable[StrPath],
    *,
    fps: float | None = None,
    limits: Limits = LIMITS,
) -> FrameReader:
    """Read image files as a sequence.

    A file that cannot be read is noted in `failures` and skipped; its index stays unused, so that
    `Frame.index` is the position among the files. Of a file with several images, all are read if
    it is the only one, and else the first, with a warning.

    Args:
        source: A folder: all image files directly inside, in natural order (img2 before img10),
            hidden files left out. Or one path. Or several, which keep their order.
        fps: Gives the frames times, index / fps. Without it they are NaN.
        limits: Larger images are refused before they are decoded.

    Raises:
        MediaError: There are no image files, or not one of them can be read.
        InputError: `source` is neither a path nor paths.
        OptionError: `fps` is not a finite number above 0.
    """
    fps = check_fps(fps)
    paths, name = _listed(source)
    if len(paths) == 1 and kind_of(paths[0], limits) != "image":
        return _read_animation(paths[0], fps, limits)
    failures: list[Failure] = []
    warnings: list[str] = []
    frames = _image_frames(paths, fps, failures, warnings, limits)
    first = next(frames, None)
    if first is None:
        what = f"{failures[0].source}: {failures[0].error}"
        if len(paths) > 1:
            what = f"{name}: no image could be read; the first is {what}"
        raise MediaError(what)
    return FrameReader(
        name,
        "images",
        frames,
        first=first,
        fps=fps,
        frame_count=len(paths),
        failures=failures,
        warnings=warnings,
        ahead=4,
    )


def _listed(source: StrPath | Iterable[StrPath]) -> tuple[list[Path], str]:
    """The paths that `source` means, and its name."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return (_images_in(path) if is_folder(path) else [path]), str(source)
    try:
        paths = [Path(path) for path in source]
    except TypeError as error:
        raise InputError(f"expected image paths, got {type(source).__name__} ({error})") from error
    if not paths:
        raise MediaError("expected image paths, got an empty list")
    return paths, f"{len(paths)} images"


def _read_animation(path: Path, fps: float | None, limits: Limits, ahead: int = 4) -> FrameReader:
    """All images of one file; with their own times, it is a video."""
    try:
        animation = Animation(path, limits)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    if animation.timed and fps is not None:
        raise OptionError(f"fps={fps!r}: {path} is animated and has its own clock")
    frames = animation.frames(fps)
    first = next(frames, None)
    if first is None:
        reason = animation.warnings[0] if animation.warnings else "it shows no image"
        raise MediaError(f"{path}: {reason}")
    return FrameReader(
        str(path),
        "video" if animation.timed else "images",
        frames,
        first=first,
        fps=fps,
        frame_count=animation.count,
        warnings=animation.warnings,
        ahead=ahead,
    )


def read_arrays(
    frames: Iterable[Any], *, fps: float | None = None, color: str = "rgb"
) -> FrameReader:
    """Read images in memory, or from a generator, which runs in the caller's thread.

    Args:
        frames: Images as `check_frame` takes them, or one (T, H, W, C) array. Contiguous uint8
            RGB is passed on without a copy and must not be overwritten while in use.
        fps: Gives the frames times, index / fps. Without it they are NaN.
        color: "rgb", or "bgr" for arrays that come from OpenCV.

    Raises:
        InputError: `frames` is one image, or no iterable. While reading: `check_frame` refuses
            an image, which is named by its index; or there are none.
        OptionError: `fps` is not a finite number above 0, or `color` is unknown.
    """
    fps = check_fps(fps)
    check_color(color)
    if not isinstance(frames, Iterable) or isinstance(frames, str | Image.Image):
        raise InputError(f"expected an iterable of images, got {type(frames).__name__}")
    if getattr(frames, "ndim", 4) != 4:
        shape = tuple(getattr(frames, "shape", ()))
        raise InputError(
            f"expected (T, H, W, 3) or a list of images, got one array of shape {shape}"
        )
    count = len(frames) if isinstance(frames, Sized) else None
    return FrameReader(
        "arrays", "arrays", _array_frames(frames, fps, color), fps=fps, frame_count=count
    )


def _camera_frames(capture: cv2.VideoCapture, name: str, warnings: list[str]) -> Frames:
    index, start = 0, 0.0
    try:
        while True:
            found, bgr = capture.read()
            now = time.monotonic()
            if not found:
                break
            start = start if index else now
            yield Frame(
                index, now - start, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            )
            index += 1
        warnings.append(f"{name} stopped after {index} frames")
    finally:
        capture.release()


def _image_frames(
    paths: Sequence[Path],
    fps: float | None,
    failures: list[Failure],
    warnings: list[str],
    limits: Limits,
) -> Frames:
    for index, path in enumerate(paths):
        said: list[str] = []
        try:
            rgb = decode_image(path, limits, said)
        except MediaError as error:
            failures.append(Failure(str(path), str(error)))
        else:
            warnings += [f"{path}: {text}" for text in said]
            yield Frame(index, index / fps if fps else math.nan, rgb, str(path))


def _array_frames(frames: Iterable[Any], fps: float | None, color: str) -> Frames:
    index = -1
    for index, image in enumerate(frames):
        rgb = check_frame(image, color=color, name=f"frame {index}")
        yield Frame(index, index / fps if fps else math.nan, rgb)
    if index < 0:
        raise InputError("expected images, got an empty sequence")


def _images_in(folder: Path) -> list[Path]:
    try:
        names = [path.name for path in folder.iterdir() if is_image(path) and not path.is_dir()]
    except OSError as error:
        raise MediaError(f"{folder}: {error.strerror}; expected a folder of images") from error
    names = sorted((name for name in names if not name.startswith(".")), key=natural_key)
    if not names:
        raise MediaError(
            f"{folder}: no images or videos here (subfolders are not searched); "
            "expected names such as .jpg"
        )
    return [folder / name for name in names]
