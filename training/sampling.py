"""Batches: sequences of stored crops, augmented during training with movement, light and blur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from data import CROP, SHAPE_NAMES, STORED, shape_mirror
from targets import level_targets, rendered_targets
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

SHAPES = 52  # the teacher's blendshapes
SHARE_GREY = 0.35  # share of grey crops: most images of faces are grey, and recordings are not
SHARE_SMALL = 0.25  # share of faces that are shrunk and enlarged again
SMALLEST, LARGEST = 28, 90  # side of such a face in pixels
SHARE_BLUR, SHARE_NOISE, SHARE_JPEG, SHARE_COVERED = 0.15, 0.15, 0.2, 0.1


def targets_of(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(F, N, 3) targets from what prepare.py wrote: the renderer's intensities or grades."""
    if "intensity" in columns:
        return rendered_targets(columns["intensity"])
    return level_targets(columns["grades"])


@dataclass
class Source:
    """Crops of one source with their targets.

    Attributes:
        crops: (F, STORED, STORED, 3) uint8, memory-mapped.
        targets: (F, N, 3) probabilities of the three levels; NaN where unknown.
        shapes: (F, 52) the teacher's blendshapes in [0, 1]; NaN where unknown.
        mirror: (52,) order of the blendshapes in the mirror.
        columns: The other columns of prepare.py: split, person, grades, clip, frame.
    """

    crops: np.ndarray
    targets: np.ndarray
    shapes: np.ndarray
    mirror: np.ndarray
    columns: dict[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path, name: str) -> Source:
        """A source that prepare.py wrote."""
        with np.load(folder / f"{name}.npz") as stored:
            columns = dict(stored)
        crops = np.load(folder / f"{name}_crops.npy", mmap_mode="c")  # tensors want to write
        names = (folder / SHAPE_NAMES).read_text().split()
        return cls(crops, targets_of(columns), columns["shapes"], shape_mirror(names), columns)

    @property
    def coded(self) -> np.ndarray:
        """(F,) whether anybody graded the image."""
        return ~np.isnan(self.columns["grades"]).all(axis=(1, 2))

    def of_split(self, split: str) -> np.ndarray:
        """(F,) whether each crop belongs to a split."""
        return self.columns["split"] == split

    def sequences(self, mine: np.ndarray, length: int) -> np.ndarray:
        """(S, length) indices of all sequences of consecutive frames among some crops (F,)."""
        if length == 1:
            return np.flatnonzero(mine)[:, None]
        clip, frame = self.columns["clip"], self.columns["frame"]
        last = length - 1
        unbroken = (clip[last:] == clip[:-last]) & (frame[last:] - frame[:-last] == last)
        first = np.flatnonzero(unbroken & mine[:-last])
        return first[:, None] + np.arange(length)


