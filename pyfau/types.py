"""Plain records that travel between the steps. Nothing here imports torch or OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture of a sequence.

    Attributes:
        index: Position in its source, from 0. A frame that could not be decoded leaves its index unused.
        time_s: Presentation time in seconds; NaN where the source has no clock (a folder without fps).
        rgb: (H, W, 3) uint8, RGB, upright.
        file: The picture file it came from; None for video, cameras and arrays.
    """

    index: int
    time_s: float
    rgb: UInt8Array
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one picture.

    Attributes:
        box_xyxy: (4,) float32, left, top, right, bottom in pixels; may reach outside the picture.
        landmarks: (5, 2) float32, x and y in pixels: left-image eye, right-image eye, nose tip,
            left-image mouth corner, right-image mouth corner.
        confidence: The aligner's probability in [0, 1] that this is a face.
    """

    box_xyxy: FloatArray
    landmarks: FloatArray
    confidence: float


@dataclass(frozen=True, slots=True)
class AURow:
    """The scores of one face in one frame, or the note that a frame held no face.

    Attributes:
        frame: Index of the frame in its source, from 0.
        time_s: Presentation time in seconds; NaN where the source has no clock.
        face_id: Number of the face track, from 0; None when no face was found in the frame.
        success: Whether a face was found and scored.
        confidence: Face confidence in [0, 1]; 0 without a face.
        box_xyxy: (4,) float32 pixels; NaN without a face.
        landmarks: (5, 2) float32 pixels; NaN without a face.
        scores: (N,) float32 occurrence scores in [0, 1], in the order of `aus`; NaN without a face.
            A score says how surely the action unit is present. It is not an intensity.
        active: (N,) bool, score >= threshold; all False without a face.
        aus: The N column names, for example "AU12".
        file: The picture file, for picture input.
        raw_scores: (N,) float32, what `scores` were before `AUResult.baseline` adjusted them; None if they were not.
    """

    frame: int
    time_s: float
    face_id: int | None
    success: bool
    confidence: float
    box_xyxy: FloatArray
    landmarks: FloatArray
    scores: FloatArray
    active: npt.NDArray[np.bool_]
    aus: tuple[str, ...]
    file: str | None = None
    raw_scores: FloatArray | None = None

    def __getitem__(self, au: str) -> float:
        """Score of one action unit by column name, such as `row["AU12"]`.

        Raises:
            KeyError: The model does not score that action unit.
        """
        try:
            return float(self.scores[self.aus.index(au)])
        except ValueError:
            raise KeyError(f"{au!r} is not one of {', '.join(self.aus)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Flat record with the columns of the CSV output; None where the CSV leaves a field empty."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        record: dict[str, Any] = {
            "frame": self.frame,
            "time_s": number(self.time_s),
            "face_id": self.face_id,
            "success": int(self.success),
            "confidence": self.confidence,
        }
        record |= {name: number(v) for name, v in zip(("x1", "y1", "x2", "y2"), self.box_xyxy, strict=True)}
        record |= {au: number(v) for au, v in zip(self.aus, self.scores, strict=True)}
        record |= {f"{au}_c": int(v) if self.success else None for au, v in zip(self.aus, self.active, strict=True)}
        if self.raw_scores is not None:
            record |= {f"{au}_raw": number(v) for au, v in zip(self.aus, self.raw_scores, strict=True)}
        if self.file is not None:
            record["file"] = self.file
        return record


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be read.

    Attributes:
        source: Its path.
        error: The reason, in one line.
    """

    source: str
    error: str


def au_name(number: int) -> str:
    """Column name of an action unit: 6 -> "AU06"."""
    return f"AU{number:02d}"
