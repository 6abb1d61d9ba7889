"""The data of the landmark network `face-mesh-lite`: cached crops of faces, and augmentation.

    python training/mesh_data.py --shared ../shared --teacher ../runs/mesh/raw --out ../runs/mesh

`--teacher` is the folder that training/mesh_teacher.py fills. Writes SPLIT_crops.npy, (N, 192, 192,
3) uint8, and SPLIT.npz with the landmarks in pixels of these crops, for the splits of
training/data.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from crops import read_tar
from data import SPLITS, clip_frames, face_person, hashed_split
from tqdm import tqdm

from pyfau.faces.crop import fit_similarity, warp

SIDE = 96  # of the network's input, pixels
CACHED = 192  # of the cached crops, pixels
ZOOM = 8 / 7  # pixels of a cached crop for one of the input
CENTRE = SIDE / 2
FACE_HEIGHT = 60.0  # from the brows to the chin in an exact crop, pixels

# The usual 68 points as indices of MediaPipe's 478, from the topology of its face mesh (face oval,
# brows, bridge and base of the nose, lids, outer and inner lips). The order is jaw, brows, nose,
# eyes, lips; each part goes from left to right in the image.
JAW = (234, 93, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 323, 454)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
NOSE = (168, 197, 5, 4, 98, 97, 2, 326, 327)
EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178)
POINTS = JAW + BROWS + NOSE + EYES + LIPS
IRISES = (468, 473)
ALL = POINTS + IRISES

# For each point the index of its mirror image, written as the mirrored order of each part.
_MIRRORED = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
    *(69, 68),
)
MIRROR = np.array(_MIRRORED)


@dataclass
class Sample:
    """One face: an image, its points (70, 2) in pixels, and openness (2,) of the eyes in [0, 1]."""

    rgb: np.ndarray
    points: np.ndarray
    openness: np.ndarray
    split: str
    kind: str
    name: str


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance between the middles of the lids, (...,) pixels, of points (..., 68 or more, 2)."""
    between = points[..., 42:48, :].mean(-2) - points[..., 36:42, :].mean(-2)
    return np.hypot(between[..., 0], between[..., 1])


def faces(shared: Path) -> Iterator[Sample]:
    """The faces of `shared/data/faces` with MediaPipe's landmarks."""
    teacher = dict(np.load(shared / "data/faces/teacher.npz"))
    names = list(teacher["blendshape_names"])
    blinks = [names.index("eyeBlinkRight"), names.index("eyeBlinkLeft")]
    images = read_tar(shared / "data/faces/faces.tar")
    for i, source in enumerate(teacher["source"]):
        points = teacher["landmarks"][i, list(ALL)].astype(np.float64)
        openness = 1 - teacher["blendshapes"][i, blinks].astype(np.float64)
        person = face_person(str(source))
        split = hashed_split("faces", person)
        yield Sample(images[f"{i:05d}.jpg"], points, openness, split, "face", f"{i:05d}")


def clips(shared: Path, folder: Path) -> Iterator[Sample]:
    """Frames of the clips; for validation and test, every fourth frame that has landmarks."""
    for path in sorted(folder.glob("clip_*.npz")):
        teacher = dict(np.load(path))
        name = path.stem.removeprefix("clip_")
        frames = clip_frames(shared, name)
        split = str(teacher["split"])
        for k in range(0, len(teacher["t"]), 1 if split == "train" else 4):
            points = teacher["points"][k][list(ALL)].astype(np.float64)
            openness = 1 - teacher["bs"][k][[10, 9]].astype(np.float64)
            frame = int(teacher["t"][k])
            yield Sample(frames[frame], points, openness, split, "clip", f"{name}/{frame}")


