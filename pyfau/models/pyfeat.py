"""The action units of py-feat's multi-task network, version 2.

Cheong et al., "Py-Feat: Python Facial Expression Analysis Toolbox", 2023. The heads for landmarks,
pose, emotion and gaze are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.backbones.convnext import CHANNELS, ConvNeXtV2T
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import ChannelNorm
from pyfau.packed import project

WIDTH = 512
_NEIGHBOURS = 5  # a node is one of its own neighbours, and is then left out


class _UnitBlock(nn.Module):
    """Linear layer without bias, batch norm, ReLU, for all action units together."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, units * WIDTH, bias=False)
        self.norm: nn.Module = ChannelNorm(units * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(F, 49, C) -> (F, 49, N * C)."""
        return F.relu(self.norm(project(self.linear, x)))


class PyFeat(FrameNetwork):
    """ConvNeXt V2-T, features of each action unit, and a graph of nearest neighbours."""

    heavy_part = "backbone"

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)
        units = len(config.outputs)
        self.backbone = ConvNeXtV2T()
        self.projection = nn.Linear(CHANNELS[-1], WIDTH, bias=False)
        self.units = _UnitBlock(units)
        self.other = nn.Linear(WIDTH, WIDTH, bias=False)
        self.own = nn.Linear(WIDTH, WIDTH, bias=False)
        self.classifier = nn.Parameter(torch.zeros(units, WIDTH))

    def packable(self) -> tuple[nn.Module, list[nn.Module]]:
        """See `FrameNetwork.packable`."""
        return self.backbone, [self.units]

    def score_frames(self, x: Tensor) -> Tensor:
        """See `FrameNetwork.score_frames`. A score is the cosine of two non-negative vectors."""
        tokens = project(self.projection, self.backbone(x).flatten(2).transpose(1, 2))
        units = self.units(tokens).mean(dim=1).unflatten(1, (len(self.config.outputs), WIDTH))
        mixed = self.neighbours(units) @ project(self.other, units)
        nodes = F.relu(project(self.own, units) + mixed)
        classes = F.normalize(F.relu(self.classifier), dim=-1)
        return (F.normalize(nodes, dim=-1) * classes).sum(dim=-1).clamp(0.0, 1.0)

    @staticmethod
    def neighbours(units: Tensor) -> Tensor:
        """(F, N, C) -> (F, N, N), the weight of each node's neighbours; the weights sum to 1."""
        directions = F.normalize(units.float(), dim=-1)
        likeness = directions @ directions.transpose(1, 2)
        nearest = likeness.topk(_NEIGHBOURS, dim=-1).indices
        edges = torch.zeros_like(likeness).scatter_(-1, nearest, 1.0)
        edges = edges * (1 - torch.eye(units.shape[1], device=units.device))
        return (edges / edges.sum(dim=-1, keepdim=True)).to(units.dtype)
