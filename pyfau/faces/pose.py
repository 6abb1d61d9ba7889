"""Head pose from five landmarks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# The five landmarks on a mean face: x to the right of the image, y up, z towards the viewer. The
# unit does not matter. Fitted to MTCNN's landmarks of 2,657 faces whose pose is known, by least
# squares (benchmarks/pose.py).
_FACE = np.array(
    [
        [-0.313, 0.348, -0.102],
        [0.321, 0.351, -0.093],
        [-0.003, -0.002, 0.359],
        [-0.276, -0.349, -0.084],
        [0.271, -0.348, -0.081],
    ]
)
_FLAT = 1e-6  # landmarks count as one line if their width is less than this share of their length
_TO_AXES = np.linalg.pinv(_FACE - _FACE.mean(axis=0)).T  # (5, 3)


def head_pose(landmarks: npt.ArrayLike) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees of one face; see `head_poses`.

    Args:
        landmarks: (5, 2) pixels, in the order of `pyfau.types.Face`.
    """
    pitch, yaw, roll = head_poses(np.asarray(landmarks)[None])[0].tolist()
    return pitch, yaw, roll


def head_poses(landmarks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Head poses by weak perspective: the rotation of a mean face that fits the landmarks best.

    The camera is taken to be far away, so no focal length is needed. A face at the edge of a
    wide-angle image therefore seems to be turned by up to the angle at which the camera sees it.

    Args:
        landmarks: (F, 5, 2) pixels, in the order of `pyfau.types.Face`.

    Returns:
        (F, 3) pitch, yaw and roll in degrees; see `pyfau.types.FaceMeasures`. NaN if the landmarks
        are not finite or lie on one line.
    """
    points = np.asarray(landmarks, np.float64)
    poses = np.full((len(points), 3), np.nan)
    # (F, 2, 3): the best linear map from the mean face to the image, with y up.
    centred = (points - points.mean(axis=1, keepdims=True)) * (1, -1)
    linear = centred.transpose(0, 2, 1) @ _TO_AXES
    finite = np.isfinite(linear).all(axis=(1, 2))
    u, scales, v = np.linalg.svd(linear[finite], full_matrices=False)
    rows = u @ v  # the nearest two rows of a rotation
    found = angles_of(np.concatenate([rows, np.cross(rows[:, :1], rows[:, 1:])], axis=1))
    found[scales[:, 1] <= _FLAT * scales[:, 0]] = np.nan
    poses[finite] = found
    return poses


def angles_of(rotations: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pitch, yaw and roll of rotations, in degrees.

    Args:
        rotations: (F, 3, 3) from the head to the camera. For both, x is to the right of the image,
            y is up, and z is towards the viewer.

    Returns:
        (F, 3).
    """
    # The directions of the right side of the head (in the image) and of the nose.
    side, nose = rotations[:, :, 0], rotations[:, :, 2]
    pitch = np.arcsin(np.clip(nose[:, 1], -1, 1))
    yaw = np.arctan2(nose[:, 0], nose[:, 2])
    roll = np.arctan2(-side[:, 1], side[:, 0])
    angles: npt.NDArray[np.float64] = np.degrees(np.stack([pitch, yaw, roll], axis=1))
    return angles


def turn_pose(pose: tuple[float, float, float], turns: int) -> tuple[float, float, float]:
    """The pose in an image that is turned clockwise.

    Args:
        pose: Pitch, yaw and roll in degrees.
        turns: Quarter turns, clockwise.
    """
    pitch, yaw = np.radians(pose[:2])
    x, y, z = np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)
    for _ in range(turns):
        x, y = y, -x
    turned = np.degrees([np.arcsin(y), np.arctan2(x, z)])
    roll = (pose[2] + 90 * turns + 180) % 360 - 180
    return float(turned[0]), float(turned[1]), float(roll)
