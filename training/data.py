"""The data of the bundled model: sources, grades and splits. See training/README.md."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from pyfau.media.readers import read_video

HERE = Path(__file__).parent
AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 24, 25, 26, 28, 43)
# The AUs over which the figures of the model card are averaged: common enough in every test set.
JUDGED = (1, 2, 4, 6, 7, 10, 12, 15, 17, 25, 26, 43)
RENDERED_AUS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26, 43)
SPLITS = ("train", "validation", "test")
MOST_CODERS = 3
SHAPE_NAMES = "blendshapes.txt"  # in the prepared data: the names of MediaPipe's blendshapes

# A coder's grades: 0 absent, 0.5 a trace or undecided, 1 present, 2 strong.
TRACE, PRESENT, STRONG = 0.5, 1.0, 2.0
LEVELS = (TRACE, PRESENT, STRONG)
# The mean grade of several coders counts as present from 0.75 and as absent up to 0.25.
CLEARLY_PRESENT, CLEARLY_ABSENT = 0.75, 0.25

CROP, STORED = 112, 128  # pixels of the network's crops, and of the crops kept for training
# Eyes, nose and mouth corners in fractions of the crop.
# The crop is wider than the paper's: forehead and chin carry AU1, AU2 and AU17.
TEMPLATE = (
    (0.3215, 0.29),
    (0.6785, 0.29),
    (0.50, 0.50),
    (0.346, 0.661875),
    (0.654, 0.661875),
)

Grades = dict[Hashable, np.ndarray]


def read_grades(path: Path, key: Sequence[str]) -> Grades:
    """Read one table of coded faces.

    Args:
        path: A CSV file of `shared/data/coded`.
        key: The columns that name an image: ("face",), ("file",) or ("clip", "frame").

    Returns:
        For each image a (MOST_CODERS, N) float32 array of grades. NaN: not visible, or no such
        coder. The dictionary key is the text of the key column, or a tuple of several.
    """
    grades: Grades = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            name = tuple(row[column] for column in key)
            image = name[0] if len(name) == 1 else name
            empty = np.full((MOST_CODERS, len(AUS)), np.nan, np.float32)
            coder = int(row["coder"]) - 1
            grades.setdefault(image, empty)[coder] = [
                float(row[f"AU{au:02d}"] or "nan") for au in AUS
            ]
    return grades


def read_all_grades(shared: Path, source: str, key: Sequence[str]) -> Grades:
    """The grades of all splits of "faces" or "frames"."""
    folder = shared / "data/coded"
    grades: Grades = {}
    for split in SPLITS:
        grades |= read_grades(folder / f"{source}_{split}.csv", key)
    return grades


def uncoded() -> np.ndarray:
    """The grades of an image that nobody coded."""
    return np.full((MOST_CODERS, len(AUS)), np.nan, np.float32)


def clip_frames(shared: Path, name: str) -> list[np.ndarray]:
    """The frames of a clip, (H, W, 3) uint8."""
    with read_video(shared / f"data/clips/{name}.mp4") as reader:
        return [frame.rgb for frame in reader]


def clip_sources(shared: Path) -> list[dict[str, str]]:
    """One record for each clip: its name, person, licence and origin."""
    with (shared / "data/clips/SOURCES.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def face_person(source: str) -> str:
    """The name in an image's file name: `AJ_Cook_0001.jpg` -> `AJ_Cook`."""
    return source.rsplit("_", 1)[0]


def hashed_split(kind: str, person: str) -> str:
    """`train`, `validation` or `test` by a hash of the person: 80, 8 and 12 of a hundred."""
    digest = hashlib.sha256(f"pyfau/{kind}/{person}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    if share < 0.12:
        return "test"
    return "validation" if share < 0.20 else "train"


def load_splits() -> dict[str, dict[str, str]]:
    """`splits.json`: the split of each person of the clips.

    Faces and rendered people are split by `hashed_split`.
    """
    splits: dict[str, dict[str, str]] = json.loads((HERE / "splits.json").read_text())
    return splits


def shape_mirror(names: Sequence[str]) -> np.ndarray:
    """For each blendshape the index of its mirror image: left and right exchanged."""
    order = {name: i for i, name in enumerate(names)}
    mirrored = []
    for name in names:
        if name.endswith("Left"):
            name = name.removesuffix("Left") + "Right"
        elif name.endswith("Right"):
            name = name.removesuffix("Right") + "Left"
        mirrored.append(order[name])
    return np.array(mirrored)
