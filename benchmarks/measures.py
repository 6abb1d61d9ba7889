"""The errors of the measures of a face, and the time that they take.

    python benchmarks/measures.py ../shared/data/faces [--every 3] [--threads 1]

The folder has faces.tar and teacher.npz: head poses by MediaPipe Face Landmarker (4 x 4 matrices).
People are split by name. The mean face of `pyfau.faces.pose` is fitted again to the people of the
first part, and the errors are printed for the held-out people, with the fitted face and with the
one in the package. Percentiles of each measure follow, and the time for one face.
"""

from __future__ import annotations

import argparse
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from pyfau.faces import pose
from pyfau.faces.measures import cut_view, measure_faces
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import MEASURES, Face

PAD = 0.35  # of the longer side; the images are cut close to the face


def read_faces(folder: Path, every: int) -> tuple[list[np.ndarray], list[Face], np.ndarray]:
    """Padded images, the face in each by MTCNN, and their numbers in the teacher's file."""
    landmarks = np.load(folder / "teacher.npz")["landmarks"].astype(np.float64)
    aligner = MTCNNAligner()
    images, faces, numbers = [], [], []
    with tarfile.open(folder / "faces.tar") as tar:
        members = sorted(name for name in tar.getnames() if name.endswith(".jpg"))
        for name in members[::every]:
            number = int(Path(name).stem)
            file = tar.extractfile(name)
            if file is None or not np.isfinite(landmarks[number]).all():
                continue
            bgr = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
            pad = int(PAD * max(bgr.shape[:2]))
            padded = cv2.copyMakeBorder(bgr, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            rgb = np.ascontiguousarray(padded[:, :, ::-1])
            low, high = landmarks[number].min(axis=0) + pad, landmarks[number].max(axis=0) + pad
            centre, half = (low + high) / 2, (high - low).max() / 2
            box = np.concatenate([centre - half, centre + half]).astype(np.float32)
            for _ in range(3):
                face = aligner.refine(rgb, [box])[0]
                box = face.box_xyxy
            if face.confidence > 0.9:
                images.append(rgb)
                faces.append(face)
                numbers.append(number)
    return images, faces, np.array(numbers)


def true_rotations(folder: Path, numbers: np.ndarray) -> np.ndarray:
    """(F, 3, 3) rotations of the teacher, without its scale."""
    matrices = np.load(folder / "teacher.npz")["pose"][numbers].astype(np.float64)[:, :3, :3]
    return matrices / np.linalg.norm(matrices, axis=1).mean(axis=1)[:, None, None]


def held_out(folder: Path, numbers: np.ndarray) -> np.ndarray:
    """(F,) bool: a fifth of the people."""
    source = np.load(folder / "teacher.npz")["source"][numbers]
    people = np.array([str(name).rsplit("_", 1)[0] for name in source])
    names = np.unique(people)
    np.random.default_rng(1).shuffle(names)
    return np.isin(people, names[: len(names) // 5])


def fit_face(points: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The mean face (5, 3) whose weak perspective view is nearest to the landmarks (F, 5, 2)."""
    centred = (points - points.mean(axis=1, keepdims=True)) * (1, -1)
    views = rotations[:, :2]
    scales = np.sqrt((centred**2).sum(axis=(1, 2)))
    for _ in range(20):
        left = (scales[:, None, None] * views).reshape(-1, 3)
        right = centred.transpose(0, 2, 1).reshape(-1, 5)
        face = np.linalg.lstsq(left, right, rcond=None)[0]
        seen = np.einsum("nij,jk->nki", views, face)
        scales = (seen * centred).sum(axis=(1, 2)) / (seen**2).sum(axis=(1, 2))
    return (face / np.linalg.norm(face)).T


def print_errors(name: str, found: np.ndarray, known: np.ndarray) -> None:
    """Median, mean and 90th percentile of the error of each angle."""
    errors = np.abs(found - known)
    for i, angle in enumerate(("pitch", "yaw", "roll")):
        part = errors[:, i]
        print(
            f"{name:20} {angle:5}  median {np.median(part):.1f}  mean {part.mean():.1f}  "
            f"90 % under {np.quantile(part, 0.9):.1f} degrees"
        )


def main() -> None:
    """Print the errors, the percentiles and the time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    images, faces, numbers = read_faces(args.folder, args.every)
    points = np.array([face.landmarks for face in faces], np.float64)
    rotations = true_rotations(args.folder, numbers)
    known = pose.angles_of(rotations)
    test = held_out(args.folder, numbers)
    print(f"{len(faces)} faces, {test.sum()} of held-out people")
    print_errors("in the package", pose.head_poses(points[test]), known[test])
    fitted = fit_face(points[~test], rotations[~test])
    pose._TO_AXES = np.linalg.pinv(fitted - fitted.mean(axis=0)).T
    print_errors("fitted again", pose.head_poses(points[test]), known[test])
    sizes = [(rgb.shape[1], rgb.shape[0]) for rgb in images]
    started = time.process_time()
    views = [cut_view(rgb, face) for rgb, face in zip(images, faces, strict=True)]
    parts = [
        measure_faces(faces[i : i + 32], views[i : i + 32], sizes[i : i + 32])
        for i in range(0, len(faces), 32)
    ]
    each = (time.process_time() - started) / len(faces) * 1e3
    values = np.array([row for part in parts for row in part])[test]
    print("percentiles of held-out people:       1      5     50     95     99")
    for i, name in enumerate(MEASURES):
        row = np.percentile(values[:, i], [1, 5, 50, 95, 99])
        print(f"  {name:32}" + "".join(f"{value:7.2f}" for value in row))
    print(f"quality below 0.5: {(values[:, -1] < 0.5).mean():.1%}")
    print(f"{each:.3f} ms of processor time a face, in groups of 32")


if __name__ == "__main__":
    main()
