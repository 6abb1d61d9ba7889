"""Face crops for training, made by pyfau's own aligner as at run time."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from data import STORED, TEMPLATE
from PIL import Image

from pyfau.faces.crop import crop_face
from pyfau.faces.mesh import MeshAligner
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import Face

AnyAligner = MTCNNAligner | MeshAligner

LOST = 0.6  # with a lower confidence, the tracker counts a face as lost, as in pyfau
PADDING = 0.35  # border around the tight images of faces, as a share of their larger side


def decode(data: bytes) -> np.ndarray:
    """Bytes of an image file -> (H, W, 3) uint8 RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_tar(path: Path) -> dict[str, np.ndarray]:
    """All images of a tar file by their names, (H, W, 3) uint8 RGB each."""
    images = {}
    with tarfile.open(path) as tar:
        for member in tar:
            data = tar.extractfile(member)
            if data is not None and member.name.endswith(".jpg"):
                images[member.name] = decode(data.read())
    return images


def pad(rgb: np.ndarray, share: float) -> np.ndarray:
    """Repeat the edge pixels on all four sides, by a share of the larger side."""
    border = round(max(rgb.shape[:2]) * share)
    return cv2.copyMakeBorder(rgb, border, border, border, border, cv2.BORDER_REPLICATE)


def largest(aligner: AnyAligner, rgb: np.ndarray) -> Face | None:
    """The widest face in an image, or None."""
    faces = aligner.detect(rgb)
    face = max(faces, key=lambda face: face.box_xyxy[2] - face.box_xyxy[0], default=None)
    if face is None or isinstance(aligner, MTCNNAligner):
        return face
    face = aligner.follow(rgb, [face])[0]
    return None if face.confidence < LOST else face


def crop(rgb: np.ndarray, face: Face) -> np.ndarray:
    """The stored crop of a face, (STORED, STORED, 3) uint8."""
    return crop_face(rgb, face.landmarks, np.array(TEMPLATE), STORED)


def again(aligner: AnyAligner, rgb: np.ndarray, last: Face) -> Face:
    """The face near its place in the frame before."""
    if isinstance(aligner, MTCNNAligner):
        return aligner.refine(rgb, [last.box_xyxy])[0]
    return aligner.follow(rgb, [last])[0]


def follow(aligner: AnyAligner, frames: Sequence[np.ndarray]) -> list[Face | None]:
    """Track one face through a sequence as the detector does; None where it is lost."""
    track: list[Face | None] = []
    last: Face | None = None
    for rgb in frames:
        face = None
        if last is not None:
            face = again(aligner, rgb, last)
        if face is None or face.confidence < LOST:
            face = largest(aligner, rgb)
        track.append(face)
        last = face
    return track
