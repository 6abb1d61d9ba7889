"""The file formats that pyfau opens. Every reader opens files through this module.

FFmpeg and Pillow open far more than media: play lists that name other files and addresses, text,
and PostScript, which is a program. So both get a list of the formats that they may try.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import av
from PIL import Image, UnidentifiedImageError

from pyfau.errors import MediaError
from pyfau.media.limits import LIMITS, Limits

# HEIC and AVIF are listed although Pillow may need a plugin for them. Without the plugin, such
# files in a folder are then reported as failures. Otherwise they would be left out without a
# message. GIF is read as video, because it may move.
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".avif",
        ".heic",
        ".heif",
    }
)
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".mts",
        ".m2ts",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".gif",
        ".y4m",
        ".vob",
        ".mxf",
        ".dv",
    }
)

# Names of Pillow's plugins. HEIF comes from pillow-heif. MPO, two photos in a file, opens as JPEG.
IMAGE_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "HEIF",
)

# Names of FFmpeg's demuxers. None of them opens another file.
CONTAINERS = (
    "mov",
    "matroska",
    "avi",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "m4v",
    "h264",
    "hevc",
    "av1",
    "mjpeg",
    "jpeg_pipe",
    "obu",
    "ivf",
    "asf",
    "flv",
    "ogg",
    "gif",
    "yuv4mpegpipe",
    "mxf",
    "dv",
    "nut",
)
PROTOCOLS = ("file",)

# Brands in the first box of a file that mean HEIC; "mif1" and "msf1" may be HEIC or AVIF.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_SETTINGS = RLock()

# Without its own handler, Python prints errors that Pillow logs on the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def open_container(
    path: Path, limits: Limits = LIMITS, containers: Sequence[str] = CONTAINERS
) -> Any:
    """Open a video file for reading, as an `av.container.InputContainer`.

    Raises:
        MediaError: It is in none of the containers, or it is damaged at its start.
    """
    # The path is absolute, because FFmpeg interprets "a:" at the start of a name as a protocol.
    name = str(path.absolute())
    options = {
        "format_whitelist": ",".join(containers),
        "protocol_whitelist": ",".join(PROTOCOLS),
        # Opening decodes the first frames of some formats.
        "max_pixels": str(limits.frame_pixels),
    }
    try:
        return av.open(name, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError("not a video file in a format that pyfau reads") from error


@contextmanager
def open_image(path: Path, limits: Limits = LIMITS) -> Iterator[Image.Image]:
    """Open an image file; its pixels are decoded later, within the `with` block.

    Raises:
        MediaError: It is in none of `IMAGE_FORMATS`, is damaged, or has too many pixels.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if _is_heic(head):
        _register_heic()
    size = _webp_size(head)
    if size is not None:  # Pillow allocates the pixels of a WebP file when it opens it
        check_pixels(size, limits.image_pixels, "the image")
    try:
        image = Image.open(path, formats=_known(IMAGE_FORMATS))
    except UnidentifiedImageError as error:
        raise MediaError("not an image in a format that pyfau reads") from error
    with image:
        check_pixels(image.size, limits.image_pixels, "the image")
        yield image


def check_pixels(size: tuple[int, int], most: int, what: str) -> None:
    """Refuse a width and height with too many pixels.

    Raises:
        MediaError: There are more than `most`.
    """
    pixels = size[0] * size[1]
    if pixels > most:
        raise MediaError(
            f"{what} has {pixels} pixels ({size[0]} x {size[1]}): expected at most {most}; "
            "raise the limits to read it"
        )


@contextmanager
def quiet_images(messages: list[str] | None = None) -> Iterator[None]:
    """Collect the warnings of Pillow in `messages` instead of printing them.

    Pillow's own limit of pixels, which only warns at first, is replaced by `Limits`.
    """
    # Python keeps both settings for all threads together, so only one thread may change them.
    with _SETTINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            if messages is not None:
                messages.extend(" ".join(str(item.message).split()) for item in caught)


def is_image(path: Any) -> bool:
    """Whether the name ends like that of an image file."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Any) -> bool:
    """Whether the name ends like that of a video file."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _is_heic(head: bytes) -> bool:
    if head[4:8] != b"ftyp":
        return False
    brands = {head[i : i + 4] for i in range(8, len(head) - 3, 4)}
    return not brands.isdisjoint(_HEIC_BRANDS)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file from its first bytes; None for other files."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(head[24:27], "little"),
            1 + int.from_bytes(head[27:30], "little"),
        )
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return (
        int.from_bytes(head[26:28], "little") & 0x3FFF,
        int.from_bytes(head[28:30], "little") & 0x3FFF,
    )


def _register_heic() -> None:
    """Make Pillow read HEIC.

    Raises:
        MediaError: The package for it is not installed.
    """
    try:
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MediaError(
            "a HEIC image, which needs the package pillow-heif: pip install 'pyfau[heic]'"
        ) from error
    pillow_heif.register_heif_opener()


def _known(formats: tuple[str, ...]) -> list[str]:
    """Those of the formats that this Pillow has: it raises an error for an unknown one."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]
