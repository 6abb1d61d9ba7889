"""The aligner "mesh" on real images, compared with stored points of MediaPipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pyfau import AUDetector
from pyfau.cli import main
from pyfau.faces.halves import Halves
from pyfau.faces.mesh import MeshAligner
from pyfau.faces.mesh_pose import mesh_pose
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.faces.pose import angles_of
from pyfau.faces.stillness import Stillness
from pyfau.faces.tracker import FaceTracker
from pyfau.faces.turns import QUARTERS, size_of, turn_box, turn_face_back, turn_image
from pyfau.media.images import read_image
from pyfau.media.readers import read_video
from pyfau.types import Face, FaceMesh, FloatArray, UInt8Array

BLUR = 17.0  # pixels; the landmark network sees no face in the portrait then, but MTCNN does
ASSET = Path(__file__).parents[2] / "pyfau" / "assets" / "face-mesh-lite"


@pytest.fixture(scope="module")
def aligner() -> MeshAligner:
    return MeshAligner()


@pytest.fixture(scope="module")
def teacher() -> dict[str, FloatArray]:
    """MediaPipe's 68 points, by the name of the image or of the clip, whose first frame it is."""
    with np.load(Path(__file__).parents[1] / "data" / "parity" / "mesh_points.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def portrait(media: Path) -> UInt8Array:
    return read_image(media / "single_face.jpg")


def error(points: FloatArray, truth: FloatArray, part: slice = slice(None)) -> float:
    """Mean distance of some of the points in percent of the distance between the eyes."""
    eyes = np.linalg.norm(truth[42:48].mean(axis=0) - truth[36:42].mean(axis=0))
    return float(100 * np.linalg.norm(points - truth, axis=1)[part].mean() / eyes)


def turned(rgb: UInt8Array, degrees: float, centre: FloatArray) -> tuple[UInt8Array, FloatArray]:
    """The image turned clockwise around a point, and the matrix (2, 3) of the turn."""
    matrix = cv2.getRotationMatrix2D([float(v) for v in centre], -degrees, 1.0)
    size = (rgb.shape[1], rgb.shape[0])
    image = cv2.warpAffine(rgb, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(image, np.uint8), matrix


def look(aligner: MeshAligner, rgb: UInt8Array) -> list[Face]:
    """The faces of an image with their points."""
    return aligner.follow(rgb, aligner.detect(rgb))


def mesh_of(face: Face) -> FaceMesh:
    assert face.mesh is not None
    return face.mesh


def test_the_asset_is_small() -> None:
    assert (ASSET / "model.safetensors").stat().st_size < 1_500_000


@pytest.mark.parametrize(
    "name", ["single_face.jpg", "single_face.mp4", "WolfgangLanger_Pexels.mp4"]
)
def test_points_agree_with_the_teacher(
    aligner: MeshAligner, teacher: dict[str, FloatArray], media: Path, name: str
) -> None:
    if name.endswith("mp4"):
        with read_video(media / name) as reader:
            rgb = next(iter(reader)).rgb
    else:
        rgb = read_image(media / name)
    [face] = look(aligner, rgb)
    assert error(mesh_of(face).points, teacher[name]) < 5
    again = aligner.follow(rgb, [face])[0]
    assert error(mesh_of(again).points, teacher[name]) < 5


def test_the_landmarks_are_those_of_mtcnn(aligner: MeshAligner, portrait: UInt8Array) -> None:
    [face] = look(aligner, portrait)
    [other] = aligner._mtcnn.detect(portrait)
    eyes = np.linalg.norm(other.landmarks[1] - other.landmarks[0])
    assert np.linalg.norm(face.landmarks - other.landmarks, axis=1).mean() < 0.05 * eyes
    sides = other.box_xyxy[2:] - other.box_xyxy[:2]
    assert np.abs(face.box_xyxy - other.box_xyxy).max() < 0.12 * sides.max()


@pytest.mark.parametrize("degrees", range(-180, 180, 30))
def test_a_track_starts_at_every_roll(
    aligner: MeshAligner, teacher: dict[str, FloatArray], portrait: UInt8Array, degrees: int
) -> None:
    truth = teacher["single_face.jpg"]
    image, matrix = turned(portrait, degrees, truth.mean(axis=0))
    update = FaceTracker(aligner).update(image)
    assert len(update.faces) == 1
    expected = truth @ matrix[:, :2].T + matrix[:, 2]
    assert error(mesh_of(update.faces[0].face).points, expected) < 6


def test_a_face_that_rolls_keeps_its_id(
    aligner: MeshAligner, teacher: dict[str, FloatArray], portrait: UInt8Array
) -> None:
    truth = teacher["single_face.jpg"]
    tracker = FaceTracker(aligner)
    for degrees in range(0, 361, 8):
        image, matrix = turned(portrait, degrees, truth.mean(axis=0))
        [tracked] = tracker.update(image).faces
        assert tracked.face_id == 0
        expected = truth @ matrix[:, :2].T + matrix[:, 2]
        assert error(mesh_of(tracked.face).points, expected) < 8


def test_no_face(aligner: MeshAligner, portrait: UInt8Array, media: Path) -> None:
    [face] = look(aligner, portrait)
    with read_video(media / "no_face.mp4") as reader:
        frames = [frame.rgb for frame in reader][::10]
    for rgb in frames:
        assert aligner.detect(rgb) == []
        assert aligner.follow(rgb, [face])[0].confidence < 0.6
    assert aligner.follow(np.zeros((40, 60, 3), np.uint8), [face])[0].confidence < 0.6
    assert aligner.follow(portrait, []) == []
    assert aligner.refine(portrait, []) == []


@pytest.mark.parametrize("turns", range(QUARTERS))
def test_mtcnn_follows_a_face_that_only_it_sees(
    aligner: MeshAligner, portrait: UInt8Array, turns: int
) -> None:
    sharp = turn_image(portrait, turns)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), BLUR), np.uint8)
    tracker, mtcnn = FaceTracker(aligner), FaceTracker(MTCNNAligner())
    for _ in range(3):
        [tracked] = tracker.update(blurred).faces
        assert (
            aligner.points.look(blurred, aligner.points.crop_of(tracked.face)[None]).presence < 0.6
        )
        assert tracked.face_id == 0
        assert tracked.face.mesh is None
        assert tracked.face.confidence >= 0.9
        [expected] = mtcnn.update(blurred).faces
        side = np.ptp(expected.face.box_xyxy[::2])
        assert np.abs(tracked.face.landmarks - expected.face.landmarks).max() < 0.02 * side
    [tracked] = tracker.update(sharp).faces
    assert tracked.face_id == 0
    assert tracked.face.mesh is not None
    [tracked] = tracker.update(blurred).faces
    assert tracked.face_id == 0
    assert tracked.face.mesh is None
    assert tracker.update(np.zeros_like(blurred)).faces == []


