"""Batches: sequences of stored crops, moved, lit and blurred like video, on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from data import AUS, CROP, MARGIN, MESH, MESH_MIRROR, POINTS_68_MIRROR, STORED, proxy_targets, shape_mirror
from torch import Tensor
from torch.utils.data import IterableDataset

POINTS = len(MESH) + len(POINTS_68_MIRROR)  # the teacher's on real faces, the renderer's on drawn ones
SHAPES = 52


@dataclass
class Source:
    """Crops of one source and the runs of consecutive frames in them.

    Attributes:
        crops: (F, STORED, STORED, 3) uint8, memory-mapped.
        targets: (F, N) in [0, 1]; NaN where unknown.
        runs: (R, 2) first and past-the-last crop of each run.
        shapes: (F, 52) the teacher's blendshapes in [0, 1]; NaN where unknown.
        points: (F, POINTS, 2) landmarks in pixels of the stored crop; NaN where unknown.
        shapes_mirror: Order of the blendshapes in the mirror.
    """

    crops: np.ndarray
    targets: np.ndarray
    runs: np.ndarray
    shapes: np.ndarray
    points: np.ndarray
    shapes_mirror: np.ndarray

    @classmethod
    def load(cls, folder: Path, name: str, split: str, proxies: bool = False) -> Source:
        """The crops of one split of a source that prepare.py wrote, with `data.proxy_targets` or without."""
        crops = np.load(folder / f"{name}_crops.npy", mmap_mode="r")
        with np.load(folder / f"{name}.npz") as stored:
            arrays = dict(stored)
        mine = arrays["split"] == split
        if "clip" in arrays:
            starts_new = (arrays["clip"][1:] != arrays["clip"][:-1]) | (np.diff(arrays["frame"]) != 1)
            edges = np.concatenate([[0], np.flatnonzero(starts_new) + 1, [len(mine)]])
            runs = np.stack([edges[:-1], edges[1:]], axis=1)
        else:
            runs = np.stack([np.arange(len(mine)), np.arange(1, len(mine) + 1)], axis=1)
        targets = arrays["targets"].astype(np.float32)
        shapes = np.full((len(mine), SHAPES), np.nan, np.float32)
        points = np.full((len(mine), POINTS, 2), np.nan, np.float32)
        mirror = np.arange(SHAPES)
        if "blendshapes" in arrays:
            names = [str(n) for n in arrays["blendshape_names"]]
            shapes[:] = arrays["blendshapes"]
            mirror = shape_mirror(names)
            if proxies:
                targets[:, [AUS.index(6), AUS.index(9)]] = proxy_targets(shapes, names)
        if name in ("faces", "animated"):
            points[:, : len(MESH)] = arrays["landmarks"][:, MESH]
        elif name == "rendered":
            points[:, len(MESH) :] = arrays["landmarks"]
        return cls(crops, targets, runs[mine[runs[:, 0]]], shapes, points, mirror)

    def sample(self, rng: np.random.Generator, count: int, length: int, group: int = 1) -> tuple[np.ndarray, bool]:
        """(count, length) crop indices, and whether the sequences are repeated stills.

        Single crops come in groups of so many from one run; shorter runs are left out.
        """
        lengths = self.runs[:, 1] - self.runs[:, 0]
        if group > 1:
            weights = np.where(lengths >= group, np.minimum(lengths, 200), 0)
            chosen = self.runs[rng.choice(len(lengths), count // group, p=weights / weights.sum())]
            return np.concatenate([rng.choice(np.arange(*run), (group, 1), replace=False) for run in chosen]), False
        weights = np.minimum(lengths, 200) if length == 1 else np.where(lengths >= length, np.sqrt(lengths), 0)
        still = weights.sum() == 0
        if still:
            weights = np.ones(len(lengths))
        chosen = self.runs[rng.choice(len(lengths), count, p=weights / weights.sum())]
        if still:
            return np.repeat(chosen[:, :1], length, axis=1), True
        first = rng.integers(chosen[:, 0], chosen[:, 1] - length + 1)
        backwards = rng.random((count, 1)) < 0.5  # time may run backwards
        order = np.where(backwards, np.arange(length)[::-1], np.arange(length))
        return first[:, None] + order, False


def augment(
    crops: np.ndarray, points: np.ndarray, still: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool]:
    """One camera and one light over a sequence.

    Args:
        crops: (T, STORED, STORED, 3) uint8.
        points: (T, P, 2) pixels of the stored crops.
        still: Move the camera over the sequence, because the face does not move.
        rng: Where the chances come from.

    Returns:
        (T, CROP, CROP, 3) uint8, the points in them, and whether they are mirrored.
    """
    length = len(crops)
    mirrored = rng.random() < 0.5
    drift = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
    wobble = (drift + 0.3 * np.sin(3 * drift + rng.uniform(0, 6.3))) * still
    scale = np.exp(np.clip(0.05 * rng.normal(), -0.1, 0.1) + 0.01 * rng.normal() * wobble)
    angle = 0.07 * rng.normal() + 0.02 * rng.normal() * wobble
    shift = CROP / 2 * (0.03 * rng.normal(size=2) + 0.012 * rng.normal(size=2) * wobble[:, None])
    shift = shift + 0.12 * rng.normal(size=(length, 2))  # the tracker's jitter
    middle = (CROP - 1) / 2
    out = np.empty((length, CROP, CROP, 3), np.uint8)
    moved = np.empty_like(points)
    for t in range(length):
        a = scale[t] * np.cos(angle[t])
        b = scale[t] * np.sin(angle[t])
        m = np.array([[a, -b], [b, a]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
        offset = middle + shift[t] - m @ np.full(2, (STORED - 1) / 2)
        matrix = np.column_stack([m, offset])
        cv2.warpAffine(crops[t], matrix, (CROP, CROP), dst=out[t], borderMode=cv2.BORDER_REPLICATE)
        moved[t] = points[t] @ m.T + offset
    return _light(out, rng), moved, mirrored


def _light(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, CROP, CROP, 3) uint8, with another light, lens and sensor."""
    grey, small, noisy, covered, blurred, packed = rng.random(6)
    if grey < 0.35:
        frames = np.repeat(frames.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    levels = np.linspace(1e-4, 1, 256)
    curve = levels ** np.exp(0.3 * rng.normal())
    curve = (curve - 0.5) * rng.uniform(0.5, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    tables = curve[:, None] * (1 + 0.06 * rng.normal(size=3))
    lookup = (tables.clip(0, 1) * 255).round().astype(np.uint8)[None]
    frames = np.stack([cv2.LUT(f, lookup) for f in frames])
    if small < 0.2:  # a smaller face, enlarged
        side = int(rng.uniform(30, 90))
        frames = np.stack(
            [cv2.resize(cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA), (CROP, CROP)) for f in frames]
        )
    if blurred < 0.1:
        sigma = rng.uniform(0.5, 2.0, 2)
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), sigma[0], sigmaY=sigma[1]) for f in frames])
    if covered < 0.05:  # something before the face
        top, left = rng.integers(0, 80, 2)
        height, width = rng.integers(15, 45, 2)
        frames[:, top : top + height, left : left + width] = rng.integers(0, 256, 3)
    if noisy < 0.15:
        noise = rng.normal(0, 255 * 0.03 * rng.random(), frames.shape).astype(np.float32)
        frames = (frames + noise).clip(0, 255).astype(np.uint8)
    if packed < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(20, 85))]
        frames = np.stack([cv2.imdecode(cv2.imencode(".jpg", f, quality)[1], cv2.IMREAD_COLOR) for f in frames])
    return frames


