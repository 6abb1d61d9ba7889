"""Batches: sequences of stored crops, moved, lit and blurred like video, on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import CROP, STORED
from torch import Tensor


@dataclass
class Source:
    """Crops of one source and the runs of consecutive frames in them.

    Attributes:
        crops: (F, STORED, STORED, 3) uint8, memory-mapped.
        targets: (F, N) in [0, 1]; NaN where unknown.
        runs: (R, 2) first and past-the-last crop of each run.
    """

    crops: np.ndarray
    targets: np.ndarray
    runs: np.ndarray

    @classmethod
    def load(cls, folder: Path, name: str, split: str) -> Source:
        """The crops of one split of a source that prepare.py wrote."""
        crops = np.load(folder / f"{name}_crops.npy", mmap_mode="r")
        with np.load(folder / f"{name}.npz") as arrays:
            mine = arrays["split"] == split
            if "clip" in arrays:
                starts_new = (arrays["clip"][1:] != arrays["clip"][:-1]) | (np.diff(arrays["frame"]) != 1)
                edges = np.concatenate([[0], np.flatnonzero(starts_new) + 1, [len(mine)]])
                runs = np.stack([edges[:-1], edges[1:]], axis=1)
            else:
                runs = np.stack([np.arange(len(mine)), np.arange(1, len(mine) + 1)], axis=1)
            return cls(crops, arrays["targets"], runs[mine[runs[:, 0]]])

    def sample(self, rng: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, length) crop indices, and whether each sequence is a repeated still."""
        lengths = self.runs[:, 1] - self.runs[:, 0]
        weights = np.minimum(lengths, 200) if length == 1 else np.where(lengths >= length, np.sqrt(lengths), 0)
        still = weights.sum() == 0
        if still:
            weights = np.ones(len(lengths))
        chosen = self.runs[rng.choice(len(lengths), count, p=weights / weights.sum())]
        if still:
            return np.repeat(chosen[:, :1], length, axis=1), np.ones(count, bool)
        first = rng.integers(chosen[:, 0], chosen[:, 1] - length + 1)
        step = np.where(rng.random(count) < 0.5, 1, -1)[:, None]  # time may run backwards
        order = np.arange(length)[None, :]
        order = np.where(step > 0, order, length - 1 - order)
        return first[:, None] + order, np.zeros(count, bool)


def gather(source: Source, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Crops (B, T, 3, STORED, STORED) float in [0, 1] and targets (B, T, N)."""
    flat = index.reshape(-1)
    unique, inverse = np.unique(flat, return_inverse=True)
    pictures = torch.from_numpy(source.crops[unique][inverse].reshape(*index.shape, STORED, STORED, 3))
    return pictures.movedim(-1, -3).float() / 255, torch.from_numpy(source.targets[flat].reshape(*index.shape, -1))


def augment(x: Tensor, still: Tensor, generator: torch.Generator) -> Tensor:
    """(B, T, 3, STORED, STORED) -> (B, T, 3, CROP, CROP) in [0, 1]; one camera and one light a sequence."""
    batch, length = x.shape[:2]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    drift = torch.linspace(-1, 1, length)[None, :] if length > 1 else torch.zeros(1, 1)
    moving = still.float()[:, None]
    wobble = drift + 0.3 * torch.sin(3 * drift + uniform(0, 6.3, batch, 1))
    scale = torch.exp((0.05 * normal(batch, 1)).clamp(-0.1, 0.1) + 0.01 * normal(batch, 1) * wobble * moving)
    angle = 0.07 * normal(batch, 1) + 0.02 * normal(batch, 1) * wobble * moving
    shift = 0.03 * normal(batch, 1, 2) + 0.012 * normal(batch, 1, 2) * (wobble * moving)[..., None]
    shift = shift + 0.002 * normal(batch, length, 2)  # the tracker's jitter
    mirror = torch.where(torch.rand(batch, 1, generator=generator) < 0.5, -1.0, 1.0)
    scale = scale * CROP / STORED
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos * mirror, -sin, shift[..., 0]], -1), torch.stack([sin * mirror, cos, shift[..., 1]], -1)]
    theta = torch.stack(rows, dim=-2).flatten(0, 1)
    grid = F.affine_grid(theta, [batch * length, 3, CROP, CROP], align_corners=False)
    y = F.grid_sample(x.flatten(0, 1), grid, padding_mode="border", align_corners=False).unflatten(0, (batch, length))

    chance = torch.rand(batch, 4, generator=generator)
    grey = y.mean(dim=2, keepdim=True)
    y = torch.where((chance[:, 0] < 0.35).view(-1, 1, 1, 1, 1), grey, y)
    y = y.clamp_min(1e-4) ** torch.exp(0.25 * normal(batch, 1, 1, 1, 1))
    y = (y - 0.5) * uniform(0.55, 1.3, batch, 1, 1, 1, 1) + 0.5 + uniform(-0.15, 0.15, batch, 1, 1, 1, 1)
    y = y * (1 + 0.06 * normal(batch, 1, 3, 1, 1))
    for i in range(batch):
        if chance[i, 1] < 0.3:  # a smaller face, enlarged
            side = int(uniform(36, 90, 1))
            small = F.interpolate(y[i], size=side, mode="bilinear", antialias=True)
            y[i] = F.interpolate(small, size=CROP, mode="bilinear")
        if chance[i, 2] < 0.3:
            y[i] += 0.03 * float(uniform(0, 1, 1)) * torch.randn(y[i].shape, generator=generator)
        if chance[i, 3] < 0.1:  # something before the face
            top, left = (int(v) for v in uniform(0, 80, 2))
            height, width = (int(v) for v in uniform(15, 45, 2))
            y[i, :, :, top : top + height, left : left + width] = uniform(0, 1, 3, 1, 1)
    return y.clamp(0, 1)


def centre(x: Tensor) -> Tensor:
    """Stored crops without their margin: (..., 3, STORED, STORED) -> (..., 3, CROP, CROP)."""
    margin = (STORED - CROP) // 2
    return x[..., margin:-margin, margin:-margin]