def test_a_face_without_a_mesh_has_empty_points(portrait: UInt8Array) -> None:
    detector = AUDetector(device="cpu", aligner="mesh", landmarks=True)
    blurred = np.asarray(cv2.GaussianBlur(portrait, (0, 0), BLUR), np.uint8)
    rows = detector.detect_frames([portrait, blurred], fps=25)
    assert [row.face_id for row in rows] == [0, 0]
    assert np.isfinite([row.scores for row in rows]).all()
    is_empty = [bool(np.isnan(row.mesh.points).all()) for row in rows if row.mesh is not None]
    assert is_empty == [False, True]


def test_a_face_at_the_border(
    aligner: MeshAligner, teacher: dict[str, FloatArray], portrait: UInt8Array
) -> None:
    truth = teacher["single_face.jpg"]
    [face] = look(aligner, portrait)
    cut = int(truth[8, 1] - 0.2 * np.ptp(truth[:, 1]))  # the chin is outside
    found = aligner.follow(np.ascontiguousarray(portrait[:cut]), [face])[0]
    assert found.confidence > 0.6
    assert error(mesh_of(found).points, truth, slice(17, 48)) < 12
    assert mesh_of(found).visible < mesh_of(face).visible


def test_a_face_of_twenty_pixels(
    aligner: MeshAligner, teacher: dict[str, FloatArray], portrait: UInt8Array
) -> None:
    truth = teacher["single_face.jpg"]
    scale = 20 / np.ptp(truth[:, 0])
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rgb = np.asarray(small, np.uint8)
    factor = np.array([rgb.shape[1] / portrait.shape[1], rgb.shape[0] / portrait.shape[0]])
    expected = (truth + 0.5) * factor - 0.5
    low, high = expected.min(axis=0), expected.max(axis=0)
    five = expected[[36, 42, 30, 48, 54]].astype(np.float32)
    box = np.concatenate([low, high]).astype(np.float32)
    found = aligner.follow(rgb, [Face(box, five, 1.0)])[0]
    assert found.confidence > 0.6
    assert error(mesh_of(found).points, expected) < 10


