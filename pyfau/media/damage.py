"""Finds damage that FFmpeg and Pillow do not report: they decode such images without an error.

Each check reads the bytes of the file. It finds what breaks a rule of the format. Damage that
breaks no rule stays hidden.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pyfau.files import read_file
from pyfau.types import UInt8Array

# A larger file is not checked: the check would take more memory and time than decoding.
_MOST_BYTES = 256 << 20
_MOST_GIF_IMAGES = 10_000
_DAMAGED = "the file is damaged: parts of the image may be wrong"
# Coded images have no long runs of zeros, except where large parts of them have one colour. Then
# one zero byte codes about 10,000 pixels.
_ZEROS, _PIXELS_PER_ZERO = 512, 2000
_JPEG_ZEROS = 64
# Second bytes of JPEG markers: restarts, the start of an image, its end, tables and scans.
_RESTARTS = range(0xD0, 0xD8)
_BETWEEN_SCANS = frozenset({0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_SEQUENTIAL = (0xC0, 0xC1)
# Chunks of a PNG without a capital letter that change pixels: transparency, and the images of an
# animation.
_PNG_PIXELS = (b"tRNS", b"fcTL", b"fdAT")
# At the end of a slice of FFV1: 3 bytes with its size, 1 byte with its state, 4 bytes of checksum.
_SLICE_END_BYTES = 8
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Decoders of FFmpeg that report few kinds of damage.
HIDING_CODECS = ("mjpeg", "vp8", "vp9", "ffv1")
_MAX_CLUSTER_BYTES = 64 << 20
_CLUSTER, _CHECKSUM, _TIME, _SEGMENT = 0x1F43B675, 0xBF, 0xE7, 0x18538067


def damage_of_image(path: Path, kind: str | None) -> list[str]:
    """What is wrong with the bytes of an image file that Pillow decoded, in words.

    Args:
        path: The file.
        kind: Pillow's name of its format.
    """
    is_damaged = _IMAGE_CHECKS.get(kind or "")
    if is_damaged is None:
        return []
    try:
        return [_DAMAGED] if is_damaged(read_file(path, _MOST_BYTES)) else []
    except OSError:  # too large, or removed since it was opened
        return []


def is_damaged_packet(codec: str, data: bytes, pixels: int) -> bool:
    """Whether a packet of a video breaks a rule of its codec.

    Args:
        codec: One of `HIDING_CODECS`.
        data: The packet.
        pixels: Pixels of a frame.
    """
    if codec == "mjpeg":
        return _is_damaged_jpeg(data)
    if codec == "ffv1":
        return not _has_right_slices(data)
    return _has_zeros(data, pixels)


def _has_zeros(data: bytes, pixels: int) -> bool:
    """Whether a coded image has more zero bytes in a row than coding makes."""
    return bytes(max(_ZEROS, pixels // _PIXELS_PER_ZERO)) in data


def _has_right_slices(data: bytes) -> bool:
    """Whether the checksums of all slices of an FFV1 frame are right."""
    # zlib computes the same checksum for mirrored bytes. The values start and end at 0 in FFV1.
    mirrored = data.translate(_MIRRORED)
    end = len(data)
    while end >= _SLICE_END_BYTES:
        start = end - _SLICE_END_BYTES - int.from_bytes(data[end - 8 : end - 5], "big")
        if start < 0 or zlib.crc32(mirrored[start:end], 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return end == 0


def _is_damaged_jpeg(data: bytes) -> bool:
    """Whether the coded parts of a JPEG have markers or runs of zeros that cannot be there."""
    array = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(array[:-1] == 0xFF)
    places = places[~np.isin(array[places + 1], (0x00, 0xFF))]
    is_sequential = has_flat_codes = False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xD9:
            return False
        is_sequential |= marker in _SEQUENTIAL
        has_flat_codes |= marker == 0xC4 and _codes_flat_parts(data[at + 4 : end])
        if marker == 0xDA:
            at = _end_of_scan(array, places, end)
            may_have_zeros = has_flat_codes or not is_sequential
            if at < 0 or (not may_have_zeros and bytes(_JPEG_ZEROS) in data[end:at]):
                return True
            continue
        at = end
    return False


def _codes_flat_parts(tables: bytes) -> bool:
    """Whether zeros in a JPEG code parts of one colour.

    The first symbol of a Huffman table has a code of zeros. In the table of brightness (number 0 of
    class 1), the symbol 0 ends a block without details.
    """
    at = 0
    while at + 17 <= len(tables):
        count = sum(tables[at + 1 : at + 17])
        if tables[at] == 0x10 and tables[at + 17 : at + 18] == b"\0":
            return True
        at += 17 + count
    return False


def _end_of_scan(array: UInt8Array, places: npt.NDArray[np.intp], start: int) -> int:
    """Where the coded data of a scan end; -1 if there is a marker that cannot be there."""
    coming = places[np.searchsorted(places, start) :]
    markers = array[coming + 1]
    stops = np.flatnonzero((markers < _RESTARTS.start) | (markers >= _RESTARTS.stop))
    count = int(stops[0]) if len(stops) else len(markers)
    restarts = markers[:count].astype(int) - _RESTARTS.start
    if (restarts != np.arange(count) % len(_RESTARTS)).any():
        return -1
    if not len(stops):
        return len(array)
    return int(coming[count]) if int(markers[count]) in _BETWEEN_SCANS else -1


def _is_damaged_png(data: bytes) -> bool:
    """Whether the checksum of a chunk with pixels or colours is wrong."""
    at = 8
    while at + 12 <= len(data):
        name = data[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        needed = name[:1].isupper() or name in _PNG_PIXELS
        if needed and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return True
        at = end + 4
    return False


def _is_damaged_webp(data: bytes) -> bool:
    """Whether the parts of a WebP file do not fit together, or a lossy image has lost bytes."""
    size = 8 + int.from_bytes(data[4:8], "little")
    return size > len(data) + 1 or _are_damaged_chunks(data[12:size])


def _are_damaged_chunks(data: bytes) -> bool:
    at = 0
    while at + 8 <= len(data):
        name = data[at : at + 4]
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data) or not name.strip(b" ").isalnum():
            return True
        chunk = data[at + 8 : end]
        if name == b"VP8 ":
            width = int.from_bytes(chunk[6:8], "little") & 0x3FFF
            height = int.from_bytes(chunk[8:10], "little") & 0x3FFF
            if _has_zeros(chunk, width * height):
                return True
        if name == b"ANMF" and _are_damaged_chunks(chunk[16:]):
            return True
        at = end + end % 2
    return False


_IMAGE_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": _is_damaged_jpeg,
    "MPO": _is_damaged_jpeg,
    "PNG": _is_damaged_png,
    "WEBP": _is_damaged_webp,
}


def count_damaged_gif_images(path: Path) -> int:
    """Number of the first 10,000 images of a GIF that cannot be decoded completely.

    FFmpeg decodes such an image up to the damage, without an error.
    """
    try:
        data = read_file(path, _MOST_BYTES)
    except OSError:  # too large, or removed since it was opened
        return 0
    count = 0
    for single in islice(_gif_images(data), _MOST_GIF_IMAGES):
        try:
            with Image.open(io.BytesIO(single), formats=["GIF"]) as image:
                image.load()
        except Exception:  # with damaged files, Pillow can raise almost any exception
            count += 1
    return count


def _gif_images(data: bytes) -> Iterator[bytes]:
    """Each image as a file of its own."""
    head = 13 + _palette_bytes(data[10])
    at = head
    while at + 10 < len(data):
        if data[at] == 0x21:  # an extension
            at = _end_of_blocks(data, at + 2)
            continue
        if data[at] != 0x2C:
            return
        end = _end_of_blocks(data, at + 11 + _palette_bytes(data[at + 9]))
        size = data[at + 5 : at + 9]
        place = bytes(4)
        yield data[:6] + size + data[10:head] + b"\x2c" + place + data[at + 5 : end] + b";"
        at = end


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


class Span(NamedTuple):
    """A part of a video in seconds; the end is infinite for the last part."""

    start_s: float
    end_s: float


def damaged_matroska_parts(path: Path) -> list[Span]:
    """The parts of a Matroska file whose checksum is wrong. Few programs write checksums.

    Raises:
        OSError: The file cannot be read.
    """
    found: list[Span] = []
    before = 0.0
    damaged = False
    for time_s, is_right in _clusters(path):
        if damaged:
            found.append(Span(before, max(before, time_s)))
        before, damaged = time_s, not is_right
    if damaged:
        found.append(Span(before, float("inf")))
    return found


def _clusters(path: Path) -> Iterator[tuple[float, bool]]:
    """Time in seconds of each cluster that has a checksum, and whether its checksum is right."""
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(12)
            name, start = _number(head, 0, keep=True)
            length, start = _number(head, start)
            if not start or length is None:
                return
            if name == _SEGMENT:
                at += start
                continue
            at += start + length
            if name == _CLUSTER and at <= size and length <= _MAX_CLUSTER_BYTES:
                file.seek(at - length)
                data = file.read(length)
                if data[:2] == bytes([_CHECKSUM, 0x84]):
                    yield _time_s(data), zlib.crc32(data[6:]) == int.from_bytes(data[2:6], "little")


def _time_s(cluster: bytes) -> float:
    """The time of a cluster with a checksum, in the usual unit of 1 ms."""
    length, start = _number(cluster, 7)
    if cluster[6] != _TIME or not start or not length:
        return 0.0
    return int.from_bytes(cluster[start : start + length], "big") / 1000


def _number(data: bytes, at: int, *, keep: bool = False) -> tuple[int | None, int]:
    """A number of variable length in EBML, and where it ends.

    Args:
        data: Bytes.
        at: Where it begins.
        keep: Keep the bit that marks its length, as names do.

    Returns:
        None instead of the number for an unknown length. 0 as the end if it is damaged.
    """
    if at >= len(data) or not data[at]:
        return None, 0
    width = 9 - data[at].bit_length()
    number = int.from_bytes(data[at : at + width], "big")
    if keep:
        return number, at + width
    number &= (1 << 7 * width) - 1
    return (None if number == (1 << 7 * width) - 1 else number), at + width
