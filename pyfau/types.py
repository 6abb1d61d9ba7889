"""Plain records that are passed between the steps. This module imports neither torch nor OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pyfau.planes import Planes

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
StrPath = str | os.PathLike[str]

BOX = ("x1", "y1", "x2", "y2")  # the columns of a box: left, top, right, bottom
COLUMNS = ("frame", "time_s", "face_id", "success", "confidence", *BOX)  # of every table


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded image of a sequence.

    Attributes:
        index: Position in its source, from 0. A frame that cannot be decoded still has an index.
        time_s: Presentation time in seconds; NaN where the source has no clock (a folder without
            fps).
        image: (H, W, 3) uint8, RGB, upright; or the `Planes` of a frame of a video.
        file: The image file that it was read from; None for video, cameras and arrays.
    """

    index: int
    time_s: float
    image: UInt8Array | Planes
    file: str | None = None

    @property
    def rgb(self) -> UInt8Array:
        """(H, W, 3) uint8, RGB, upright. `Planes` are converted each time."""
        if isinstance(self.image, Planes):
            return self.image.convert()
        return self.image


POINTS, EYES = 68, 2  # of a `FaceMesh`


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """What the landmark network `face-mesh-lite` measures of a face. All values can be NaN.

    Attributes:
        points: (68, 2) float32, x and y in pixels, in the usual order: jaw, brows, nose, eyes,
            lips; each from the left of an upright face to its right.
        irises: (2, 2) float32, centres in pixels, the eye on the left of an upright face first.
        openness: (2,) float32 of the same eyes, from 0 (closed) to 1 (open).
        visible: Estimated share in [0, 1] of the points that the image shows.
    """

    points: FloatArray
    irises: FloatArray
    openness: FloatArray
    visible: float


class FaceMeasures(NamedTuple):
    """How a face appears in an image, and whether scores of such a face can be trusted.

    The names are those of the columns of a table. All values are NaN without a face.

    Attributes:
        pitch: Head pose in degrees, positive when the face looks up.
        yaw: Head pose in degrees, positive when the face turns towards the right edge of the image.
        roll: Head pose in degrees, positive when the head tilts clockwise in the image.
        eye_distance: Pixels between the eyes.
        sharpness: Detail of the face relative to its contrast, from 0; see
            `pyfau.faces.measures.sharpness_of`.
        inside: Share of the face box that is inside the image, in [0, 1].
        covered: Estimated share of the face that something hides, in [0, 1].
        quality: In [0, 1]. Below 0.5, a value is outside the range in which models are validated.
    """

    pitch: float
    yaw: float
    roll: float
    eye_distance: float
    sharpness: float
    inside: float
    covered: float
    quality: float


