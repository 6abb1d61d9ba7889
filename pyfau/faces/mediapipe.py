"""MediaPipe Face Landmarker, an optional extra: pip install 'pyfau[mediapipe]'.

Recent releases of MediaPipe send usage figures to Google while they run; see docs/aligners.md.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.checks import check_choice
from pyfau.choices import MediaPipeDetector
from pyfau.errors import DependencyError, OptionError, WeightsError
from pyfau.faces.boxes import overlap
from pyfau.faces.crop import square_view, warp
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import Face, FloatArray, UInt8Array

_VARIABLE = "PYFAU_MEDIAPIPE_MODEL"
_MODEL_FILE = "face_landmarker.task"

# Of the 478 points: the corners of both eyes (which, unlike the irises, stay when the gaze moves,
# and unlike the lids, when the eye closes), two points on the tip of the nose, the corners of the
# mouth. MediaPipe counts from the subject's right, which is the left of the image.
_POINTS = ((33, 133), (263, 362), (1, 4), (61, 61), (291, 291))

# From those places to MTCNN's, for which the models' crops are made: x and y in inter-ocular
# distances, along and across the line of the eyes. Medians over 330 frames of 66 clips, made
# symmetric; without them crops show the face 5 % larger.
_OFFSETS = np.array(
    [[-0.030, -0.035], [0.030, -0.035], [0.0, -0.014], [-0.022, 0.020], [0.022, 0.020]]
)
# The window around a tracked face reaches this share of the box's longer side beyond the box.
_MARGIN = 0.5
# Side of the window in pixels. The face then has about 190, as in MediaPipe's own networks.
_WINDOW = 384
_SAME_FACE = 0.3  # intersection over union


class MediaPipeAligner:
    """Finds faces with MTCNN or MediaPipe and their landmarks with MediaPipe's Face Landmarker.

    The box spans the 478 points: top of the forehead to chin. MediaPipe gives no confidence: here
    it is 1 for a face, and 0 with NaN landmarks if no face was found.

    Args:
        model_path: The model file, officially named face_landmarker.task; None for the path in the
            environment variable PYFAU_MEDIAPIPE_MODEL.
        detector: Detector for whole images: "mtcnn", the embedded `MTCNNAligner`; or "mediapipe",
            whose short-range detector misses faces that are small in the image.
        num_faces: Largest number of faces that MediaPipe looks for in one image.
        min_confidence: MediaPipe's lowest confidence of the detection and of the presence of a
            face, in [0, 1].

    Raises:
        OptionError: An option is out of range.
        DependencyError: MediaPipe, or a library of the system that it needs, is not installed.
        WeightsError: The model file is missing or damaged.
    """

    stable_crops = True

    def __init__(
        self,
        model_path: str | Path | None = None,
        detector: MediaPipeDetector = "mtcnn",
        num_faces: int = 10,
        min_confidence: float = 0.5,
    ) -> None:
        check_choice(detector, "detector", MediaPipeDetector)
        if num_faces < 1:
            raise OptionError(f"num_faces must be at least 1, got {num_faces!r}")
        if not 0.0 <= min_confidence <= 1.0:
            raise OptionError(f"min_confidence must be in [0, 1], got {min_confidence!r}")
        path = _model_file(model_path)
        try:
            import mediapipe
        except ImportError as error:
            raise DependencyError(
                f"the aligner 'mediapipe' needs MediaPipe ({error}): pip install "
                "'pyfau[mediapipe]'. It installs opencv-contrib-python, which shares the folder "
                "cv2 with opencv-python: see docs/aligners.md"
            ) from error
        self._mediapipe: Any = mediapipe
        self._landmarker = _load(mediapipe, path, num_faces, min_confidence)
        # Without this, the interpreter closes the landmarker after the modules that it needs, and
        # it prints an error.
        weakref.finalize(self, self._landmarker.close)
        self._mtcnn = MTCNNAligner() if detector == "mtcnn" else None

    def detect(self, rgb: UInt8Array) -> list[Face]:
        """Search a whole image; see `pyfau.aligners.Aligner.detect`.

        The largest face comes first.
        """
        if self._mtcnn is not None:
            boxes = [face.box_xyxy for face in self._mtcnn.detect(rgb)]
        else:
            boxes = [_extent(points) for points in self._points(rgb)]
        # With this second pass, the face is cut out as in the frames that follow.
        found = [face for face in self.refine(rgb, boxes) if face.confidence > 0]
        kept: list[Face] = []
        for face in sorted(
            found, key=lambda face: -float(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2]))
        ):
            if all(overlap(face.box_xyxy, other.box_xyxy) < _SAME_FACE for other in kept):
                kept.append(face)
        return kept

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes; see `pyfau.aligners.Aligner.refine`.

        MediaPipe searches the window around the box; of several faces there, the one that overlaps
        the box most is taken.
        """
        return [self._locate(rgb, np.asarray(box, dtype=np.float32)) for box in boxes]

    def _locate(self, rgb: UInt8Array, box: FloatArray) -> Face:
        low, high = box[:2].astype(np.float64), box[2:].astype(np.float64)
        side = max(float((high - low).max()), 1.0) * (1 + 2 * _MARGIN)
        corner = (low + high - side) / 2
        window = warp(rgb, square_view(corner[None], np.array([side]), _WINDOW), _WINDOW)[0]
        faces = [corner + points * (side / _WINDOW) for points in self._points(window)]
        best = max(faces, key=lambda points: overlap(_extent(points), box), default=None)
        if best is None or overlap(_extent(best), box) < _SAME_FACE:
            return Face(box, np.full((5, 2), np.nan, np.float32), 0.0)
        return Face(_extent(best), _landmarks(best), 1.0)

    def _points(self, rgb: UInt8Array) -> list[npt.NDArray[np.float64]]:
        """(478, 2) points of each face, in continuous pixel coordinates."""
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )
        size = np.array([rgb.shape[1], rgb.shape[0]], dtype=np.float64)
        faces = self._landmarker.detect(image).face_landmarks
        return [np.array([[point.x, point.y] for point in face]) * size for face in faces]


