"""Linear maps from the 68 points to MTCNN's five points and box, and the mean face in 3D.

    python training/mesh_maps.py --shared ../shared --teacher ../runs/mesh/raw --data ../runs/mesh

Writes maps.npz into the folder of --data. With these five points, crops are like those of MTCNN, on
which the bundled model was trained. The mean face is fitted to the teacher's points and head poses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import face_person, hashed_split
from mesh_data import ALL, CENTRE, eye_distance

from pyfau.faces.crop import fit_similarity

RIDGE = 0.3
# Points that expressions hardly move: upper jaw line, bridge and base of the nose, eye corners.
STEADY = (0, 1, 2, 3, 13, 14, 15, 16, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)

Pair = tuple[np.ndarray, np.ndarray, np.ndarray, str]  # points, five, box, split


def pairs(shared: Path, folder: Path) -> Iterator[Pair]:
    """The teacher's 68 points, MTCNN's five points and box of the same faces, and the split."""
    teacher = dict(np.load(shared / "data/faces/teacher.npz"))
    faces = dict(np.load(folder / "five_faces.npz"))
    for i in np.flatnonzero(np.isfinite(faces["five"][:, 0, 0])):
        points = teacher["landmarks"][i, list(ALL[:68])].astype(np.float64)
        split = hashed_split("faces", face_person(str(teacher["source"][i])))
        yield points, faces["five"][i] + 0.0, faces["box"][i], split
    for path in sorted(folder.glob("clip_*.npz")):
        clip = dict(np.load(path))
        five = np.load(folder / f"five_{path.stem.removeprefix('clip_')}.npz")["five"]
        for k in range(0, len(clip["t"]), 2):
            frame = clip["t"][k]
            if frame < len(five) and np.isfinite(five[frame]).all():
                points = clip["points"][k][list(ALL[:68])].astype(np.float64)
                yield points, five[frame], np.full(4, np.nan), str(clip["split"])


def fit(x: np.ndarray, y: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Ridge regression of y (N, D) on x (N, 136) around the mean face; weights (137, D)."""
    centred = x - base
    solved = np.linalg.solve(
        centred.T @ centred + RIDGE * np.eye(x.shape[1]), centred.T @ (y - y.mean(0))
    )
    offset = y.mean(0) - centred.mean(0) @ solved - base @ solved
    return np.concatenate([solved, offset[None]])


def maps(shared: Path, folder: Path, mean: np.ndarray) -> dict[str, np.ndarray]:
    xs, fives, boxes, splits, scales = [], [], [], [], []
    for points, five, box, split in pairs(shared, folder):
        matrix = fit_similarity(points, mean[:68])
        linear, shift = matrix[:, :2], matrix[:, 2]
        roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        # A box has no roll.
        upright = box.reshape(2, 2) if abs(roll) < 8 else np.full((2, 2), np.nan)
        xs.append(((points @ linear.T + shift) / CENTRE - 1).reshape(-1))
        # MTCNN's landmarks have the first pixel's centre at 0.
        fives.append((((five + 0.5) @ linear.T + shift) / CENTRE - 1).reshape(-1))
        centre = upright.mean(0) @ linear.T + shift
        half = (upright[1] - upright[0]) / 2 * np.hypot(linear[0, 0], linear[1, 0])
        boxes.append(np.concatenate([centre - half, centre + half]) / CENTRE - 1)
        splits.append(split)
        scales.append(eye_distance(points @ linear.T + shift))
    x, five, box = np.array(xs), np.array(fives), np.array(boxes)
    train = np.array(splits) == "train"
    base = (mean[:68] / CENTRE - 1).reshape(-1)
    found = {"five.weight": fit(x[train], five[train], base)}
    usable = train & np.isfinite(box).all(1)
    found["box.weight"] = fit(x[usable], box[usable], base)
    one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    off = (one @ found["five.weight"] - five).reshape(-1, 5, 2) * CENTRE
    error = np.linalg.norm(off, axis=2).mean(1) / np.array(scales) * 100
    for split in ("train", "validation", "test"):
        chosen = np.array(splits) == split
        print(
            f"five points, {split}: {chosen.sum()} faces, {error[chosen].mean():.2f} % "
            f"of the distance between the eyes, offset {off[chosen].mean((0, 1)).round(2)} px of 96"
        )
    return found


def space(folder: Path) -> np.ndarray:
    """The mean face (68, 3) in 3D: x to the right, y down, z away from the viewer.

    Alternating least squares under weak perspective, with the rotation of the teacher.
    """
    points, turns = [], []
    for path in sorted(folder.glob("clip_*.npz")):
        clip = dict(np.load(path))
        if str(clip["split"]) != "train":
            continue
        points.append(clip["points"][::2, list(ALL[:68])].astype(np.float64))
        turns.append(clip["matrix"][::2, :3, :3].astype(np.float64))
    p, r = np.concatenate(points), np.concatenate(turns)
    r = r / np.cbrt(np.linalg.det(r))[:, None, None]
    # The teacher's axes: y up, z to the viewer.
    flip = np.diag([1.0, -1.0, -1.0])
    r = flip @ r @ flip
    steady = np.array(STEADY)
    p = p - p[:, steady].mean(1, keepdims=True)
    shape = np.concatenate([p.mean(0) / eye_distance(p).mean(), np.zeros((68, 1))], axis=1)
    for _ in range(30):
        shape = shape - shape[steady].mean(0)
        seen = np.einsum("fij,kj->fki", r[:, :2], shape)
        scale = (seen[:, steady] * p[:, steady]).sum((1, 2)) / (seen[:, steady] ** 2).sum((1, 2))
        normal = np.einsum("fji,fjk->ik", r[:, :2], r[:, :2])
        right = np.einsum("fji,fkj->ki", r[:, :2], p / scale[:, None, None])
        shape = np.linalg.solve(normal, right.T).T
        shape /= np.linalg.norm(shape[42:48].mean(0) - shape[36:42].mean(0))
    return shape


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    mean = np.load(args.data / "train.npz")["mean"].astype(np.float64)
    found = maps(args.shared, args.teacher, mean)
    found["mean.space"] = space(args.teacher)
    print("depth of nose tip and jaw:", found["mean.space"][[30, 0, 16], 2].round(3))
    np.savez(args.data / "maps.npz", **found)


if __name__ == "__main__":
    main()
