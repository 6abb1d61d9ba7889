"""Files with several images: animated WebP, PNG and AVIF, and TIFF with several pages."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pyfau.errors import MediaError
from pyfau.media.damage import damage_of_image
from pyfau.media.formats import open_image, quiet_images
from pyfau.media.frames import Frames
from pyfau.media.images import check_file, check_frame, count_images, summary, unreadable
from pyfau.media.limits import LIMITS, Limits
from pyfau.types import Frame, StrPath

# How browsers show images whose duration is missing or shorter than this.
_USUAL_MS, _LEAST_MS = 100.0, 10.0
# A TIFF page with one of these bits is a smaller copy of another page, or a mask.
_TIFF_KIND, _TIFF_COPY_OR_MASK = 254, 1 | 4
_NO_LIMITS = {"animation_pixels": sys.maxsize, "animation_frames": sys.maxsize}


class Animation:
    """The images of one file as frames.

    Attributes:
        count: Number of images in the file.
        timed: Whether the images have times.
        warnings: What is wrong with the file, in words; complete after the last frame.

    Raises:
        MediaError: The file cannot be read as an image, or its images have too many pixels
            together.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        check_file(path)
        self.warnings: list[str] = []
        self._path = path
        self._limits = limits
        try:
            with quiet_images(), open_image(path, limits) as image:
                self._kind = image.format
                self.timed = image.format != "TIFF"
                self.count = count_images(image)
                pixels = self.count * image.width * image.height
        except MediaError:
            raise
        except Exception as error:  # with damaged files, Pillow can raise almost any exception
            raise unreadable(error) from error
        self._check_size(pixels)

    def frames(self, fps: float | None) -> Frames:
        """Decode; an image that is damaged ends the sequence with a warning.

        Args:
            fps: Frames without a time get the time index / fps.
        """
        messages: list[str] = []
        index = 0
        with open_image(self._path, self._limits) as image:
            time_ms = 0.0
            for number in range(self.count):
                try:
                    with quiet_images(messages):
                        image.seek(number)
                        shown = _is_shown(image, number)
                        rgb = check_frame(image) if shown else None
                except Exception as error:
                    self.warnings.append(
                        f"image {number} of {self.count} {unreadable(error)}; reading ends there"
                    )
                    break
                if rgb is None:
                    continue
                if self.timed:
                    yield Frame(index, time_ms / 1000, rgb)
                    time_ms += _duration_ms(image)
                else:
                    time_s = index / fps if fps else math.nan
                    yield Frame(index, time_s, rgb, str(self._path))
                index += 1
        self.warnings += summary(messages)
        self.warnings += damage_of_image(self._path, self._kind)

    def _check_size(self, pixels: int) -> None:
        limits = self._limits
        if self.count > 1 and pixels > limits.animation_pixels:
            raise MediaError(
                f"{self.count} images with {pixels} pixels together: "
                f"expected at most {limits.animation_pixels}; raise the limits to read them"
            )
        if self.count > limits.animation_frames:
            raise MediaError(
                f"{self.count} images: expected at most {limits.animation_frames}; "
                "raise the limits to read them"
            )


def kind_of(path: StrPath, limits: Limits = LIMITS) -> Literal["image", "images", "video"]:
    """The kind of content of an image file.

    Returns:
        "image" for one image, "images" for pages, "video" for an animation. A file that cannot
        be read counts as one image.
    """
    try:
        animation = Animation(Path(path), dataclasses.replace(limits, **_NO_LIMITS))
    except MediaError:
        return "image"
    if animation.count == 1:
        return "image"
    return "video" if animation.timed else "images"


def _is_shown(image: Image.Image, number: int) -> bool:
    """Whether an image belongs to the sequence."""
    if number == 0 and getattr(image, "default_image", False):
        return False  # of an animated PNG: shown by programs that cannot animate
    tags: Any = getattr(image, "tag_v2", None)
    return not (tags and int(tags.get(_TIFF_KIND, 0)) & _TIFF_COPY_OR_MASK)


def _duration_ms(image: Image.Image) -> float:
    duration = float(image.info.get("duration") or 0.0)
    return duration if duration >= _LEAST_MS else _USUAL_MS
