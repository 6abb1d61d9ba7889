"""Step 1: crops through pyfau's own aligner, and their targets.

    python training/prepare.py --shared ../shared --out ../runs/data

Writes faces.npz, clips.npz, rendered.npz and animated.npz (targets, people, splits, and where a source has them
blendshapes and landmarks in the stored crop) with NAME_crops.npy beside each. A part that is there already is kept, so
that two processes with --parts may share the work. The animated part needs MediaPipe (see animate.py).
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import torch
from data import AUS, STORED, clip_sources, face_person, hashed_split, load_splits, stored_template, teacher_targets
from PIL import Image
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
    return crop_face(rgb, face.landmarks, stored_template(), STORED)


def to_crop(points: np.ndarray, face) -> np.ndarray:
    """(L, 2) pixels of the picture that `face` was found in -> pixels of its stored crop."""
    matrix = fit_similarity(face.landmarks.astype(np.float64) + 0.5, stored_template() * STORED)
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
    teacher = dict(np.load(shared / "data/faces/teacher.npz"))
    pictures = read_tar(shared / "data/faces/faces.tar")
    targets = teacher_targets(teacher["blendshapes"], list(teacher["blendshape_names"]))
    crops, kept, landmarks = [], [], []
    for i in tqdm(range(len(targets)), desc="faces"):
        picture = pictures[f"{i:05d}.jpg"]
        rgb = pad(picture, PADDING)
        face = largest(aligner, rgb)
        if face is not None:
            crops.append(crop(rgb, face))
            kept.append(i)
            landmarks.append(to_crop(teacher["landmarks"][i] + float(border(picture, PADDING)), face))
    people = [face_person(teacher["source"][i]) for i in kept]
    points = teacher["landmarks"][kept].astype(np.float32)  # MediaPipe's 478
    gap = np.linalg.norm(points[:, INNER_LIPS[0]] - points[:, INNER_LIPS[1]], axis=1)
    eyes = np.linalg.norm(points[:, OUTER_EYES[0]] - points[:, OUTER_EYES[1]], axis=1)
    return np.stack(crops), {
        "index": np.array(kept),
        "targets": targets[kept],
        "blendshapes": teacher["blendshapes"][kept],
        "blendshape_names": teacher["blendshape_names"],
        "landmarks": np.stack(landmarks).astype(np.float16),
        "yaw": head_yaw(teacher["pose"][kept]),
        "emotion": teacher["emotion"][kept],
        "lip_gap": gap / eyes,
        "split": np.array([hashed_split("faces", p) for p in people]),
    }


def prepare_clips(shared: Path, aligner: MTCNNAligner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    splits = load_splits()["clips"]
    crops, records = [], []
    for source in tqdm(clip_sources(shared), desc="clips"):
        labels = np.load(shared / f"data/clips/{source['name']}.npz")
        capture = cv2.VideoCapture(str(shared / f"data/clips/{source['name']}.mp4"))
        frames = []
        while True:
            ok, bgr = capture.read()
            if not ok:
                break
            frames.append(bgr[..., ::-1].copy())
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
        np.savez(args.out / f"{name}.npz", **arrays)
        counts = {s: int((arrays["split"] == s).sum()) for s in ("train", "validation", "test")}
        print(f"{name}: {len(crops)} crops, {counts}")


if __name__ == "__main__":
    main()
