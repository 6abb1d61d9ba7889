"""Measures the aligner "mesh" on clips of people outside the training set.

    python training/mesh_judge.py --shared ../shared --teacher ../runs/mesh/raw --split test

For each aligner: error of the 68 points and of the head pose against the teacher while the tracker
follows the face, frames without a face, jitter of the aligned crop, and ms per frame.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from data import CROP, TEMPLATE, clip_frames
from mesh_data import ALL, eye_distance

from pyfau.faces.aligner import load_aligner
from pyfau.faces.crop import fit_similarity
from pyfau.faces.mesh_pose import mesh_pose, pose_of
from pyfau.faces.tracker import FaceTracker
from pyfau.types import Face

PLACES = np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8], [0.5, 0.5]]) * CROP


def follow(aligner, frames: list[np.ndarray]) -> tuple[list[Face | None], float]:
    """The largest face of each frame, and ms per frame."""
    tracker = FaceTracker(aligner, max_faces=1)
    faces: list[Face | None] = []
    started = time.process_time()
    for rgb in frames:
        found = tracker.update(rgb).faces
        faces.append(found[0].face if found else None)
    return faces, (time.process_time() - started) / len(frames) * 1e3


def jitter(faces: list[Face | None]) -> float:
    """Median jitter in pixels of a 112 px crop, as in benchmarks/crop_jitter.py."""
    places, scales = [], []
    for face in faces:
        if face is None:
            places.append(np.full((5, 2), np.nan))
            continue
        matrix = fit_similarity(face.landmarks, np.array(TEMPLATE) * CROP)
        inverse = cv2.invertAffineTransform(matrix)
        places.append(PLACES @ inverse[:, :2].T + inverse[:, 2])
        scales.append(np.hypot(matrix[0, 0], matrix[1, 0]))
    second = np.diff(np.array(places), n=2, axis=0) * np.mean(scales) / np.sqrt(6)
    return float(np.nanmedian(np.abs(second)) / 0.6745)


def teacher_pose(matrix: np.ndarray) -> np.ndarray:
    """Pitch, yaw and roll of the teacher's matrix (4, 4)."""
    rotation = matrix[:3, :3].astype(np.float64)
    flip = np.diag([1.0, -1.0, -1.0])
    return np.array(pose_of(flip @ (rotation / np.cbrt(np.linalg.det(rotation))) @ flip))


def against_teacher(aligner, faces, clip) -> tuple[list[float], list[np.ndarray]]:
    """Errors of the points in percent of the distance between the eyes, and of the pose."""
    errors, poses = [], []
    for k, frame in enumerate(clip["t"]):
        face = faces[frame]
        if face is None or face.mesh is None:
            continue
        truth = clip["points"][k][list(ALL[:68])].astype(np.float64) - 0.5
        off = np.linalg.norm(face.mesh.points - truth, axis=1).mean()
        errors.append(100 * off / eye_distance(truth))
        pose = np.array(mesh_pose(face.mesh.points, aligner.mean_face))
        poses.append((pose - teacher_pose(clip["matrix"][k]) + 180) % 360 - 180)
    return errors, poses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--aligners", nargs="+", default=["mesh", "mtcnn"])
    parser.add_argument("--most", type=int, default=150, help="frames of a clip")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in args.aligners:
        aligner = load_aligner(name, torch.device("cpu"))
        errors, poses, jitters, costs, lost, all_frames = [], [], [], [], 0, 0
        for path in sorted(args.teacher.glob("clip_*.npz")):
            clip = dict(np.load(path))
            if str(clip["split"]) != args.split:
                continue
            clip_name = path.stem.removeprefix("clip_")
            frames = clip_frames(args.shared, clip_name)[: args.most]
            clip["t"] = clip["t"][clip["t"] < len(frames)]
            faces, cost = follow(aligner, frames)
            off, pose = against_teacher(aligner, faces, clip)
            gone = [t for t in clip["t"] if faces[t] is None]
            lost, all_frames = lost + len(gone), all_frames + len(clip["t"])
            jitters.append(jitter(faces))
            costs.append(cost)
            line = f"{name:6} {clip_name:40} jitter {jitters[-1]:.3f} lost {len(gone):3}"
            if off:
                errors.append(np.mean(off))
                poses.append(np.abs(pose).mean(0))
                line += f" NME {errors[-1]:.2f} pose {poses[-1].round(1)}"
            print(line, f"{cost:.1f} ms")
        print(
            f"{name} {args.split}: {len(jitters)} clips: mean jitter {np.mean(jitters):.3f} px "
            f"of {CROP}, median {np.median(jitters):.3f}; lost {lost} of {all_frames}; "
            f"{np.mean(costs):.2f} ms"
        )
        if errors:
            pitch, yaw, roll = np.mean(poses, axis=0)
            print(
                f"  points {np.mean(errors):.2f} %; pose {pitch:.2f} {yaw:.2f} {roll:.2f} degrees"
            )


if __name__ == "__main__":
    main()
