"""The public names of `pyfau.media.encoding`: a stable path for users."""

from pyfau.media.encoding import OPENCV_CODECS, VideoEncoder, open_encoder

Encoder = VideoEncoder

__all__ = [
    "OPENCV_CODECS",
    "Encoder",
    "VideoEncoder",
    "open_encoder",
]