@dataclass
class Look:
    """One camera, one light and one sensor, for all frames of a sequence.

    Attributes:
        matrix: (2, 3) from the stored crop to the crop of the network.
        mirrored: Whether left and right are exchanged.
        table: (256, 3) brightness of each channel.
        grey: Whether the image is grey.
        side: Pixels of the face before it is enlarged; 0: not enlarged.
        blur: Standard deviation across and down in pixels; 0: none.
        noise: Standard deviation of the sensor's noise.
        jpeg: Quality of JPEG; 0: not compressed.
        cover: x, y, width, height and grey value of something in front of the face, or None.
    """

    matrix: np.ndarray
    mirrored: bool
    table: np.ndarray
    grey: bool
    side: int
    blur: tuple[float, float]
    noise: float
    jpeg: int
    cover: tuple[int, int, int, int, int] | None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Look:
        """A random look."""
        mirrored = bool(rng.random() < 0.5)
        blurred = rng.random() < SHARE_BLUR
        cover = None
        if rng.random() < SHARE_COVERED:
            x, y = rng.integers(0, CROP - 20, 2)
            width, height = rng.integers(12, 45, 2)
            cover = (int(x), int(y), int(width), int(height), int(rng.integers(0, 256)))
        return cls(
            matrix=_camera(rng, mirrored),
            mirrored=mirrored,
            table=_light(rng),
            grey=bool(rng.random() < SHARE_GREY),
            side=int(rng.uniform(SMALLEST, LARGEST)) if rng.random() < SHARE_SMALL else 0,
            blur=tuple(rng.uniform(0.4, 1.8, 2)) if blurred else (0.0, 0.0),
            noise=8.0 * rng.random() if rng.random() < SHARE_NOISE else 0.0,
            jpeg=int(rng.uniform(20, 85)) if rng.random() < SHARE_JPEG else 0,
            cover=cover,
        )

    def apply(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(STORED, STORED, 3) uint8 -> (CROP, CROP, 3) uint8."""
        matrix = self.matrix.copy()
        matrix[:, 2] += 0.12 * rng.normal(size=2)  # the tracker's jitter from frame to frame
        rgb = cv2.warpAffine(
            crop, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if self.grey:
            rgb = cv2.merge([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)] * 3)
        rgb = cv2.LUT(rgb, self.table[None])
        if self.side:
            small = cv2.resize(rgb, (self.side, self.side), interpolation=cv2.INTER_AREA)
            rgb = cv2.resize(small, (CROP, CROP), interpolation=cv2.INTER_LINEAR)
        if self.blur[0]:
            rgb = cv2.GaussianBlur(rgb, (0, 0), self.blur[0], sigmaY=self.blur[1])
        if self.cover is not None:
            x, y, width, height, value = self.cover
            rgb[y : y + height, x : x + width] = value
        if self.noise:
            noisy = rgb + self.noise * rng.standard_normal(rgb.shape, np.float32)
            rgb = noisy.clip(0, 255).astype(np.uint8)
        if self.jpeg:
            _, data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            rgb = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return rgb


def _camera(rng: np.random.Generator, mirrored: bool) -> np.ndarray:
    """A similarity near the identity, (2, 3)."""
    scale = (CROP / STORED) * np.exp(np.clip(0.06 * rng.normal(), -0.12, 0.12))
    angle = 0.07 * rng.normal()
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    middle = np.full(2, (STORED - 1) / 2)
    shift = (CROP - 1) / 2 + 0.03 * CROP / 2 * rng.normal(size=2) - turn @ middle
    return np.column_stack([turn, shift])


def _light(rng: np.random.Generator) -> np.ndarray:
    """Another exposure: a table of brightness, (256, 3) uint8."""
    gamma, contrast = np.exp(0.3 * rng.normal()), rng.uniform(0.5, 1.3)
    light, tint = rng.uniform(-0.15, 0.15), 1 + 0.06 * rng.normal(size=3)
    grey = np.linspace(0, 1, 256)[:, None] ** gamma
    table = ((grey - 0.5) * contrast + 0.5 + light) * tint
    return (255 * table).clip(0, 255).astype(np.uint8)


@dataclass
class Batch:
    """Sequences of all sources, one after the other.

    Attributes:
        crops: (B, T, 3, CROP, CROP) uint8.
        targets: (B, T, N, 3); NaN where unknown.
        shapes: (B, T, 52); NaN where unknown.
    """

    crops: Tensor
    targets: Tensor
    shapes: Tensor


@dataclass
class Share:
    """The part of a batch that comes from one source.

    Attributes:
        source: The crops.
        sequences: (S, T) indices to draw from.
        weights: (S,) chance of each, relative to the others.
        count: How many in a batch.
    """

    source: Source
    sequences: np.ndarray
    weights: np.ndarray
    count: int

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(count, T) indices."""
        chances = self.weights / self.weights.sum()
        return self.sequences[rng.choice(len(chances), self.count, p=chances)]


class Batches(IterableDataset):
    """Batches of some steps; a batch depends on the seed and its step alone.

    Args:
        shares: What a batch consists of, by name.
        steps: First step and the step after the last.
        seed: Of the run.
    """

    def __init__(self, shares: Mapping[str, Share], steps: range, seed: int) -> None:
        self.shares, self.steps, self.seed = shares, steps, seed

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in self.steps[first::stride]:
            yield self.batch(np.random.default_rng((self.seed, step)))

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        crops, targets, shapes = [], [], []
        for share in self.shares.values():
            for index in share.draw(rng):
                look = Look.draw(rng)
                frames = [look.apply(share.source.crops[i], rng) for i in index]
                known = share.source.shapes[index]
                crops.append(np.stack(frames))
                targets.append(share.source.targets[index])
                shapes.append(known[:, share.source.mirror] if look.mirrored else known)
        return Batch(
            torch.from_numpy(np.stack(crops)).movedim(-1, -3),
            torch.from_numpy(np.stack(targets)),
            torch.from_numpy(np.stack(shapes).astype(np.float32)),
        )


def shrink(crops: np.ndarray) -> Tensor:
    """Stored crops (F, STORED, STORED, 3) -> (F, 3, CROP, CROP) uint8, the network's input."""
    stored = torch.from_numpy(np.ascontiguousarray(crops)).movedim(-1, -3).float()
    small = F.interpolate(stored, size=(CROP, CROP), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def pieces(count: int, size: int) -> Sequence[slice]:
    """Slices that cover `count` things, `size` at a time."""
    return [slice(start, start + size) for start in range(0, count, size)]
