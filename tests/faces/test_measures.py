"""Measures of a face: what they mean on faces whose size, blur and cover are made here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pyfau.demo import demo_frames
from pyfau.faces.measures import (
    covered_shares,
    cut_view,
    inside_of,
    measure_faces,
    sharpness_of,
    trusted_confidence,
)
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.faces.ranges import LEAST_QUALITY, LIMITS, quality_of
from pyfau.types import Face, FaceMeasures, UInt8Array


@pytest.fixture(scope="module")
def aligner() -> MTCNNAligner:
    return MTCNNAligner(min_face=12)


@pytest.fixture(scope="module")
def portrait() -> UInt8Array:
    return demo_frames()[0]


@pytest.fixture(scope="module")
def face(aligner: MTCNNAligner, portrait: UInt8Array) -> Face:
    (face,) = aligner.detect(portrait)
    return face


def measured(rgb: UInt8Array, face: Face) -> FaceMeasures:
    (measures,) = measure_faces([face], [cut_view(rgb, face)], [(rgb.shape[1], rgb.shape[0])])
    return measures


def scaled(rgb: UInt8Array, face: Face, scale: float) -> tuple[UInt8Array, Face]:
    """The image and its face, smaller."""
    small = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    landmarks = (face.landmarks + 0.5) * scale - 0.5
    return small.astype(np.uint8), Face(face.box_xyxy * scale, landmarks, face.confidence)


def hidden(rgb: UInt8Array, face: Face, top: float, colour: tuple[int, int, int]) -> UInt8Array:
    """The image with the face hidden from a height on; 0 is between the eyes, 1 the mouth."""
    eyes = face.landmarks[:2].mean(axis=0)
    mouth = face.landmarks[3:].mean(axis=0)
    x0, _, x1, y1 = face.box_xyxy.round().astype(int)
    y0 = round(float(eyes[1] + top * (mouth[1] - eyes[1])))
    covered = rgb.copy()
    covered[y0 : y1 + 20, x0 - 10 : x1 + 10] = colour
    return covered


def test_a_portrait_is_inside_the_range(portrait: UInt8Array, face: Face) -> None:
    found = measured(portrait, face)
    assert found.quality > 0.8
    assert found.inside == 1
    assert found.covered < 0.15
    assert max(abs(found.pitch), abs(found.yaw), abs(found.roll)) < 20
    eyes = face.landmarks[1] - face.landmarks[0]
    assert found.eye_distance == pytest.approx(np.hypot(*eyes), rel=1e-6)
    assert trusted_confidence(face, found) == face.confidence


def test_sharpness_does_not_depend_on_size_or_contrast(portrait: UInt8Array, face: Face) -> None:
    sharp = measured(portrait, face).sharpness
    half = measured(*scaled(portrait, face, 0.6))
    assert half.sharpness == pytest.approx(sharp, rel=0.1)
    dim = (portrait * 0.5).astype(np.uint8)
    assert measured(dim, face).sharpness == pytest.approx(sharp, rel=0.1)
    width = measured(portrait, face).eye_distance / 6
    blurred = np.asarray(cv2.GaussianBlur(portrait, (0, 0), width), np.uint8)
    found = measured(blurred, face)
    assert found.sharpness < sharp / 4
    assert found.quality < LEAST_QUALITY
    assert sharpness_of(np.full((64, 64, 3), 90, np.uint8)) == 0


@pytest.mark.parametrize("side", [20, 16, 12])
def test_confidence_and_quality_of_tiny_faces(
    aligner: MTCNNAligner, portrait: UInt8Array, face: Face, side: int
) -> None:
    box_side = float((face.box_xyxy[2:] - face.box_xyxy[:2]).max())
    small, at = scaled(portrait, face, (side - 1) / box_side)
    found = measured(small, at)
    assert found.quality < LEAST_QUALITY
    assert trusted_confidence(at, found) < face.confidence * side / 20


@pytest.mark.parametrize("colour", [(150, 190, 220), (20, 20, 20), (240, 240, 240)])
def test_confidence_and_quality_of_a_hidden_mouth(
    aligner: MTCNNAligner,
    portrait: UInt8Array,
    face: Face,
    colour: tuple[int, int, int],
) -> None:
    covered = hidden(portrait, face, 0.6, colour)
    seen = aligner.refine(covered, [face.box_xyxy])[0]
    found = measured(covered, seen)
    assert found.covered > 0.25
    assert found.quality < LEAST_QUALITY
    assert trusted_confidence(seen, found) < 0.97 * seen.confidence


def test_confidence_and_quality_of_a_face_at_the_border(portrait: UInt8Array, face: Face) -> None:
    y0, y1 = face.box_xyxy[1], face.box_xyxy[3]
    before = measured(portrait, face)
    for share, least in ((0.25, 0.0), (0.4, 0.2), (0.6, 0.45)):
        cut = portrait[: round(float(y1 - share * (y1 - y0)))]
        found = measured(np.ascontiguousarray(cut), face)
        assert found.inside == pytest.approx(1 - share, abs=0.02)
        assert found.quality < LEAST_QUALITY < before.quality
        assert trusted_confidence(face, found) <= (1 - least) * face.confidence


def test_inside() -> None:
    def inside(*box: float) -> float:
        return inside_of(np.array(box, np.float32), (100, 50))

    assert inside(0, 0, 100, 50) == 1
    assert inside(-10, 0, 10, 10) == 0.5
    assert inside(90, 40, 110, 60) == 0.25
    assert inside(200, 0, 210, 10) == 0
    assert inside(5, 5, 5, 10) == 0
    assert inside(np.nan, 0, 1, 1) == 0


def test_an_aligner_can_measure_the_pose_itself(portrait: UInt8Array, face: Face) -> None:
    posed = dataclasses.replace(face, pose=(1.0, -50.0, 3.0))
    found = measured(portrait, posed)
    assert (found.pitch, found.yaw, found.roll) == (1, -50, 3)
    assert found.quality < LEAST_QUALITY


def test_quality_is_one_half_at_each_limit() -> None:
    best = {limit.measure: np.array([limit.best, limit.best]) for limit in LIMITS}
    assert quality_of(best).tolist() == [1, 1]
    for limit in LIMITS:
        step = np.sign(limit.limit - limit.best) * 1e-6
        edge = {limit.measure: np.array([limit.limit - step, limit.limit + step])}
        inside, outside = quality_of(best | edge)
        assert inside > LEAST_QUALITY > outside
        assert quality_of(best | {limit.measure: np.full(2, np.nan)}).tolist() == [0, 0]


def test_no_faces() -> None:
    assert measure_faces([], [], []) == []


def test_dark_glasses_are_a_cover(portrait: UInt8Array, face: Face) -> None:
    rgb = portrait.copy()
    width = float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
    for x, y in face.landmarks[:2].tolist():
        axes = (round(0.42 * width), round(0.3 * width))
        cv2.ellipse(rgb, (round(x), round(y)), axes, 0, 0, 360, (15, 15, 18), -1)
    (before,) = covered_shares([cut_view(portrait, face)])
    (after,) = covered_shares([cut_view(rgb, face)])
    assert before < 0.05
    assert after > 0.1


def test_covered_is_the_same_alone_and_in_a_batch(portrait: UInt8Array, face: Face) -> None:
    views = [cut_view(portrait, face), cut_view(hidden(portrait, face, 0.3, (9, 9, 9)), face)]
    together: npt.NDArray[np.float64] = covered_shares(views)
    alone = [covered_shares([view])[0] for view in views]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


CASES = Path(__file__).parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="shared/cases is not here")
@pytest.mark.parametrize(
    "name", ["border_bottom_25.jpg", "border_bottom_40.jpg", "mask.jpg", "small_16.png"]
)
def test_recorded_cases(aligner: MTCNNAligner, name: str) -> None:
    rgb = np.ascontiguousarray(cv2.imread(str(CASES / name))[:, :, ::-1])
    (face,) = aligner.detect(rgb)
    found = measured(rgb, face)
    assert found.quality < LEAST_QUALITY
    assert trusted_confidence(face, found) < 0.98 * face.confidence
