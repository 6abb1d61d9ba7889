"""A track never continues with another person."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pyfau import AUDetector
from pyfau.faces.appearance import Appearance
from pyfau.media.images import read_image
from pyfau.types import UInt8Array

STEP_S = 1 / 25


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def people(detector: AUDetector, media: Path) -> list[UInt8Array]:
    """Tiles (160, 160, 3) of five people."""
    rgb = read_image(media / "multi_face.jpg")
    tiles = []
    for row in detector.detect_image(rgb):
        x0, y0, x1, y1 = row.box_xyxy
        side = 1.6 * max(x1 - x0, y1 - y0)
        scale = 160 / side
        shift = [80 - scale * (x0 + x1) / 2, 80 - scale * (y0 + y1) / 2]
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        tiles.append(cv2.warpAffine(rgb, matrix, (160, 160), flags=cv2.INTER_AREA))
    assert len(tiles) == 5
    return tiles


def moved(tile: UInt8Array, frame: int) -> UInt8Array:
    """The tile with a small motion and a change of light."""
    angle = 4 * np.sin(frame / 3)
    matrix = cv2.getRotationMatrix2D((80, 80), angle, 1 + 0.02 * np.sin(frame / 2))
    matrix[:, 2] += (2 * np.cos(frame / 4), 2 * np.sin(frame / 5))
    turned = cv2.warpAffine(tile, matrix, (160, 160), borderMode=cv2.BORDER_REPLICATE)
    light = 1 + 0.2 * np.sin(frame)
    return np.clip(turned * light, 0, 255).astype(np.uint8)


def test_a_cut_to_another_person_in_the_same_place(
    detector: AUDetector, people: list[UInt8Array]
) -> None:
    frames = [moved(people[0], i) for i in range(12)] + [moved(people[1], i) for i in range(12)]
    result = detector.detect_frames(frames, fps=25)
    ids = [row.face_id for row in result]
    assert ids == [0] * 12 + [1] * 12
    # The windows do not mix the two people: each part has the scores of a clip of its own.
    alone = detector.detect_frames(frames[12:], fps=25)
    # They are not exactly the same, because the search finds the first box a little differently.
    difference = np.abs(result.scores[12:] - alone.scores)
    assert difference.mean() < 0.01
    assert difference.max() < 0.1


def test_light_and_small_motion_are_no_cut(detector: AUDetector, people: list[UInt8Array]) -> None:
    result = detector.detect_frames([moved(people[2], i) for i in range(30)], fps=25)
    assert {row.face_id for row in result} == {0}


def test_people_who_change_places_keep_their_ids(
    detector: AUDetector, people: list[UInt8Array]
) -> None:
    a, b, c, d = people[:4]
    before = [np.hstack([moved(tile, i) for tile in (a, b, c)]) for i in range(10)]
    # The first person leaves, the others move up, and a new person comes.
    after = [np.hstack([moved(tile, i) for tile in (b, c, d)]) for i in range(10, 20)]
    result = detector.detect_frames(before + after, fps=25)
    places = {
        (row.frame, int(row.box_xyxy[[0, 2]].mean() // 160)): row.face_id
        for row in result
        if row.success
    }
    old = [places[0, place] for place in range(3)]
    assert len(set(old)) == 3
    for frame in range(10):
        assert [places[frame, place] for place in range(3)] == old
    new = places[19, 2]
    assert new not in old
    for frame in range(11, 20):
        assert [places[frame, place] for place in range(3)] == [old[1], old[2], new]
    assert max(places.values()) == 3


def test_a_track_that_changes_gets_the_id_of_its_person() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (
        cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (112, 112)) for _ in range(3)
    )
    appearance = Appearance()
    assert appearance.compare([4, 7], [a, b], 0.0) == {}
    assert appearance.compare([4, 7], [a, b], STEP_S) == {}
    assert appearance.compare([4, 7], [b, a], 2 * STEP_S) == {4: 7, 7: 4}
    # 7 now stands in the first place.
    assert appearance.compare([7, 4], [b, a], 3 * STEP_S) == {}
    assert appearance.compare([7, 4], [c, a], 4 * STEP_S) == {7: None}


def test_the_first_frame_after_a_reset_is_not_compared() -> None:
    rng = np.random.default_rng(1)
    a, b = (cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (112, 112)) for _ in range(2))
    appearance = Appearance()
    appearance.compare([0], [a], 0.0)
    appearance.reset()
    assert appearance.compare([0], [b], STEP_S) == {}


def test_independent_images_are_not_compared(
    detector: AUDetector, people: list[UInt8Array], tmp_path: Path
) -> None:
    for number, tile in enumerate(people[:3]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))
    result = detector.detect_images(tmp_path, independent=True)
    assert [row.face_id for row in result] == [0, 1, 2]
