"""What comes from a browser, looked at before anything decodes it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from PIL import Image

from pyfau.errors import InputError, MediaError
from pyfau.types import UInt8Array
from pyfau.video import FrameReader, check_frame, open_capture, read_video

MOST_FRAME_PIXELS = 1920 * 1080
MOST_CLIP_PIXELS = 4096 * 2304
_MOST_SCANS = 64  # of a JPEG; each one costs the decoder a pass over all pixels
_MOST_FPS = 240  # so that a clip of few seconds by its clock is not millions of frames


def decode_frame(data: bytes) -> UInt8Array:
    """Decode a JPEG of a camera.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: It is none, is damaged, or has more pixels than a frame may have; those are never decoded.
    """
    if data.count(b"\xff\xda") > _MOST_SCANS:  # inside a scan, ff is followed by 00
        raise InputError(f"the frame is a JPEG of more than {_MOST_SCANS} scans")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:  # reads the header alone
            width, height = image.size
            if width * height > MOST_FRAME_PIXELS:
                raise InputError(
                    f"the frame has too many pixels, {width} x {height}: expected at most {MOST_FRAME_PIXELS}"
                )
            return check_frame(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise InputError(f"the frame has too many pixels: expected at most {MOST_FRAME_PIXELS}") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise InputError("the frame is not a JPEG picture that can be read") from error


def is_container(head: bytes) -> bool:
    """Whether a file that starts so is MP4 or MOV, WebM or Matroska, AVI, or Ogg.

    FFmpeg may think otherwise of what follows: see `_containers_alone`.

    Args:
        head: At least the first 12 bytes.
    """
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or head[:4] in (b"\x1aE\xdf\xa3", b"OggS")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    )


def open_clip(path: Path, most_seconds: float) -> tuple[FrameReader, tuple[int, int]]:
    """Open an uploaded clip.

    Returns:
        Its reader, and width and height in pixels.

    Raises:
        MediaError: It is no clip, has too many pixels, or announces to be too long.
    """
    with _containers_alone():
        capture = open_capture(str(path), cv2.CAP_FFMPEG)
        size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        capture.release()
        if size[0] * size[1] > MOST_CLIP_PIXELS:
            raise MediaError(
                f"the clip has too many pixels, {size[0]} x {size[1]}: expected at most {MOST_CLIP_PIXELS}"
            )
        try:
            reader = read_video(path, ahead=2)
        except MediaError as error:  # without the path, which is the server's own business
            raise MediaError(str(error).replace(str(path), "the clip")) from error
    if reader.fps and reader.frame_count:
        try:
            check_length(reader.frame_count - 1, reader.frame_count / reader.fps, most_seconds)
        except MediaError:
            reader.close()
            raise
    return reader, size


@contextmanager
def _containers_alone() -> Iterator[None]:
    """Let FFmpeg open nothing but the containers of `is_container`: play lists name other files and addresses."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # looked up whenever a file is opened
    before = os.environ.get(name)
    os.environ[name] = "format_whitelist;mov,matroska,avi,ogg"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check_length(frame: int, time_s: float, most_seconds: float) -> None:
    """Refuse a clip that reaches this frame and time.

    Raises:
        MediaError: It is too long.
    """
    if time_s > most_seconds or frame > most_seconds * _MOST_FPS:
        raise MediaError(f"the clip is too long: expected at most {most_seconds:g} s (and {_MOST_FPS} frames a second)")
