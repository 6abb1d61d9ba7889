"""Batches: sequences of stored crops, moved, lit and blurred like video, on the fly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import (
    AUS,
    CROP,
    MESH,
    MESH_MIRROR,
    POINTS_68_MIRROR,
    STORED,
    held_back,
    proxy_targets,
    seen_noses,
    shape_mirror,
)
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

POINTS = len(MESH) + len(POINTS_68_MIRROR)  # the teacher's on real faces, the renderer's on drawn ones
POINTS_MIRROR = torch.from_numpy(np.concatenate([MESH_MIRROR, len(MESH) + POINTS_68_MIRROR]))
SHAPES = 52


@dataclass
class Source:
    """Crops of one source and the runs of consecutive frames in them.

    Attributes:
        crops: (F, STORED, STORED, 3) uint8, memory-mapped or on a GPU.
        targets: (F, N) in [0, 1]; NaN where unknown.
        runs: (R, 2) first and past-the-last crop of each run, an array.
        shapes: (F, 52) the teacher's blendshapes in [0, 1]; NaN where unknown.
        points: (F, POINTS, 2) landmarks in pixels of the stored crop; NaN where unknown.
        shapes_mirror: Order of the blendshapes in the mirror.
    """

    crops: Tensor
    targets: Tensor
    runs: np.ndarray
    shapes: Tensor
    points: Tensor
    shapes_mirror: Tensor

    @classmethod
    def load(cls, folder: Path, name: str, split: str, proxies: bool = False, hold_back: bool = False) -> Source:
        """The crops of one split of a source that prepare.py wrote.

        Args:
            folder: Where it wrote.
            name: Of the source.
            split: "train", "validation" or "test".
            proxies: With `data.proxy_targets`.
            hold_back: Without the people of `data.held_back`.
        """
        crops = torch.from_numpy(np.load(folder / f"{name}_crops.npy", mmap_mode="c"))  # "c": tensors want to write
        with np.load(folder / f"{name}.npz") as stored:
            arrays = dict(stored)
        mine = arrays["split"] == split
        if hold_back and name in ("clips", "animated"):
            with np.load(folder / "clips.npz") as clips:
                person = dict(zip(clips["clip"], clips["person"], strict=True))
            people = [person.get(clip.rsplit("/", 1)[0], "") for clip in arrays["clip"]]
            mine &= ~np.isin(people, held_back())
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
                if name == "faces":
                    targets[:, AUS.index(9)] = seen_noses(arrays["index"], targets[:, AUS.index(9)])
        if name in ("faces", "animated"):
            points[:, : len(MESH)] = arrays["landmarks"][:, MESH]
        elif name == "rendered":
            points[:, len(MESH) :] = arrays["landmarks"]
        return cls(
            crops,
            torch.from_numpy(targets),
            runs[mine[runs[:, 0]]],
            torch.from_numpy(shapes),
            torch.from_numpy(points),
            torch.from_numpy(mirror),
        )

    def to(self, device: torch.device) -> Source:
        """The same on another device."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Source(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in fields.items()})

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
    crops: Tensor, points: Tensor, still: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Over each sequence one camera and one light.

    Args:
        crops: (B, T, STORED, STORED, 3) uint8.
        points: (B, T, P, 2) pixels of the stored crops.
        still: (B,) over which sequences the camera moves, because the faces do not.
        rng: Where the chances come from.

    Returns:
        (B, T, 3, CROP, CROP) uint8, the points in them, and which sequences are mirrored.
    """
    count, length = crops.shape[:2]
    device = crops.device

    def one(draw: Callable[..., np.ndarray], *shape: int) -> np.ndarray:
        """Of each sequence one, or several."""
        return draw(size=(count, 1, *shape))

    mirrored = one(rng.random) < 0.5
    drift = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
    wobble = (drift + 0.3 * np.sin(3 * drift + 6.3 * one(rng.random))) * still[:, None]
    scale = np.exp(np.clip(0.05 * one(rng.normal), -0.1, 0.1) + 0.01 * one(rng.normal) * wobble)
    angle = 0.07 * one(rng.normal) + 0.02 * one(rng.normal) * wobble
    shift = CROP / 2 * (0.03 * one(rng.normal, 2) + 0.012 * one(rng.normal, 2) * wobble[..., None])
    shift = shift + 0.12 * rng.normal(size=(count, length, 2))  # the tracker's jitter
    side = np.where(mirrored, -1.0, 1.0)
    scale = scale * (CROP / STORED)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    m = np.stack([np.stack([a * side, -b], -1), np.stack([b * side, a], -1)], -2)  # (B, T, 2, 2)
    offset = (CROP - 1) / 2 + shift - m @ np.full(2, (STORED - 1) / 2)
    forward, back = (torch.tensor(x, dtype=torch.float32, device=device) for x in (m, np.linalg.inv(m)))
    offset = torch.tensor(offset, dtype=torch.float32, device=device)
    moved = points @ forward.transpose(-1, -2) + offset[:, :, None]
    ys, xs = torch.meshgrid(*[torch.arange(CROP, device=device, dtype=torch.float32)] * 2, indexing="ij")
    places = (torch.stack([xs, ys], -1).flatten(0, 1) - offset[:, :, None]) @ back.transpose(-1, -2)
    grid = (places * (2 / (STORED - 1)) - 1).flatten(0, 1).unflatten(1, (CROP, CROP))
    frames = crops.flatten(0, 1).permute(0, 3, 1, 2).float()
    frames = F.grid_sample(frames, grid, padding_mode="border", align_corners=True)
    return _light(frames.unflatten(0, (count, length)), rng), moved, mirrored[:, 0]


def _light(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, T, 3, CROP, CROP) in [0, 255] to uint8, each sequence with another light, lens and sensor."""
    count, device = len(frames), frames.device

    def on(x: np.ndarray) -> Tensor:
        return torch.tensor(x, dtype=torch.float32, device=device).view(*x.shape, *[1] * (5 - x.ndim))

    def chosen(share: float) -> Tensor:
        return torch.tensor(np.flatnonzero(rng.random(count) < share), device=device)

    grey = chosen(0.35)
    frames[grey] = frames[grey].mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    gamma, contrast = np.exp(0.3 * rng.normal(size=count)), rng.uniform(0.5, 1.3, count)
    light, tint = rng.uniform(-0.15, 0.15, count), 1 + 0.06 * rng.normal(size=(count, 1, 3))
    frames = (frames / 255).clamp(1e-4, 1) ** on(gamma)
    frames = 255 * (((frames - 0.5) * on(contrast) + 0.5 + on(light)) * on(tint)).clamp(0, 1)
    for some in np.array_split(np.flatnonzero(rng.random(count) < 0.2), 8):  # a smaller face, enlarged
        if len(some):
            side = int(rng.uniform(30, 90))
            mine = torch.tensor(some, device=device)
            small = F.interpolate(frames[mine].flatten(0, 1), size=(side, side), mode="area")
            frames[mine] = F.interpolate(small, size=(CROP, CROP), mode="bilinear").unflatten(0, (len(some), -1))
    mine = chosen(0.1)
    if len(mine):
        frames[mine] = _blur(frames[mine], rng.uniform(0.5, 2.0, (len(mine), 2)))
    mine = chosen(0.05)  # something before the face
    first, extent = on(rng.integers(0, 80, (len(mine), 2))), on(rng.integers(15, 45, (len(mine), 2)))
    place = torch.arange(CROP, device=device)
    rows, columns = ((place >= first) & (place < first + extent)).split(1, 1)
    colour = on(rng.integers(0, 256, (len(mine), 1, 3)))
    frames[mine] = torch.where(rows.transpose(-1, -2) & columns, colour, frames[mine])
    mine = chosen(0.15)
    noise = torch.randn(frames[mine].shape, device=device, generator=_generator(rng, device))
    frames[mine] = (frames[mine] + noise * on(255 * 0.03 * rng.random(len(mine)))).clamp(0, 255)
    mine = chosen(0.15)
    if len(mine):
        frames[mine] = _compress(frames[mine], rng.uniform(20, 85, len(mine)))
    return frames.round().to(torch.uint8)


