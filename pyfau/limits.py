"""Limits for all readers: how much pyfau decodes before it refuses a file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyfau.errors import OptionError


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest files that pyfau decodes. A few bytes of a file can announce gigabytes.

    Attributes:
        image_pixels: Pixels of one image file. The default is 10,000 x 8,000.
        frame_pixels: Pixels of one frame of a video. The default is a little more than 8K.
        animation_pixels: Pixels of all images in one animated or multi-page file together.
        animation_frames: Images in one animated or multi-page file.
        table_bytes: Bytes that a compressed table (Parquet) decodes to. A table that decodes to at
            most 50 times its size is read in any case.
        table_columns: Columns of one table, also of a table of labels.
        table_faces: Faces of one table.
        file_bytes: Size of one text file: a table, labels, events.
        metadata_bytes: Size of one file with metadata or with a list of inputs, and of one line of
            JSON Lines.
        remote_bytes: Size of an input that is given as a URI, after decompression.
        upload_bytes: Size of a clip that is sent to `pyfau serve`.
        upload_pixels: Pixels of one frame of such a clip.
        upload_pixels_per_s: Pixels of all frames of such a clip together, for each second of the
            longest clip that is allowed. The default is 4K at 30 frames per second.
        camera_bytes: Size of a camera frame that is sent to `pyfau serve`.
        camera_pixels: Pixels of such a frame.
    """

    image_pixels: int = 80_000_000
    frame_pixels: int = 40_000_000
    animation_pixels: int = 400_000_000
    animation_frames: int = 10_000
    table_bytes: int = 256_000_000
    table_columns: int = 10_000
    table_faces: int = 100_000
    file_bytes: int = 2_000_000_000
    metadata_bytes: int = 16_000_000
    remote_bytes: int = 20_000_000_000
    upload_bytes: int = 200_000_000
    upload_pixels: int = 4096 * 2304
    upload_pixels_per_s: int = 3840 * 2160 * 30
    camera_bytes: int = 2 << 20
    camera_pixels: int = 1920 * 1080

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or value < 1:
                raise OptionError(f"limit {name}: expected a whole number above 0, got {value!r}")

    def raised(self, factor: float) -> Limits:
        """A copy of these limits, all multiplied by a factor.

        Raises:
            OptionError: The factor is not a finite number above 0.
        """
        if not (isinstance(factor, int | float) and 0 < factor < math.inf):
            raise OptionError(f"limits: expected a finite factor above 0, got {factor!r}")
        values = dataclasses.asdict(self)
        return Limits(**{name: max(1, int(value * factor)) for name, value in values.items()})


LIMITS = Limits()


def parse_limits(texts: Sequence[str]) -> Limits:
    """Read limits from texts such as "image_pixels=200_000_000" or "table_bytes=2e9".

    Raises:
        OptionError: There is no such limit, or its value is not a whole number above 0.
    """
    known = [field.name for field in dataclasses.fields(Limits)]
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise OptionError(f"--limit: there is no limit {name!r}.{_suggestion(name, known)}")
        values[name] = _whole(name, value)
    return Limits(**values)


def _whole(name: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf or value != int(value):
        raise OptionError(f"--limit {name}: expected a whole number above 0, got {text!r}")
    return int(value)


def _suggestion(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # for an error only, so that starting stays fast

    nearest = get_close_matches(name, known, n=1)
    if nearest:
        return f" Did you mean {nearest[0]!r}?"
    return f" Expected one of {', '.join(known)}"
