"""Boxes like those of RetinaFace, estimated from five landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyfau import AUDetector
from pyfau.errors import InputError
from pyfau.faces.boxes import overlap
from pyfau.faces.crop_rules import crop_box, cut_face
from pyfau.faces.fitted_boxes import box_of, detector_to_fit
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.media.images import read_image
from pyfau.models.protocol import Crop
from pyfau.types import Face

# Left, top, right and bottom of the boxes that RetinaFace itself drew (package retinaface 1.1.1).
RETINAFACE = {
    "single_face.jpg": [(192.1, 146.8, 370.3, 395.2)],
    "multi_face.jpg": [
        (682.9, 287.7, 790.1, 421.5),
        (218.3, 64.0, 306.7, 174.2),
        (534.0, 310.5, 631.3, 434.4),
        (314.3, 235.8, 409.2, 358.7),
        (438.2, 219.4, 516.6, 313.3),
    ],
}


def face(landmarks: np.ndarray) -> Face:
    """A face with some box of its own."""
    return Face(np.array([0, 0, 9, 9], np.float32), landmarks.astype(np.float32), 1.0)


LANDMARKS = np.array([(40, 50), (80, 52), (61, 75), (45, 95), (77, 96)], np.float32)


@pytest.mark.media
@pytest.mark.parametrize("name", RETINAFACE)
def test_boxes_are_near_those_of_retinaface(media: Path, name: str) -> None:
    faces = MTCNNAligner().detect(read_image(media / name))
    assert len(faces) == len(RETINAFACE[name])
    for found in faces:
        box = box_of(found, "retinaface")
        best = max(overlap(box, np.array(truth)) for truth in RETINAFACE[name])
        assert best > 0.85


def test_the_box_moves_and_grows_with_the_face() -> None:
    box = box_of(face(LANDMARKS), "retinaface")
    moved = box_of(face(LANDMARKS * 3 + [7, -5]), "retinaface")
    np.testing.assert_allclose(moved, box * 3 + [7, -5, 7, -5], atol=1e-2)


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 4.0), np.full((5, 2), np.nan)])
def test_landmarks_without_a_size_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected finite landmarks that do not coincide"):
        box_of(face(landmarks), "retinaface")


def test_the_crop_is_that_of_the_estimated_box() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (140, 120, 3), np.uint8)
    rule = Crop("box", margin=0.1, detector="retinaface")
    own, fitted = (cut_face(rgb, face(LANDMARKS), rule, 32, fit) for fit in ("", "retinaface"))
    np.testing.assert_array_equal(own, crop_box(rgb, np.array([0, 0, 9, 9]), 32, 0.1))
    box = box_of(face(LANDMARKS), "retinaface")
    np.testing.assert_array_equal(fitted, crop_box(rgb, box, 32, 0.1))


def test_aligners_with_such_boxes_keep_their_own() -> None:
    mtcnn = MTCNNAligner()
    assert detector_to_fit("retinaface", mtcnn) == ""
    assert detector_to_fit("sfd", mtcnn) == ""
    mesh = AUDetector(aligner="mesh")._options.aligner
    assert detector_to_fit("retinaface", mesh) == "retinaface"
    assert detector_to_fit("sfd", mesh) == ""