def rendered(shared: Path, folder: Path) -> Iterator[Sample]:
    """Rendered faces, where MediaPipe's landmarks agree with the renderer's."""
    for part in ("part1", "part2"):
        path = folder / f"rendered_{part}.npz"
        if not path.exists():
            continue
        teacher = dict(np.load(path))
        labels = np.load(shared / f"data/sequences/{part}.npz")["landmarks"].astype(np.float64)
        images = read_tar(shared / f"data/sequences/{part}.tar")
        people = {p: i for i, p in enumerate(sorted({n.split("/")[0] for n in images}))}
        for k, name in enumerate(teacher["name"]):
            person, frame = str(name).split("/")
            points = teacher["points"][k][list(ALL)].astype(np.float64)
            exact = labels[people[person], int(frame[:2])]
            off = np.linalg.norm(exact[17:] - points[17:68], axis=1).mean()
            if off > 0.15 * eye_distance(exact):
                continue
            openness = 1 - teacher["bs"][k][[10, 9]].astype(np.float64)
            split = hashed_split("rendered", f"{part}/{person}")
            yield Sample(images[str(name)], points, openness, split, "rendered", f"{part}/{name}")


def mean_shape(shapes: np.ndarray) -> np.ndarray:
    """The symmetric mean (70, 2) of shapes (N, 70, 2) after alignment, in pixels of the input."""
    mean = shapes[0] - shapes[0].mean(0)
    for _ in range(3):
        total = np.zeros_like(mean)
        for shape in shapes:
            matrix = fit_similarity(shape[:68], mean[:68])
            total += shape @ matrix[:, :2].T + matrix[:, 2]
        mean = total / len(shapes)
        mirrored = mean[MIRROR] * (-1, 1)
        mirrored[:, 0] += mean[:68, 0].mean() - mirrored[:68, 0].mean()
        mean = (mean + mirrored) / 2
        eyes = mean[42:48].mean(0) - mean[36:42].mean(0)
        angle = np.arctan2(eyes[1], eyes[0])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        mean = mean @ turn.T
    low, high = mean[:68].min(0), mean[:68].max(0)
    mean = (mean - (low + high) / 2) * (FACE_HEIGHT / (high[1] - low[1]))
    return mean + CENTRE


def cache(sample: Sample, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cached crop; points (70, 2) and image corners (4, 2) in pixels of the crop."""
    target = (mean[:68] - CENTRE) * ZOOM + CACHED / 2
    matrix = fit_similarity(sample.points[:68], target)
    crop = warp(sample.rgb, matrix[None], CACHED, spare=4)[0]
    height, width = sample.rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    linear, shift = matrix[:, :2], matrix[:, 2]
    return crop, sample.points @ linear.T + shift, corners @ linear.T + shift


@dataclass
class _Part:
    crops: list[np.ndarray] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    corners: list[np.ndarray] = field(default_factory=list)
    openness: list[np.ndarray] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with np.load(args.shared / "data/faces/teacher.npz") as teacher:
        some = teacher["landmarks"][::11][:, list(ALL)].astype(np.float64)
    mean = mean_shape(some)
    parts = {split: _Part() for split in SPLITS}
    sources = (
        faces(args.shared),
        clips(args.shared, args.teacher),
        rendered(args.shared, args.teacher),
    )
    for source in sources:
        for sample in tqdm(source):
            part = parts[sample.split]
            crop, points, corners = cache(sample, mean)
            part.crops.append(crop)
            part.points.append(points.astype(np.float32))
            part.corners.append(corners.astype(np.float32))
            part.openness.append(np.clip(sample.openness, 0, 1).astype(np.float32))
            part.kinds.append(sample.kind)
            part.names.append(sample.name)
    for split, part in parts.items():
        np.save(args.out / f"{split}_crops.npy", np.stack(part.crops))
        np.savez(
            args.out / f"{split}.npz",
            points=np.stack(part.points),
            corners=np.stack(part.corners),
            openness=np.stack(part.openness),
            kinds=np.array(part.kinds),
            names=np.array(part.names),
            mean=mean.astype(np.float32),
        )
        print(split, {kind: part.kinds.count(kind) for kind in ("face", "clip", "rendered")})


if __name__ == "__main__":
    main()
