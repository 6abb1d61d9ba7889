"""A descriptor of faces that distinguishes people: dlib's ResNet with 128 numbers.

King, "dlib_face_recognition_resnet_model_v1", 2017, public domain; the weights are those of the npm
package @vladmandic/face-api (MIT), converted by training/convert_identity.py. Descriptors of one
person are less than about 0.6 apart. They stay in memory: pyfau writes them to no file.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pyfau.faces.crop import crop_face
from pyfau.faces.halves import Image
from pyfau.packed import NO_NORM, can_pack, convolve, pack, project
from pyfau.types import Face, FloatArray, UInt8Array

SIDE = 150  # of the input, in pixels
# Where dlib's mean face has the eyes, the tip of the nose and the corners of the mouth, as
# fractions of the input, which shows a quarter of the face's size more on each side.
_TEMPLATE = ((0.317, 0.311), (0.67, 0.311), (0.493, 0.51), (0.336, 0.687), (0.651, 0.687))
_MEAN = (122.782, 117.001, 104.298)  # RGB
# Width and number of the residual blocks of each stage. Each stage but the first begins with a
# block that halves the image.
_STAGES = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width_in: int, width: int, halves: bool) -> None:
        super().__init__()
        self._halves = halves
        # Without padding where the block halves, as dlib does.
        self.conv1 = nn.Conv2d(width_in, width, 3, 2 if halves else 1, 0 if halves else 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = convolve(self.conv1, NO_NORM, x)
        if not self._halves:
            return convolve(self.conv2, NO_NORM, y, add=x)
        y = convolve(self.conv2, NO_NORM, y, relu=False)
        x = F.avg_pool2d(x, 2)
        # The convolution can be a row and a column smaller, and the shortcut has fewer channels.
        # Both are filled with zeros.
        y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return torch.relu(x + y)


class IdentityNetwork(nn.Module):
    """(B, 3, 150, 150) RGB in [0, 255] -> (B, 128) descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 7, 2)
        blocks = []
        width_in = 32
        for stage, (width, count) in enumerate(_STAGES):
            for i in range(count):
                blocks.append(_Block(width_in, width, stage > 0 and i == 0))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = (x - x.new_tensor(_MEAN).view(1, 3, 1, 1)) / 255
        x = F.max_pool2d(convolve(self.first, NO_NORM, x), 3, 2)
        x = self.blocks(x)
        return project(self.last, x.mean((2, 3)))


def load_network(path: Path) -> IdentityNetwork:
    """Read the weights: kernels as uint8 with a step and a least value, and a gain per channel."""
    stored = load_file(path)
    state: dict[str, Tensor] = {}
    for name in sorted({name.rpartition(".")[0] for name in stored}):
        step, least = stored[f"{name}.range"].tolist()
        weight = stored[f"{name}.kernel"].float() * step + least
        if f"{name}.gain" in stored:
            weight *= stored[f"{name}.gain"].view(-1, 1, 1, 1)
            state[f"{name}.bias"] = stored[f"{name}.bias"]
        state[f"{name}.weight"] = weight
    network = IdentityNetwork()
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@cache
def _network() -> IdentityNetwork:
    with as_file(files("pyfau") / "assets" / "identity" / "model.safetensors") as path:
        network = load_network(path)
    if can_pack():  # takes about 40 % less time
        pack(network, torch.zeros(1, 3, SIDE, SIDE).to(memory_format=torch.channels_last))
    return network


def cut_identity(rgb: Image, face: Face) -> UInt8Array:
    """(150, 150, 3) uint8, RGB: the aligned face as the network expects it."""
    return crop_face(rgb, face.landmarks, _TEMPLATE, SIDE)


@torch.inference_mode()
def describe_crops(crops: npt.ArrayLike) -> FloatArray:
    """Descriptors of aligned faces.

    Args:
        crops: (F, 150, 150, 3) uint8, RGB, from `cut_identity`.

    Returns:
        (F, 128) float32. Two descriptors of one person are less than about 0.6 apart.
    """
    pixels: Any = torch.from_numpy(np.asarray(crops)).permute(0, 3, 1, 2).float()
    described: FloatArray = _network()(pixels).numpy()
    return described