def test_a_batch_equals_single_faces(aligner: MeshAligner, media: Path) -> None:
    rgb = read_image(media / "multi_face.jpg")
    faces = look(aligner, rgb)
    assert len(faces) == 5
    together = aligner.follow(rgb, faces)
    for face, found in zip(faces, together, strict=True):
        alone = aligner.follow(rgb, [face])[0]
        np.testing.assert_allclose(mesh_of(found).points, mesh_of(alone).points, atol=1e-2)
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-4)


def test_mirrored_face_has_mirrored_points(aligner: MeshAligner, portrait: UInt8Array) -> None:
    [face] = look(aligner, portrait)
    [other] = look(aligner, np.ascontiguousarray(portrait[:, ::-1]))
    back = mesh_of(other).points * (-1, 1) + (portrait.shape[1] - 1, 0)
    nose = [30, 33, 27]
    eyes = np.linalg.norm(face.landmarks[1] - face.landmarks[0])
    assert np.abs(back[nose] - mesh_of(face).points[nose]).max() < 0.08 * eyes


def test_pose_of_a_turned_and_of_a_mirrored_image(
    aligner: MeshAligner, portrait: UInt8Array
) -> None:
    [face] = look(aligner, portrait)
    pitch, yaw, roll = mesh_pose(mesh_of(face).points, aligner.mean_face)
    image, _ = turned(portrait, 20, face.landmarks.mean(axis=0))
    [rolled] = look(aligner, image)
    pose = mesh_pose(mesh_of(rolled).points, aligner.mean_face)
    # The direction of the nose turns with the image.
    across, up = np.sin(np.radians(yaw)) * np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    turned_pitch = np.degrees(np.arcsin(up * cos - across * sin))
    turned_yaw = np.degrees(np.arcsin(across * cos + up * sin))
    np.testing.assert_allclose(pose, (turned_pitch, turned_yaw, roll + 20), atol=1)
    [mirrored] = look(aligner, np.ascontiguousarray(portrait[:, ::-1]))
    pose = mesh_pose(mesh_of(mirrored).points, aligner.mean_face)
    np.testing.assert_allclose(pose, (pitch, -yaw, -roll), atol=4)