def _generator(rng: np.random.Generator, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(rng.integers(2**62)))


def _blur(frames: Tensor, sigma: np.ndarray) -> Tensor:
    """Gaussian blur of each sequence: (B, T, 3, H, W) with (B, 2) standard deviations across and down."""
    reach = 6
    for axis, spread in zip((-1, -2), sigma.T, strict=True):
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread[:, None]) ** 2)
        taps /= taps.sum(1, keepdims=True)
        edges = (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach)
        padded = F.pad(frames.flatten(0, 1), edges, mode="replicate").unflatten(0, frames.shape[:2])
        weights = torch.tensor(taps, dtype=torch.float32, device=frames.device)[..., None, None, None, None]
        frames = sum(padded.narrow(axis, k, frames.shape[axis]) * weights[:, k] for k in range(2 * reach + 1))
    return frames


# JPEG, ITU-T T.81: the luminance and chrominance tables of its annex K, and of JFIF the colours.
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, *[99] * 38,
)  # fmt: skip
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def _compress(frames: Tensor, quality: np.ndarray) -> Tensor:
    """What JPEG loses, chrominance at half the size: (B, T, 3, H, W) in [0, 255], with (B,) qualities."""
    ycc = torch.tensor(YCC, device=frames.device)
    luma, *chroma = torch.einsum("btchw,dc->dbthw", frames, ycc)
    percent = np.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    out = [_quantise(luma - 128, LUMINANCE, percent) + 128]
    for plane in chroma:
        half = _quantise(F.avg_pool2d(plane, 2), CHROMINANCE, percent)
        out.append(F.interpolate(half, scale_factor=2, mode="bilinear"))
    return torch.einsum("dbthw,cd->btchw", torch.stack(out), torch.linalg.inv(ycc)).clamp(0, 255)


