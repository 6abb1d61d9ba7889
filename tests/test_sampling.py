"""What training does to its crops, against OpenCV and against what must not change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # its modules import each other by their names

import sampling
from data import AUS, CROP, HERE, MESH, MESH_MIRROR, STORED, WRINKLED, held_back, load_splits, seen_noses


def smooth(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) whole numbers in [0, 255], without hard edges."""
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
    frames, moved, mirrored = sampling.augment(torch.from_numpy(crops), points, np.zeros(len(crops), bool), rng)
    assert frames.shape == (count, 1, 3, CROP, CROP)
    assert 5 < mirrored.sum() < 35
    for frame, (x, y) in zip(array(frames)[..., 0].astype(float), moved[:, 0, 0].numpy(), strict=True):
        rows, columns = np.mgrid[:CROP, :CROP]
        centre = np.array([(columns * frame).sum(), (rows * frame).sum()]) / frame.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.2)
    sides = np.sign(moved[:, 0, 0, 0].numpy() - (CROP - 1) / 2) == np.sign(places[:, 0] - (STORED - 1) / 2)
    far = np.abs(places[:, 0] - (STORED - 1) / 2) > 12
    np.testing.assert_array_equal(sides[far], ~mirrored[far])


@pytest.mark.parametrize("still", [False, True])
def test_a_sequence_has_one_light(rng: np.random.Generator, still: bool) -> None:
    pictures = np.repeat(smooth(rng, 30, STORED)[:, None], 16, axis=1).astype(np.uint8)
    frames, _, _ = sampling.augment(torch.from_numpy(pictures), torch.zeros(30, 16, 1, 2), np.full(30, still), rng)
    assert frames.shape == (30, 16, 3, CROP, CROP)
    means = frames.float().mean((2, 3, 4))
    assert means.std(0).max() > 10  # each sequence another one
    assert (means.max(1).values - means.min(1).values).max() < 6  # the camera moves a little


def test_the_mirror_of_the_mesh_is_one() -> None:
    assert len(set(MESH)) == len(MESH) == len(MESH_MIRROR)
    np.testing.assert_array_equal(MESH_MIRROR[MESH_MIRROR], np.arange(len(MESH)))
    eyes = [MESH.index(33), MESH.index(263)]  # their outer corners
    np.testing.assert_array_equal(MESH_MIRROR[eyes], eyes[::-1])


def test_noses_that_were_seen_count_before_stand_ins() -> None:
    seen = json.loads((HERE / "noses.json").read_text())
    numbers = np.array([seen["wrinkled"][0], seen["smooth"][0], seen["smooth"][-1], -1, -1])
    found = seen_noses(numbers, np.array([np.nan, 0.7, np.nan, 0.7, np.nan], np.float32))
    np.testing.assert_allclose(found, [WRINKLED, 0.0, 0.0, 0.7, np.nan], rtol=1e-6)


def source(count: int) -> sampling.Source:
    """Pictures whose left half is white, with a blendshape and a point for each side, and a run of 4 after another."""
    crops = np.zeros((count, STORED, STORED, 3), np.uint8)
    crops[:, :, : STORED // 2] = 255
    shapes = torch.tensor([[1.0, 0.0]]).repeat(count, 1)
    points = torch.full((count, sampling.POINTS, 2), torch.nan)
    points[:, MESH.index(33)] = torch.tensor([30.0, 60.0])  # the outer corners of the eyes
    points[:, MESH.index(263)] = torch.tensor([98.0, 60.0])
    runs = np.arange(0, count, 4)[:, None] + [0, 4]
    targets = torch.arange(count)[:, None].float()
    return sampling.Source(torch.from_numpy(crops), targets, runs, shapes, points, torch.tensor([1, 0]))


def batches(steps: range) -> sampling.Batches:
    return sampling.Batches({"clips": source(80)}, {"clips": 40}, 1, steps, (0, 0), {"clips": 4})


def test_what_is_told_of_a_picture_is_mirrored_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_light", lambda frames, rng: frames.round().to(torch.uint8))
    batch = next(iter(batches(range(1))))
    left = batch.crops[:, 0, 0, :, :20].float().mean((1, 2)) > 127
    assert 5 < left.sum() < 35
    np.testing.assert_array_equal(batch.shapes[:, 0, 0].numpy() > 0.5, left.numpy())
    corners = batch.points[:, 0, [MESH.index(33), MESH.index(263)], 0]
    assert (corners[:, 0] < 0).all()  # what is called left stays on the left of the picture
    assert (corners[:, 1] > 0).all()
    groups = batch.targets[:, 0, 0].unflatten(0, (-1, 4)) // 4
    assert (groups == groups[:, :1]).all()  # four of one run


def test_workers_take_turns() -> None:
    alone = list(batches(range(3, 8)))
    shared = list(DataLoader(batches(range(3, 8)), batch_size=None, num_workers=2))
    assert len(alone) == len(shared) == 5
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.crops, other.crops)


