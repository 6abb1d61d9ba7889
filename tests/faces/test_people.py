"""Who a track shows: decisions of `People` from made descriptors, and ids of whole clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfau import AUDetector, read_result
from pyfau.demo import demo_frames
from pyfau.faces import people
from pyfau.faces.people import People
from pyfau.faces.tracker import TrackedFace, TrackerUpdate
from pyfau.types import Face, FloatArray, UInt8Array

ANN, BEN, EVE = (np.eye(128, dtype=np.float32)[i] for i in range(3))  # 1.4 apart
IMAGE = np.zeros((100, 200, 3), np.uint8)


def face_at(x: float) -> Face:
    marks = np.array([[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]], np.float32)
    box = np.array([x, 0, x + 40, 40], np.float32)
    return Face(box, marks + np.float32([x, 0]), 1.0)


class Scene:
    """`People` with the descriptors of this test, by the place of a face."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reidentify: bool = False) -> None:
        self.people = People(reidentify)
        self.described = 0
        self._shown: dict[float, FloatArray] = {}
        monkeypatch.setattr(people, "cut_identity", lambda rgb, face: face.box_xyxy[:1])
        monkeypatch.setattr(people, "describe_crops", self._describe)

    def _describe(self, crops: Any) -> FloatArray:
        self.described += len(crops)
        return np.stack([self._shown[float(x)] for (x,) in crops])

    def show(
        self,
        faces: dict[int, tuple[float, FloatArray]],
        missed: Sequence[int] = (),
        ended: Sequence[int] = (),
        changed: dict[int, int | None] | None = None,
    ) -> dict[int, int | None]:
        """One frame: for each track its place and its descriptor."""
        self._shown = {x: descriptor for x, descriptor in faces.values()}
        tracked = [TrackedFace(i, face_at(x)) for i, (x, _) in faces.items()]
        update = TrackerUpdate(tracked, list(missed), list(ended))
        owners = self.people.decide(IMAGE, update, changed or {})
        names = {i: 90 + i if owner is None else owner for i, owner in owners.items()}
        update.faces = [TrackedFace(names.get(t.face_id, t.face_id), t.face) for t in tracked]
        self.people.learn(IMAGE, update, names)
        return owners


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch, reidentify=True)


def test_a_steady_face_is_described_a_few_times_only(scene: Scene) -> None:
    for _ in range(150):
        assert scene.show({0: (0, ANN)}) == {}
    assert scene.described <= 4


def test_another_person_after_a_gap_is_new(scene: Scene) -> None:
    scene.show({0: (0, ANN)})
    scene.show({}, missed=[0])
    assert scene.show({0: (0, BEN)}) == {0: None}
    scene.show({}, missed=[90])
    assert scene.show({90: (0, BEN)}) == {}


def test_a_jump_to_another_person_is_noticed(scene: Scene) -> None:
    scene.show({0: (0, ANN)})
    assert scene.show({0: (5, BEN)}) == {}  # a small step is not examined
    assert scene.show({0: (60, EVE)}) == {0: None}


def test_a_change_of_appearance_that_is_the_same_person_keeps_the_id(scene: Scene) -> None:
    scene.show({0: (0, ANN)})
    assert scene.show({0: (0, ANN)}, changed={0: None}) == {}
    assert scene.show({0: (0, BEN)}, changed={0: None}) == {0: None}


def test_people_who_change_places_change_ids(scene: Scene) -> None:
    scene.show({0: (0, ANN), 1: (100, BEN)})
    owners = scene.show({0: (0, BEN), 1: (100, ANN)}, changed={0: 1, 1: 0})
    assert owners == {0: 1, 1: 0}
    # Appearance alone was wrong: both stayed.
    fresh = scene.show({0: (0, ANN), 1: (100, BEN)}, changed={0: 1, 1: 0})
    assert fresh == {}


def test_a_lost_face_that_reappears_elsewhere_keeps_its_id(scene: Scene) -> None:
    scene.show({0: (0, ANN)})
    assert scene.show({1: (150, ANN)}, missed=[0]) == {1: 0}


def test_without_reidentify_an_ended_track_is_forgotten(scene: Scene) -> None:
    scene.show({0: (0, ANN)})
    scene.show({}, ended=[0])
    assert scene.show({1: (0, ANN)}) == {}
    assert list(scene.people._known) == [1]


def test_with_reidentify_a_person_gets_the_old_id(memory: Scene) -> None:
    memory.show({0: (0, ANN)})
    memory.show({}, ended=[0])
    assert memory.show({1: (0, BEN)}) == {}
    memory.show({}, ended=[1])
    assert memory.show({2: (50, ANN)}) == {2: 0}


def test_two_faces_never_get_one_id(memory: Scene) -> None:
    memory.show({0: (0, ANN)})
    memory.show({}, ended=[0])
    owners = memory.show({1: (0, ANN), 2: (100, ANN)})
    assert owners == {1: 0}
    assert memory.show({0: (0, ANN), 2: (100, ANN), 3: (150, ANN)}) == {}


def test_tiny_faces_are_not_described(scene: Scene) -> None:
    small = Face(np.array([0, 0, 9, 9], np.float32), face_at(0).landmarks / 5, 1.0)
    update = TrackerUpdate([TrackedFace(0, small)])
    assert scene.people.decide(IMAGE, update, {0: None}) == {0: None}
    scene.people.learn(IMAGE, update, {})
    assert scene.described == 0


def leaving() -> Iterator[UInt8Array]:
    """One person for 12 frames, nobody for 20, the person again for 12."""
    frames = demo_frames()
    empty = np.full_like(frames[0], 90)
    yield from frames[:12]
    yield from [empty] * 20
    yield from frames[30:42]


def test_a_person_who_returns_has_one_id_and_no_descriptor_is_written(tmp_path: Path) -> None:
    ids, columns = {}, {}
    for reidentify in (False, True):
        detector = AUDetector(device="cpu", reidentify=reidentify)
        path = tmp_path / f"{reidentify}.csv"
        result = detector.detect_frames(leaving(), fps=25, save=path)
        ids[reidentify] = set(result.face_id_column) - {None}
        assert len(result) == 44
        table = read_result(path)
        columns[reidentify] = list(table.to_dataframe().columns)
        record = json.loads((tmp_path / f"{reidentify}.csv.json").read_text())
        assert record.pop("reidentify") is reidentify
        # No list is as long as a descriptor.
        assert max(len(value) for value in record.values() if isinstance(value, list)) < 100
    assert ids == {False: {0, 1}, True: {0}}
    assert columns[False] == columns[True]
