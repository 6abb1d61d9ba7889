"""Head pose from the 68 points of the aligner "mesh": weak perspective and a mean face.

`pyfau.faces.pose` has the pose from five landmarks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyfau.faces.pose import angles_of

# Points that expressions hardly move: upper jaw line, bridge and base of the nose, eye corners.
STEADY = (0, 1, 2, 3, 13, 14, 15, 16, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)

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
        coincide.
    """
    steady = np.array(STEADY)
    seen = np.asarray(points, dtype=np.float64)[steady]
    model = np.asarray(mean_face, dtype=np.float64)[steady]
    seen = seen - seen.mean(axis=0)
    model = model - model.mean(axis=0)
    if not np.isfinite(seen).all() or np.abs(seen).max() < 1e-6:
        return (float("nan"),) * 3
    affine = np.linalg.lstsq(model, seen, rcond=None)[0].T  # (2, 3)
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    return pose_of(np.stack([rows[0], rows[1], np.cross(rows[0], rows[1])]))


def pose_of(rotation: Rotation) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees of a rotation (3, 3): x right, y down, z away."""
    flip = np.diag([1.0, -1.0, -1.0])
    pitch, yaw, roll = angles_of((flip @ rotation @ flip)[None])[0].tolist()
    return pitch, yaw, roll
