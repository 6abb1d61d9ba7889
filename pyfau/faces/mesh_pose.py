"""Head pose from the 68 points of the aligner "mesh": weak perspective and a mean face.

`pyfau.faces.pose` has the pose from five landmarks.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pyfau.faces.pose import angles_of

# Points that expressions hardly move: upper jaw line, bridge and base of the nose, eye corners.
STEADY = (0, 1, 2, 3, 13, 14, 15, 16, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)
_STEADY = np.array(STEADY)
_FLAT = 1e-6  # the points count as one line if their width is less than this share of their length
_NO_POSE = (math.nan, math.nan, math.nan)

Axes = npt.NDArray[np.float64]
Rotation = npt.NDArray[np.float64]


def mesh_pose(points: npt.ArrayLike, mean_face: npt.ArrayLike) -> tuple[float, float, float]:
    """Pitch, yaw and roll of a head in degrees.

    The points that expressions hardly move are fitted to the image with least squares, by a
    rotation in 3D, a scale and a shift (weak perspective).

    Args:
        points: (68, 2) pixels, `pyfau.types.FaceMesh.points`.
        mean_face: (68, 3) x to the right, y down, z away from the viewer; any scale.

    Returns:
        Pitch, yaw and roll; see `pyfau.types.FaceMeasures`. NaN where the points are not finite or
        lie on one line.
    """
    return pose_along(points, axes_of(mean_face))


def axes_of(mean_face: npt.ArrayLike) -> Axes:
    """The pseudo-inverse (3, 21) of the steady points of a mean face (68, 3)."""
    model = np.asarray(mean_face, dtype=np.float64)[_STEADY]
    return np.linalg.pinv(model - model.mean(axis=0))


def pose_along(points: npt.ArrayLike, axes: Axes) -> tuple[float, float, float]:
    """`mesh_pose` with the axes of the mean face, from `axes_of`."""
    seen = np.asarray(points, dtype=np.float64)[_STEADY]
    # The best linear map from the mean face to the image, with rows u and v.
    (u0, v0), (u1, v1), (u2, v2) = (axes @ (seen - seen[0])).tolist()
    # The nearest two rows of a rotation are (A A^T)^(-1/2) A. These are plain numbers, because
    # numpy takes longer for a matrix of this size.
    uu, uv, vv = (
        u0 * u0 + u1 * u1 + u2 * u2,
        u0 * v0 + u1 * v1 + u2 * v2,
        v0 * v0 + v1 * v1 + v2 * v2,
    )
    area = uu * vv - uv * uv
    if not (math.isfinite(area) and area > (_FLAT * (uu + vv)) ** 2):
        return _NO_POSE
    root = math.sqrt(area)
    norm = root * math.sqrt(uu + vv + 2 * root)
    a, b, c = (vv + root) / norm, -uv / norm, (uu + root) / norm
    right_x, right_y, right_z = a * u0 + b * v0, a * u1 + b * v1, a * u2 + b * v2
    down_x, down_y, down_z = b * u0 + c * v0, b * u1 + c * v1, b * u2 + c * v2
    away_z = right_x * down_y - right_y * down_x
    pitch = math.asin(max(-1.0, min(1.0, down_z)))
    yaw = math.atan2(-right_z, away_z)
    roll = math.atan2(down_x, right_x)
    return math.degrees(pitch), math.degrees(yaw), math.degrees(roll)


def pose_of(rotation: Rotation) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees of a rotation (3, 3): x right, y down, z away."""
    flip = np.diag([1.0, -1.0, -1.0])
    pitch, yaw, roll = angles_of((flip @ rotation @ flip)[None])[0].tolist()
    return pitch, yaw, roll