MEASURES = FaceMeasures._fields  # the columns of a table
NO_MEASURES = FaceMeasures(*[math.nan] * len(MEASURES))
# The columns of a `FaceMesh` in a table. The points have the names of OpenFace.
POINT_COLUMNS = tuple(f"{axis}_{i}" for axis in "xy" for i in range(POINTS))
IRIS_COLUMNS = ("iris_left_x", "iris_left_y", "iris_right_x", "iris_right_y")
OPENNESS_COLUMNS = ("eye_openness_left", "eye_openness_right")
MESH = (*POINT_COLUMNS, *IRIS_COLUMNS, *OPENNESS_COLUMNS, "landmarks_visible")


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one image.

    Attributes:
        box_xyxy: (4,) float32, left, top, right, bottom in pixels; may reach outside the image.
        landmarks: (5, 2) float32, x and y in pixels: left-image eye, right-image eye, nose tip,
            left-image mouth corner, right-image mouth corner.
        confidence: The aligner's probability in [0, 1] that this is a face.
        pose: Pitch, yaw and roll in degrees, as in `FaceMeasures`, from an aligner that measures
            them. None: they are computed from the landmarks.
        mesh: More points, from an aligner that has them.
    """

    box_xyxy: FloatArray
    landmarks: FloatArray
    confidence: float
    pose: tuple[float, float, float] | None = None
    mesh: FaceMesh | None = None


@dataclass(frozen=True, slots=True)
class AURow:
    """The scores of one face in one frame, or the note that no face was found in a frame.

    Attributes:
        frame: Index of the frame in its source, from 0.
        time_s: Presentation time in seconds; NaN where the source has no clock.
        face_id: Number of the face track, from 0; None when no face was found in the frame.
        success: Whether a face was found and scored.
        confidence: Face confidence in [0, 1]; 0 without a face. It is the aligner's confidence,
            reduced for faces that are tiny, covered or partly outside the image.
        box_xyxy: (4,) float32 pixels; NaN without a face.
        landmarks: (5, 2) float32 pixels; NaN without a face.
        scores: (N,) float32 occurrence scores in [0, 1], in the order of `aus`; NaN without a
            face. A score is the probability that the action unit is present. It is not an
            intensity.
        active: (N,) bool, score >= threshold; all False without a face.
        aus: The N column names, for example "AU12".
        file: The image file, for image input.
        raw_scores: (N,) float32, the values of `scores` before `AUResult.baseline` adjusted them;
            None for rows that were not adjusted.
        intensity: (N,) float32 in [0, 5], the expected FACS intensity (absent 0, A 1 to E 5);
            NaN without a face. None where the model has no intensity. Experimental; see
            `pyfau.intensity.expected_intensity`.
        measures: Head pose, size, sharpness and quality of the face; None where they were left out.
        mesh: 68 landmarks, irises and eye openness; NaN without a face, and where the landmark
            network does not see one. None where they were not requested.
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
    intensity: FloatArray | None = None
    measures: FaceMeasures | None = None
    mesh: FaceMesh | None = None

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
        """The row under the column names of the CSV; None where the CSV has an empty field."""
        record: dict[str, Any] = {
            "frame": self.frame,
            "time_s": _number(self.time_s),
            "face_id": self.face_id,
            "success": int(self.success),
            "confidence": self.confidence,
        }
        record |= dict(zip(BOX, map(_number, self.box_xyxy), strict=True))
        record |= self._by_au("", self.scores)
        for au, active, score in zip(self.aus, self.active, self.scores, strict=True):
            known = self.success and not math.isnan(score)
            record[f"{au}_c"] = int(active) if known else None
        if self.intensity is not None:
            record |= self._by_au("_r", self.intensity)
        if self.raw_scores is not None:
            record |= self._by_au("_raw", self.raw_scores)
        if self.measures is not None:
            record |= dict(zip(MEASURES, map(_number, self.measures), strict=True))
        if self.mesh is not None:
            record |= dict(zip(MESH, map(_number, mesh_values(self.mesh)), strict=True))
        if self.file is not None:
            record["file"] = self.file
        return record

    def _by_au(self, suffix: str, values: FloatArray) -> dict[str, float | None]:
        """One value for each action unit, by the name of its column."""
        names = [f"{au}{suffix}" for au in self.aus]
        return dict(zip(names, map(_number, values), strict=True))


def mesh_values(mesh: FaceMesh) -> FloatArray:
    """The values of a face's mesh in the order of the columns `MESH`, (143,) float32."""
    parts = [mesh.points.T, mesh.irises, mesh.openness, mesh.visible]
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def mesh_from(values: FloatArray) -> FaceMesh:
    """The mesh of values (143,) in the order of the columns `MESH`."""
    points, irises, openness = split_mesh(values[None].copy())
    return FaceMesh(points[0], irises[0], openness[0], float(values[-1]))


def split_mesh(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Views of rows (R, 143) in the order of the columns `MESH`.

    Returns:
        Points (R, 68, 2), irises (R, 2, 2) and openness (R, 2).
    """
    ends = np.cumsum([len(POINT_COLUMNS), len(IRIS_COLUMNS), len(OPENNESS_COLUMNS)])
    points, irises, openness, _ = np.split(values, ends, axis=1)
    by_axis = points.reshape(-1, 2, POINTS)
    return by_axis.swapaxes(1, 2), irises.reshape(-1, EYES, 2), openness


NO_MESH = mesh_from(np.full(len(MESH), np.nan, np.float32))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


class RowSequence(Protocol):
    """A sequence of rows, such as an `AUResult`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[AURow]: ...

    def __getitem__(self, index: int, /) -> AURow: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be read.

    Attributes:
        source: Its path.
        error: The reason, in one line.
    """

    source: str
    error: str
