"""ConvNeXt V2-T (Woo et al., 2023) with the parameter names of py-feat's files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyfau.packed import project

CHANNELS = (96, 192, 384, 768)
_DEPTHS = (3, 3, 9, 3)
_EPS = 1e-6


class _ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> the same shape."""
        y: Tensor = super().forward(x.movedim(1, -1))
        return y.movedim(-1, 1)


class ResponseNorm(nn.Module):
    """Global response normalisation: channels that respond strongly to an image get stronger."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(F, H, W, C) -> the same shape."""
        # A norm over these axes, several times as fast as `vector_norm`.
        response = x.flatten(1, 2).square().sum(dim=1).sqrt()[:, None, None]
        relative = response / (response.mean(dim=-1, keepdim=True) + _EPS)
        return torch.addcmul(self.bias, x, 1 + self.weight * relative)


class _MLP(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, add: Tensor) -> Tensor:
        """(F, H, W, C) -> the same shape, with `add` added."""
        return project(self.fc2, self.grn(project(self.fc1, x, "gelu")), add=add)


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, _EPS)
        self.mlp = _MLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, H, W) -> the same shape."""
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        mixed: Tensor = self.mlp(y, add=x.permute(0, 2, 3, 1))
        return mixed.permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, inputs: int, channels: int, depth: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if inputs != channels:
            self.downsample = nn.Sequential(
                _ChannelLayerNorm(inputs, _EPS), nn.Conv2d(inputs, channels, 2, 2)
            )
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(F, inputs, H, W) -> (F, C, H, W) or (F, C, H / 2, W / 2)."""
        y: Tensor = self.blocks(self.downsample(x))
        return y


class ConvNeXtV2T(nn.Module):
    """The map of the last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_0 = nn.Conv2d(3, CHANNELS[0], 4, 4)
        self.stem_1 = _ChannelLayerNorm(CHANNELS[0], _EPS)
        inputs = CHANNELS[0]
        for stage, (channels, depth) in enumerate(zip(CHANNELS, _DEPTHS, strict=True)):
            self.add_module(f"stages_{stage}", _Stage(inputs, channels, depth))
            inputs = channels

    def forward(self, x: Tensor) -> Tensor:
        """(F, 3, 224, 224) -> (F, 768, 7, 7)."""
        y: Tensor = self.stem_1(self.stem_0(x))
        for stage in range(len(CHANNELS)):
            y = self.get_submodule(f"stages_{stage}")(y)
        return y
