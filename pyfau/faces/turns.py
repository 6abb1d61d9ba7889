"""Quarter turns: images, boxes and faces turned so that a face is upright.

The aligners find faces that are at most about 60 degrees from upright. The tracker turns the image
for the other faces. `turns` is the number of quarter turns, counter-clockwise, that makes a face
upright: 0 for an upright face, 2 for one that is upside down.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from pyfau.faces.pose import turn_pose
from pyfau.types import Face, FloatArray, UInt8Array

QUARTERS = 4
_ROTATIONS = {
    1: cv2.ROTATE_90_COUNTERCLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_CLOCKWISE,
}

Size = tuple[int, int]  # width, height


def turn_image(rgb: UInt8Array, turns: int) -> UInt8Array:
    """The image after a number of quarter turns; the image itself for 0.

    Args:
        rgb: (H, W, 3) uint8.
        turns: 0 to 3, counter-clockwise.

    Returns:
        (H, W, 3) uint8 for an even number, (W, H, 3) uint8 for an odd number.
    """
    if turns == 0:
        return rgb
    return np.asarray(cv2.rotate(rgb, _ROTATIONS[turns]), np.uint8)


def size_of(rgb: UInt8Array) -> Size:
    """Width and height of an image."""
    return rgb.shape[1], rgb.shape[0]


def turn_box(box: FloatArray, turns: int, size: Size) -> FloatArray:
    """The box (4,) XYXY after quarter turns of an image of this size."""
    width, height = size
    for _ in range(turns):
        x0, y0, x1, y1 = box
        box = np.array([y0, width - x1, y1, width - x0], np.float32)
        width, height = height, width
    return box


def turn_face_back(face: Face, turns: int, size: Size) -> Face:
    """The face in the original image.

    Args:
        face: In the image after `turns` quarter turns.
        turns: 0 to 3, counter-clockwise.
        size: Width and height of the original image.
    """
    if turns == 0:
        return face
    width, height = size
    if turns % 2:
        width, height = height, width
    back = (QUARTERS - turns) % QUARTERS
    box = turn_box(face.box_xyxy, back, (width, height))
    landmarks = _turn_points(face.landmarks, back, (width, height))
    mesh = face.mesh
    if mesh is not None:
        points = _turn_points(mesh.points, back, (width, height))
        irises = _turn_points(mesh.irises, back, (width, height))
        mesh = replace(mesh, points=points, irises=irises)
    pose = None if face.pose is None else turn_pose(face.pose, turns)
    return Face(box, landmarks, face.confidence, pose, mesh)


def _turn_points(points: FloatArray, turns: int, size: Size) -> FloatArray:
    """The points (K, 2) after quarter turns of an image of this size."""
    width, height = size
    for _ in range(turns):
        x, y = points.T
        # Landmarks are pixel coordinates with the first pixel's centre at 0.
        points = np.stack([y, width - 1 - x], axis=1).astype(np.float32)
        width, height = height, width
    return points


def roll_of(landmarks: FloatArray) -> float:
    """Angle of the line between the eyes in degrees, clockwise; 0 for an upright face.

    Args:
        landmarks: (5, 2) in the order of `pyfau.types.Face`.
    """
    along = landmarks[1] - landmarks[0]
    return float(np.degrees(np.arctan2(along[1], along[0])))
