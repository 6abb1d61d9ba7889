"""Swin transformers (Liu et al., 2021), 224 px, window 7, with the official parameter names."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.packed import project

WINDOW = 7


def _to_windows(x: Tensor) -> Tensor:
    """(F, H, W, C) -> (F * windows, 49, C), windows in row-major order."""
    frames, height, width, channels = x.shape
    x = x.view(frames, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, channels)


def _from_windows(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `_to_windows`."""
    x = x.view(-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], height, width, -1)


def _relative_positions() -> Tensor:
    """(49, 49) row of the bias table for every pair of tokens in a window."""
    steps = torch.arange(WINDOW)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    row_offsets = rows[:, None] - rows[None, :] + WINDOW - 1
    column_offsets = columns[:, None] - columns[None, :] + WINDOW - 1
    return row_offsets * (2 * WINDOW - 1) + column_offsets


def _shift_mask(side: int, shift: int) -> Tensor:
    """(windows, 49, 49): -100 between tokens that are neighbours only by the shift, else 0."""
    band = torch.zeros(side, dtype=torch.long)
    band[-WINDOW:-shift] = 1
    band[-shift:] = 2
    area = (band[:, None] * 3 + band[None, :]).view(1, side, side, 1)
    windows = _to_windows(area).squeeze(-1)
    return torch.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative_positions(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(F * windows, 49, C), mask (windows, 49, 49) -> (F * windows, 49, C)."""
        windows, tokens, channels = x.shape
        q, k, v = (
            project(self.qkv, x)
            .view(windows, tokens, 3, self.heads, channels // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        bias = (
            self.relative_position_bias_table[self.relative_position_index]
            .permute(2, 0, 1)
            .unsqueeze(0)
        )
        if mask is not None:
            kinds = mask.shape[0]
            bias = (bias + mask.unsqueeze(1)).repeat(windows // kinds, 1, 1, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return project(self.proj, y.transpose(1, 2).reshape(windows, tokens, channels))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, add: Tensor) -> Tensor:
        """(..., C) -> (..., C), with `add` of the same shape added."""
        return project(self.fc2, project(self.fc1, x, "gelu"), add=add)


class SwinBlock(nn.Module):
    """Window attention, shifted in every second block, and an MLP."""

    attn_mask: Tensor | None

    def __init__(self, channels: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn = nn.LayerNorm(channels), WindowAttention(channels, heads)
        self.norm2, self.mlp = nn.LayerNorm(channels), MLP(channels)
        self.register_buffer(
            "attn_mask", _shift_mask(side, shift) if shift else None, persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(F, side * side, C) -> the same shape."""
        frames, tokens, channels = x.shape
        y = self.norm1(x).view(frames, self.side, self.side, channels)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = _from_windows(self.attn(_to_windows(y), self.attn_mask), self.side, self.side)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y.reshape(frames, tokens, channels)
        mixed: Tensor = self.mlp(self.norm2(x), add=x)
        return mixed


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(F, side * side, C) -> (F, side * side / 4, 2 C)."""
        half = self.side // 2
        # The neighbours are laid end to end in the order (row, column) (0,0) (1,0) (0,1) (1,1).
        y = (
            x.view(x.shape[0], half, 2, half, 2, -1)
            .permute(0, 1, 3, 4, 2, 5)
            .reshape(x.shape[0], half * half, -1)
        )
        return project(self.reduction, self.norm(y))


class SwinStage(nn.Module):
    """Blocks of one resolution, followed by patch merging except in the last stage."""

    def __init__(self, channels: int, heads: int, side: int, depth: int, last: bool) -> None:
        super().__init__()
        shifts = [WINDOW // 2 if block % 2 and side > WINDOW else 0 for block in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(channels, heads, side, shift) for shift in shifts)
        self.downsample = None if last else PatchMerging(channels, side)

    def forward(self, x: Tensor) -> Tensor:
        """(F, side * side, C) -> the input of the next stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """4 x 4 patches to tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(F, 3, 224, 224) -> (F, 3136, C)."""
        y: Tensor = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return y


# Size: channels of the first stage, blocks of the four stages.
_LAYOUTS = {
    "t": (96, (2, 2, 6, 2)),
    "s": (96, (2, 2, 18, 2)),
    "b": (128, (2, 2, 18, 2)),
}
_HEAD_CHANNELS = 32


class Swin(nn.Module):
    """The scales are the inputs of the four stages; the static map is the output of the final norm.

    Args:
        size: "t", "s" or "b".
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        first, depths = _LAYOUTS[size]
        channels = [first * 2**stage for stage in range(len(depths))]
        self.scale_channels = cast(tuple[int, int, int, int], tuple(channels))
        self.static_channels = channels[-1]
        self.patch_embed = PatchEmbed(first)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(depths):
            heads, side = channels[stage] // _HEAD_CHANNELS, 56 // 2**stage
            last = stage == len(depths) - 1
            self.layers.append(SwinStage(channels[stage], heads, side, depth, last))
        self.norm = nn.LayerNorm(channels[-1])

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `pyfau.models.backbones.Backbone`."""
        tokens = self.patch_embed(x)
        scales = []
        for i, stage in enumerate(self.layers):
            side = 56 // 2**i
            scales.append(tokens.transpose(1, 2).unflatten(2, (side, side)))
            tokens = stage(tokens)
        return scales, self.norm(tokens)
