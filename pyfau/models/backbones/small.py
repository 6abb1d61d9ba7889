"""The backbone of the bundled model: a small residual network with MDHR's four scales.

Its input are crops of 112 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.config import GRID
from pyfau.packed import convolve


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> (F, outputs, H / stride, W / stride)."""
        shortcut = (
            x
            if self.shortcut is None
            else convolve(self.shortcut[0], self.shortcut[1], x, relu=False)
        )
        return convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x), add=shortcut)


class LocalLinear(nn.Module):
    """A linear layer and ReLU with separate weights for each token: in an aligned face, each place
    shows a certain part of the face.

    The region layer of Zhao et al., DRML, CVPR 2016, introduced this for action units.
    """

    def __init__(self, tokens: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, inputs, outputs))
        with torch.no_grad():
            self.weight[0].uniform_(-((6 / inputs) ** 0.5), (6 / inputs) ** 0.5)
            self.weight[1:] = self.weight[0]  # the same for all places at first
        self.bias = nn.Parameter(torch.zeros(tokens, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(F, tokens, inputs) -> (F, tokens, outputs)."""
        return F.relu(torch.baddbmm(self.bias, x.transpose(0, 1), self.weight)).transpose(0, 1)


class SmallNet(nn.Module):
    """A strided stem and four stages at 56, 28, 14 and 7 rows and columns.

    Args:
        widths: Channels of the four stages.
        blocks: Residual blocks of the four stages. The first stage may have no blocks. Then its map
            is the output of the stem.
        local: Channels of a `LocalLinear` over the static tokens; 0 for none.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 192),
        blocks: Sequence[int] = (1, 2, 2, 2),
        local: int = 0,
    ) -> None:
        super().__init__()
        self.scale_channels = cast(tuple[int, int, int, int], tuple(widths))
        self.static_channels = local or widths[-1]
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        self.stages = nn.ModuleList()
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers = []
            for block in range(count):
                layers.append(BasicBlock(inputs, width, 2 if stage and block == 0 else 1))
                inputs = width
            self.stages.append(nn.Sequential(*layers))
        self.local = LocalLinear(GRID * GRID, widths[-1], local) if local else nn.Identity()

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `pyfau.models.backbones.Backbone`; x is (F, 3, 112, 112)."""
        x = convolve(self.stem, self.stem_bn, x)
        scales = []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        return scales, self.local(x.flatten(2).transpose(1, 2))
