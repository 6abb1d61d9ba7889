from __future__ import annotations

import cv2
import numpy as np
import pytest

from pyfau.faces.crop import crop_face, cut, warp
from pyfau.faces.halves import Halves, halves_of
from pyfau.faces.tracker import FaceTracker
from pyfau.models.paper import BP4D_TEMPLATE, DISFA_TEMPLATE
from pyfau.types import Face, UInt8Array

NOISE = np.random.default_rng(0).integers(0, 256, (205, 331, 3), dtype=np.uint8)


def halved(rgb: UInt8Array, times: int) -> UInt8Array:
    """The whole image, halved from its first pixel on; the last column or row is repeated."""
    for _ in range(times):
        height, width = (rgb.shape[0] + 1) // 2, (rgb.shape[1] + 1) // 2
        down, across = 2 * height - rgb.shape[0], 2 * width - rgb.shape[1]
        even = cv2.copyMakeBorder(rgb, 0, down, 0, across, cv2.BORDER_REPLICATE)
        rgb = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return rgb


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_every_part_is_a_part_of_the_halved_image(times: int) -> None:
    halves = Halves(NOISE)
    whole = halved(NOISE, times)
    width, height = halves.size(times)
    assert (height, width) == whole.shape[:2]
    rng = np.random.default_rng(times)
    for _ in range(20):  # later parts are cut out of earlier ones, or halved themselves
        x0, x1 = sorted(rng.choice(width + 1, 2, replace=False).tolist())
        y0, y1 = sorted(rng.choice(height + 1, 2, replace=False).tolist())
        part = halves.part(times, x0, y0, x1, y1)
        np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_a_part_is_halved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = Halves(NOISE)
    halves.part(2, 10, 10, 60, 45)
    monkeypatch.setattr(cv2, "resize", lambda *_, **__: pytest.fail("a part was halved again"))
    halves.part(2, 12, 10, 60, 44)
    halves.part(1, 20, 20, 120, 90)
    halves.part(1, 18, 19, 122, 91)  # in the margin


def test_crops_of_one_image_do_not_depend_on_each_other() -> None:
    image = cv2.resize(NOISE, (1300, 800), interpolation=cv2.INTER_CUBIC)
    shared = Halves(np.asarray(image, np.uint8))
    for template in (BP4D_TEMPLATE, DISFA_TEMPLATE):
        for side, x, y in ((560, 300, 90), (500, 330, 130), (1200, -100, -200), (90, 700, 500)):
            for size in (112, 64):
                five = np.array(template, np.float32) * side + (x, y)
                together = crop_face(shared, five, template, size)
                np.testing.assert_array_equal(together, crop_face(shared.rgb, five, template, size))


def test_a_crop_is_about_as_smooth_at_every_size() -> None:
    """On noise of one kind, whatever the number of halvings: no jump where it changes."""
    side = 900
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    spreads = []
    for step in np.geomspace(1.05, 7.9, 24):
        matrix = np.array([[1 / step, 0, 0.3], [0, 1 / step, 0.6]])
        crop = cut(noise, matrix, 112).astype(float)
        # A mean over step^2 pixels has 1 / step of their spread.
        spreads.append(crop[8:-8, 8:-8].std() * step / noise.std())
    assert max(spreads) < 1.5 * min(spreads)
    assert 0.4 < np.mean(spreads) < 0.8


@pytest.mark.parametrize("size", [(1504, 1008), (1501, 1003), (1511, 1007)])
def test_a_crop_at_the_last_pixels_is_as_good_as_one_at_the_first(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    rgb = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    scale, side = 0.124, 112
    errors = []
    for x, y in ((8, 8), (width - 8, height - 8)):
        matrix = np.array([[scale, 0, side / 2 - scale * x], [0, scale, side / 2 - scale * y]])
        exact = warp(rgb, matrix[None], side, spare=1 << 10)[0]
        errors.append(np.abs(cut(rgb, matrix, side).astype(float) - exact).mean())
    assert errors[1] < 1.5 * errors[0]


class Follower:
    """An aligner that follows one face and stores what it was given."""

    def __init__(self, shares: bool) -> None:
        self.shares_halves = shares
        self.given: list[object] = []

    def detect(self, rgb: UInt8Array) -> list[Face]:
        assert isinstance(rgb, np.ndarray)
        five = np.array([[30, 40], [60, 40], [45, 55], [35, 70], [55, 70]], np.float32)
        return [Face(np.array([20, 20, 70, 90], np.float32), five, 1.0)]

    def refine(self, rgb: UInt8Array, boxes: object) -> list[Face]:
        raise AssertionError("`follow` replaces `refine`")

    def follow(self, rgb: object, faces: list[Face]) -> list[Face]:
        self.given.append(rgb)
        return list(faces)


@pytest.mark.parametrize("shares", [False, True])
def test_only_an_aligner_that_shares_halves_gets_them(shares: bool) -> None:
    aligner = Follower(shares)
    tracker = FaceTracker(aligner)
    image = Halves(NOISE)
    for _ in range(2):
        assert len(tracker.update(image).faces) == 1
    assert len(aligner.given) >= 2
    assert all(given is (image if shares else image.rgb) for given in aligner.given)


def test_an_array_has_no_halves_so_far() -> None:
    halves = halves_of(NOISE)
    assert halves.rgb is NOISE
    assert halves_of(halves) is halves
