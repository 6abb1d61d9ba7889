"""Image files and arrays as RGB."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pyfau.checks import check_color
from pyfau.errors import InputError, MediaError
from pyfau.files import real_path
from pyfau.media.damage import damage_of_image
from pyfau.media.formats import is_image, open_image, quiet_images
from pyfau.media.limits import LIMITS, Limits
from pyfau.planes import Planes
from pyfau.types import StrPath, UInt8Array

_EXPECTED = "expected an (H, W, 3) array of uint8"
_CONVERTED_ROWS = 512
_ALPHA_ROWS = 256  # blended at a time, so that intermediate values in floats take little memory


def read_image(
    path: StrPath, *, limits: Limits = LIMITS, warnings: list[str] | None = None
) -> UInt8Array:
    """Read one image file, turned upright by its EXIF orientation.

    Transparent parts are laid on white, as `check_frame` does. 16-bit grey is divided by 257. Of
    16-bit colour, Pillow keeps the high byte, which is the same to within one level. If a file has
    several images, the first is read; `pyfau.video.read_images` reads all.

    Args:
        path: A local file.
        limits: Larger images are refused before they are decoded.
        warnings: Filled with what is wrong with the file without stopping the work, in words.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        MediaError: The file is missing, empty, damaged, too large, or not an image.
    """
    try:
        return decode_image(Path(path), limits, warnings)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error.__cause__


def check_frame(image: Any, *, color: str = "rgb", name: str = "image") -> UInt8Array:
    """Check an image and bring it to RGB.

    Args:
        image: (H, W, 3), (H, W) or (H, W, 1) grey, or (H, W, 4) with alpha, which is laid on
            white; uint8, uint16 (divided by 257), or float in [0, 1] (multiplied by 255). It can be
            anything that numpy converts to such an array, a PIL image (turned upright by its EXIF
            orientation), or `Planes`.
        color: "rgb" or "bgr": the order of the channels in an array. A PIL image and `Planes` have
            their own.
        name: Name of the image for error messages.

    Returns:
        (H, W, 3) uint8, RGB, contiguous. An array that already has this form is returned without a
        copy.

    Raises:
        InputError: Wrong type, dtype, shape or range; the message names what was given and
            expected.
        OptionError: `color` is unknown.
    """
    check_color(color)
    if isinstance(image, Planes):
        return image.convert()
    if isinstance(image, str | os.PathLike):
        raise InputError(f"{name}: {_EXPECTED}, got a path; read_image reads image files")
    if isinstance(image, Image.Image):
        image, color = _image_array(image), "rgb"
    array = _to_uint8(_checked_array(image, name), name)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    rgb = array[:, :, 2::-1] if color == "bgr" else array[:, :, :3]
    if array.shape[2] == 4:
        return _on_white(rgb, array[:, :, 3:])
    return np.ascontiguousarray(rgb)


def file_record(path: StrPath) -> dict[str, Any]:
    """A record that changes when a file, or a folder of images, changes."""
    path = real_path(path)
    try:
        status = path.stat()
        if not path.is_dir():
            return {
                "path": str(path),
                "bytes": status.st_size,
                "modified_ns": status.st_mtime_ns,
            }
        images = [
            (p.name, p.stat().st_size, p.stat().st_mtime_ns)
            for p in sorted(path.iterdir())
            if is_image(p)
        ]
    except OSError:
        return {"path": str(path)}
    listing = repr(images).encode(errors="backslashreplace")
    digest = hashlib.sha256(listing).hexdigest()
    return {"path": str(path), "images": len(images), "sha256_of_listing": digest}


def decode_image(
    path: Path, limits: Limits = LIMITS, warnings: list[str] | None = None
) -> UInt8Array:
    """Read an image like `read_image`; the errors and warnings do not name the file."""
    check_file(path)
    messages: list[str] = []
    try:
        with quiet_images(messages), open_image(path, limits) as image:
            count = count_images(image)
            kind = image.format
            rgb = check_frame(image)
    except MediaError:
        raise
    except Exception as error:  # with damaged files, Pillow can raise almost any exception
        raise unreadable(error) from error
    if warnings is not None:
        if count > 1:
            warnings.append(f"the file holds {count} images; the first is read")
        warnings += summary(messages)
        warnings += damage_of_image(path, kind)
    return rgb


def count_images(image: Image.Image) -> int:
    """How many images of a file are meant to be seen; 1 for a photo with a preview in it."""
    if image.format == "MPO":
        return 1
    return int(getattr(image, "n_frames", 1))


def unreadable(error: Exception) -> MediaError:
    """The error for a damaged image file."""
    if isinstance(error, OSError) and error.strerror:
        return MediaError(f"could not be read as an image: {error.strerror}")
    if isinstance(error, MemoryError):  # it has no text
        return MediaError("could not be read as an image: there is not enough memory")
    return MediaError(f"could not be read as an image: {' '.join(str(error).split())}")


def summary(messages: list[str]) -> list[str]:
    """The messages of a decoder in one line; none for none."""
    if not messages:
        return []
    number = "a message" if len(messages) == 1 else f"{len(messages)} messages, the first"
    return [f"the decoder gave {number}: {messages[0]}"]


def check_file(path: Path) -> None:
    """Check that a path is a regular file with something in it; errors do not name the file."""
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


def _image_array(image: Image.Image) -> np.ndarray[Any, Any]:
    """Pixels of a PIL image as an array that `check_frame` takes."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # otherwise, it would be copied
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":  # how Pillow represents some 16-bit grey files
        array = np.asarray(image)
        low, high = array.min(), array.max()
        if low < 0 or high > 65535:
            raise InputError(f"expected at most 16 bit, got grey values from {low} to {high}")
        return array.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    wanted: Literal["RGB", "RGBA"] = "RGBA" if alpha else "RGB"
    return _converted(image, wanted)


