"""Miniatures of BP4D and DISFA in the official file formats, with drawn faces on which the labels
can be seen.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pyfau.models.paper import DATA_SETS

FOLDS = (1, 2, 3)
# The marks of action units: a colour by the place in its region, on rows that this region alone
# looks at. They are symmetric, as faces are, because training flips images.
_COLOURS = ((230, 40, 40), (40, 210, 40), (50, 60, 240), (230, 220, 40))
_ROWS = {"up": 0.2, "mid": 0.5, "down": 0.8, "down1": 0.74, "down2": 0.88}
_SIDES = (0.36, 0.18, 0.0, 0.27)  # from the middle


class Miniature:
    """A data set on the disk.

    Attributes:
        root, lists: For `pyfau evaluate`.
        paths: By subject, the lines of its images.
        labels: By subject, (F, N) 0, 1 or -1.
        parts: The subjects of the three parts; fold k is tested on part k.
    """

    def __init__(
        self,
        folder: Path,
        data: str,
        *,
        subjects: int = 1,
        frames: int = 40,
        size: int = 128,
        seed: int = 0,
    ) -> None:
        self.data, self.root, self.lists = data, folder / "images", folder / "lists"
        self.aus = DATA_SETS[data].aus
        self.paths: dict[str, list[str]] = {}
        self.labels: dict[str, np.ndarray] = {}
        rng = np.random.default_rng(seed)
        names = [
            f"F{i:03d}" if data == "bp4d" else f"SN{i:03d}" for i in range(1, 3 * subjects + 1)
        ]
        self.parts = [names[part::3] for part in range(3)]
        images = self.root / ("img" if data == "bp4d" else "img_o")
        for name in names:
            # Two tasks of uneven length, the first with a jump in its frame numbers.
            if data == "bp4d":
                first, jump = 2440, frames // 2 + 3
                numbers = [("T1", first + i + (7 if i >= jump else 0)) for i in range(frames)]
                numbers += [("T2", 1 + i) for i in range(frames // 2)]
                self.paths[name] = [f"{name}/{task}/{number}.jpg" for task, number in numbers]
            else:
                self.paths[name] = [f"{name}/{name}_{i}.png" for i in range(frames)]
            self.labels[name] = _labels(rng, len(self.paths[name]), len(self.aus))
            backdrop = _backdrop(rng, size)
            for path, row in zip(self.paths[name], self.labels[name], strict=True):
                file = images / path
                file.parent.mkdir(parents=True, exist_ok=True)
                image = _draw(
                    backdrop,
                    data,
                    [au for au, on in zip(self.aus, row, strict=True) if on == 1],
                    rng,
                )
                Image.fromarray(image).save(file, quality=90)
        self.write_lists()

    def subjects(self, fold: int, part: str) -> list[str]:
        return [
            s
            for i, names in enumerate(self.parts)
            for s in names
            if (i == fold - 1) == (part == "test")
        ]

    def list_file(self, fold: int, part: str = "test") -> Path:
        kind = "img_path" if self.data == "bp4d" else "path"
        return self.lists / f"{self.data.upper()}_{part}_{kind}_fold{fold}.txt"

    def label_file(self, fold: int, part: str = "test") -> Path:
        return self.lists / f"{self.data.upper()}_{part}_label_fold{fold}.txt"

    def write_lists(self) -> None:
        self.lists.mkdir(parents=True, exist_ok=True)
        for fold in FOLDS:
            for part in ("train", "test"):
                names = self.subjects(fold, part)
                lines = [path for name in names for path in self.paths[name]]
                self.list_file(fold, part).write_text("\n".join(lines) + "\n")
                np.savetxt(
                    self.label_file(fold, part),
                    np.concatenate([self.labels[name] for name in names]),
                    fmt="%d",
                )


def _labels(rng: np.random.Generator, frames: int, aus: int) -> np.ndarray:
    """Present for stretches of frames, about a third of the time."""
    walk = np.cumsum(rng.normal(0, 1, (frames + 20, aus)), axis=0)
    smooth = walk[10:-10] - np.stack([walk[i : i + 20].mean(axis=0) for i in range(frames)])
    return (smooth > np.quantile(smooth, 0.67, axis=0)).astype(np.int8)


def _backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    coarse = rng.uniform(70, 150, (4, 4, 3)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _draw(
    backdrop: np.ndarray, data: str, active: list[int], rng: np.random.Generator
) -> np.ndarray:
    image, size = backdrop.copy(), len(backdrop)
    for region in DATA_SETS[data].regions:
        for au, colour, side in zip(region.aus, _COLOURS, _SIDES, strict=False):
            for x in (0.5 - side, 0.5 + side) if au in active else ():
                centre = (round(x * size), round(_ROWS[region.name] * size))
                cv2.circle(image, centre, size // 14, colour, -1)
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
