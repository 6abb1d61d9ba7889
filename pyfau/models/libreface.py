"""LibreFace: occurrence and intensity of action units from one ResNet-18.

Chang et al., "LibreFace: An Open-Source Toolkit for Deep Facial Expression Analysis", WACV 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.backbones import make_backbone
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.protocol import MAX_SCORE
from pyfau.packed import project

_HIDDEN = 128


class _Head(nn.Module):
    """Two linear layers; the batch norm follows the ReLU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Registered first: `fold` multiplies a norm into the layer registered before it, and
        # this norm follows a ReLU.
        self.norm = nn.BatchNorm1d(_HIDDEN)
        self.hidden = nn.Linear(inputs, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(F, inputs) -> (F, outputs) in [0, 1]."""
        hidden = self.norm(F.relu(project(self.hidden, x)))
        return torch.sigmoid(project(self.output, hidden))


class LibreFace(FrameNetwork):
    """A ResNet-18 and one head for each kind of output, intensities first."""

    heavy_part = "backbone"

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)
        self.backbone = make_backbone(config.backbone)
        self.heads = nn.ModuleDict()
        for kind in ("intensity", "occurrence"):
            count = sum(output.kind == kind for output in config.outputs)
            if count:
                self.heads[kind] = _Head(self.backbone.static_channels, count)

    def packable(self) -> tuple[nn.Module, list[nn.Module]]:
        """See `FrameNetwork.packable`."""
        return self.get_submodule("backbone"), [self.heads]

    def score_frames(self, x: Tensor) -> Tensor:
        """See `FrameNetwork.score_frames`."""
        features = self.backbone(x)[1].mean(dim=1)
        parts = [head(features) * MAX_SCORE[kind] for kind, head in self.heads.items()]
        return torch.cat(parts, dim=1)
