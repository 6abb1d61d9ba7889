"""The data of the bundled model: sources, targets and splits. See training/README.md."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from pyfau.video import read_video

HERE = Path(__file__).parent
AUS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26, 43)
CROP, STORED = 112, 128  # pixels of the network's crops, and of those that are kept for training
# Eyes, nose and mouth corners in fractions of the crop: wider than the paper's. With less of forehead and chin the
# teacher itself tells less (training/README.md).
TEMPLATE = ((0.3215, 0.29), (0.6785, 0.29), (0.50, 0.50), (0.346, 0.661875), (0.654, 0.661875))
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

# The AUs that the teacher knows well. AU14 and AU15 it knows less well, AU6 and AU9 not at all; AU43 is judged apart.
JUDGED = (1, 2, 4, 7, 10, 12, 17, 23, 24, 25, 26)
# A target over this counts as present: about what nine of ten neutral faces of the training people stay under. AU25:
# the lips are apart (a target over 0.03 does in 88 of 100 pictures with parted lips and in 6 of 100 without); AU43: the
# eyes are more closed than open; AU6 and AU9: of their stand-ins.
PRESENT = {
    1: 0.4, 2: 0.4, 4: 0.5, 6: 0.35, 7: 0.6, 9: 0.35, 10: 0.25, 12: 0.3, 14: 0.25, 15: 0.25, 17: 0.25, 23: 0.3, 24: 0.3,
    25: 0.03, 26: 0.3, 43: 0.5,
}  # fmt: skip
PRESENT_RENDERED = 0.3  # and so does a rendered intensity over it
WRINKLED = 0.8  # the target of a face whose nose was seen to be wrinkled
# Points of the teacher's mesh that serve as auxiliary targets, left and right in pairs: those from which it computes
# its blendshapes, irises among them, and some of the cheeks and the nose.
_PAIRS = (
    (7, 249), (21, 251), (33, 263), (37, 267), (39, 269), (40, 270), (46, 276), (52, 282), (53, 283), (54, 284),
    (55, 285), (58, 288), (61, 291), (63, 293), (65, 295), (66, 296), (67, 297), (70, 300), (78, 308), (80, 310),
    (81, 311), (82, 312), (84, 314), (87, 317), (88, 318), (91, 321), (93, 323), (95, 324), (103, 332), (105, 334),
    (107, 336), (109, 338), (127, 356), (132, 361), (133, 362), (136, 365), (144, 373), (145, 374), (146, 375),
    (148, 377), (149, 378), (150, 379), (153, 380), (154, 381), (155, 382), (157, 384), (158, 385), (159, 386),
    (160, 387), (161, 388), (162, 389), (163, 390), (172, 397), (173, 398), (176, 400), (178, 402), (181, 405),
    (185, 409), (191, 415), (234, 454), (246, 466), (468, 473), (469, 476), (470, 475), (471, 474), (472, 477),
    (98, 327), (129, 358), (64, 294), (50, 280), (205, 425), (117, 346),
)  # fmt: skip
_MIDDLE = (0, 1, 4, 5, 6, 8, 10, 13, 14, 17, 152, 168, 195, 197)
MESH = [point for pair in _PAIRS for point in pair] + list(_MIDDLE)
MESH_MIRROR = np.array([i ^ 1 if i < 2 * len(_PAIRS) else i for i in range(len(MESH))])
# The renderer's 68 landmarks in the mirror: jaw and brows, nose, eyes, mouth.
POINTS_68_MIRROR = np.concatenate(
    [
        np.r_[16:-1:-1, 26:16:-1, 27:31, 35:30:-1],
        np.r_[45:41:-1, 47:45:-1, 39:35:-1, 41:39:-1],
        np.r_[54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1],
    ]
)


def shape_mirror(names: list[str]) -> np.ndarray:
    """For each blendshape the place of its mirror image: left and right exchanged."""

    def mirrored(name: str) -> str:
        if name.endswith("Left"):
            return name.removesuffix("Left") + "Right"
        return name.removesuffix("Right") + "Left" if name.endswith("Right") else name

    return np.array([names.index(mirrored(name)) for name in names])


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


def proxy_targets(blendshapes: np.ndarray, names: list[str]) -> np.ndarray:
    """(F, 52) blendshapes to (F, 2) stand-ins for AU6 and AU9 on real faces, which the teacher lacks; NaN: unknown.

    AU6: a squint within a smile, which is what raised cheeks look like to the teacher; without a smile a squint may be
    AU6 or AU7. AU9 is hardly known: without a lowered brow or a raised upper lip there is none; with both, a squint and
    no broad smile there probably is.
    """
    index = {name: i for i, name in enumerate(names)}

    def channel(stem: str) -> np.ndarray:
        return blendshapes[:, [index[stem + "Left"], index[stem + "Right"]]].astype(np.float32).mean(axis=1)

    squint, smile, brow, lip = (channel(c) for c in ("eyeSquint", "mouthSmile", "browDown", "mouthUpperUp"))
    cheek = np.clip((squint - 0.3) / 0.4, 0, 1) * np.clip(smile / 0.5, 0, 1)
    cheek[(squint > 0.45) & (smile < 0.2)] = np.nan
    nose = np.full_like(cheek, np.nan)
    nose[(brow < 0.12) | (lip < 0.03)] = 0.0
    nose[(brow > 0.35) & (lip > 0.15) & (squint > 0.35) & (smile < 0.5)] = 0.7
    return np.stack([cheek, nose], axis=1)


def seen_noses(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The (F,) stand-ins for AU9 of faces, by their numbers, and where somebody has looked (`noses.json`) that."""
    seen = json.loads((HERE / "noses.json").read_text())
    smooth, wrinkled = (np.isin(numbers, seen[name]) for name in ("smooth", "wrinkled"))
    return np.where(wrinkled, WRINKLED, np.where(smooth, 0.0, targets))


def clip_frames(shared: Path, name: str) -> list[np.ndarray]:
    """The frames of a clip, (H, W, 3) uint8."""
    with read_video(shared / f"data/clips/{name}.mp4") as reader:
        return [frame.rgb for frame in reader]


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


def held_back() -> list[str]:
    """Every second person of the training clips, whom `train.py --hold-back` leaves out: to see what they are worth."""
    return sorted(person for person, split in load_splits()["clips"].items() if split == "train")[::2]