def _model_file(model_path: str | Path | None) -> Path:
    given = os.environ.get(_VARIABLE) if model_path is None else model_path
    if not given:
        raise WeightsError(
            f"the aligner 'mediapipe' needs the file {_MODEL_FILE}, MediaPipe's Face Landmarker "
            f"bundle: give its path as the option model_path or in the environment variable "
            f"{_VARIABLE}"
        )
    path = Path(given)
    if not path.is_file():
        origin = "the option model_path"
        if model_path is None:
            origin = f"the environment variable {_VARIABLE}"
        raise WeightsError(
            f"{origin} names {path}, which is not a file: expected MediaPipe's {_MODEL_FILE}"
        )
    return path


def _load(mediapipe: Any, path: Path, num_faces: int, min_confidence: float) -> Any:
    vision = mediapipe.tasks.vision
    # The image mode has no state between images. It must not have one, because the tracker refines
    # faces in any order.
    options = vision.FaceLandmarkerOptions(
        # The bytes, not the path, which MediaPipe would resolve in its own way.
        base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=path.read_bytes()),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=num_faces,
        min_face_detection_confidence=min_confidence,
        min_face_presence_confidence=min_confidence,
    )
    try:
        return vision.FaceLandmarker.create_from_options(options)
    except OSError as error:
        raise DependencyError(
            f"MediaPipe lacks a library of the system ({error}); on Debian and Ubuntu: "
            "apt install libegl1 libgles2"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise WeightsError(
            f"MediaPipe could not load {path} ({error}): expected its {_MODEL_FILE}"
        ) from error


def _landmarks(points: npt.NDArray[np.float64]) -> FloatArray:
    """(5, 2) landmarks of `Face` from (478, 2) points in continuous pixel coordinates."""
    raw = points[np.array(_POINTS)].mean(axis=1)
    along = raw[1] - raw[0]
    across = np.array([-along[1], along[0]])
    moved = raw + _OFFSETS[:, :1] * along + _OFFSETS[:, 1:] * across
    # Landmarks are pixel coordinates with the first pixel's centre at 0.
    return np.asarray(moved - 0.5, dtype=np.float32)


def _extent(points: npt.NDArray[np.float64]) -> FloatArray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)
