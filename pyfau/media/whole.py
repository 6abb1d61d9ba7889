"""Checks whether a written video is complete. Writers in C can lose its end without an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av

from pyfau.errors import MediaError
from pyfau.media.formats import open_container

_HEAD = 32  # bytes that contain the size of a part


def is_whole(path: Path) -> bool:
    """Whether the sizes of the top-level parts of a video file add up to the size of the file.

    Each part announces its size. Writers write the sizes when they finish the file. After a failed
    write, the sizes are missing or larger than the file.

    Args:
        path: An .avi, .mp4, .mkv or .webm file.

    Raises:
        OSError: The file cannot be read.
    """
    size_of = _SIZES[path.suffix.lower()]
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            part = size_of(file.read(_HEAD), size - at)
            if part <= 0:
                return False
            at += part
    return at == size > 0


def count_packets(path: Path) -> int:
    """The number of packets of the first video stream; 0 if the file cannot be read."""
    try:
        with open_container(path) as file:
            return sum(packet.size > 0 for packet in file.demux(video=0))
    except (av.FFmpegError, OSError, ValueError, MediaError):
        return 0


def _riff_size(head: bytes, left: int) -> int:
    """Bytes of a RIFF chunk of an AVI file; 0 for something else."""
    size = int.from_bytes(head[4:8], "little")
    return 8 + size + size % 2 if head[:4] == b"RIFF" and size else 0


def _box_size(head: bytes, left: int) -> int:
    """Bytes of a box of an MP4 file."""
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        return int.from_bytes(head[8:16], "big")
    return size or left  # 0: up to the end of the file


def _element_size(head: bytes, left: int) -> int:
    """Bytes of an EBML element of a Matroska file; 0 if it does not announce them."""
    name = _length(head)
    width = _length(head[name:])
    if not name or not width:
        return 0
    marked = int.from_bytes(head[name : name + width], "big")
    size = marked & ((1 << 7 * width) - 1)
    unknown = (1 << 7 * width) - 1
    return 0 if size == unknown else name + width + size


def _length(head: bytes) -> int:
    """Bytes of the number at the start. The leading zeros of its first byte give this length."""
    return 9 - head[0].bit_length() if head and head[0] else 0


_SIZES: dict[str, Callable[[bytes, int], int]] = {
    ".avi": _riff_size,
    ".mp4": _box_size,
    ".mkv": _element_size,
    ".webm": _element_size,
}
