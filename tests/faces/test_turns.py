"""Faces that are turned in the image plane are found upright, or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pyfau import AUDetector, Face
from pyfau.faces.tracker import FaceTracker
from pyfau.faces.turns import roll_of, size_of, turn_box, turn_face_back, turn_image
from pyfau.media.images import read_image
from pyfau.types import UInt8Array


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def portrait(media: Path) -> UInt8Array:
    return read_image(media / "single_face.jpg")


def rolled(rgb: UInt8Array, degrees: float) -> UInt8Array:
    """The image turned clockwise about its middle, on a square that holds it whole."""
    side = int(np.ceil(np.hypot(*rgb.shape[:2])))
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    matrix[:, 2] += (side / 2 - width / 2, side / 2 - height / 2)
    turned = cv2.warpAffine(
        rgb, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_face_returns_from_every_turn(turns: int) -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    marks = [(12, 8), (25, 9), (18, 15), (13, 22), (24, 23)]
    for value, (x, y) in enumerate(marks, 1):
        rgb[y, x] = value
    turned = turn_image(rgb, turns)
    found = [np.argwhere(turned[:, :, 0] == value)[0][::-1] for value in range(1, 6)]
    box = turn_box(np.array([10, 5, 30, 25], np.float32), turns, size_of(rgb))
    face = turn_face_back(Face(box, np.array(found, np.float32), 0.9), turns, size_of(rgb))
    np.testing.assert_array_equal(face.landmarks, marks)
    np.testing.assert_array_equal(face.box_xyxy, [10, 5, 30, 25])
    assert face.confidence == 0.9


def test_roll_counts_clockwise() -> None:
    upright = np.array([[10, 10], [20, 10], [15, 15], [11, 20], [19, 20]], np.float32)
    assert roll_of(upright) == 0
    upside_down = upright[:, :] * -1
    assert abs(roll_of(upside_down)) == 180
    lying = np.stack([-upright[:, 1], upright[:, 0]], axis=1)  # a quarter turn clockwise
    assert roll_of(lying) == 90


@pytest.mark.parametrize("degrees", [0, 45, 90, 120, 180, 225, 270, 315])
def test_a_rolled_face_has_the_scores_of_the_upright_one(
    detector: AUDetector, portrait: UInt8Array, degrees: int
) -> None:
    expected = detector.detect_image(rolled(portrait, 0))[0]
    row = detector.detect_image(rolled(portrait, degrees))[0]
    assert row.success
    difference = (roll_of(row.landmarks) - roll_of(expected.landmarks) - degrees) % 360
    assert min(difference, 360 - difference) < 8
    strong = expected.scores > 0.9
    assert strong.any()
    assert (row.scores[strong] > 0.5).all()
    assert np.abs(row.scores - expected.scores).mean() < 0.1


def test_a_group_upside_down(detector: AUDetector, media: Path) -> None:
    rgb = read_image(media / "multi_face.jpg")
    upright = detector.detect_image(rgb)
    turned = detector.detect_image(np.ascontiguousarray(rgb[::-1, ::-1]))
    assert len(turned) == len(upright) == 5
    width, height = size_of(rgb)
    for row in upright:
        middle = [width, height] - row.landmarks.mean(axis=0)
        distances = [np.linalg.norm(other.landmarks.mean(axis=0) - middle) for other in turned]
        other = turned[int(np.argmin(distances))]
        assert min(distances) < 6
        assert abs(roll_of(other.landmarks)) > 150
        assert np.abs(row.scores - other.scores).mean() < 0.1


def test_a_face_that_rolls_keeps_its_id_and_its_direction(
    detector: AUDetector, portrait: UInt8Array
) -> None:
    angles = range(0, 361, 5)
    result = detector.detect_frames([rolled(portrait, angle) for angle in angles], fps=30)
    assert {row.face_id for row in result} == {0}
    for row, angle in zip(result, angles, strict=True):
        difference = (roll_of(row.landmarks) - angle) % 360
        assert min(difference, 360 - difference) < 12


class Upright:
    """An aligner without `tells_upright`, which counts its searches."""

    def __init__(self) -> None:
        self.searches = 0

    def detect(self, rgb: UInt8Array) -> list[Face]:
        self.searches += 1
        return []

    def refine(self, rgb: UInt8Array, boxes: list[np.ndarray]) -> list[Face]:
        raise AssertionError("there is nothing to refine")


def test_an_aligner_that_does_not_tell_the_direction_is_not_turned() -> None:
    aligner = Upright()
    tracker = FaceTracker(aligner)
    for _ in range(3):
        tracker.update(np.zeros((30, 40, 3), np.uint8))
    assert aligner.searches == 3


class Lying:
    """An aligner without `tells_upright` that always finds one face, rolled by 90 degrees."""

    shapes: set[tuple[int, ...]]

    def __init__(self) -> None:
        self.shapes = set()

    def detect(self, rgb: UInt8Array) -> list[Face]:
        points = np.array([[20, 10], [20, 20], [15, 15], [10, 11], [10, 19]], np.float32)
        return [Face(np.array([5, 5, 25, 25], np.float32), points, 1.0)]

    def refine(self, rgb: UInt8Array, boxes: list[np.ndarray]) -> list[Face]:
        self.shapes.add(rgb.shape)
        return self.detect(rgb) * len(boxes)


def test_an_aligner_that_does_not_tell_the_direction_sees_unturned_images() -> None:
    aligner = Lying()
    tracker = FaceTracker(aligner)
    for _ in range(4):
        update = tracker.update(np.zeros((30, 40, 3), np.uint8))
        assert [tracked.face_id for tracked in update.faces] == [0]
    assert aligner.shapes == {(30, 40, 3)}


def test_frames_without_a_face_are_rarely_searched_in_all_turns() -> None:
    aligner = Upright()
    aligner.tells_upright = True
    tracker = FaceTracker(aligner, detect_every=10)
    for _ in range(20):
        tracker.update(np.zeros((30, 40, 3), np.uint8))
    assert aligner.searches == 20 + 2 * 3
    tracker.reset()
    tracker.update(np.zeros((30, 40, 3), np.uint8))
    assert aligner.searches == 20 + 2 * 3 + 4