@pytest.mark.parametrize(
    ("pitch", "yaw", "roll"), [(0, 0, 0), (15, 0, 0), (0, 25, 0), (-8, -20, 35)]
)
def test_pose_of_the_mean_face(aligner: MeshAligner, pitch: float, yaw: float, roll: float) -> None:
    x, y, z = np.radians([pitch, yaw, roll])
    # x to the right, y down, z away: up, to the right and clockwise are positive.
    up = np.array([[1, 0, 0], [0, np.cos(x), np.sin(x)], [0, -np.sin(x), np.cos(x)]])
    right = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    clockwise = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    seen = aligner.mean_face @ (clockwise @ right @ up).T
    nose, eyes = seen[30], seen[36:48].mean(axis=0)
    if pitch > 0:
        level = aligner.mean_face[30, 1] - aligner.mean_face[36:48, 1].mean()
        assert nose[1] - eyes[1] < level  # the tip of the nose rises
    if yaw > 0:
        assert nose[0] > eyes[0]
    found = mesh_pose(seen[:, :2] * 40 + 100, aligner.mean_face)
    flip = np.diag([1, -1, -1])
    expected = angles_of((flip @ clockwise @ right @ up @ flip)[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if roll == 0:
        np.testing.assert_allclose(found, (pitch, yaw, roll), atol=1e-6)


def test_pose_without_points_is_nan(aligner: MeshAligner) -> None:
    assert np.isnan(mesh_pose(np.full((68, 2), np.nan), aligner.mean_face)).all()
    assert np.isnan(mesh_pose(np.zeros((68, 2)), aligner.mean_face)).all()
    places = np.random.default_rng(3).uniform(0, 200, (50, 68, 1))
    for along in places:
        line = along * [[0.8, 0.6]] + [[300.0, 200.0]]
        assert np.isnan(mesh_pose(line, aligner.mean_face)).all()


@pytest.mark.parametrize("turns", range(QUARTERS))
def test_a_mesh_returns_from_every_turn(turns: int) -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    corners = np.array([[12, 8], [25, 9]], np.float32)
    for value, (x, y) in enumerate(corners.astype(int), 1):
        rgb[y, x] = value
    image = turn_image(rgb, turns)
    found = [np.argwhere(image[:, :, 0] == value)[0][::-1] for value in (1, 2)]
    points = np.repeat(np.array(found, np.float32), 34, axis=0)
    mesh = FaceMesh(points, points[[0, -1]], np.ones(2, np.float32), 1.0)
    box = turn_box(np.array([10, 5, 30, 25], np.float32), turns, size_of(rgb))
    face = Face(box, np.zeros((5, 2), np.float32), 0.9, mesh=mesh)
    back = mesh_of(turn_face_back(face, turns, size_of(rgb)))
    np.testing.assert_array_equal(back.points[[0, -1]], corners)
    np.testing.assert_array_equal(back.irises, corners)


class Following:
    """An aligner with `follow`, whose one face stands still. It counts its searches."""

    def __init__(self) -> None:
        self.searches = 0

    def detect(self, rgb: UInt8Array) -> list[Face]:
        self.searches += 1
        points = np.array([[12, 12], [24, 12], [18, 18], [13, 25], [23, 25]], np.float32)
        return [Face(np.array([8, 8, 28, 28], np.float32), points, 1.0)]

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        raise AssertionError("the tracker calls follow")

    def follow(self, rgb: UInt8Array, faces: Sequence[Face]) -> list[Face]:
        return list(faces)


def test_a_still_scene_is_searched_rarely() -> None:
    aligner = Following()
    tracker = FaceTracker(aligner, detect_every=5)
    for _ in range(81):
        tracker.update(np.zeros((120, 160, 3), np.uint8))
    assert aligner.searches == 1 + 2  # instead of 17
    changed = np.zeros((120, 160, 3), np.uint8)
    changed[80:110, 100:130] = 90  # a newcomer
    for _ in range(5):
        tracker.update(changed)
    assert aligner.searches == 4


def test_stillness_ignores_known_faces_and_sees_newcomers() -> None:
    stillness = Stillness()
    empty = np.zeros((90, 160, 3), np.uint8)
    assert not stillness.is_still(Halves(empty), [])
    stillness.remember(Halves(empty))
    assert stillness.is_still(Halves(empty), [])
    face = empty.copy()
    face[20:40, 30:50] = 200
    assert not stillness.is_still(Halves(face), [])
    assert stillness.is_still(Halves(face), [np.array([30, 20, 50, 40], np.float32)])
    assert stillness.is_still(Halves(empty), [np.array([-500, -500, -400, -400], np.float32)])
    assert not stillness.is_still(Halves(np.zeros((80, 160, 3), np.uint8)), [])
    stillness.reset()
    assert not stillness.is_still(Halves(empty), [])


def test_scores_are_close_to_those_of_mtcnn(media: Path) -> None:
    scores = {}
    with read_video(media / "single_face.mp4") as reader:
        frames = [frame.rgb for frame in reader][:24]
    for name in ("mtcnn", "mesh"):
        detector = AUDetector(device="cpu", aligner=name)
        result = detector.detect_frames(frames, fps=25)
        assert {row.face_id for row in result} == {0}
        scores[name] = np.array([row.scores for row in result])
    assert np.abs(scores["mtcnn"] - scores["mesh"]).mean() < 0.06


def test_the_command_line_takes_the_aligner(media: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    picture = str(media / "single_face.jpg")
    assert main(["detect", picture, "-o", str(table), "--aligner", "mesh", "--quiet"]) == 0
    assert len(table.read_text().splitlines()) == 2
    assert torch.get_default_dtype() == torch.float32
