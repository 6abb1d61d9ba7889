"""Frames of a video that stay in the decoder's planes."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import write

from pyfau.faces.crop import cut
from pyfau.faces.halves import Halves
from pyfau.media.colour import RGBConverter
from pyfau.media.images import check_frame
from pyfau.planes import Planes
from pyfau.types import UInt8Array
from pyfau.video import read_video

TURNS: list[dict[str, Any]] = [
    {"degrees": degrees, "hflip": flip} for degrees in (0, 90, 180, 270) for flip in (False, True)
]
LIMITED, FULL = 1, 2
UNSPECIFIED, BT709, BT601, BT2020 = 2, 1, 5, 9


def smooth_planes(height: int, width: int) -> list[UInt8Array]:
    """Y', Cb and Cr of noise without hard edges, in the limited range."""
    rng = np.random.default_rng(0)
    planes = []
    for step, low, high in ((1, 40, 200), (2, 95, 160), (2, 95, 160)):
        noise = rng.random((height // step, width // step), np.float32)
        noise = cv2.normalize(cv2.GaussianBlur(noise, (9, 9), 2), None, low, high, cv2.NORM_MINMAX)
        planes.append(np.rint(noise).astype(np.uint8))
    return planes


def make_frame(matrix: int = BT601, span: int = LIMITED, size: tuple[int, int] = (96, 160)) -> Any:
    packed = np.concatenate([plane.reshape(-1) for plane in smooth_planes(*size)])
    frame = av.VideoFrame.from_ndarray(packed.reshape(-1, size[1]), format="yuv420p")
    frame.colorspace, frame.color_range = matrix, span
    return frame


def planes_of(frame: Any) -> Planes:
    planes = RGBConverter().planes(frame)
    assert planes is not None
    return planes


@pytest.mark.parametrize("matrix", [UNSPECIFIED, BT709, 4, BT601, 6, 7, BT2020])
@pytest.mark.parametrize("span", [0, LIMITED, FULL])
def test_parts_have_the_colours_of_the_converted_image(matrix: int, span: int) -> None:
    planes = planes_of(make_frame(matrix, span))
    rgb = planes.convert()
    assert rgb.shape == planes.shape == (96, 160, 3)
    difference = Halves(planes).part(0, 0, 0, 160, 96).astype(int) - rgb
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5
    # In a few pixels, FFmpeg's blue differs by up to 15 levels.
    assert np.mean(np.abs(difference) <= 2) > 0.99


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_part_does_not_depend_on_the_other_parts(times: int) -> None:
    planes = planes_of(make_frame())
    halves = Halves(planes)
    width, height = halves.size(times)
    whole = Halves(planes).part(times, 0, 0, width, height)
    assert whole.shape == (height, width, 3)
    rng = np.random.default_rng(times)
    for _ in range(20):
        x0, x1 = sorted(rng.choice(width + 1, 2, replace=False).tolist())
        y0, y1 = sorted(rng.choice(height + 1, 2, replace=False).tolist())
        np.testing.assert_array_equal(halves.part(times, x0, y0, x1, y1), whole[y0:y1, x0:x1])


def test_a_place_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = Halves(planes_of(make_frame()))
    wide = [halves.part(times, 4, 2, 19, 11) for times in (0, 1, 2)]
    monkeypatch.setattr(cv2, "transform", lambda *_: pytest.fail("a part was converted again"))
    for times in (0, 1, 2):
        np.testing.assert_array_equal(halves.part(times, 5, 3, 18, 11), wide[times][1:9, 1:14])


@pytest.mark.parametrize("step", [0.7, 1.5, 2.5, 5.0, 9.0])
def test_crops_equal_those_of_the_converted_image(step: float) -> None:
    planes = planes_of(make_frame(size=(480, 640)))
    for x, y in ((200.3, 150.8), (-20.0, 300.0), (600.0, 440.0)):
        matrix = np.array([[1 / step, 0.05, 30 - x / step], [-0.05, 1 / step, 30 - y / step]])
        crop = cut(planes, matrix, 60).astype(int)
        difference = crop - cut(planes.convert(), matrix, 60)
        assert np.abs(difference).max() <= 3
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.6


def test_the_grey_copy_shows_the_image() -> None:
    planes = planes_of(make_frame(span=FULL))
    for size in ((32, 20), (160, 96)):
        ours = Halves(planes).grey(size).astype(int)
        assert ours.shape == size[::-1]
        assert np.abs(ours - Halves(planes.convert()).grey(size)).max() <= 3


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turned_frames(tmp_path: Path, turn: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mp4", "libx264", count=2, turn=turn)
    for planar, plain in zip(read_video(path, planar=True), read_video(path), strict=True):
        assert isinstance(planar.image, Planes)
        assert planar.image.shape == plain.rgb.shape
        np.testing.assert_array_equal(planar.rgb, plain.rgb)
        height, width = plain.rgb.shape[:2]
        part = Halves(planar.image).part(1, 0, 0, width // 2, height // 2)
        expected = Halves(plain.rgb).part(1, 0, 0, width // 2, height // 2)
        assert np.mean(np.abs(part.astype(int) - expected) <= 3) > 0.99


OTHERS: dict[str, dict[str, Any]] = {
    "10 bits": {"pixels": "yuv420p10le"},
    "4:4:4": {"pixels": "yuv444p"},
    "wide pixels": {"aspect": Fraction(4, 3)},
    "odd size": {"size": (255, 143), "pixels": "yuv444p"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_frames_are_rgb(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mkv", "libx264", count=2, **OTHERS[name])
    for planar, plain in zip(read_video(path, planar=True), read_video(path), strict=True):
        assert isinstance(planar.image, np.ndarray)
        np.testing.assert_array_equal(planar.image, plain.image)


def test_frames_that_need_more_than_a_matrix_are_rgb() -> None:
    converter = RGBConverter()
    assert converter.planes(make_frame()) is not None
    hdr = make_frame(BT2020)
    hdr.color_trc = 16
    assert converter.planes(hdr) is None
    assert converter.planes(make_frame(matrix=8)) is None  # YCgCo
    odd = av.VideoFrame(161, 96, "yuv420p")
    assert converter.planes(odd) is None


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_planes_are_images(color: str) -> None:
    planes = planes_of(make_frame())
    np.testing.assert_array_equal(check_frame(planes, color=color), planes.convert())


def test_frames_are_arrays_by_default(tmp_path: Path) -> None:
    frame = next(read_video(write(tmp_path / "a.mp4", "libx264", count=2)))
    assert isinstance(frame.image, np.ndarray)
    assert frame.rgb is frame.image


@pytest.mark.parametrize("planar", [False, True])
def test_a_frame_is_freed_when_it_is_no_longer_used(tmp_path: Path, planar: bool) -> None:
    """Without garbage collection: FFmpeg then uses the memory of a frame again."""
    path = write(tmp_path / "a.mp4", "libx264", count=40, turn={"degrees": 90})
    gc.collect()
    gc.disable()
    try:
        count = 0
        for frame in read_video(path, ahead=0, planar=planar):
            assert frame.image.nbytes
            count += 1
        alive = sum(isinstance(item, av.VideoFrame) for item in gc.get_objects())
    finally:
        gc.enable()
    assert count == 40
    assert alive <= 3
