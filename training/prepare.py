"""Step 1: crops through pyfau's own aligner, and their targets.

    python training/prepare.py --shared ../shared --out ../runs/data

Writes faces.npz, clips.npz, rendered.npz and animated.npz (targets, people, splits, and where a source has them
blendshapes and landmarks in the stored crop) with NAME_crops.npy beside each. A part that is there already is kept, so
that two processes with --parts may share the work. Faces and animated faces need MediaPipe (see teacher.py).
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import torch
from data import (
    AUS,
    STORED,
    TEMPLATE,
    clip_frames,
    clip_sources,
    face_person,
    hashed_split,
    load_splits,
    teacher_targets,
)
from PIL import Image
from teacher import TEACHER_MODEL, Teacher
from tqdm import tqdm

from pyfau.aligners.mtcnn import MTCNNAligner
from pyfau.crop import crop_face, fit_similarity

LOST = 0.6  # as in tracking
PADDING = 0.35  # around the tight pictures of faces, in their larger sides
INNER_LIPS, OUTER_EYES = (13, 14), (33, 263)  # of the teacher's landmarks


def read_tar(path: Path) -> dict[str, np.ndarray]:
    pictures = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(".jpg"):
                data = tar.extractfile(member)
                assert data is not None
                pictures[member.name] = np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB"))
    return pictures


def border(rgb: np.ndarray, share: float) -> int:
    return round(max(rgb.shape[:2]) * share)


def pad(rgb: np.ndarray, share: float) -> np.ndarray:
    by = border(rgb, share)
    return cv2.copyMakeBorder(rgb, by, by, by, by, cv2.BORDER_REPLICATE)


def largest(aligner: MTCNNAligner, rgb: np.ndarray):
    return max(aligner.detect(rgb), key=lambda f: f.box_xyxy[2] - f.box_xyxy[0], default=None)


def crop(rgb: np.ndarray, face) -> np.ndarray:
    return crop_face(rgb, face.landmarks, np.array(TEMPLATE), STORED)


def to_crop(points: np.ndarray, face) -> np.ndarray:
    """(L, 2) pixels of the picture that `face` was found in -> pixels of its stored crop."""
    matrix = fit_similarity(face.landmarks.astype(np.float64) + 0.5, np.array(TEMPLATE) * STORED)
    return (points + 0.5) @ matrix[:, :2].T + matrix[:, 2] - 0.5


def head_yaw(pose: np.ndarray) -> np.ndarray:
    """(F, 4, 4) poses of the teacher -> (F,) radians by which the face looks to the side."""
    forward = pose[:, :3, 2].astype(np.float32)
    return np.arctan2(forward[:, 0], forward[:, 2])


def follow(aligner: MTCNNAligner, frames: list[np.ndarray]) -> list:
    """One face through a sequence, as the detector tracks it; None where it is lost."""
    track, last = [], None
    for rgb in frames:
        face = aligner.refine(rgb, [last.box_xyxy])[0] if last is not None else None
        if face is None or face.confidence < LOST:
            face = largest(aligner, rgb)
        track.append(face)
        last = face
    return track


def prepare_faces(shared: Path, aligner: MTCNNAligner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    known = dict(np.load(shared / "data/faces/teacher.npz"))
    names = list(known["blendshape_names"])
    teacher = Teacher(shared / TEACHER_MODEL)
    pictures = read_tar(shared / "data/faces/faces.tar")
    crops, records = [], []
    for i in tqdm(range(len(known["source"])), desc="faces"):
        rgb = pad(pictures[f"{i:05d}.jpg"], PADDING)
        face, label = largest(aligner, rgb), teacher.label(rgb)
        if face is not None and label is not None:
            mesh, shapes, pose = label
            crops.append(crop(rgb, face))
            records.append((i, shapes, to_crop(mesh[:, :2], face), pose, mesh[:, :2]))
    index, shapes, landmarks, poses, points = (np.stack(column) for column in zip(*records, strict=True))
    gap = np.linalg.norm(points[:, INNER_LIPS[0]] - points[:, INNER_LIPS[1]], axis=1)
    eyes = np.linalg.norm(points[:, OUTER_EYES[0]] - points[:, OUTER_EYES[1]], axis=1)
    return np.stack(crops), {
        "index": index,
        "targets": teacher_targets(shapes, names),
        "blendshapes": shapes.astype(np.float16),
        "blendshape_names": known["blendshape_names"],
        "landmarks": landmarks.astype(np.float16),
        "yaw": head_yaw(poses),
        "emotion": known["emotion"][index],
        "lip_gap": gap / eyes,
        "split": np.array([hashed_split("faces", face_person(source)) for source in known["source"][index]]),
    }


def prepare_clips(shared: Path, aligner: MTCNNAligner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    splits = load_splits()["clips"]
    crops, records = [], []
    for source in tqdm(clip_sources(shared), desc="clips"):
        labels = np.load(shared / f"data/clips/{source['name']}.npz")
        frames = clip_frames(shared, source["name"])
        names = list(labels["names"])
        targets = teacher_targets(labels["bs"], names)
        noise = np.abs(targets - teacher_targets(labels["bs_crop"], names))
        targets[~labels["present"]] = np.nan
        targets[(noise > 0.35) & labels["present_crop"][:, None]] = np.nan  # the teacher contradicts itself
        for t, face in enumerate(follow(aligner, frames[: len(targets)])):
            if face is not None:
                crops.append(crop(frames[t], face))
                shapes = np.where(labels["present"][t], labels["bs"][t], np.nan).astype(np.float16)
                records.append((source["name"], source["person"], splits[source["person"]], t, targets[t], shapes))
    columns = list(zip(*records, strict=True))
    return np.stack(crops), {
        "clip": np.array(columns[0]),
        "person": np.array(columns[1]),
        "split": np.array(columns[2]),
        "frame": np.array(columns[3]),
        "targets": np.stack(columns[4]),
        "blendshapes": np.stack(columns[5]),
        "blendshape_names": np.array(names),
    }


def prepare_rendered(shared: Path, aligner: MTCNNAligner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    crops, records = [], []
    for part in ("part1", "part2"):
        labels = dict(np.load(shared / f"data/sequences/{part}.npz"))
        assert tuple(labels["au_numbers"]) == AUS
        pictures = read_tar(shared / f"data/sequences/{part}.tar")
        people = sorted({name.split("/")[0] for name in pictures})
        for row, person in enumerate(tqdm(people, desc=part)):
            originals = [pictures[f"{person}/{t:02d}.jpg"] for t in range(labels["au"].shape[1])]
            frames = [pad(rgb, 0.15) for rgb in originals]
            track = follow(aligner, frames)
            name = f"{part}/{person}"
            for t, face in enumerate(track):
                if face is not None:
                    crops.append(crop(frames[t], face))
                    points = to_crop(labels["landmarks"][row, t] + float(border(originals[t], 0.15)), face)
                    yaw = labels["pose"][row, t, 0]
                    records.append((name, hashed_split("rendered", name), t, labels["au"][row, t], yaw, points))
    columns = list(zip(*records, strict=True))
    return np.stack(crops), {
        "clip": np.array(columns[0]),
        "split": np.array(columns[1]),
        "frame": np.array(columns[2]),
        "targets": np.stack(columns[3]).astype(np.float32),
        "yaw": np.array(columns[4], np.float32),
        "landmarks": np.stack(columns[5]).astype(np.float16),
    }


PARTS = {"clips": prepare_clips, "rendered": prepare_rendered, "faces": prepare_faces}
ANIMATED = "animated"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/")
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    parser.add_argument("--parts", nargs="+", default=[*PARTS, ANIMATED], choices=[*PARTS, ANIMATED])
    parser.add_argument("--jobs", type=int, default=1, help="processes that animate")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    aligner = MTCNNAligner()
    for name in args.parts:
        if (args.out / f"{name}.npz").exists():
            print(f"{name}: there already")
            continue
        if name == ANIMATED:
            from animate import prepare_animated  # which uses this module

            crops, arrays = prepare_animated(args.shared, args.jobs)
        else:
            crops, arrays = PARTS[name](args.shared, aligner)
        np.save(args.out / f"{name}_crops.npy", crops)
        part = args.out / f"{name}.part.npz"
        np.savez(part, **arrays)
        part.replace(args.out / f"{name}.npz")  # half a file would count as there
        counts = {s: int((arrays["split"] == s).sum()) for s in ("train", "validation", "test")}
        print(f"{name}: {len(crops)} crops, {counts}")


if __name__ == "__main__":
    main()
