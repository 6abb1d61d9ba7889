"""Reading frames from files, cameras and arrays, and writing videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.media.encoding import VideoEncoder, open_encoder
    from pyfau.media.frames import FrameReader
    from pyfau.media.images import read_image
    from pyfau.media.limits import LIMITS, Limits
    from pyfau.media.readers import read_arrays, read_camera, read_frames, read_images, read_video

__all__ = [
    "FrameReader",
    "LIMITS",
    "Limits",
    "VideoEncoder",
    "open_encoder",
    "read_arrays",
    "read_camera",
    "read_frames",
    "read_images",
    "read_image",
    "read_video",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FrameReader": "frames",
        "LIMITS": "limits",
        "Limits": "limits",
        "VideoEncoder": "encoding",
        "open_encoder": "encoding",
        "read_arrays": "readers",
        "read_camera": "readers",
        "read_frames": "readers",
        "read_images": "readers",
        "read_image": "images",
        "read_video": "readers",
    },
)
