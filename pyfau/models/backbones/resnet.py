"""ResNets (He et al., 2016) with torchvision's parameter names, without the classifier."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.packed import convolve


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = (
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> (F, 4 width, H / stride, W / stride)."""
        y = convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x))
        shortcut = (
            x
            if self.downsample is None
            else convolve(self.downsample[0], self.downsample[1], x, relu=False)
        )
        return convolve(self.conv3, self.bn3, y, add=shortcut)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> (F, width, H / stride, W / stride)."""
        shortcut = x
        if self.downsample is not None:
            shortcut = convolve(self.downsample[0], self.downsample[1], x, relu=False)
        return convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x), add=shortcut)


# Depth: kind of block, channels that a block gives for each channel of its width, blocks of the
# four stages.
_LAYOUTS: dict[int, tuple[type[nn.Module], int, tuple[int, ...]]] = {
    18: (BasicBlock, 1, (2, 2, 2, 2)),
    50: (Bottleneck, 4, (3, 4, 6, 3)),
    101: (Bottleneck, 4, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """The scales are the outputs of the four stages; the last is the static map as well.

    Args:
        depth: 18, 50 or 101.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, expansion, counts = _LAYOUTS[depth]
        widths = (64, 128, 256, 512)
        outputs = [expansion * width for width in widths]
        self.scale_channels = cast(tuple[int, int, int, int], tuple(outputs))
        self.static_channels = outputs[-1]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True), start=1):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(block(inputs, width, stride))
                inputs = expansion * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `pyfau.models.backbones.Backbone`."""
        x = F.max_pool2d(convolve(self.conv1, self.bn1, x), 3, 2, 1)
        scales = []
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
            scales.append(x)
        return scales, x.flatten(2).transpose(1, 2)
