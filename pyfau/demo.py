"""A short clip made from a portrait in the public domain, for a first run without any data."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from pyfau.errors import MediaError, OptionError
from pyfau.files import UnfinishedFile, writing
from pyfau.media.encoding import open_encoder
from pyfau.types import UInt8Array

FPS, FRAMES, WIDTH, HEIGHT = 25.0, 75, 640, 480
_FACE = (224.0, 115.0)  # middle of the face in the portrait, in pixels


def _portrait() -> UInt8Array:
    """The astronaut Eileen Collins (NASA, public domain): (324, 496, 3) uint8 RGB."""
    # The file is read as bytes because the package may be in a zip archive, where files have no
    # path. It is stored without loss, so that every version of OpenCV decodes the same pixels.
    packed = (files("pyfau") / "assets" / "demo" / "portrait.webp").read_bytes()
    bgr = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise MediaError(
            "OpenCV cannot decode the portrait of the demo: this build of OpenCV lacks WebP"
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def demo_frames() -> list[UInt8Array]:
    """The portrait seen by a camera that pans, zooms and tilts.

    Returns:
        75 frames, (480, 640, 3) uint8 RGB.
    """
    portrait = _portrait()
    frames = []
    for i in range(FRAMES):
        phase = 2 * math.pi * i / FRAMES
        matrix = np.asarray(
            cv2.getRotationMatrix2D(_FACE, 6 * math.sin(phase), 1.7 + 0.25 * math.sin(2 * phase))
        )
        matrix[0, 2] += WIDTH / 2 - _FACE[0] + 60 * math.sin(phase)
        matrix[1, 2] += 0.45 * HEIGHT - _FACE[1] + 12 * math.sin(2 * phase)
        frame = cv2.warpAffine(
            portrait,
            matrix,
            (WIDTH, HEIGHT),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        frames.append(np.asarray(frame, np.uint8))
    return frames


def write_demo_clip(path: Path) -> Path:
    """Write the clip as an MPEG-4 file.

    Raises:
        OptionError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    unfinished = UnfinishedFile(path)
    try:
        encoder = open_encoder(unfinished.part, FPS, (WIDTH, HEIGHT), "mp4v", name=path)
        for number, frame in enumerate(demo_frames()):
            encoder.write(frame, number / FPS)
        encoder.close(True)
        with writing(path):
            unfinished.finish()
    except BaseException:
        unfinished.discard()
        raise
    return path
