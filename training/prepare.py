"""Step 1: face crops made by pyfau's own aligner, with their grades.

    python training/prepare.py --shared ../shared --out ../runs/data

Writes faces.npz, clips.npz, stills.npz and rendered.npz (grades, people, splits, blendshapes), and
NAME_crops.npy with the crops of each. A part that already exists is kept, so two processes with
different --parts can share the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from crops import PADDING, AnyAligner, crop, follow, largest, pad, read_tar
from data import (
    AUS,
    RENDERED_AUS,
    SHAPE_NAMES,
    SPLITS,
    clip_frames,
    clip_sources,
    face_person,
    hashed_split,
    load_splits,
    read_all_grades,
    read_grades,
    uncoded,
)
from tqdm import tqdm

from pyfau.faces.mesh import MeshAligner
from pyfau.faces.mtcnn import MTCNNAligner

RENDERED_PADDING = 0.15
RENDERED_STEP = 4  # frames of a rendered sequence resemble each other: one of this number is kept
Prepared = tuple[list[np.ndarray], list[dict[str, Any]]]  # crops, and one record for each
ALIGNERS = {"mtcnn": MTCNNAligner, "mesh": MeshAligner}
SHAPES = 52  # blendshapes of MediaPipe


def prepare_faces(shared: Path, aligner: AnyAligner) -> Prepared:
    """Images of faces, with the grades of those that are coded."""
    known = dict(np.load(shared / "data/faces/teacher.npz"))
    grades = read_all_grades(shared, "faces", ["face"])
    images = read_tar(shared / "data/faces/faces.tar")
    crops, records = [], []
    for i, source in enumerate(tqdm(known["source"], desc="faces")):
        rgb = pad(images[f"{i:05d}.jpg"], PADDING)
        face = largest(aligner, rgb)
        if face is None:
            continue
        person = face_person(str(source))
        crops.append(crop(rgb, face))
        records.append(
            {
                "number": i,
                "person": person,
                "split": hashed_split("faces", person),
                "emotion": str(known["emotion"][i]),
                "shapes": known["blendshapes"][i].astype(np.float16),
                "grades": grades.get(f"{i:05d}", uncoded()),
            }
        )
    return crops, records


def prepare_clips(shared: Path, aligner: AnyAligner) -> Prepared:
    """Frames of clips, with the grades of those that are coded."""
    grades = read_all_grades(shared, "frames", ["clip", "frame"])
    splits = load_splits()["clips"]
    crops, records = [], []
    for source in tqdm(clip_sources(shared), desc="clips"):
        name, person = source["name"], source["person"]
        teacher = np.load(shared / f"data/clips/{name}.npz")
        shapes = np.where(teacher["present"][:, None], teacher["bs"], np.nan).astype(np.float16)
        frames = clip_frames(shared, name)[: len(shapes)]
        for t, face in enumerate(follow(aligner, frames)):
            if face is None:
                continue
            crops.append(crop(frames[t], face))
            records.append(
                {
                    "clip": name,
                    "person": person,
                    "split": splits[person],
                    "frame": t,
                    "shapes": shapes[t],
                    "grades": grades.get((name, str(t)), uncoded()),
                }
            )
    return crops, records


def prepare_stills(shared: Path, aligner: AnyAligner) -> Prepared:
    """Coded colour images that no network is trained on."""
    grades = read_grades(shared / "data/coded/stills.csv", ["file"])
    crops, records = [], []
    for name, rgb in tqdm(read_tar(shared / "data/coded/stills.tar").items(), desc="stills"):
        padded = pad(rgb, PADDING)
        face = largest(aligner, padded)
        if face is None:
            continue
        crops.append(crop(padded, face))
        records.append(
            {
                "picture": name,
                "person": name,
                "split": "test",
                "shapes": np.full(SHAPES, np.nan, np.float16),
                "grades": grades.get(name, uncoded()),
            }
        )
    return crops, records


def prepare_rendered(shared: Path, aligner: AnyAligner) -> Prepared:
    """Frames of rendered people with the renderer's intensities in [0, 1]."""
    columns = [AUS.index(au) for au in RENDERED_AUS]
    crops, records = [], []
    for part in ("part1", "part2"):
        labels = dict(np.load(shared / f"data/sequences/{part}.npz"))
        if tuple(labels["au_numbers"]) != RENDERED_AUS:
            raise SystemExit(f"{part}.npz has AUs {labels['au_numbers']}, expected {RENDERED_AUS}")
        images = read_tar(shared / f"data/sequences/{part}.tar")
        people = sorted({name.split("/")[0] for name in images})
        for row, person in enumerate(tqdm(people, desc=part)):
            name = f"{part}/{person}"
            for t in range(0, labels["au"].shape[1], RENDERED_STEP):
                rgb = pad(images[f"{person}/{t:02d}.jpg"], RENDERED_PADDING)
                face = largest(aligner, rgb)
                if face is None:
                    continue
                intensity = np.full(len(AUS), np.nan, np.float32)
                intensity[columns] = labels["au"][row, t]
                crops.append(crop(rgb, face))
                records.append(
                    {
                        "clip": name,
                        "person": name,
                        "split": hashed_split("rendered", name),
                        "frame": t,
                        "shapes": np.full(SHAPES, np.nan, np.float16),
                        "grades": uncoded(),
                        "intensity": intensity,
                    }
                )
    return crops, records


PARTS = {
    "faces": prepare_faces,
    "stills": prepare_stills,
    "clips": prepare_clips,
    "rendered": prepare_rendered,
}


def write(
    out: Path, name: str, crops: Sequence[np.ndarray], columns: dict[str, np.ndarray]
) -> None:
    """Write the crops, and then the columns under their final name only when they are whole."""
    np.save(out / f"{name}_crops.npy", np.stack(crops))
    unfinished = out / f"{name}.part.npz"
    np.savez(unfinished, **columns)
    unfinished.replace(out / f"{name}.npz")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    parser.add_argument("--aligner", default="mtcnn", choices=ALIGNERS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    with np.load(args.shared / "data/faces/teacher.npz") as teacher:
        (args.out / SHAPE_NAMES).write_text("\n".join(teacher["blendshape_names"]) + "\n")
    aligner = ALIGNERS[args.aligner]()
    for name in args.parts:
        if (args.out / f"{name}.npz").exists():
            print(f"{name}: there already")
            continue
        crops, records = PARTS[name](args.shared, aligner)
        columns = {key: np.array([record[key] for record in records]) for key in records[0]}
        write(args.out, name, crops, columns)
        counts = {split: int((columns["split"] == split).sum()) for split in SPLITS}
        coded = int((~np.isnan(columns["grades"])).any(axis=(1, 2)).sum())
        print(f"{name}: {len(crops)} crops, {counts}, {coded} coded")


if __name__ == "__main__":
    main()
