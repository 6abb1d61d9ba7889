"""MediaPipeAligner: its arithmetic on a stand-in for the package, then the real one where it is
installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pyfau.errors import DependencyError, WeightsError
from pyfau.faces.aligner import Aligner
from pyfau.faces.mediapipe import MediaPipeAligner
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import UInt8Array

VARIABLE = "PYFAU_MEDIAPIPE_MODEL"
# Where a face 100 px wide has what the aligner reads, and two points that set its extent.
SUBJECT_RIGHT_EYE, SUBJECT_LEFT_EYE = {33: (20, 42), 133: (40, 42)}, {362: (60, 42), 263: (80, 42)}
MESH = (
    SUBJECT_RIGHT_EYE | SUBJECT_LEFT_EYE | {1: (50, 68), 4: (50, 62), 61: (32, 90), 291: (68, 90)}
)
EXTENT = {10: (50, 0), 152: (50, 120), 234: (0, 50), 454: (100, 50)}
# The eyes' corners centre on (30, 42) and (70, 42), 40 px apart; to MTCNN's places add the offsets
# times 40.
LANDMARKS = np.array([[28.8, 40.6], [71.2, 40.6], [50.0, 64.44], [31.12, 90.8], [68.88, 90.8]])


def mesh(left: float = 0.0, top: float = 0.0, scale: float = 1.0) -> npt.NDArray[np.float64]:
    points = np.tile([[50.0, 60.0]], (478, 1))
    for index, place in (MESH | EXTENT).items():
        points[index] = place
    return points * scale + [left, top]


class FakeLandmarker:
    """Answers with the faces that `find` sees in an image, in fractions, as MediaPipe does."""

    def __init__(self, find: Callable[[UInt8Array], list[npt.NDArray[np.float64]]]) -> None:
        self.find, self.closed, self.seen = find, 0, list[tuple[int, ...]]()

    def detect(self, image: Any) -> Any:
        rgb = image.data
        assert rgb.flags.c_contiguous
        self.seen.append(rgb.shape)
        size = np.array([rgb.shape[1], rgb.shape[0]])
        faces = [
            [SimpleNamespace(x=x, y=y, z=0.0) for x, y in points / size]
            for points in self.find(rgb)
        ]
        return SimpleNamespace(face_landmarks=faces)

    def close(self) -> None:
        self.closed += 1


def fake_package(make: Callable[[Any], Any]) -> Any:
    vision = SimpleNamespace(
        FaceLandmarkerOptions=lambda **options: SimpleNamespace(**options),
        FaceLandmarker=SimpleNamespace(create_from_options=make),
        RunningMode=SimpleNamespace(IMAGE="image"),
    )
    return SimpleNamespace(
        Image=lambda image_format, data: SimpleNamespace(format=image_format, data=data),
        ImageFormat=SimpleNamespace(SRGB="srgb"),
        tasks=SimpleNamespace(
            BaseOptions=lambda **options: SimpleNamespace(**options), vision=vision
        ),
    )


def red_faces(rgb: UInt8Array) -> list[npt.NDArray[np.float64]]:
    """A stand-in for MediaPipe's eye: each red rectangle of 100 x 120 proportions is a face."""
    count, _, boxes, _ = cv2.connectedComponentsWithStats((rgb[..., 0] > 127).astype(np.uint8))
    return [mesh(x, y, w / 100) for x, y, w, h, area in boxes[1:count] if area > 50]


