"""Checks of uploads before anything decodes them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from PIL import Image

from pyfau.errors import InputError, MediaError
from pyfau.limits import LIMITS, Limits
from pyfau.media.formats import open_container
from pyfau.media.frames import FrameReader
from pyfau.media.images import check_frame
from pyfau.media.readers import read_video
from pyfau.types import UInt8Array

_MOST_SCANS = 64  # scans of a JPEG; the decoder processes all pixels for each scan
_MOST_FPS = 240  # a clip of few seconds must not have millions of frames
# Names of FFmpeg's demuxers for the containers of `is_container`.
_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "ogg"})


def decode_frame(data: bytes, limits: Limits = LIMITS) -> UInt8Array:
    """Decode a JPEG of a camera.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: It is not a JPEG, is damaged, or has more pixels than a frame may have; those
            are never decoded.
    """
    if data.count(b"\xff\xda") > _MOST_SCANS:  # inside a scan, ff is followed by 00
        raise InputError(f"the frame is a JPEG of more than {_MOST_SCANS} scans")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:  # reads the header alone
            width, height = image.size
            if width * height > limits.camera_pixels:
                raise InputError(
                    f"the frame has too many pixels, {width} x {height}: "
                    f"expected at most {limits.camera_pixels}"
                )
            return check_frame(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise InputError(
            f"the frame has too many pixels: expected at most {limits.camera_pixels}"
        ) from error
    except Exception as error:  # with damaged files, Pillow can raise almost any exception
        raise InputError("the frame is not a JPEG image that can be read") from error


def is_container(head: bytes) -> bool:
    """Whether a file starts like MP4 or MOV, WebM or Matroska, AVI, or Ogg.

    FFmpeg may read the file as something else; see `_check_container`.

    Args:
        head: At least the first 12 bytes.
    """
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or head[:4] in (b"\x1aE\xdf\xa3", b"OggS")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    )


def open_clip(
    path: Path, most_seconds: float, limits: Limits = LIMITS, *, planar: bool = False
) -> FrameReader:
    """Open an uploaded clip.

    Args:
        path: Its file.
        most_seconds: Longer clips are refused.
        limits: Larger clips are refused.
        planar: As for `pyfau.media.readers.read_video`.

    Returns:
        Its reader.

    Raises:
        MediaError: It is not a clip, or it has too many pixels, or it is too long.
    """
    lower = dataclasses.replace(limits, frame_pixels=limits.upload_pixels)
    try:
        _check_container(path, limits)
        reader = read_video(path, ahead=2, limits=lower, planar=planar)
    except MediaError as error:  # without the path, which the client must not see
        raise MediaError(str(error).replace(str(path), "the clip")) from error
    if reader.fps and reader.frame_count:
        seconds = reader.frame_count / reader.fps
        try:
            check_length(reader.frame_count - 1, seconds, most_seconds, reader.size, limits)
        except MediaError:
            reader.close()
            raise
    return reader


def _check_container(path: Path, limits: Limits) -> None:
    """Check the format that FFmpeg detects, and the number of pixels, before anything decodes the
    file. A check of the first bytes is not enough, because FFmpeg may detect another format.

    Raises:
        MediaError: It is none of the containers of `is_container`, or has too many pixels.
    """
    try:
        opened = open_container(path, limits)
    except MediaError as error:
        raise MediaError(f"the clip: {error}") from error
    with opened as container:
        if container.format.name not in _CONTAINERS:
            raise MediaError("the clip: not a video file in a format that this server accepts")
        for stream in container.streams.video:
            codec = stream.codec_context
            if codec is None:  # FFmpeg has no decoder for it
                continue
            size = (codec.width, codec.height)
            if size[0] * size[1] > limits.upload_pixels:
                raise MediaError(
                    f"the clip has too many pixels, {size[0]} x {size[1]}: "
                    f"expected at most {limits.upload_pixels}"
                )


def check_length(
    frame: int,
    time_s: float,
    most_seconds: float,
    size: tuple[int, int] | None,
    limits: Limits = LIMITS,
) -> None:
    """Refuse a clip that reaches this frame and time.

    Args:
        frame: Index of the frame.
        time_s: Its time.
        most_seconds: The longest clip.
        size: Width and height of its frames; None if unknown.
        limits: The pixels of all frames together.

    Raises:
        MediaError: It is too long, or it has too many pixels in all frames together.
    """
    if time_s > most_seconds or frame > most_seconds * _MOST_FPS:
        raise MediaError(
            f"the clip is too long: expected at most {most_seconds:g} s "
            f"(and {_MOST_FPS} frames a second)"
        )
    pixels = 0 if size is None else size[0] * size[1]
    if frame * pixels > most_seconds * limits.upload_pixels_per_s:
        raise MediaError(
            f"the clip has too many frames of {pixels} pixels: expected at most "
            f"{most_seconds * limits.upload_pixels_per_s:.0f} pixels in all"
        )