def test_the_people_held_back_are_left_out(tmp_path: Path) -> None:
    """Their clips and the animated frames of these; animated faces stay."""
    first, second, third = sorted(p for p, split in load_splits()["clips"].items() if split == "train")[:3]
    clips = {"clip": np.array(["a", "b", "c"]), "person": np.array([first, second, third]), "frame": np.zeros(3, int)}
    animated = {"clip": np.array(["00001", "a/0", "b/4", "c/8"]), "frame": np.zeros(4, int)}
    for name, columns in (("clips", clips), ("animated", animated)):
        count = len(columns["clip"])
        columns["split"] = np.full(count, "train")
        columns["targets"] = np.full((count, len(AUS)), np.nan, np.float32)
        columns["landmarks"] = np.zeros((count, 478, 2), np.float16)
        np.savez(tmp_path / f"{name}.npz", **columns)
        np.save(tmp_path / f"{name}_crops.npy", np.zeros((count, STORED, STORED, 3), np.uint8))

    def crops(name: str, hold_back: bool) -> list[int]:
        return sampling.Source.load(tmp_path, name, "train", hold_back=hold_back).runs[:, 0].tolist()

    assert held_back()[:2] == [first, third]
    assert [crops("clips", hold_back) for hold_back in (False, True)] == [[0, 1, 2], [1]]
    assert [crops("animated", hold_back) for hold_back in (False, True)] == [[0, 1, 2, 3], [0, 2]]


def test_stills_and_clips_share_a_batch(rng: np.random.Generator) -> None:
    """The camera moves over stills alone, and each source's blendshapes have their own mirror image."""
    pictures = torch.from_numpy(smooth(rng, 1, STORED)[0].astype(np.uint8))

    def source(run: int, mirror: np.ndarray) -> sampling.Source:
        count = 64
        runs = np.stack([np.arange(0, count, run), np.arange(run, count + 1, run)], axis=1)
        return sampling.Source(
            pictures.expand(count, -1, -1, -1),
            torch.zeros(count, len(AUS)),
            runs,
            torch.arange(sampling.SHAPES, dtype=torch.float32).expand(count, -1),
            torch.full((count, sampling.POINTS, 2), STORED / 2.0),
            torch.from_numpy(mirror),
        )

    places = np.arange(sampling.SHAPES)
    sources = {"faces": source(1, places[::-1].copy()), "clips": source(16, np.roll(places, 1))}
    batch = sampling.Batches(sources, {"faces": 20, "clips": 20}, 16, range(1), (0, 0), {}).batch(rng)
    assert batch.crops.shape == (40, 16, 3, CROP, CROP)
    for part, mirror in ((slice(20), places[::-1]), (slice(20, 40), np.roll(places, 1))):
        rows = {tuple(row) for row in batch.shapes[part].flatten(0, 1).int().tolist()}
        assert rows == {tuple(places), tuple(mirror)}
    place = batch.points[:, :, 0]  # which moves with the camera alone; the tracker's jitter has no direction
    way = (place[:, -4:].mean(1) - place[:, :4].mean(1)).norm(dim=-1)
    assert way[:20].mean() > 3 * way[20:].mean()