def image_of(*places: tuple[int, int, int]) -> UInt8Array:
    image = np.zeros((480, 640, 3), np.uint8)
    for left, top, width in places:
        image[top : top + width * 12 // 10, left : left + width, 0] = 255
    return image


def read(path: Path) -> UInt8Array:
    bgr = cv2.imread(str(path))
    assert bgr is not None, path
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "face_landmarker.task"
    file.write_bytes(b"a model")
    return file


@pytest.fixture
def landmarker(monkeypatch: pytest.MonkeyPatch) -> FakeLandmarker:
    fake = FakeLandmarker(red_faces)
    monkeypatch.setitem(sys.modules, "mediapipe", fake_package(lambda options: fake))
    return fake


class TestModelFile:
    def test_without_a_model_both_ways_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(WeightsError) as caught:
            MediaPipeAligner()
        assert all(
            part in str(caught.value) for part in ("face_landmarker.task", "model_path", VARIABLE)
        )

    def test_a_wrong_path_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="model_path names"):
            MediaPipeAligner(tmp_path / "nothing.task")
        monkeypatch.setenv(VARIABLE, str(tmp_path))  # a folder
        with pytest.raises(WeightsError, match=VARIABLE):
            MediaPipeAligner()

    def test_variable_and_option(
        self, landmarker: FakeLandmarker, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(model))
        assert isinstance(MediaPipeAligner(), Aligner)
        monkeypatch.setenv(VARIABLE, "/nowhere")
        assert isinstance(MediaPipeAligner(str(model)), Aligner)  # the option comes first

    def test_options_reach_mediapipe(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given = []

        def make(options: Any) -> FakeLandmarker:
            given.append(options)
            return FakeLandmarker(red_faces)

        monkeypatch.setitem(sys.modules, "mediapipe", fake_package(make))
        MediaPipeAligner(model, num_faces=3, min_confidence=0.25)
        (options,) = given
        assert options.base_options.model_asset_buffer == b"a model"
        assert options.running_mode == "image"
        assert options.num_faces == 3
        assert options.min_face_detection_confidence == options.min_face_presence_confidence == 0.25

    def test_missing_package(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mediapipe", None)
        with pytest.raises(DependencyError) as caught:
            MediaPipeAligner(model)
        assert all(
            part in str(caught.value)
            for part in ("pip install 'pyfau[mediapipe]'", "opencv-contrib-python")
        )

    @pytest.mark.parametrize(
        ("raised", "expected", "part"),
        [
            (
                OSError("libGLESv2.so.2: cannot open shared object file"),
                DependencyError,
                "apt install",
            ),
            (RuntimeError("Unable to open zip archive."), WeightsError, "face_landmarker.task"),
            (ValueError("bad"), WeightsError, "face_landmarker.task"),
        ],
    )
    def test_mediapipe_s_errors_are_translated(
        self,
        model: Path,
        monkeypatch: pytest.MonkeyPatch,
        raised: Exception,
        expected: type[Exception],
        part: str,
    ) -> None:
        def make(options: Any) -> FakeLandmarker:
            raise raised

        monkeypatch.setitem(sys.modules, "mediapipe", fake_package(make))
        with pytest.raises(expected, match=part):
            MediaPipeAligner(model)

    def test_landmarker_is_closed_with_the_aligner(
        self, landmarker: FakeLandmarker, model: Path
    ) -> None:
        aligner = MediaPipeAligner(model)
        assert landmarker.closed == 0
        del aligner
        assert landmarker.closed == 1


class TestArithmetic:
    def test_points_become_landmarks(self, landmarker: FakeLandmarker, model: Path) -> None:
        (face,) = MediaPipeAligner(model).refine(
            image_of((200, 100, 100)), [np.array([205, 95, 298, 225])]
        )
        # The window scales 120 px to 192: places are true to its pixels.
        np.testing.assert_allclose(face.box_xyxy, [200, 100, 300, 220], atol=1.0)
        np.testing.assert_allclose(face.landmarks, LANDMARKS + np.array([200, 100]) - 0.5, atol=1.0)
        assert face.confidence == 1.0
        assert face.landmarks.dtype == face.box_xyxy.dtype == np.float32

    def test_exact_arithmetic_in_a_window(
        self, landmarker: FakeLandmarker, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A box of side 192 makes a window of 384 px in which a pixel is a pixel."""
        monkeypatch.setattr(landmarker, "find", lambda rgb: [mesh(120, 100)])
        box = np.array([310, 210, 410, 402])  # its window starts at (168, 114)
        (face,) = MediaPipeAligner(model).refine(image_of(), [box])
        np.testing.assert_allclose(face.box_xyxy, [288, 214, 388, 334], atol=1e-3)
        np.testing.assert_allclose(
            face.landmarks, LANDMARKS + np.array([288, 214]) - 0.5, atol=1e-3
        )

    def test_a_tilted_face_is_offset_along_its_own_axes(
        self, landmarker: FakeLandmarker, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        angle = np.radians(25)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        monkeypatch.setattr(landmarker, "find", lambda rgb: [(mesh() - 50) @ turn.T + [192, 192]])
        box = np.array([40, 0, 152, 192])  # the window starts at (-96, -96)
        (face,) = MediaPipeAligner(model).refine(image_of(), [box])
        np.testing.assert_allclose(face.landmarks, (LANDMARKS - 50) @ turn.T + 96 - 0.5, atol=1e-3)

    def test_each_box_gets_its_own_face(self, landmarker: FakeLandmarker, model: Path) -> None:
        image = image_of((40, 60, 100), (150, 60, 100), (400, 200, 60))
        boxes = [[405, 205, 465, 270], [145, 55, 255, 185], [300, 0, 380, 80], [45, 65, 145, 185]]
        faces = MediaPipeAligner(model).refine(image, [np.array(b, np.float32) for b in boxes])
        assert [f.confidence for f in faces] == [1.0, 1.0, 0.0, 1.0]
        for face, left in zip(faces, (400, 150, None, 40), strict=True):
            if left is None:
                np.testing.assert_array_equal(face.box_xyxy, boxes[2])
                assert np.isnan(face.landmarks).all()
            else:
                assert abs(face.box_xyxy[0] - left) < 1.0

    def test_a_neighbour_is_not_taken_for_the_face(
        self, landmarker: FakeLandmarker, model: Path
    ) -> None:
        box = np.array([300, 60, 400, 180], np.float32)
        (face,) = MediaPipeAligner(model).refine(image_of((190, 60, 100)), [box])
        assert face.confidence == 0.0

    def test_boxes_at_and_beyond_the_edges(self, landmarker: FakeLandmarker, model: Path) -> None:
        boxes = [[600, 420, 700, 540], [-300, -300, -200, -200], [7, 7, 7, 7], [0, 0, 5000, 5000]]
        faces = MediaPipeAligner(model).refine(image_of(), [np.array(b, np.float32) for b in boxes])
        assert [f.confidence for f in faces] == [0.0] * 4

    def test_own_search_puts_the_largest_first_and_each_face_once(
        self, landmarker: FakeLandmarker, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def twice(rgb: UInt8Array) -> list[npt.NDArray[np.float64]]:
            return red_faces(rgb) * 2

        monkeypatch.setattr(landmarker, "find", twice)
        aligner = MediaPipeAligner(model, detector="mediapipe")
        faces = aligner.detect(image_of((40, 60, 60), (300, 60, 120)))
        assert [round(float(f.box_xyxy[0])) for f in faces] == [300, 40]
        assert landmarker.seen[0] == (480, 640, 3)

    def test_refine_of_nothing(self, landmarker: FakeLandmarker, model: Path) -> None:
        assert MediaPipeAligner(model).refine(image_of(), []) == []


class TestReal:
    """MediaPipe itself, on faces."""

    @pytest.fixture(autouse=True)
    def _real_package(self) -> None:
        pytest.importorskip(
            "mediapipe",
            reason="MEDIAPIPE IS NOT INSTALLED: the real Face Landmarker was not tried, only its "
            "stand-in",
        )

    @pytest.fixture
    def real_model(self, shared: Path) -> Path:
        return shared / "models" / "face_landmarker.task"

    @pytest.mark.parametrize(("file", "count"), [("single_face.jpg", 1), ("multi_face.jpg", 5)])
    def test_agrees_with_mtcnn(self, media: Path, real_model: Path, file: str, count: int) -> None:
        rgb = read(media / file)
        aligner = MediaPipeAligner(real_model)
        faces = aligner.detect(rgb)
        assert len(faces) == count
        others = MTCNNAligner().detect(rgb)
        for face in faces:
            distances = [
                np.linalg.norm(face.landmarks - o.landmarks, axis=1).mean() for o in others
            ]
            other = others[int(np.argmin(distances))]
            # In the same order, and near: in inter-ocular distances.
            assert min(distances) < 0.08 * np.linalg.norm(other.landmarks[1] - other.landmarks[0])
        again = aligner.refine(rgb, [f.box_xyxy for f in faces])
        for before, after in zip(faces, again, strict=True):
            assert np.abs(after.landmarks - before.landmarks).max() < 2.0
            assert after.confidence == 1.0

    def test_own_search_finds_a_large_face(self, media: Path, real_model: Path) -> None:
        image = read(media / "single_face.jpg")
        assert len(MediaPipeAligner(real_model, detector="mediapipe").detect(image)) == 1

    def test_no_face(self, real_model: Path) -> None:
        aligner = MediaPipeAligner(real_model, detector="mediapipe")
        for shape in [(1, 1, 3), (2, 700, 3), (480, 640, 3)]:
            image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            assert aligner.detect(image) == []
            assert (
                aligner.refine(image, [np.array([0, 0, 50, 50], np.float32)])[0].confidence == 0.0
            )

    @pytest.mark.parametrize("content", [b"", b"not a model"])
    def test_damaged_model(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "face_landmarker.task"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="could not load"):
            MediaPipeAligner(file)
