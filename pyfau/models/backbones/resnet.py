"""ResNet-50 (He et al., 2016) with torchvision's parameter names, without the classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.packed import convolve


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> (F, 4 width, H / stride, W / stride)."""
        y = convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x))
        shortcut = x if self.downsample is None else convolve(self.downsample[0], self.downsample[1], x, relu=False)
        return convolve(self.conv3, self.bn3, y, add=shortcut)


class ResNet50(nn.Module):
    """The scales are the outputs of the four stages; the last is the static map as well."""

    scale_channels = (256, 512, 1024, 2048)
    static_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if stage > 1 and block == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `pyfau.models.backbones.Backbone`."""
        x = F.max_pool2d(convolve(self.conv1, self.bn1, x), 3, 2, 1)
        scales = []
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
            scales.append(x)
        return scales, x.flatten(2).transpose(1, 2)
