"""Faces moved by a linear model of the teacher's mesh: the geometry here, MediaPipe itself where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pyfau.video import read_picture, read_video

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # its modules import each other by their names

import animate
from data import STORED

SHAPES = ["jawOpen", "browInnerUp", "mouthSmileLeft"]


def face(rng: np.random.Generator) -> np.ndarray:
    """(478, 3) points of a bowl in a picture of 200 x 200, closest to the camera in its middle."""
    xy = rng.uniform(-1, 1, (478, 2))
    return np.column_stack([xy, 0.5 * (xy**2).sum(1)]) * 60 + (100, 100, 0)


def test_a_similarity_is_found_and_undone(rng: np.random.Generator) -> None:
    points = face(rng) / 60
    moved = 2.5 * points @ Rotation.from_euler("xyz", (0.3, -0.2, 0.1)).as_matrix() + (3, 4, 5)
    found = animate.fit_rigid(points, moved)
    np.testing.assert_allclose(found(points), moved, atol=1e-9)
    np.testing.assert_allclose(found.inverse(moved), points, atol=1e-9)


def test_motion_is_learnt_from_turned_faces_of_many_sizes(rng: np.random.Generator) -> None:
    base = face(rng) / 60
    moves = rng.normal(0, 0.05, (len(SHAPES), 478, 3))
    moves[:, animate.RIGID] = 0
    shapes = rng.random((400, len(SHAPES)))
    meshes = []
    for shape in shapes:
        turn = Rotation.from_euler("xyz", rng.normal(0, 0.2, 3)).as_matrix()
        meshes.append(rng.uniform(40, 80) * (base + np.tensordot(shape, moves, 1)) @ turn + rng.normal(0, 9, 3))
    motion = animate.Motion.learn(np.stack(meshes), shapes, SHAPES)
    there = animate.fit_rigid(base, motion.mean)
    expected = moves[:, : animate.VERTICES] @ there.params[:3, :3].T  # turned and scaled
    learnt = motion.moves.ravel()
    assert np.corrcoef(learnt, expected.ravel())[0, 1] > 0.99
    assert motion.triangles.max() == animate.VERTICES + len(animate.ring(motion.mean)) - 1


def test_a_face_grows_like_another_with_its_own_expression(rng: np.random.Generator) -> None:
    mean, usual = face(rng)[: animate.VERTICES], rng.random(len(SHAPES))
    moves, own, other = (rng.normal(size=(*few, animate.VERTICES, 3)) for few in ([len(SHAPES)], [], [1]))
    motion = animate.Motion(mean, usual, moves, other, np.empty((0, 3)))
    shown = rng.random(len(SHAPES))
    shape = mean + own + np.tensordot(shown - usual, moves, 1)
    changes = [motion.rebuild(shape, shown, rng) for _ in range(20)]
    shares = [np.vdot(change, other[0] - own) / np.sum((other[0] - own) ** 2) for change in changes]
    assert 0 <= min(shares) < 0.2 < 0.7 < max(shares) <= animate.MOST_LIKENESS
    for change, share in zip(changes, shares, strict=True):
        np.testing.assert_allclose(change, share * (other[0] - own))


def test_a_warp_moves_what_lies_at_the_mesh(rng: np.random.Generator) -> None:
    mesh = face(rng)[: animate.VERTICES]
    triangles = animate.Delaunay(np.concatenate([mesh[:, :2], animate.ring(mesh)])).simplices
    ys, xs = np.mgrid[:200, :200]
    picture = np.stack([xs, ys, np.zeros_like(xs)], axis=-1).astype(np.uint8)
    np.testing.assert_allclose(animate.warp(picture, mesh, mesh, triangles), picture, atol=1)
    goal = (mesh - (100, 100, 0)) * 1.2 + (104, 97, 0)
    moved = animate.warp(picture, mesh, goal, triangles)
    for point in (60, 100, 140):  # inside
        x, y = (point - 104) / 1.2 + 100, (110 - 97) / 1.2 + 100
        assert moved[110, point, :2] == pytest.approx([x, y], abs=2)
    assert moved[0, 0, :2] == pytest.approx([0, 0], abs=1)  # the surroundings stay


def test_each_half_of_a_face_follows_one_other_person(rng: np.random.Generator) -> None:
    names = [side for _, channels in animate.TEACHER.values() for side in channels]
    others = rng.random((50, len(names)))
    donors = animate.Donors.among(others, names)
    own = rng.random(len(names))
    drawn = np.stack([donors.draw(own, rng) for _ in range(40)])
    for half in (donors.upper, ~donors.upper):
        steps = (drawn - own)[:, half]
        directions = (others - own)[:, half]
        rested = np.abs(steps).max(1) < 1e-9
        assert 0 < rested.sum() < 20
        cosine = (steps[~rested] @ directions.T) / (
            np.linalg.norm(steps[~rested], axis=1)[:, None] * np.linalg.norm(directions, axis=1)
        )
        np.testing.assert_allclose(cosine.max(1), 1.0)


def test_a_real_face_takes_other_expressions(shared: Path) -> None:
    pytest.importorskip("mediapipe", reason="MEDIAPIPE IS NOT INSTALLED: no face was animated")
    model = shared / "models/face_landmarker.task"
    teacher = animate.Teacher(model)
    with read_video(shared / "media/single_face.mp4") as reader:
        frames = [frame.rgb for frame in list(reader)[::4]]
    meshes, shapes, poses = (np.stack(column) for column in zip(*map(teacher.label, frames), strict=True))
    assert poses.shape == (len(frames), 4, 4)
    assert meshes.shape == (len(frames), 478, 3)
    with np.load(shared / "data/faces/teacher.npz") as known:
        names = [str(name) for name in known["blendshape_names"]]
        others = known["blendshapes"][:200].astype(np.float64)
    motion = animate.Motion.learn(meshes, shapes, names)
    picture = read_picture(shared / "media/single_face.jpg")
    still = animate.Still((0, 7), "seven", picture, 0.0)
    made = animate.animate([still], motion, animate.Donors.among(others, names), model)
    stills, variants, crops, labels, landmarks = zip(*made, strict=True)
    assert set(stills) == {"seven"}
    assert list(variants) == list(range(animate.VARIANTS))
    assert np.stack(crops).shape == (animate.VARIANTS, STORED, STORED, 3)
    assert np.stack(landmarks).shape == (animate.VARIANTS, 478, 2)
    assert np.ptp(np.stack(labels), axis=0).max() > 0.2


def test_the_teacher_settles_on_what_it_says_in_video(shared: Path) -> None:
    pytest.importorskip("mediapipe", reason="MEDIAPIPE IS NOT INSTALLED: no label was compared")
    teacher = animate.Teacher(shared / "models/face_landmarker.task")
    with read_video(shared / "media/single_face.mp4") as reader:
        frames = [frame.rgb for frame in reader][:60:5]
    first, settled, followed = [], [], []
    for frame in frames:
        teacher.look(np.zeros_like(frame))
        first.append([c.score for c in teacher.look(frame).face_blendshapes[0]])
        settled.append(teacher.label(frame)[1])
    for frame in frames:
        followed.append(teacher.label(frame, again=True)[1])
    first, settled, followed = map(np.array, (first, settled, followed))
    assert np.abs(settled - followed).mean() < 0.6 * np.abs(first - followed).mean()
    assert teacher.label(np.zeros((200, 200, 3), np.uint8)) is None