@dataclass
class Batch:
    """Sequences of all sources, one after the other.

    Attributes:
        crops: (B, T, 3, CROP, CROP) uint8.
        targets: (B, T, N); NaN where unknown.
        shapes: (B, T, 52); NaN where unknown.
        points: (B, T, POINTS, 2) in [-1, 1] over the crop; NaN where unknown.
    """

    crops: Tensor
    targets: Tensor
    shapes: Tensor
    points: Tensor


class Batches(IterableDataset):
    """The batches of a stage from step `start` on; a batch depends on the seed and its step alone.

    Args:
        sources: By name.
        counts: Sequences of each source in a batch.
        length: Frames of a sequence.
        steps: First step and the step after the last.
        seed: Of the run and the process.
        groups: How many single crops of a source come from one run.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        counts: Mapping[str, int],
        length: int,
        steps: range,
        seed: tuple[int, ...],
        groups: Mapping[str, int],
    ) -> None:
        self.sources, self.counts, self.length, self.steps, self.seed = sources, counts, length, steps, seed
        self.groups = groups

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        for step in self.steps:
            yield self.batch(np.random.default_rng((*self.seed, step)))

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        crops, targets, shapes, points = [], [], [], []
        mirror = np.concatenate([MESH_MIRROR, len(MESH) + POINTS_68_MIRROR])
        for name, count in self.counts.items():
            source = self.sources[name]
            index, still = source.sample(rng, count, self.length, self.groups.get(name, 1))
            for row in index:
                picture, places, mirrored = augment(source.crops[row], source.points[row], still, rng)
                crops.append(picture)
                targets.append(source.targets[row])
                shapes.append(source.shapes[row][:, source.shapes_mirror] if mirrored else source.shapes[row])
                points.append(places[:, mirror] if mirrored else places)
        return Batch(
            torch.from_numpy(np.stack(crops)).movedim(-1, -3),
            torch.from_numpy(np.stack(targets)),
            torch.from_numpy(np.stack(shapes)),
            torch.from_numpy(np.stack(points)) * (2 / (CROP - 1)) - 1,
        )


def centre(x: Tensor) -> Tensor:
    """Stored crops without their margin: (..., 3, STORED, STORED) -> (..., 3, CROP, CROP)."""
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