def _converted(image: Image.Image, mode: Literal["RGB", "RGBA"]) -> UInt8Array:
    """Pixels of a PIL image in another mode.

    Rows are converted a part at a time: Pillow takes 4 bytes for a pixel in most modes, and makes
    several copies on the way to an array.
    """
    result = np.empty((image.height, image.width, len(mode)), np.uint8)
    for top in range(0, image.height, _CONVERTED_ROWS):
        end = min(top + _CONVERTED_ROWS, image.height)
        part = image.crop((0, top, image.width, end))
        result[top:end] = np.asarray(part if part.mode == mode else part.convert(mode))
    return result


def _checked_array(image: Any, name: str) -> np.ndarray[Any, Any]:
    """The image as an array whose shape and dtype are among the expected ones."""
    try:
        array = np.asarray(image)
    except Exception as error:  # ragged lists, tensors on a GPU: whatever __array__ raises
        raise InputError(f"{name}: {_EXPECTED}, got {type(image).__name__} ({error})") from error
    shape, dtype = array.shape, array.dtype
    if dtype.kind not in "uf" or (dtype.kind == "u" and dtype.itemsize > 2):
        raise InputError(
            f"{name}: {_EXPECTED}, uint16 or float in [0, 1], got {dtype} of shape {shape}"
        )
    has_channels = array.ndim == 3 and shape[2] in (1, 3, 4)
    if 0 in shape or not (array.ndim == 2 or has_channels):
        hint = ""
        if array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; channels come last: transpose(1, 2, 0)"
        raise InputError(f"{name}: {_EXPECTED}, got shape {shape}{hint}")
    return array


def _to_uint8(array: np.ndarray[Any, Any], name: str) -> UInt8Array:
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN too
            raise InputError(f"{name}: expected float values in [0, 1], got {low:g} to {high:g}")
        return np.asarray(np.rint(array.astype(np.float32) * 255.0), np.uint8)
    if array.dtype.itemsize == 2:
        # A table takes less memory than arithmetic in 32 bits.
        table = ((np.arange(65536) + 128) // 257).astype(np.uint8)
        return np.asarray(table[array], np.uint8)
    return np.asarray(array, np.uint8)


def _on_white(rgb: UInt8Array, alpha: UInt8Array) -> UInt8Array:
    """Blend (H, W, 3) with white by (H, W, 1) alpha."""
    result = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), _ALPHA_ROWS):
        part = slice(top, top + _ALPHA_ROWS)
        share = alpha[part].astype(np.uint16)
        result[part] = (rgb[part] * share + 255 * (255 - share) + 127) // 255
    return result
