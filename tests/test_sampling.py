"""What training does to its crops, against OpenCV and against what must not change."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # its modules import each other by their names

import sampling
from data import CROP, MESH, MESH_MIRROR, STORED, WRINKLED, seen_noses


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def smooth(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8, without hard edges."""
    coarse = rng.uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)
    return np.stack([cv2.resize(x, (size, size), interpolation=cv2.INTER_CUBIC) for x in coarse]).clip(0, 255).round()


def tensor(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) as sequences of one: (B, 1, 3, H, W)."""
    return torch.tensor(pictures, dtype=torch.float32).permute(0, 3, 1, 2)[:, None]


def array(frames: torch.Tensor) -> np.ndarray:
    return frames[:, 0].permute(0, 2, 3, 1).numpy()


def test_compression_loses_what_jpeg_loses(rng: np.random.Generator) -> None:
    pictures = smooth(rng, 3, CROP) + rng.normal(0, 8, (3, CROP, CROP, 3))
    pictures = pictures.clip(0, 255).round()
    qualities = np.array([25.0, 50.0, 80.0])
    ours = array(sampling._compress(tensor(pictures), qualities))
    for mine, picture, quality in zip(ours, pictures, qualities, strict=True):
        coded = cv2.imencode(".jpg", picture[..., ::-1].astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        theirs = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        lost = np.abs(theirs - picture).mean()
        assert lost > 1
        assert np.abs(mine - theirs).mean() < 0.35 * lost


def test_blur_is_gaussian(rng: np.random.Generator) -> None:
    pictures = smooth(rng, 2, CROP)
    sigma = np.array([[0.6, 1.9], [1.2, 0.7]])
    ours = array(sampling._blur(tensor(pictures), sigma))
    for mine, picture, (across, down) in zip(ours, pictures, sigma, strict=True):
        theirs = cv2.GaussianBlur(picture, (13, 13), across, sigmaY=down, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(mine, theirs, atol=1e-2)


def test_points_stay_where_they_are_on_the_face(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_light", lambda frames, rng: frames.round().to(torch.uint8))
    count = 40
    places = rng.integers(40, 88, (count, 2))
    crops = np.zeros((count, 1, STORED, STORED, 3), np.uint8)
    for crop, (x, y) in zip(crops[:, 0], places, strict=True):
        cv2.circle(crop, (int(x), int(y)), 4, (255, 255, 255), -1)
    points = torch.tensor(places, dtype=torch.float32)[:, None, None]
    frames, moved, mirrored = sampling.augment(torch.from_numpy(crops), points, False, rng)
    assert frames.shape == (count, 1, 3, CROP, CROP)
    assert 5 < mirrored.sum() < 35
    for frame, (x, y) in zip(array(frames)[..., 0].astype(float), moved[:, 0, 0].numpy(), strict=True):
        rows, columns = np.mgrid[:CROP, :CROP]
        centre = np.array([(columns * frame).sum(), (rows * frame).sum()]) / frame.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.2)
    sides = np.sign(moved[:, 0, 0, 0].numpy() - (CROP - 1) / 2) == np.sign(places[:, 0] - (STORED - 1) / 2)
    far = np.abs(places[:, 0] - (STORED - 1) / 2) > 12
    np.testing.assert_array_equal(sides[far], ~mirrored[far])


@pytest.mark.parametrize(("length", "still"), [(1, False), (16, True)])
def test_a_sequence_has_one_light(rng: np.random.Generator, length: int, still: bool) -> None:
    pictures = np.repeat(smooth(rng, 30, STORED)[:, None], length, axis=1).astype(np.uint8)
    points = torch.zeros(30, length, 1, 2)
    frames, _, _ = sampling.augment(torch.from_numpy(pictures), points, still, rng)
    assert frames.shape == (30, length, 3, CROP, CROP)
    means = frames.float().mean((2, 3, 4))
    assert means.std(0).max() > 10  # each sequence another one
    assert (means.max(1).values - means.min(1).values).max() < 6  # the camera moves a little


def test_the_mirror_of_the_mesh_is_one() -> None:
    assert len(set(MESH)) == len(MESH) == len(MESH_MIRROR)
    np.testing.assert_array_equal(MESH_MIRROR[MESH_MIRROR], np.arange(len(MESH)))
    eyes = [MESH.index(33), MESH.index(263)]  # their outer corners
    np.testing.assert_array_equal(MESH_MIRROR[eyes], eyes[::-1])


def test_noses_that_were_seen_count_before_stand_ins() -> None:
    given = np.array([np.nan, 0.0, 0.7, 0.7], np.float32)
    found = seen_noses(np.array([352, 352, -1, 1]), given)
    np.testing.assert_allclose(found, [WRINKLED, WRINKLED, 0.7, 0.7], rtol=1e-6)
