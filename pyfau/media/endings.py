"""What a file holds after the last packet that FFmpeg found in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

# The start of a fragment of an MP4 file, after its size: a box that begins with another box.
_FRAGMENT, _FRAGMENT_BYTES = re.compile(rb"moof....mfhd", re.DOTALL), 12
# Bytes of a file that are searched at a time.
_CHUNK_BYTES = 1 << 20
# Packets of an MPEG transport stream start with this byte. Blu-ray puts 4 bytes before each, some
# broadcasters put 16 bytes after it.
_TS_START, _TS_SIZES = 0x47, (188, 192, 204)
# At most this number of bytes after the last image: sound and tables, and padding.
_TS_END_BYTES = 4 << 20


def has_fragment(path: Path, start: int) -> bool:
    """Whether a fragment of an MP4 file starts anywhere after a position.

    Raises:
        OSError: The file cannot be read.
    """
    before = b""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            if _FRAGMENT.search(before + chunk):
                return True
            before = chunk[-_FRAGMENT_BYTES:]
    return False


def lost_at_ts_end(path: Path, start: int) -> int:
    """Number of bytes at the end of an MPEG transport stream that are no packets.

    Args:
        path: The file.
        start: Position of a packet near the end.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = _ts_packet_size(file)
        if not size:
            return 0
        file.seek(start)
        data = file.read(_TS_END_BYTES)
    first = data[:size].find(_TS_START)
    if first < 0:
        return 0
    return size * sum(data[at] != _TS_START for at in range(first, len(data), size))


def _ts_packet_size(file: BinaryIO) -> int:
    """Distance in bytes between the packets of a transport stream; 0 if it is not clear."""
    data = file.read(5 * max(_TS_SIZES))
    for size in _TS_SIZES:
        for first in range(size):
            starts = data[first : first + 4 * size + 1 : size]
            if len(starts) == 5 and all(byte == _TS_START for byte in starts):
                return size
    return 0
