"""The public names of `pyfau.media` for reading: a stable path for users."""

from pyfau.files import is_folder, natural_key
from pyfau.media.animation import kind_of
from pyfau.media.clock import Hole
from pyfau.media.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_video
from pyfau.media.frames import FrameReader
from pyfau.media.images import check_frame, file_record, read_image
from pyfau.media.limits import LIMITS, Limits
from pyfau.media.readers import (
    open_capture,
    read_arrays,
    read_camera,
    read_frames,
    read_images,
    read_video,
)
from pyfau.types import StrPath

# Names of pyfau 0.1.0
PICTURE_SUFFIXES = IMAGE_SUFFIXES
is_picture = is_image
read_picture = read_image

__all__ = [
    "IMAGE_SUFFIXES",
    "LIMITS",
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameReader",
    "Hole",
    "Limits",
    "StrPath",
    "check_frame",
    "file_record",
    "is_folder",
    "is_image",
    "is_picture",
    "is_video",
    "kind_of",
    "natural_key",
    "open_capture",
    "read_arrays",
    "read_camera",
    "read_frames",
    "read_image",
    "read_images",
    "read_picture",
    "read_video",
]
