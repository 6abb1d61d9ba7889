"""Head pose from five landmarks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pyfau.faces.pose import _FACE, angles_of, head_pose, head_poses, turn_pose

Array = npt.NDArray[np.float64]


def rotation(pitch: float, yaw: float, roll: float) -> Array:
    """A head that is tilted, then lifted, then turned; axes as in `angles_of`."""
    p, y, r = np.radians([pitch, yaw, roll])
    lift = [[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]]
    turn = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    tilt = [[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]]
    made: Array = np.array(turn) @ np.array(lift) @ np.array(tilt)
    return made


def seen(turned: Array, scale: float = 80.0, shift: float = 200.0) -> Array:
    """The landmarks of the turned mean face in an image, seen from far away."""
    points: Array = (turned @ _FACE.T)[:2].T * (scale, -scale) + shift
    return points


@pytest.mark.parametrize("pitch", [-25, 0, 15])
@pytest.mark.parametrize("yaw", [-40, 0, 25])
@pytest.mark.parametrize("scale", [3, 300])
def test_the_pose_of_the_mean_face_comes_back(pitch: float, yaw: float, scale: float) -> None:
    found = head_pose(seen(rotation(pitch, yaw, 0), scale))
    np.testing.assert_allclose(found[:2], (pitch, yaw), atol=1e-6)


@pytest.mark.parametrize("roll", [-150, -60, 30, 90, 170])
def test_roll_goes_all_the_way_round(roll: float) -> None:
    np.testing.assert_allclose(head_pose(seen(rotation(0, 0, roll))), (0, 0, roll), atol=1e-6)


def test_signs() -> None:
    points = seen(rotation(0, 0, 0))
    right, up, clockwise = points.copy(), points.copy(), points.copy()
    right[2, 0] += 10  # the nose moves to the right edge of the image
    up[2, 1] -= 10  # the nose moves up
    clockwise[1, 1] += 10  # the eye on the right of the image is lower
    assert head_pose(right)[1] > 5
    assert head_pose(up)[0] > 5
    assert head_pose(clockwise)[2] > 3


def test_a_mirrored_image_turns_yaw_and_roll_round() -> None:
    points = seen(rotation(10, 20, 5))
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    pitch, yaw, roll = head_pose(points)
    # The mean face itself is not quite symmetric.
    np.testing.assert_allclose(head_pose(mirrored), (pitch, -yaw, -roll), atol=2.5)


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.arange(10.0).reshape(5, 2)]
)
def test_landmarks_without_a_pose(points: Array) -> None:
    assert np.isnan(head_pose(points)).all()


def test_many_faces_at_once() -> None:
    good = seen(rotation(5, 10, 15))
    poses = head_poses([good, np.zeros((5, 2)), good])
    assert np.isnan(poses[1]).all()
    np.testing.assert_array_equal(poses[0], poses[2])
    assert head_poses(np.empty((0, 5, 2))).shape == (0, 3)


def test_angles_of_a_matrix() -> None:
    turned = rotation(-10, 30, 0)
    np.testing.assert_allclose(angles_of(turned[None])[0, :2], (-10, 30), atol=1e-9)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_pose_turns_with_the_image(turns: int) -> None:
    points = seen(rotation(12, -25, 20))
    turned = points
    for _ in range(turns):  # clockwise: right becomes down
        turned = np.stack([-turned[:, 1], turned[:, 0]], axis=1)
    np.testing.assert_allclose(turn_pose(head_pose(points), turns), head_pose(turned), atol=1e-6)
