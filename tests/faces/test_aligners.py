"""The protocol, `load_aligner`, and the two aligners that need nothing beyond pyfau."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pyfau.errors import InputError, OptionError
from pyfau.faces.aligned import AlignedAligner
from pyfau.faces.aligner import ALIGNER_NAMES, Aligner, load_aligner
from pyfau.faces.crop import crop_face
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import Face, UInt8Array

CPU = torch.device("cpu")
TEMPLATE = [[0.34, 0.45], [0.66, 0.45], [0.5, 0.62], [0.365, 0.8], [0.635, 0.8]]


def read(path: Path) -> UInt8Array:
    bgr = cv2.imread(str(path))
    assert bgr is not None, path
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def frames(path: Path, indices: set[int]) -> list[UInt8Array]:
    capture = cv2.VideoCapture(str(path))
    taken = []
    for index in range(max(indices) + 1):
        ok, bgr = capture.read()
        assert ok, f"{path} ends at frame {index}"
        if index in indices:
            taken.append(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8))
    return taken


def noise(height: int, width: int) -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mtcnn() -> MTCNNAligner:
    return MTCNNAligner()


@pytest.fixture(scope="module")
def single(media: Path) -> UInt8Array:
    return read(media / "single_face.jpg")


@pytest.fixture(scope="module")
def multi(media: Path) -> UInt8Array:
    return read(media / "multi_face.jpg")


@pytest.fixture(scope="module")
def multi_faces(mtcnn: MTCNNAligner, multi: UInt8Array) -> list[Face]:
    return mtcnn.detect(multi)


def check_face(face: Face) -> None:
    assert face.box_xyxy.shape == (4,)
    assert face.box_xyxy.dtype == np.float32
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float32
    assert isinstance(face.confidence, float)
    assert 0.0 <= face.confidence <= 1.0


class TestLoadAligner:
    @pytest.mark.parametrize(
        ("name", "options"), [("mtcnn", {}), ("aligned", {"template": TEMPLATE})]
    )
    def test_by_name_obeys_the_protocol(self, name: str, options: dict[str, Any]) -> None:
        aligner = load_aligner(name, CPU, **options)
        assert isinstance(aligner, Aligner)
        image = noise(64, 64)
        faces = aligner.detect(image)
        assert isinstance(faces, list)
        boxes = [
            np.array(b, np.float32) for b in ([0, 0, 40, 40], [10, 10, 60, 60], [-20, -20, 10, 10])
        ]
        located = aligner.refine(image, boxes)
        assert len(located) == 3
        for face in [*faces, *located]:
            check_face(face)
        assert aligner.refine(image, []) == []

    def test_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(OptionError) as caught:
            load_aligner("mtcn", CPU)
        assert all(name in str(caught.value) for name in ("mtcn", *ALIGNER_NAMES))

    def test_object_passes_through(self, mtcnn: MTCNNAligner) -> None:
        assert load_aligner(mtcnn, CPU) is mtcnn

    def test_object_without_refine_is_refused(self) -> None:
        class HalfAligner:
            def detect(self, rgb: UInt8Array) -> list[Face]:
                return []

        with pytest.raises(OptionError, match="HalfAligner"):
            load_aligner(HalfAligner(), CPU)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("mtcnn", {"min_face": 3}),
            ("mtcnn", {"thresholds": (0.5, 2.0, 0.5)}),
            ("fan", {"detector": "hog"}),
            ("fan", {"batch_size": 0}),
            ("mediapipe", {"detector": "sfd"}),
            ("mediapipe", {"num_faces": 0}),
            ("mediapipe", {"min_confidence": 1.5}),
            ("aligned", {}),
            ("aligned", {"template": [[0.5, 0.5]]}),
            ("aligned", {"template": [[float("nan"), 0.5]] * 5}),
        ],
    )
    def test_bad_options_are_refused(self, name: str, options: dict[str, Any]) -> None:
        with pytest.raises(OptionError):
            load_aligner(name, CPU, **options)


class TestMTCNN:
    def test_five_people(self, multi_faces: list[Face]) -> None:
        assert len(multi_faces) == 5
        assert [f.confidence for f in multi_faces] == sorted(
            (f.confidence for f in multi_faces), reverse=True
        )
        # The noses, read off the image by eye, from left to right.
        noses = sorted((f.landmarks[2] for f in multi_faces), key=lambda p: float(p[0]))
        np.testing.assert_allclose(
            noses, [[269, 130], [374, 306], [481, 267], [575, 377], [734, 364]], atol=7
        )

    def test_landmarks_are_in_the_image_s_order(self, multi_faces: list[Face]) -> None:
        for face in multi_faces:
            check_face(face)
            left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
            assert left_eye[0] < nose[0] < right_eye[0]
            assert left_mouth[0] < right_mouth[0]
            assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
            x1, y1, x2, y2 = face.box_xyxy
            assert ((face.landmarks > [x1, y1]) & (face.landmarks < [x2, y2])).all()

    def test_one_person(self, mtcnn: MTCNNAligner, single: UInt8Array) -> None:
        (face,) = mtcnn.detect(single)
        assert face.confidence > 0.99
        np.testing.assert_allclose(face.box_xyxy, [188, 147, 372, 400], atol=8)

    def test_no_face_in_a_clip_without_one(self, mtcnn: MTCNNAligner, media: Path) -> None:
        assert [len(mtcnn.detect(f)) for f in frames(media / "no_face.mp4", {0, 40, 90})] == [
            0,
            0,
            0,
        ]

    def test_known_faces_are_not_found_again(
        self, mtcnn: MTCNNAligner, multi: UInt8Array, multi_faces: list[Face]
    ) -> None:
        assert mtcnn.detect(multi, known=[face.box_xyxy for face in multi_faces]) == []
        (found,) = mtcnn.detect(multi, known=[face.box_xyxy for face in multi_faces[1:]])
        np.testing.assert_allclose(found.box_xyxy, multi_faces[0].box_xyxy, atol=2)

    def test_refine_stays_where_it_is(
        self, mtcnn: MTCNNAligner, multi: UInt8Array, multi_faces: list[Face]
    ) -> None:
        faces = multi_faces
        for _ in range(5):
            faces = mtcnn.refine(multi, [f.box_xyxy for f in faces])
        for before, after in zip(multi_faces, faces, strict=True):
            assert np.abs(after.landmarks - before.landmarks).max() < 1.0
            assert np.abs(after.box_xyxy - before.box_xyxy).max() < 2.0
            assert after.confidence > 0.95

    def test_refine_keeps_the_order(
        self, mtcnn: MTCNNAligner, multi: UInt8Array, multi_faces: list[Face]
    ) -> None:
        boxes = [f.box_xyxy for f in reversed(multi_faces)]
        faces = mtcnn.refine(multi, boxes)
        for before, after in zip(reversed(multi_faces), faces, strict=True):
            assert np.abs(after.landmarks - before.landmarks).max() < 1.0

    def test_refine_doubts_where_no_face_is(self, mtcnn: MTCNNAligner, multi: UInt8Array) -> None:
        height, width = multi.shape[:2]
        empty = [
            [0, 0, 80, 80],  # sky
            [width - 120, height - 120, width, height],
            [width + 50, 10, width + 130, 90],  # outside
            [-900, -900, -800, -800],
            [5, 5, 5, 5],  # without extent
        ]
        faces = mtcnn.refine(multi, [np.array(b, np.float32) for b in empty])
        assert max(f.confidence for f in faces) < 0.3

    @pytest.mark.parametrize("shape", [(1, 1), (1, 500), (11, 11), (12, 12), (700, 13)])
    def test_tiny_and_thin_images_hold_no_face(
        self, mtcnn: MTCNNAligner, shape: tuple[int, int]
    ) -> None:
        assert mtcnn.detect(noise(*shape)) == []

    def test_8k_image(
        self, mtcnn: MTCNNAligner, multi: UInt8Array, multi_faces: list[Face]
    ) -> None:
        scale = 7680 / multi.shape[1]
        big = cv2.resize(multi, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        faces = mtcnn.detect(np.asarray(big, dtype=np.uint8))
        assert len(faces) == 5
        found = sorted((f.landmarks / scale for f in faces), key=lambda p: float(p[2, 0]))
        expected = sorted((f.landmarks for f in multi_faces), key=lambda p: float(p[2, 0]))
        np.testing.assert_allclose(found, expected, atol=2.0)

    def test_grey_as_rgb(self, mtcnn: MTCNNAligner, multi: UInt8Array) -> None:
        grey = np.repeat(cv2.cvtColor(multi, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        assert len(mtcnn.detect(np.asarray(grey, dtype=np.uint8))) == 5


class TestAligned:
    @pytest.mark.parametrize(
        ("side", "size"), [(256, 256), (256, 224), (256, 112), (112, 224), (37, 64)]
    )
    def test_crop_is_the_resized_image(self, side: int, size: int) -> None:
        # Noise shows differences that images do not show.
        image = cv2.GaussianBlur(noise(side, side), (0, 0), 4)
        (face,) = AlignedAligner(template=TEMPLATE).detect(image)
        assert face.confidence == 1.0
        np.testing.assert_array_equal(face.box_xyxy, [0, 0, side, side])
        crop = crop_face(image, face.landmarks, TEMPLATE, size)
        how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
        expected = cv2.resize(image, (size, size), interpolation=how)
        # OpenCV resizes and warps with different fixed-point weights.
        assert np.abs(crop.astype(int) - expected.astype(int)).max() <= (0 if size == side else 4)

    @pytest.mark.parametrize(("height", "width"), [(100, 160), (160, 100), (101, 160)])
    def test_crop_of_an_oblong_image_is_its_central_square(self, height: int, width: int) -> None:
        image = noise(height, width)
        (face,) = AlignedAligner(template=TEMPLATE).detect(image)
        side = min(height, width)
        crop = crop_face(image, face.landmarks, TEMPLATE, side)
        x, y = (width - side) / 2, (height - side) / 2
        np.testing.assert_array_equal(face.box_xyxy, [x, y, x + side, y + side])
        if x.is_integer() and y.is_integer():
            np.testing.assert_array_equal(
                crop, image[int(y) : int(y) + side, int(x) : int(x) + side]
            )

    def test_refine_gives_the_same_face_for_each_box(self) -> None:
        aligner = AlignedAligner(template=TEMPLATE)
        image = noise(64, 64)
        (face,) = aligner.detect(image)
        boxes = [np.zeros(4, np.float32), np.array([5, 5, 20, 20], np.float32)]
        for other in aligner.refine(image, boxes):
            np.testing.assert_array_equal(other.landmarks, face.landmarks)
            assert other.confidence == 1.0

    def test_one_pixel_has_no_extent_to_speak_of(self) -> None:
        image = noise(1, 1)
        (face,) = AlignedAligner(template=TEMPLATE).detect(image)
        assert (crop_face(image, face.landmarks, TEMPLATE, 8) == image).all()

    def test_a_template_of_one_point_cannot_be_cropped(self) -> None:
        image = noise(64, 64)
        (face,) = AlignedAligner(template=[[0.5, 0.5]] * 5).detect(image)
        with pytest.raises(InputError):
            crop_face(image, face.landmarks, TEMPLATE, 8)


class TestNetworks:
    """What makes MTCNN's networks faster leaves their answers alone."""

    @pytest.mark.parametrize("height", [12, 13, 74, 75, 138, 139, 200])
    def test_proposals_are_those_of_the_network_as_it_is_stored(
        self, mtcnn: MTCNNAligner, height: int
    ) -> None:
        with as_file(files("pyfau") / "assets" / "mtcnn" / "model.safetensors") as path:
            stored = load_file(path)

        def layer(x: torch.Tensor, name: str, slopes: str = "") -> torch.Tensor:
            x = F.conv2d(x, stored[f"pnet.{name}.weight"], stored[f"pnet.{name}.bias"])
            return F.prelu(x, stored[f"pnet.{slopes}.weight"]) if slopes else x

        image = noise(height, 61)
        x = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - 127.5) / 128
        x = layer(
            F.max_pool2d(layer(x, "conv0", "prelu0"), 2, 2, ceil_mode=True), "conv1", "prelu1"
        )
        x = layer(x, "conv2", "prelu2")
        offsets, scores = mtcnn._windows(image)
        np.testing.assert_allclose(offsets, layer(x, "box")[0], atol=1e-5)
        np.testing.assert_allclose(scores, layer(x, "face")[0].softmax(dim=0)[1], atol=1e-5)
