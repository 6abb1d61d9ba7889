"""The paths that the documentation promises."""

from __future__ import annotations

import pyfau.encoders
import pyfau.media.encoding
import pyfau.overlay
import pyfau.video


def test_public_paths_stay() -> None:
    for module in (pyfau.video, pyfau.encoders):
        for name in module.__all__:
            assert hasattr(module, name), name
    assert pyfau.encoders.Encoder is pyfau.media.encoding.VideoEncoder
    assert pyfau.video.read_video.__module__ == "pyfau.media.readers"
    assert {"read_frames", "read_video", "read_images", "read_image"} <= set(pyfau.video.__all__)
    assert pyfau.video.read_picture is pyfau.video.read_image
    assert pyfau.video.is_picture is pyfau.video.is_image
    assert pyfau.video.PICTURE_SUFFIXES is pyfau.video.IMAGE_SUFFIXES
    assert pyfau.overlay.write_overlay_picture is pyfau.overlay.write_overlay_image
