"""The data of the bundled model: sources, targets and splits. See training/README.md."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
AUS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26, 43)
CROP, MARGIN = 112, 8  # crops are stored with a margin, for shifts and scales in training
STORED = CROP + 2 * MARGIN
# Eyes, nose and mouth corners in fractions of the 112 px crop: wider than the paper's, so that the chin of an open
# mouth stays inside.
TEMPLATE = ((0.33, 0.30), (0.67, 0.30), (0.50, 0.50), (0.353, 0.654), (0.647, 0.654))
# AU -> (gain, blendshape names whose mean is taken). The teacher has no AU6 and no AU9.
TEACHER = {
    1: (1.0, ("browInnerUp",)),
    2: (1.0, ("browOuterUpLeft", "browOuterUpRight")),
    4: (1.0, ("browDownLeft", "browDownRight")),
    7: (1.0, ("eyeSquintLeft", "eyeSquintRight")),
    10: (1.0, ("mouthUpperUpLeft", "mouthUpperUpRight")),
    12: (1.0, ("mouthSmileLeft", "mouthSmileRight")),
    14: (4.0, ("mouthDimpleLeft", "mouthDimpleRight")),
    15: (2.0, ("mouthFrownLeft", "mouthFrownRight")),
    17: (1.5, ("mouthShrugLower",)),
    23: (1.5, ("mouthRollLower", "mouthRollUpper")),
    24: (1.5, ("mouthPressLeft", "mouthPressRight")),
    25: (1.0, ("mouthLowerDownLeft", "mouthLowerDownRight")),
    26: (1.5, ("jawOpen",)),
    43: (1.0, ("eyeBlinkLeft", "eyeBlinkRight")),
}


def stored_template() -> np.ndarray:
    """The template in fractions of a stored crop, which is the crop and its margin."""
    return (np.array(TEMPLATE) * CROP + MARGIN) / STORED


def teacher_targets(blendshapes: np.ndarray, names: list[str]) -> np.ndarray:
    """(F, 52) blendshapes to (F, 16) soft targets in [0, 1]; NaN where the teacher does not know the AU."""
    index = {name: i for i, name in enumerate(names)}
    targets = np.full((len(blendshapes), len(AUS)), np.nan, np.float32)
    for column, au in enumerate(AUS):
        if au in TEACHER:
            gain, channels = TEACHER[au]
            mean = blendshapes[:, [index[c] for c in channels]].astype(np.float32).mean(axis=1)
            targets[:, column] = np.clip(gain * mean, 0.0, 1.0)
    return targets


def clip_sources(shared: Path) -> list[dict[str, str]]:
    with (shared / "data/clips/SOURCES.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def face_person(source: str) -> str:
    """The name in a picture's file name: `AJ_Cook_0001.jpg` -> `AJ_Cook`."""
    return source.rsplit("_", 1)[0]


def _share(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32


def hashed_split(kind: str, person: str) -> str:
    """`train`, `validation` or `test`, by a hash of the person: 80, 8 and 12 of a hundred."""
    share = _share(f"pyfau/{kind}/{person}")
    return "test" if share < 0.12 else "validation" if share < 0.20 else "train"


def load_splits() -> dict[str, dict[str, str]]:
    """`splits.json`: the people of the clips. Faces and rendered people are split by `hashed_split`."""
    splits: dict[str, dict[str, str]] = json.loads((HERE / "splits.json").read_text())
    return splits
