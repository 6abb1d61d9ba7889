"""Grades become targets, and what training does to its crops changes nothing that must stay."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

# The modules of training/ import each other by their names.
sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

import sampling
from data import (
    AUS,
    CROP,
    MOST_CODERS,
    STORED,
    face_person,
    hashed_split,
    read_grades,
    shape_mirror,
)
from targets import SECOND_OPINION, agreement_table, level_targets, mean_grade, rendered_targets

N = len(AUS)


def plain_look(matrix: np.ndarray, **changes: object) -> sampling.Look:
    """A look that changes nothing but the place."""
    settings: dict = {
        "matrix": matrix,
        "mirrored": False,
        "table": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1),
        "grey": False,
        "side": 0,
        "blur": (0.0, 0.0),
        "noise": 0.0,
        "jpeg": 0,
        "cover": None,
    }
    return sampling.Look(**(settings | changes))


def half_white(count: int) -> sampling.Source:
    """Images whose left half is white; blendshape 0 is 1 and its mirror image, 1, is 0."""
    crops = np.zeros((count, STORED, STORED, 3), np.uint8)
    crops[:, :, : STORED // 2] = 255
    columns = {
        "split": np.array(["train"] * count),
        "grades": np.zeros((count, MOST_CODERS, N), np.float32),
        "clip": np.repeat(["a", "b"], count // 2),
        "frame": np.tile(np.arange(count // 2), 2),
    }
    targets = np.tile(np.arange(count, dtype=np.float32)[:, None, None], (1, N, 3))
    shapes = np.zeros((count, sampling.SHAPES), np.float32)
    shapes[:, 0] = 1.0
    mirror = np.array([1, 0, *range(2, sampling.SHAPES)])
    return sampling.Source(crops, targets, shapes, mirror, columns)


def batches(steps: range, length: int = 1) -> sampling.Batches:
    source = half_white(40)
    sequences = source.sequences(source.of_split("train"), length)
    share = sampling.Share(source, sequences, np.ones(len(sequences)), 30)
    return sampling.Batches({"clips": share}, steps, 0)


def test_grades_are_read_by_image_and_coder(tmp_path: Path) -> None:
    columns = ",".join(f"AU{au:02d}" for au in AUS)
    one, other = ",".join(["1"] + ["0"] * (N - 1)), ",".join(["0.5", ""] + ["2"] * (N - 2))
    table = tmp_path / "table.csv"
    table.write_text(f"clip,frame,coder,{columns}\na,7,1,{one}\na,7,2,{other}\nb,0,3,{one}\n")
    grades = read_grades(table, ["clip", "frame"])
    assert list(grades) == [("a", "7"), ("b", "0")]
    np.testing.assert_array_equal(grades["a", "7"][:, 0], [1, 0.5, np.nan])
    np.testing.assert_array_equal(grades["a", "7"][:, 1], [0, np.nan, np.nan])
    np.testing.assert_array_equal(grades["b", "0"][:, 0], [np.nan, np.nan, 1])


def test_a_target_is_the_mean_second_opinion() -> None:
    grades = np.full((3, MOST_CODERS, N), np.nan, np.float32)
    grades[0, 0] = 1.0
    grades[1, :2] = [[0.0] * N, [2.0] * N]
    targets = level_targets(grades)
    np.testing.assert_allclose(targets[0, 0], SECOND_OPINION[1.0])
    both = (np.array(SECOND_OPINION[0.0]) + SECOND_OPINION[2.0]) / 2
    np.testing.assert_allclose(targets[1, 0], both, rtol=1e-6)
    assert np.isnan(targets[2]).all()
    assert (np.diff(level_targets(grades)[:2], axis=-1) <= 0).all()  # levels are cumulative


def test_the_second_opinions_are_those_of_the_coders(shared: Path) -> None:
    folder = shared / "data/coded"
    faces = read_grades(folder / "faces_validation.csv", ["face"])
    frames = [
        read_grades(folder / f"frames_{split}.csv", ["clip", "frame"])
        for split in ("train", "validation")
    ]
    grades = np.stack([*faces.values(), *frames[0].values(), *frames[1].values()])
    assert agreement_table(grades) == SECOND_OPINION


def test_mean_grades_leave_out_who_could_not_see() -> None:
    grades = np.array([[[1.0], [np.nan], [0.5]], [[np.nan], [np.nan], [np.nan]]])
    np.testing.assert_array_equal(mean_grade(grades), [[0.75], [np.nan]])


def test_rendered_intensities_reach_the_levels_in_turn() -> None:
    found = rendered_targets(np.array([[0.0, 0.2, 0.5, 1.0, np.nan]], np.float32))[0]
    assert (found[0] < 0.2).all()
    np.testing.assert_array_equal(found[1] > 0.5, [True, False, False])
    np.testing.assert_array_equal(found[2] > 0.5, [True, True, False])
    np.testing.assert_array_equal(found[3] > 0.5, [True, True, True])
    assert np.isnan(found[4]).all()


def test_a_person_is_in_one_split() -> None:
    assert face_person("AJ_Cook_0001.jpg") == "AJ_Cook"
    names = [f"person {i}" for i in range(2000)]
    splits = [hashed_split("faces", name) for name in names]
    assert splits == [hashed_split("faces", name) for name in names]
    assert 0.09 < splits.count("test") / 2000 < 0.15
    assert 0.06 < splits.count("validation") / 2000 < 0.10


def test_blendshapes_have_a_mirror_image() -> None:
    assert shape_mirror(["jawOpen", "browDownLeft", "browDownRight"]).tolist() == [0, 2, 1]


def test_sequences_have_no_gaps() -> None:
    source = half_white(40)
    source.columns["frame"][5:20] += 3  # frames are missing between the fifth and the sixth
    sequences = source.sequences(source.of_split("train"), 8)
    starts = sequences[:, 0].tolist()
    assert starts == [*range(5, 13), *range(20, 33)]
    assert (np.diff(sequences, axis=1) == 1).all()


def test_a_look_that_changes_nothing_shrinks_the_crop(rng: np.random.Generator) -> None:
    coarse = rng.uniform(0, 255, (8, 8, 3)).astype(np.float32)
    crop = cv2.resize(coarse, (STORED, STORED), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    scale = CROP / STORED
    shift = (CROP - 1) / 2 - scale * (STORED - 1) / 2
    look = plain_look(np.array([[scale, 0, shift], [0, scale, shift]]))
    moved = look.apply(crop, rng).astype(float)
    plain = sampling.shrink(crop[None])[0].permute(1, 2, 0).numpy().astype(float)
    assert np.abs(moved - plain).mean() < 2  # the tracker's jitter is a fraction of a pixel


@pytest.mark.parametrize(
    "change",
    [
        {"grey": True},
        {"side": 30},
        {"blur": (1.5, 0.8)},
        {"noise": 8.0},
        {"jpeg": 20},
        {"cover": (40, 40, 30, 20, 255)},
    ],
)
def test_every_change_shows_and_keeps_the_face(
    rng: np.random.Generator, change: dict[str, object]
) -> None:
    crop = rng.integers(60, 200, (STORED, STORED, 3), dtype=np.uint8)
    crop = cv2.GaussianBlur(crop, (0, 0), 2)
    matrix = np.array([[1.0, 0, -8], [0, 1.0, -8]])
    plain = plain_look(matrix).apply(crop, np.random.default_rng(1))
    changed = plain_look(matrix, **change).apply(crop, np.random.default_rng(1))
    assert changed.shape == (CROP, CROP, 3)
    assert changed.dtype == np.uint8
    lost = np.abs(changed.astype(float) - plain).mean()
    assert 0.1 < lost < 20


def test_what_is_known_of_an_image_is_mirrored_with_it() -> None:
    batch = next(iter(batches(range(1))))
    assert batch.crops.shape == (30, 1, 3, CROP, CROP)
    halves = batch.crops[:, 0].float()
    left = halves[..., :30].mean((1, 2, 3)) > halves[..., -30:].mean((1, 2, 3))
    assert 5 < left.sum() < 25
    np.testing.assert_array_equal(batch.shapes[:, 0, 0].numpy() > 0.5, left.numpy())


def test_a_sequence_has_one_camera_and_one_light() -> None:
    batch = next(iter(batches(range(1), length=8)))
    assert batch.crops.shape == (30, 8, 3, CROP, CROP)
    means = batch.crops.float().mean((2, 3, 4))
    assert means.std(0).min() > 10  # each sequence another one
    assert (means.max(1).values - means.min(1).values).max() < 6


def test_workers_take_turns() -> None:
    alone = list(batches(range(3, 8)))
    shared = list(DataLoader(batches(range(3, 8)), batch_size=None, num_workers=2))
    assert len(alone) == len(shared) == 5
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.crops, other.crops)
