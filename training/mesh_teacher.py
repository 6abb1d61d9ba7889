"""Labels for the landmark network: MediaPipe's points on clips and rendered people, and MTCNN's.

    python training/mesh_teacher.py --shared ../shared --out ../runs/mesh/raw

Needs MediaPipe 1.2.2; see docs/aligners.md. Writes clip_NAME.npz and rendered_PART.npz with the 478
points in pixels, blendshapes and head poses of MediaPipe in image mode; five_NAME.npz and
five_faces.npz with MTCNN's five points, and boxes of the faces. Files that exist are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from crops import PADDING, follow, largest, pad, read_tar
from data import clip_frames, clip_sources, load_splits
from tqdm import tqdm

from pyfau.faces.mtcnn import MTCNNAligner

TRAIN_STEP = 3  # in training clips, one of this number of frames is labelled
MOST_FRAMES = 240  # in clips for validation and test
RENDERED_STEP, RENDERED_PADDING = 4, 0.15


class Teacher:
    """MediaPipe's Face Landmarker in image mode."""

    def __init__(self, shared: Path) -> None:
        import mediapipe

        vision = mediapipe.tasks.vision
        model = (shared / "models/face_landmarker.task").read_bytes()
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=model),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=1,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._mediapipe = mediapipe
        self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def look(self, rgb: np.ndarray) -> dict[str, Any] | None:
        """Points (478, 2) in pixels, blendshapes (52,) and matrix (4, 4); None without a face."""
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )
        found = self._landmarker.detect(image)
        if not found.face_landmarks:
            return None
        points = np.array([[point.x, point.y] for point in found.face_landmarks[0]])
        shapes = [shape.score for shape in found.face_blendshapes[0]]
        return {
            "points": (points * (rgb.shape[1], rgb.shape[0])).astype(np.float32),
            "bs": np.array(shapes, np.float16),
            "matrix": np.asarray(found.facial_transformation_matrixes[0], np.float32),
        }


def collect(teacher: Teacher, images: Iterable[tuple[str, Any, np.ndarray]]) -> dict[str, Any]:
    """The columns of what the teacher sees; (column, key, image) each."""
    records = []
    for column, key, rgb in images:
        seen = teacher.look(rgb)
        if seen is not None:
            records.append(seen | {column: key})
    return {name: np.array([r[name] for r in records]) for name in records[0]} if records else {}


def label_clips(shared: Path, out: Path, teacher: Teacher, aligner: MTCNNAligner) -> None:
    splits = load_splits()["clips"]
    for source in tqdm(clip_sources(shared), desc="clips"):
        name, split = source["name"], splits[source["person"]]
        if (out / f"five_{name}.npz").exists():
            continue
        frames = clip_frames(shared, name)
        chosen = range(0, len(frames), TRAIN_STEP)
        if split != "train":
            frames = frames[:MOST_FRAMES]
            chosen = range(len(frames))
        columns = collect(teacher, (("t", t, frames[t]) for t in chosen))
        if columns:
            np.savez(out / f"clip_{name}.npz", split=split, **columns)
        track = follow(aligner, frames)
        five = [np.full((5, 2), np.nan) if face is None else face.landmarks for face in track]
        np.savez(out / f"five_{name}.npz", five=np.array(five, np.float32))


def label_rendered(shared: Path, out: Path, teacher: Teacher) -> None:
    for part in ("part1", "part2"):
        path = out / f"rendered_{part}.npz"
        if path.exists():
            continue
        images = read_tar(shared / f"data/sequences/{part}.tar")
        chosen = [n for n in sorted(images) if int(n.split("/")[1][:2]) % RENDERED_STEP == 0]
        padded = (("name", n, pad(images[n], RENDERED_PADDING)) for n in tqdm(chosen, desc=part))
        columns = collect(teacher, padded)
        border = round(max(images[chosen[0]].shape[:2]) * RENDERED_PADDING)
        columns["points"] = columns["points"] - border
        np.savez(path, **columns)


def label_faces(shared: Path, out: Path, aligner: MTCNNAligner) -> None:
    images = read_tar(shared / "data/faces/faces.tar")
    five = np.full((len(images), 5, 2), np.nan, np.float32)
    boxes = np.full((len(images), 4), np.nan, np.float32)
    for i in tqdm(range(len(images)), desc="faces"):
        rgb = images[f"{i:05d}.jpg"]
        border = round(max(rgb.shape[:2]) * PADDING)
        face = largest(aligner, pad(rgb, PADDING))
        if face is not None:
            five[i], boxes[i] = face.landmarks - border, face.box_xyxy - border
    np.savez(out / "five_faces.npz", five=five, box=boxes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher, aligner = Teacher(args.shared), MTCNNAligner()
    label_clips(args.shared, args.out, teacher, aligner)
    label_rendered(args.shared, args.out, teacher)
    if not (args.out / "five_faces.npz").exists():
        label_faces(args.shared, args.out, aligner)


if __name__ == "__main__":
    main()
