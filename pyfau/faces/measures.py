"""Measures of a face: head pose, size, sharpness, share that is inside the image, and quality."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pyfau.faces.boxes import longer_side
from pyfau.faces.crop import crop_face
from pyfau.faces.halves import Image
from pyfau.faces.pose import head_poses
from pyfau.faces.ranges import quality_of
from pyfau.types import Face, FaceMeasures, FloatArray, UInt8Array

# Where the five landmarks are in a view, as fractions of its side.
_TEMPLATE = ((0.32, 0.36), (0.68, 0.36), (0.5, 0.56), (0.36, 0.75), (0.64, 0.75))
_SIDE = 64  # of a view, in pixels; the eyes are 23 pixels apart
_NETWORK_SIDE = 32
# The grey levels of a face vary by more than this in almost every image. In a darker image, the
# noise of the camera would count as detail.
_LEAST_CONTRAST = 6.0
# Confidence falls below these values: the side of the box in pixels, and the visible share of the
# face. Above them, it is the aligner's own.
_SMALL_FACE = 20.0
_VISIBLE = 0.8

Size = tuple[int, int]


def cut_view(rgb: Image, face: Face) -> UInt8Array:
    """The small view of a face, from which `measure_faces` computes sharpness and cover.

    Args:
        rgb: (H, W, 3) uint8, RGB, or its `Halves`.
        face: The face in this image.

    Returns:
        (64, 64, 3) uint8, RGB: the aligned face from the forehead to the chin.

    Raises:
        InputError: The landmarks are not finite or coincide.
    """
    return crop_face(rgb, face.landmarks, _TEMPLATE, _SIDE)


def measure_faces(
    faces: Sequence[Face], views: Sequence[UInt8Array], sizes: Sequence[Size]
) -> list[FaceMeasures]:
    """Measure F faces.

    Args:
        faces: The faces.
        views: The view of each face, from `cut_view`.
        sizes: Width and height in pixels of the image of each face.
    """
    if not faces:
        return []
    poses = head_poses([face.landmarks for face in faces])
    for pose, face in zip(poses, faces, strict=True):
        if face.pose is not None:
            pose[:] = face.pose
    values = dict(zip(("pitch", "yaw", "roll"), poses.T, strict=True))
    eyes = np.array([face.landmarks[1] - face.landmarks[0] for face in faces], np.float64)
    values["eye_distance"] = np.hypot(*eyes.T)
    values["sharpness"] = np.array([sharpness_of(view) for view in views])
    values["inside"] = np.array(
        [inside_of(face.box_xyxy, size) for face, size in zip(faces, sizes, strict=True)]
    )
    values["covered"] = covered_shares(views)
    values["quality"] = quality_of(values)
    table = zip(*(values[name].tolist() for name in FaceMeasures._fields), strict=True)
    return [FaceMeasures(*row) for row in table]


def trusted_confidence(face: Face, measures: FaceMeasures) -> float:
    """The aligner's confidence, reduced for a face that is tiny, covered or outside the image.

    An aligner often has a high confidence although most of the face cannot be seen.

    Args:
        face: The face.
        measures: Its measures.

    Returns:
        The confidence, times two factors in [0, 1]. The first is the side of the box divided by
        20 pixels. The second is the visible share of the face divided by 0.8. Each is at most 1.
    """
    visible = measures.inside * (1 - measures.covered)
    by_size = min(1.0, longer_side(face.box_xyxy) / _SMALL_FACE)
    by_share = min(1.0, visible / _VISIBLE)
    return float(face.confidence * by_size * by_share)


def inside_of(box_xyxy: FloatArray, size: Size) -> float:
    """Share of a box that is inside the image, in [0, 1].

    Args:
        box_xyxy: (4,) pixels.
        size: Width and height of the image in pixels.
    """
    box = np.asarray(box_xyxy, np.float64)
    area = np.prod(box[2:] - box[:2])
    shown = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
    if not area > 0 or min(shown) <= 0:
        return 0.0
    return min(1.0, float(np.prod(shown) / area))


def sharpness_of(view: UInt8Array) -> float:
    """Detail of a face: variance of the Laplacian of its view, divided by that of its grey levels.

    A view has the same size for every face, and the division removes the contrast. The value
    therefore depends on neither, as long as the face is at least as large as the view (23 pixels
    between the eyes). A smaller face is enlarged, and is blurred.

    Args:
        view: (64, 64, 3) uint8, RGB, from `cut_view`.

    Returns:
        From 0 for a uniform view. A sharp photograph has 0.3 to 1, and noise more.
    """
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    contrast = max(float(grey.std()), _LEAST_CONTRAST)
    detail = cv2.Laplacian(grey, cv2.CV_32F)
    return float(detail.var()) / contrast**2


class _CoverNetwork(nn.Module):
    """Estimates which share of a face is hidden; training/covered.py trains it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.conv1 = nn.Conv2d(16, 32, 3, 2, 1)
        self.conv2 = nn.Conv2d(32, 48, 3, 2, 1)
        self.hidden = nn.Linear(768, 24)
        self.share = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) RGB in [0, 255] -> (B,) shares in [0, 1]."""
        mean = x.mean((1, 2, 3), keepdim=True)
        spread = x.std((1, 2, 3), keepdim=True)
        # 4: a uniform view has no contrast.
        x = (x - mean) / (spread + 4)
        for layer in (self.conv0, self.conv1, self.conv2):
            x = torch.relu(layer(x))
        x = torch.relu(self.hidden(x.flatten(1)))
        return torch.sigmoid(self.share(x))[:, 0]


@cache
def _cover_network() -> _CoverNetwork:
    network = _CoverNetwork()
    with as_file(files("pyfau") / "assets" / "covered" / "model.safetensors") as path:
        network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def covered_shares(views: Sequence[UInt8Array]) -> npt.NDArray[np.float64]:
    """Estimated share of each face that something hides, such as a hand, a mask or an object.

    Args:
        views: (64, 64, 3) uint8, RGB each, from `cut_view`.

    Returns:
        (F,) in [0, 1], to three decimals: a face has the same value in every batch.
    """
    side = (_NETWORK_SIDE, _NETWORK_SIDE)
    small: Any = np.stack([cv2.resize(view, side, interpolation=cv2.INTER_AREA) for view in views])
    pixels = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    shares: npt.NDArray[np.float64] = _cover_network()(pixels).numpy().astype(np.float64)
    rounded: npt.NDArray[np.float64] = shares.round(3)
    return rounded
