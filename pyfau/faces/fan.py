"""FAN, the face alignment network, through the package face-alignment.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV
2017. The package has the network and downloads its weights. pyfau crops and reads the heat maps
itself, because the package rounds both to whole pixels: the landmarks of a still face then jump.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyfau.checks import check_choice
from pyfau.choices import FANDetector
from pyfau.errors import DependencyError, OptionError, WeightsError
from pyfau.faces.crop import square_view, warp
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.types import Face, FloatArray, UInt8Array

_INPUT, _MAP = 256, 64  # sides of the network's input and of its heat maps

# FAN's window around a box of width w and height h, as in its training: a square of side (w + h)
# 200 / 195, its centre 0.12 h above the box's. These numbers are for the box that spans exactly the
# 68 points (the author says so in 1adrianb/2D-and-3D-face-alignment#22). `refine` returns this box,
# so it needs no margin.
_RAISE, _WINDOW = 0.12, 200 / 195

# Confidence 1 is this mean height of the heat maps' peaks. The tracker's limit of 0.6 is then a
# mean of 0.45: facefusion, which uses the same network, accepts faces from this value on. The value
# was not measured here.
_FULL_PEAK = 0.75
_SFD_LONGER_SIDE = 1280
_SFD_SHORTEST_SIDE = 32  # SFD halves the image five times
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH_CORNERS = 30, (48, 54)


class FANAligner:
    """Finds faces with MTCNN or SFD and their landmarks with FAN's 68 points.

    The five landmarks are the means of the six points of each eye, the nose tip (30) and the mouth
    corners (48, 54). The box spans the 68 points: brows to chin, jaw to jaw. It is what FAN was
    trained on and what `refine` expects.

    The confidence is the mean height of the 68 heat maps' peaks, divided by 0.75 and clipped to
    [0, 1]. FAN was trained with peaks of height 1. The confidence is not calibrated; a covered part
    of the face lowers it.

    face-alignment downloads the weights (about 100 MB) into torch.hub's folder when the first
    aligner is made.

    Args:
        device: Where the networks run.
        detector: Detector for whole images: "mtcnn", the embedded `MTCNNAligner`; or "sfd",
            face-alignment's own detector, which downloads a second file and is slow without a GPU.
            SFD sees images at 1280 pixels at most.
        flip: Average with the mirrored window, for twice the time.
        batch_size: Number of faces that are processed together.

    Raises:
        OptionError: An option is out of range.
        DependencyError: The package face-alignment is not installed.
        WeightsError: The weights could not be fetched or loaded.
    """

    stable_crops = True

    def __init__(
        self,
        device: torch.device | str = "cpu",
        detector: FANDetector = "mtcnn",
        flip: bool = False,
        batch_size: int = 8,
    ) -> None:
        check_choice(detector, "detector", FANDetector)
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size!r}")
        self._device = torch.device(device)
        self._flip = flip
        self._batch_size = batch_size
        package = _load(self._device, sfd=detector == "sfd")
        # channels_last takes a third off the time on a CPU.
        self._network = package.face_alignment_net.to(memory_format=torch.channels_last)
        self._mtcnn = MTCNNAligner(device=device) if detector == "mtcnn" else None
        self._sfd = package.face_detector

    def detect(self, rgb: UInt8Array) -> list[Face]:
        """Search a whole image; see `pyfau.aligners.Aligner.detect`."""
        if self._mtcnn is not None:
            boxes = [face.box_xyxy for face in self._mtcnn.detect(rgb)]
        else:
            boxes = self._search_sfd(rgb)
        # The boxes of the search are a little larger than those that span the points. With this
        # second pass, the face is cut out as in the frames that follow.
        boxes = [face.box_xyxy for face in self.refine(rgb, boxes)]
        return sorted(self.refine(rgb, boxes), key=lambda face: -face.confidence)

    @torch.inference_mode()
    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes with FAN alone; see `pyfau.aligners.Aligner.refine`."""
        if not len(boxes):
            return []
        corners, sides = _windows(np.asarray(boxes, dtype=np.float64))
        faces: list[Face] = []
        for start in range(0, len(sides), self._batch_size):
            part = slice(start, start + self._batch_size)
            crops = np.stack(
                [_crop(rgb, c, s) for c, s in zip(corners[part], sides[part], strict=True)]
            )
            fractions, peaks = _read_peaks(self._heat_maps(crops))
            # (K, 68, 2), continuous coordinates.
            points = corners[part, None] + fractions * sides[part, None, None]
            confidences = np.clip(peaks.mean(axis=1) / _FULL_PEAK, 0.0, 1.0)
            faces += [_face(p, float(c)) for p, c in zip(points, confidences, strict=True)]
        return faces

    def _heat_maps(self, crops: UInt8Array) -> npt.NDArray[np.float32]:
        """(K, 68, 64, 64) heat maps of (K, 256, 256, 3) windows."""
        x = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).float() / 255
        maps = self._last(self._network(x))
        if self._flip:
            from face_alignment.utils import flip

            # Swaps left and right points too.
            mirrored = flip(self._last(self._network(x.flip(-1))), is_label=True)
            maps = (maps + mirrored) / 2
        return maps.float().cpu().numpy()

    @staticmethod
    def _last(output: Tensor | Sequence[Tensor]) -> Tensor:
        # face-alignment 1.5 returns the maps of all four stages, 1.4 only those of the last.
        return output if isinstance(output, Tensor) else output[-1]

    def _search_sfd(self, rgb: UInt8Array) -> list[FloatArray]:
        height, width = rgb.shape[:2]
        scale = min(1.0, _SFD_LONGER_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if min(size) < _SFD_SHORTEST_SIDE:
            return []
        image = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        with _cudnn_choice_kept():
            found = self._sfd.detect_from_image(image)
        steps = np.array([width / size[0], height / size[1]] * 2)
        return [(np.asarray(box[:4]) * steps).astype(np.float32) for box in found]


def _load(device: torch.device, sfd: bool) -> Any:
    """A face_alignment.FaceAlignment, with SFD if `sfd`, otherwise with an empty detector."""
    try:
        import face_alignment
    except ImportError as error:
        raise DependencyError(
            f"the aligner 'fan' needs the package face-alignment ({error}): "
            "pip install face-alignment"
        ) from error
    options: dict[str, Any] = {"device": str(device), "face_detector": "sfd" if sfd else "folder"}
    if "compile" in inspect.signature(face_alignment.FaceAlignment.__init__).parameters:
        # New in 1.5: compiling takes minutes and writes a cache into the home folder.
        options["compile"] = False
    try:
        with _cudnn_choice_kept():
            return face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, **options)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        urls = _weight_urls(sfd)
        missing = [url for url in urls if not (folder / _file_name(url)).is_file()]
        if missing:
            names = " and ".join(_file_name(url) for url in missing)
            raise WeightsError(
                f"{folder} lacks {names}, and face-alignment could not download it ({error}). The "
                f"download needs the internet once; or put the files there: {' '.join(missing)}"
            ) from error
        names = " or ".join(str(folder / _file_name(url)) for url in urls)
        raise WeightsError(
            f"face-alignment could not load its weights ({error}). If {names} is damaged, delete "
            "it; the next start downloads it again"
        ) from error


