"""Overlays: faces and action units drawn onto images and video."""

from pyfau.files import check_is_other
from pyfau.overlay.drawing import LastFaces, draw_overlay
from pyfau.overlay.writer import OverlayWriter, write_overlay_image

write_overlay_picture = write_overlay_image  # the name of pyfau 0.1.0

__all__ = [
    "LastFaces",
    "OverlayWriter",
    "check_is_other",
    "draw_overlay",
    "write_overlay_image",
    "write_overlay_picture",
]
