"""pyfau's own landmark network, and the aligner "mesh" that follows faces with it.

The network sees a face once per frame, turned upright and of a fixed size, where the face was in
the frame before. training/face_mesh.py makes its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from pyfau.faces.crop import cut, fit_similarity
from pyfau.faces.halves import Image, halves_of
from pyfau.faces.mesh_network import OUTPUTS, SIDE, MeshNetwork
from pyfau.faces.mesh_pose import axes_of, pose_along
from pyfau.faces.mtcnn import THRESHOLDS, MTCNNAligner
from pyfau.faces.tracker import LOST_CONFIDENCE
from pyfau.faces.turns import QUARTERS, roll_of, size_of, turn_box, turn_face_back, turn_image
from pyfau.packed import can_pack, pack
from pyfau.records import parse_json
from pyfau.types import EYES, NO_MESH, POINTS, Face, FaceMesh, FloatArray, UInt8Array

_ENDS = np.cumsum(list(OUTPUTS.values())).tolist()
_PLACES = {
    name: slice(end - count, end) for (name, count), end in zip(OUTPUTS.items(), _ENDS, strict=True)
}
_TENTH = SIDE / 10  # the unit of the network's points
_CENTRE = SIDE / 2
_TOGETHER = 8  # crops in one pass of the network on a CPU
# If the face is farther from the middle of the crop than this (in pixels of the crop), or if its
# size or roll differs by more than this, the network sees it once more in a better crop.
_MOST_SHIFT = 9.0
_MOST_SCALE = 1.6
_MOST_ROLL = 25.0
_START_LOOKS = 2  # further passes of the network over a face that MTCNN found
# The network's presence is too high for some scenes without a face. This value is subtracted from
# its logit, so that the tracker's limit of 0.6 keeps faces and drops such scenes, unless MTCNN is
# sure of a face there.
_PRESENCE_SHIFT = 4.0
# The network misses some faces, mostly blurred ones. MTCNN then locates a face, if its confidence
# is at least this high.
_SURE = 0.9

_Matrices = npt.NDArray[np.float64]  # (K, 2, 3) image to crop, continuous coordinates
_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looks:
    """The network's results for K crops. Points are in continuous pixels of the image.

    Attributes:
        points: (K, POINTS + EYES, 2).
        openness: (K, 2) in [0, 1].
        frame: (K, 4) where the face is in its crop, as in `OUTPUTS`.
        presence: (K,) in [0, 1].
        visible: (K,) in [0, 1].
    """

    points: _Points
    openness: FloatArray
    frame: npt.NDArray[np.float64]
    presence: FloatArray
    visible: FloatArray

    def replace(self, i: int, other: Looks, k: int) -> None:
        """Replace the result `i` by the result `k` of another pass."""
        for name in self.__slots__:
            getattr(self, name)[i] = getattr(other, name)[k]


@dataclass(frozen=True, slots=True)
class MeshCrop:
    """A face as the landmark network sees it.

    Attributes:
        pixels: (SIDE, SIDE, 3) uint8, RGB.
        matrix: (2, 3) image to crop, continuous coordinates.
    """

    pixels: UInt8Array
    matrix: npt.NDArray[np.float64]


class MeshPoints:
    """Landmarks of faces that any aligner has found, by the network `face-mesh-lite`.

    Attributes:
        mean_face: (68, 3) the mean face in space, for `pyfau.faces.mesh_pose.mesh_pose`.

    Args:
        device: Where the network runs.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        network = MeshNetwork()
        folder = files("pyfau") / "assets" / "face-mesh-lite"
        with as_file(folder / "model.safetensors") as path:
            state = {name: value.float() for name, value in load_file(path).items()}
        config = parse_json((folder / "config.json").read_bytes(), "config.json")
        self._mean = np.array(config["mean_face"], dtype=np.float64)
        self._to_five = state.pop("five.weight").numpy().astype(np.float64)
        self._to_box = state.pop("box.weight").numpy().astype(np.float64)
        self.mean_face = state.pop("mean.space").numpy().astype(np.float64)
        self._axes = axes_of(self.mean_face)
        network.load_state_dict(state)
        network.eval().requires_grad_(False).to(self._device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._device.type == "cpu" and can_pack():
            example = torch.zeros(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
            pack(network, example)
        self._network = network
        ones = np.ones((1, 1))
        flat = np.concatenate([self._mean[:POINTS].reshape(1, -1) / _CENTRE - 1, ones], axis=1)
        self._mean_five = ((flat @ self._to_five).reshape(5, 2) + 1) * _CENTRE

    def cut(self, rgb: Image, face: Face) -> MeshCrop:
        """The crop around a face, for `locate`.

        Args:
            rgb: (H, W, 3) uint8, RGB, or its `Halves`.
            face: The face in this image, of any aligner.
        """
        matrix = self.crop_of(face)
        return MeshCrop(cut(rgb, matrix, SIDE), matrix)

    def locate(self, crops: Sequence[MeshCrop]) -> list[FaceMesh]:
        """Locate the landmarks of K faces in one pass of the network.

        Returns:
            A mesh for each crop; `NO_MESH` where the network sees no face.
        """
        if not crops:
            return []
        pixels = np.stack([crop.pixels for crop in crops])
        looks = self._read(pixels, np.array([crop.matrix for crop in crops]))
        is_face = looks.presence >= LOST_CONFIDENCE
        return [_mesh_of(looks, k) if seen else NO_MESH for k, seen in enumerate(is_face.tolist())]

    def look(self, rgb: Image, matrices: _Matrices) -> Looks:
        """The results of the network for K crops of an image.

        Args:
            rgb: (H, W, 3) uint8, RGB, or its `Halves`.
            matrices: (K, 2, 3) image to crop.
        """
        crops = np.stack([cut(rgb, matrix, SIDE) for matrix in matrices])
        return self._read(crops, matrices)

    @torch.inference_mode()
    def _read(self, crops: UInt8Array, matrices: _Matrices) -> Looks:
        pixels = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).float()
        together = _TOGETHER if self._device.type == "cpu" else len(pixels)
        outs = [self._network(part) for part in pixels.split(together)]
        out = torch.cat(outs).float().cpu().numpy().astype(np.float64)
        points = out[:, _PLACES["points"]].reshape(-1, POINTS + EYES, 2) * _TENTH + self._mean
        out[:, _PLACES["presence"]] -= _PRESENCE_SHIFT
        shares = _sigmoid(out).astype(np.float32)
        linear, shift = matrices[:, :, :2], matrices[:, None, :, 2]
        return Looks(
            # The inverse of a similarity is its transpose divided by the square of its scale.
            points=(points - shift) @ linear / (linear[:, :1, :1] ** 2 + linear[:, 1:, :1] ** 2),
            openness=shares[:, _PLACES["openness"]],
            frame=out[:, _PLACES["frame"]],
            presence=shares[:, _PLACES["presence"]][:, 0],
            visible=shares[:, _PLACES["visible"]][:, 0],
        )

    def crop_of(self, face: Face) -> npt.NDArray[np.float64]:
        """The crop (2, 3) around a face of this frame or an earlier one."""
        if face.mesh is None:
            return fit_similarity(face.landmarks.astype(np.float64) + 0.5, self._mean_five)
        return self.crop_around(face.mesh.points.astype(np.float64) + 0.5)

    def crop_around(self, points: _Points) -> npt.NDArray[np.float64]:
        """The crop (2, 3) around points (68, 2) in continuous coordinates."""
        return fit_similarity(points, self._mean[:POINTS])

    def faces(self, looks: Looks) -> list[Face]:
        """A face with a `mesh` for each crop."""
        faces = []
        for k, points in enumerate(looks.points):
            box, five = self._box_and_five(points[:POINTS])
            faces.append(
                Face(
                    box.astype(np.float32),
                    (five - 0.5).astype(np.float32),
                    float(looks.presence[k]),
                    pose_along(points[:POINTS], self._axes),
                    _mesh_of(looks, k),
                )
            )
        return faces

    def _box_and_five(self, points: _Points) -> tuple[_Points, _Points]:
        """MTCNN's box (4,) and five points (5, 2) for points (68, 2) in the image."""
        matrix = self.crop_around(points)
        linear, shift = matrix[:, :2], matrix[:, 2]
        upright = points @ linear.T + shift
        back = linear.T / (linear[0, 0] ** 2 + linear[1, 0] ** 2)
        five = (self._in_crop(upright, self._to_five).reshape(5, 2) - shift) @ back.T
        low, high = self._box_in_crop(upright)
        centre = back @ ((low + high) / 2 - shift)
        # Upright and on its side the box has the face's own sides.
        half = np.hypot(*(back * ((high - low) / 2)).T)
        return np.concatenate([centre - half, centre + half]), five

    def _box_in_crop(self, upright: _Points) -> tuple[_Points, _Points]:
        """MTCNN's box around points (68, 2) in a crop: left top and right bottom, (2,) each."""
        box = self._in_crop(upright, self._to_box)
        return box[:2], box[2:]

    @staticmethod
    def _in_crop(upright: _Points, weight: npt.NDArray[np.float64]) -> _Points:
        """A linear map of points (68, 2) in a crop; the weights are for fractions from -1 to 1."""
        flat = np.append(upright.reshape(-1) / _CENTRE - 1, 1.0)
        mapped: _Points = (flat @ weight + 1) * _CENTRE
        return mapped


class MeshAligner:
    """Finds faces with MTCNN and follows them with the landmark network `face-mesh-lite`.

    It follows faces at every roll. Each `Face` has a `mesh`, except where the network sees no face
    but MTCNN does: such a face is MTCNN's.

    Attributes:
        mean_face: As of `MeshPoints`.
        points: The landmark network.

    Args:
        device: Where the networks run.
        min_face: As for `MTCNNAligner`.
        thresholds: As for `MTCNNAligner`.

    Raises:
        OptionError: An option is out of range.
    """

    tells_upright = True  # as `MTCNNAligner`, which compares new faces in four turns
    stable_crops = True
    shares_halves = True  # `follow` takes `Halves`, so that the tracker passes them

    def __init__(
        self,
        device: torch.device | str = "cpu",
        min_face: float | None = None,
        thresholds: tuple[float, float, float] = THRESHOLDS,
    ) -> None:
        self._mtcnn = MTCNNAligner(device, min_face, thresholds)
        self.points = MeshPoints(device)
        self.mean_face = self.points.mean_face

    def detect(self, rgb: UInt8Array, known: Sequence[FloatArray] = ()) -> list[Face]:
        """Search a whole image with MTCNN; see `pyfau.aligners.Aligner.detect`.

        The faces have no `mesh`; `follow` adds it.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            known: (4,) XYXY each: faces that need not be found again.
        """
        return self._mtcnn.detect(rgb, known)

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes with MTCNN; see `pyfau.aligners.Aligner.refine`."""
        return self._mtcnn.refine(rgb, boxes)

    def follow(self, rgb: Image, faces: Sequence[Face]) -> list[Face]:
        """Locate faces where they were in an earlier frame, all in one pass of the network.

        For faces of this frame that `detect` has found, the network runs two more times.

        Args:
            rgb: (H, W, 3) uint8, RGB, or its `Halves`.
            faces: Faces of this aligner, with or without a `mesh`.

        Returns:
            One face for each, in the same order. The confidence is low where the face is gone. A
            face that only MTCNN sees has no `mesh`.
        """
        if not len(faces):
            return []
        image = halves_of(rgb)
        matrices = np.array([self.points.crop_of(face) for face in faces])
        looks = self.points.look(image, matrices)
        again = np.flatnonzero(_are_off(looks.frame))
        if len(again):
            second = self.points.look(image, _better_crops(matrices[again], looks.frame[again]))
            are_off = _are_off(second.frame)
            for k, i in enumerate(again):
                # The second crop can be worse. Then the result of the first one is used.
                if second.presence[k] >= looks.presence[i] - 0.1 and not are_off[k]:
                    looks.replace(int(i), second, k)
        new = np.array([i for i, face in enumerate(faces) if face.mesh is None], dtype=int)
        for _ in range(_START_LOOKS if len(new) else 0):
            crops = [self.points.crop_around(looks.points[i, :POINTS]) for i in new]
            closer = self.points.look(image, np.array(crops))
            for k, i in enumerate(new):
                looks.replace(int(i), closer, k)
        found = self.points.faces(looks)
        for i in np.flatnonzero(looks.presence < LOST_CONFIDENCE).tolist():
            other = self._refine_upright(image.rgb, faces[i])
            if other.confidence >= _SURE:
                found[i] = other
        return found

    def _refine_upright(self, rgb: UInt8Array, face: Face) -> Face:
        """Locate a face with MTCNN, in the image after the quarter turns that make it upright."""
        turns = round(roll_of(face.landmarks) / 90) % QUARTERS
        size = size_of(rgb)
        box = turn_box(face.box_xyxy, turns, size)
        return turn_face_back(self._mtcnn.refine(turn_image(rgb, turns), [box])[0], turns, size)


def _mesh_of(looks: Looks, k: int) -> FaceMesh:
    """The mesh of the crop `k`."""
    # Landmarks are pixel coordinates with the first pixel's centre at 0.
    stored = (looks.points[k] - 0.5).astype(np.float32)
    return FaceMesh(stored[:POINTS], stored[POINTS:], looks.openness[k], float(looks.visible[k]))


def _better_crops(matrices: _Matrices, frame: npt.NDArray[np.float64]) -> _Matrices:
    """Crops (K, 2, 3) in which the face is upright, in the middle and of the right size.

    Args:
        matrices: (K, 2, 3) the crops that the network has seen.
        frame: (K, 4) where it saw the faces, as in `OUTPUTS`.
    """
    cos, sin = frame[:, 0], frame[:, 1]
    scale = _scale_of(frame)
    shift = frame[:, 2:] * _CENTRE
    # The inverse of: turn by the roll, scale, then shift, around the middle of the crop.
    undo = np.array([[cos, sin], [-sin, cos]]).transpose(2, 0, 1) / (scale**2)[:, None, None]
    better: _Matrices = undo @ matrices
    better[:, :, 2] += _CENTRE - (undo @ (_CENTRE + shift)[..., None])[..., 0]
    return better


def _are_off(frame: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(K,) whether faces are far from upright, the middle or the right size; frames as above."""
    shift = np.hypot(frame[:, 2], frame[:, 3]) * _CENTRE
    roll = np.abs(np.degrees(np.arctan2(frame[:, 1], frame[:, 0])))
    change = np.abs(np.log(_scale_of(frame)))
    are_off: npt.NDArray[np.bool_] = (
        (shift > _MOST_SHIFT) | (change > np.log(_MOST_SCALE)) | (roll > _MOST_ROLL)
    )
    return are_off


def _scale_of(frame: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(K,) size of a face relative to the mean face."""
    scale: npt.NDArray[np.float64] = np.maximum(np.hypot(frame[:, 0], frame[:, 1]), 0.1)
    return scale


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