def _weight_urls(sfd: bool) -> list[str]:
    from face_alignment import api

    # 1.4 has one table for each torch version, and this one for all newer versions.
    urls = [getattr(api, "default_model_urls", api.models_urls)["2DFAN-4"]]
    if sfd:
        from face_alignment.detection.sfd import sfd_detector

        urls.append(sfd_detector.models_urls["s3fd"])
    return urls


def _file_name(url: str) -> str:
    return urlparse(url).path.rsplit("/", 1)[-1]


@contextmanager
def _cudnn_choice_kept() -> Iterator[None]:
    """Restore cudnn.benchmark, which face_alignment turns on for the whole process."""
    before = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _windows(
    boxes: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Top left corners (K, 2) and sides (K,) of FAN's windows around (K, 4) boxes."""
    extents = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres[:, 1] -= _RAISE * extents[:, 1]
    sides = np.maximum(extents.sum(axis=1) * _WINDOW, 2.0)
    return centres - sides[:, None] / 2, sides


def _crop(rgb: UInt8Array, corner: npt.NDArray[np.float64], side: float) -> UInt8Array:
    scale = _INPUT / side
    crop: UInt8Array = warp(rgb, square_view(corner[None], np.array([side]), _INPUT), _INPUT)[0]
    # FAN was trained with black outside the image, not with replicated edges.
    height, width = rgb.shape[:2]
    x0, y0 = np.clip(np.round(-corner * scale), 0, _INPUT).astype(int)
    x1, y1 = np.clip(np.round((np.array([width, height]) - corner) * scale), 0, _INPUT).astype(int)
    crop[:y0], crop[y1:], crop[:, :x0], crop[:, x1:] = 0, 0, 0, 0
    return crop


def _read_peaks(
    maps: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places and heights of the heat maps' peaks, finer than their grid.

    Args:
        maps: (K, P, M, M).

    Returns:
        (K, P, 2) x and y in fractions of the window, and (K, P) heights.
    """
    faces, points, side, _ = maps.shape
    flat = maps.reshape(faces * points, side, side).astype(np.float64)
    each = np.arange(len(flat))
    rows, columns = np.divmod(flat.reshape(len(flat), -1).argmax(axis=1), side)
    peaks = flat[each, rows, columns]

    def shift(
        before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """The top of the parabola through a peak and its neighbours, at most half a cell away."""
        bend = 2 * peaks - before - after
        return np.divide(after - before, 2 * bend, out=np.zeros_like(bend), where=bend > 1e-12)

    low, high = np.maximum(columns - 1, 0), np.minimum(columns + 1, side - 1)
    dx = shift(flat[each, rows, low], flat[each, rows, high]) * (high - low == 2)
    low, high = np.maximum(rows - 1, 0), np.minimum(rows + 1, side - 1)
    dy = shift(flat[each, low, columns], flat[each, high, columns]) * (high - low == 2)
    places = (np.stack([columns + dx, rows + dy], axis=1) + 0.5) / side
    return places.reshape(faces, points, 2), peaks.reshape(faces, points)


def _face(points: npt.NDArray[np.float64], confidence: float) -> Face:
    """Face of (68, 2) points in continuous coordinates."""
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    eyes = [points[_LEFT_EYE].mean(axis=0), points[_RIGHT_EYE].mean(axis=0)]
    landmarks = np.stack([*eyes, points[_NOSE_TIP], *points[list(_MOUTH_CORNERS)]])
    # Landmarks are pixel coordinates with the first pixel's centre at 0.
    return Face(box.astype(np.float32), (landmarks - 0.5).astype(np.float32), confidence)