def _quantise(plane: Tensor, table: Sequence[int], percent: np.ndarray) -> Tensor:
    """(B, T, H, W) through the discrete cosine transform of 8 x 8 blocks, whose coefficients are rounded."""
    k = torch.arange(8, device=plane.device, dtype=torch.float32)
    basis = torch.cos((2 * k + 1) * k[:, None] * torch.pi / 16) / 2
    basis[0] /= 2**0.5
    steps = (np.reshape(table, (8, 8)) * percent[:, None, None]).clip(1).round()
    step = torch.tensor(steps, dtype=torch.float32, device=plane.device)[:, None, None, None]
    blocks = plane.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, T, rows, columns, 8, 8)
    coefficients = (basis @ blocks @ basis.T / step).round() * step
    return (basis.T @ coefficients @ basis).transpose(3, 4).flatten(4, 5).flatten(2, 3)


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
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)  # they take turns
        for step in self.steps[first::stride]:
            yield self.batch(np.random.default_rng((*self.seed, step)))

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        parts, stills = [], []
        for name, count in self.counts.items():
            source = self.sources[name]
            index, still = source.sample(rng, count, self.length, self.groups.get(name, 1))
            rows = torch.from_numpy(index).to(source.crops.device)
            shapes = source.shapes[rows]
            mirror_image = shapes[..., source.shapes_mirror]
            parts.append((source.crops[rows], source.targets[rows], source.points[rows], shapes, mirror_image))
            stills += [still] * count
        crops, targets, points, shapes, mirror_image = map(torch.cat, zip(*parts, strict=True))
        # of all sources at once: on a GPU the many small steps take longer than the pictures
        crops, points, turned = augment(crops, points, np.array(stills), rng)
        mirrored = torch.from_numpy(turned).to(crops.device)[:, None, None]
        shapes = torch.where(mirrored, mirror_image, shapes)
        points = torch.where(mirrored[..., None], points[:, :, POINTS_MIRROR.to(crops.device)], points)
        return Batch(crops, targets, shapes, points * (2 / (CROP - 1)) - 1)


def shrink(x: Tensor) -> Tensor:
    """Stored crops as the network takes them: (B, 3, STORED, STORED) -> (B, 3, CROP, CROP) uint8."""
    small = F.interpolate(x.float(), size=(CROP, CROP), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
