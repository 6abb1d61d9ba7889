"""FMAE-IAT: a vision transformer that was pre-trained on faces.

Ning et al., "Representation Learning and Identity Adversarial Training for Facial Behavior
Understanding", 2024. The head that identifies people is for training only and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.packed import project

PATCH = 16
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Layout:
    """Size of a vision transformer."""

    width: int
    depth: int
    heads: int


LAYOUTS = {
    "vit_s": Layout(384, 12, 6),
    "vit_b": Layout(768, 12, 12),
    "vit_l": Layout(1024, 24, 16),
}


class _SelfAttention(nn.Module):
    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.heads = layout.heads
        self.qkv = nn.Linear(layout.width, 3 * layout.width)
        self.proj = nn.Linear(layout.width, layout.width)

    def forward(self, x: Tensor, add: Tensor) -> Tensor:
        """(F, tokens, C) -> the same shape, with `add` added."""
        frames, tokens, width = x.shape
        parts = project(self.qkv, x).view(frames, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return project(self.proj, mixed.transpose(1, 2).reshape(x.shape), add=add)


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, add: Tensor) -> Tensor:
        """(F, tokens, C) -> the same shape, with `add` added."""
        return project(self.fc2, project(self.fc1, x, "gelu"), add=add)


class _Block(nn.Module):
    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(layout.width, _EPS), _SelfAttention(layout)
        self.norm2, self.mlp = nn.LayerNorm(layout.width, _EPS), _MLP(layout.width)

    def forward(self, x: Tensor) -> Tensor:
        """(F, tokens, C) -> the same shape."""
        x = self.attn(self.norm1(x), add=x)
        mixed: Tensor = self.mlp(self.norm2(x), add=x)
        return mixed


class _PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(F, 3, S, S) -> (F, tokens, C)."""
        y: Tensor = self.proj(x)
        return y.flatten(2).transpose(1, 2)


class FMAE(FrameNetwork):
    """ViT-S/16, B/16 or L/16 and one logistic output for each action unit."""

    heavy_part = "blocks"

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)
        layout = LAYOUTS[config.backbone]
        patches = (config.input_size // PATCH) ** 2
        self.patch_embed = _PatchEmbed(layout.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, layout.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, layout.width))
        self.blocks = nn.Sequential(*(_Block(layout) for _ in range(layout.depth)))
        self.fc_norm = nn.LayerNorm(layout.width, _EPS)
        self.head = nn.Linear(layout.width, len(config.outputs))

    def packable(self) -> tuple[nn.Module, list[nn.Module]]:
        """See `FrameNetwork.packable`."""
        return self.patch_embed, [self.blocks]

    def score_frames(self, x: Tensor) -> Tensor:
        """See `FrameNetwork.score_frames`."""
        patches = self.patch_embed(x)
        first = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.pos_embed
        tokens = self.blocks(tokens)
        features = self.fc_norm(tokens[:, 1:].mean(dim=1))  # the class token is left out
        return torch.sigmoid(project(self.head, features))
