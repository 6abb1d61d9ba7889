"""The tracker with a scripted aligner, which returns the true faces of every frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau.faces.tracker import FaceTracker, TrackerUpdate
from pyfau.types import Face, FloatArray, UInt8Array

Box = tuple[float, float, float]  # left, top, side
PATTERN = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])


def overlap(a: FloatArray, b: FloatArray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / (sum(areas) - shared)


def face(box: Box, confidence: float = 0.99) -> Face:
    left, top, side = box
    corners = np.array([left, top, left + side, top + side], np.float32)
    return Face(corners, (corners[:2] + PATTERN * side).astype(np.float32), confidence)


class ScriptedAligner:
    """Finds the faces that the script lists for a frame, whose number is in its first pixel.

    Attributes:
        searches: The frames that were searched.
        refined: The frames in which faces were refined, with how many.
    """

    def __init__(self, script: Sequence[Sequence[Face]]) -> None:
        self.script = script
        self.searches: list[int] = []
        self.refined: list[tuple[int, int]] = []

    def detect(self, rgb: UInt8Array) -> list[Face]:
        self.searches.append(int(rgb[0, 0, 0]))
        return list(self.script[int(rgb[0, 0, 0])])

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        self.refined.append((int(rgb[0, 0, 0]), len(boxes)))
        faces = []
        for box in boxes:
            near = max(
                self.script[int(rgb[0, 0, 0])],
                key=lambda face: overlap(face.box_xyxy, box),
                default=None,
            )
            if near is None or overlap(near.box_xyxy, box) <= 0.3:
                near = Face(box, np.zeros((5, 2), np.float32), 0.1)
            faces.append(near)
        return faces


class Run:
    """A tracker and everything it said, frame by frame."""

    def __init__(
        self,
        script: Iterable[Iterable[Box | Face]],
        detect_every: int = 30,
        max_faces: int | None = None,
        max_gap: int = 15,
        stop: int | None = None,
    ) -> None:
        self.script = [[f if isinstance(f, Face) else face(f) for f in faces] for faces in script]
        self.aligner = ScriptedAligner(self.script)
        self.tracker = FaceTracker(self.aligner, detect_every, max_faces, max_gap)
        self.updates: list[TrackerUpdate] = []
        self.play(stop)

    def play(self, stop: int | None = None) -> None:
        for number in range(len(self.updates), len(self.script) if stop is None else stop):
            self.updates.append(self.tracker.update(np.full((4, 4, 3), number, np.uint8)))

    @property
    def ids(self) -> list[list[int]]:
        return [[tracked.face_id for tracked in update.faces] for update in self.updates]

    def boxes(self, face_id: int) -> dict[int, list[float]]:
        """Where a face was seen: frame to left, top, side."""
        return {
            number: [
                float(v)
                for v in (
                    *tracked.face.box_xyxy[:2],
                    tracked.face.box_xyxy[2] - tracked.face.box_xyxy[0],
                )
            ]
            for number, update in enumerate(self.updates)
            for tracked in update.faces
            if tracked.face_id == face_id
        }

    def ended(self) -> list[tuple[int, int]]:
        """Frame and id of every track that ended."""
        return [
            (number, face_id)
            for number, update in enumerate(self.updates)
            for face_id in update.ended
        ]


A, B = (100.0, 100.0, 80.0), (300.0, 100.0, 100.0)


# ---- ids last


def test_a_moving_face_keeps_its_id_and_is_searched_for_once() -> None:
    path = [(10.0 + 6 * t, 50.0 + 3 * t, 80.0 + t) for t in range(25)]
    run = Run([[box] for box in path])
    assert run.ids == [[0]] * 25
    assert run.boxes(0) == {t: pytest.approx(box) for t, box in enumerate(path)}
    assert run.aligner.searches == [0]
    assert run.aligner.refined == [(t, 1) for t in range(1, 25)]
    assert all(not update.missed and not update.ended for update in run.updates)


def test_two_faces_that_pass_each_other_keep_their_ids() -> None:
    right = [(10.0 * t, 100.0, 100.0) for t in range(41)]
    left = [
        (400.0 - 10 * t, 165.0, 99.0) for t in range(41)
    ]  # boxes overlap by a fifth where they pass
    run = Run(zip(right, left, strict=True), detect_every=100)
    assert run.ids == [[0, 1]] * 41
    assert run.boxes(0) == {t: pytest.approx(box) for t, box in enumerate(right)}
    assert run.boxes(1) == {t: pytest.approx(box) for t, box in enumerate(left)}
    assert run.aligner.searches == [0]


def test_a_face_that_passes_behind_another_gets_its_id_back() -> None:
    right = [(10.0 * t, 100.0, 100.0) for t in range(41)]
    left = [(400.0 - 10 * t, 120.0, 99.0) for t in range(41)]
    hidden = range(18, 23)
    run = Run(
        [[r] if t in hidden else [r, q] for t, (r, q) in enumerate(zip(right, left, strict=True))]
    )
    assert [ids for t, ids in enumerate(run.ids) if t in hidden] == [[0]] * 5
    assert run.boxes(0) == {t: pytest.approx(box) for t, box in enumerate(right)}
    seen = run.boxes(1)
    # Next to the hidden frames it lies under the other face still, by more than two fifths, which
    # is one face.
    assert set(range(41)) - set(seen) <= set(range(16, 25))
    assert all(seen[t] == pytest.approx(left[t]) for t in seen)
    assert not run.ended()


def test_the_larger_face_of_the_first_frame_is_face_0() -> None:
    assert Run([[A, B], [B, A]]).boxes(0) == {0: list(B), 1: list(B)}
    assert Run([[B, A], [A, B]]).boxes(0) == {0: list(B), 1: list(B)}


# ---- gaps


@pytest.mark.parametrize("max_gap", [0, 1, 4])
@pytest.mark.parametrize("extra", [0, 1])
def test_a_face_keeps_its_id_through_max_gap_frames_and_no_more(max_gap: int, extra: int) -> None:
    gap = max_gap + extra
    run = Run([[A]] * 3 + [[]] * gap + [[A]] * 3, max_gap=max_gap)
    assert run.ids == [[0]] * 3 + [[]] * gap + [[extra]] * 3
    assert [update.missed for update in run.updates] == [[]] * 3 + [[0]] * max_gap + [[]] * (
        3 + extra
    )
    assert run.ended() == ([(3 + max_gap, 0)] if extra else [])


def test_the_gap_is_counted_anew_each_time() -> None:
    run = Run(([[A]] + [[]] * 3) * 4 + [[A]], max_gap=3)
    assert {face_id for ids in run.ids for face_id in ids} == {0}
    assert not run.ended()


def test_a_face_is_found_again_where_it_was_heading() -> None:
    path = [(20.0 * t, 100.0, 100.0) for t in range(16)]
    gone = range(6, 13)  # in which it moves by 1.6 of its sides
    run = Run([[] if t in gone else [box] for t, box in enumerate(path)])
    assert run.ids == [[] if t in gone else [0] for t in range(16)]


def test_a_move_in_a_long_gap_is_no_fast_move() -> None:
    before, after = (100.0, 100.0, 100.0), (190.0, 100.0, 100.0)
    run = Run([[before]] * 3 + [[]] * 4 + [[after]] + [[]] * 5 + [[after]])
    assert run.ids == [[0]] * 3 + [[]] * 4 + [[0]] + [[]] * 5 + [[0]]


def test_a_face_far_from_where_one_was_lost_is_another() -> None:
    run = Run([[A], [A], [], [(700.0, 100.0, 80.0)], [(700.0, 100.0, 80.0)]], max_gap=2)
    assert run.ids == [[0], [0], [], [1], [1]]
    assert [update.missed for update in run.updates] == [[], [], [0], [0], []]
    assert run.ended() == [(4, 0)]


def test_a_face_of_another_size_is_another() -> None:
    run = Run([[A], [], [(40.0, 40.0, 200.0)]])
    assert run.ids == [[0], [], [1]]


def test_a_face_that_jumps_a_little_is_found_by_the_search() -> None:
    run = Run([[A], [(170.0, 100.0, 80.0)]])
    assert overlap(face(A).box_xyxy, run.script[1][0].box_xyxy) < 0.3
    assert run.ids == [[0], [0]]
    assert run.aligner.searches == [0, 1]


def test_of_two_lost_faces_the_nearer_one_comes_back() -> None:
    first, second, far = (200.0, 100.0, 100.0), (280.0, 100.0, 99.0), (-300.0, 100.0, 100.0)
    run = Run([[first, second], [], [(210.0, 100.0, 100.0), far]])
    assert run.ids[0] == [0, 1]
    assert run.boxes(0)[2] == [210.0, 100.0, 100.0]
    assert run.updates[2].missed == [1]


def test_two_tracks_that_slide_onto_one_face_are_told_apart_by_age() -> None:
    between = (150.0, 100.0, 100.0)
    run = Run(
        [[(120.0, 100.0, 100.0), (180.0, 100.0, 99.0)], [between], [between], [between]], max_gap=1
    )
    assert run.ids == [[0, 1], [0], [0], [0]]
    assert [update.missed for update in run.updates] == [[], [1], [], []]
    assert run.ended() == [(2, 1)]


# ---- new faces and searches


@pytest.mark.parametrize("every", [1, 4, 10])
def test_searches_are_made_at_intervals_and_find_new_faces(every: int) -> None:
    run = Run([[A]] * 5 + [[A, B]] * 16, detect_every=every)
    assert run.aligner.searches == list(range(0, 21, every))
    first = next(t for t in range(0, 21, every) if t >= 5)
    assert run.ids == [[0]] * first + [[0, 1]] * (21 - first)


def test_without_a_face_every_frame_is_searched() -> None:
    run = Run([[]] * 4 + [[A]] * 3)
    assert run.aligner.searches == [0, 1, 2, 3, 4]
    assert run.ids == [[]] * 4 + [[0]] * 3
    assert run.aligner.refined == [(5, 1), (6, 1)]


def test_a_lost_face_is_searched_for_until_it_is_back() -> None:
    run = Run([[A, B]] * 2 + [[A]] * 3 + [[A, B]] * 4, detect_every=100)
    assert run.aligner.searches == [0, 2, 3, 4, 5]
    assert run.ids == [[0, 1]] * 2 + [[1]] * 3 + [[0, 1]] * 4  # B is the larger one
    assert run.aligner.refined == [(1, 2), (2, 2), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2)]


def test_a_search_starts_the_interval_anew() -> None:
    run = Run([[A]] * 3 + [[]] + [[A]] * 12, detect_every=5)
    assert run.aligner.searches == [0, 3, 4, 9, 14]


def test_unsure_faces_are_no_faces() -> None:
    unsure = face(A, 0.59)
    assert Run([[unsure], [face(A, 0.61)], [unsure], [face(A, 0.61)]]).ids == [[], [0], [], [0]]


def test_a_face_without_landmarks_is_lost() -> None:
    blind = Face(face(A).box_xyxy, np.full((5, 2), np.nan, np.float32), 0.99)
    run = Run([[A], [A]])
    run.script.append([blind])
    run.aligner.detect = lambda rgb: []  # type: ignore[method-assign]
    run.play()
    assert run.ids == [[0], [0], []]
    assert run.updates[2].missed == [0]


def test_a_face_without_landmarks_is_not_found() -> None:
    blind = Face(face(A).box_xyxy, np.full((5, 2), np.nan, np.float32), 0.99)
    assert Run([[blind], [A]]).ids == [[], [0]]


# ---- max_faces


SIZES = [(0.0, 0.0, 50.0), (100.0, 0.0, 90.0), (300.0, 0.0, 70.0), (500.0, 0.0, 60.0)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_the_largest_faces_are_kept(count: int) -> None:
    run = Run([SIZES, SIZES[::-1], SIZES], detect_every=1, max_faces=count)
    largest = sorted((box[2] for box in SIZES), reverse=True)[:count]
    for update in run.updates:
        assert [float(t.face.box_xyxy[2] - t.face.box_xyxy[0]) for t in update.faces] == largest
    assert run.ids == [list(range(len(largest)))] * 3


def test_a_full_tracker_does_not_search_for_more() -> None:
    run = Run([[A]] * 3 + [[A, B]] * 9, detect_every=2, max_faces=1)
    assert run.aligner.searches == [0]
    assert run.ids == [[0]] * 12


def test_a_lost_face_keeps_its_place_until_its_gap_is_over() -> None:
    run = Run([[A]] * 2 + [[B]] * 6, max_faces=1, max_gap=3)
    assert run.ended() == [(5, 0)]
    assert run.ids == [[0]] * 2 + [[]] * 4 + [[1]] * 2


# ---- reset


def test_reset_ends_every_track_and_no_id_is_used_again() -> None:
    run = Run([[A, B]] * 2 + [[A]] + [[A, B]] * 3, stop=0)
    assert run.tracker.reset() == []
    run.play(stop=3)
    assert run.updates[2].missed == [0]  # it is lost, but not over
    assert sorted(run.tracker.reset()) == [0, 1]
    assert run.tracker.reset() == []
    run.aligner.searches.clear()
    run.play()
    assert run.aligner.searches == [3]
    assert run.ids[3:] == [[2, 3]] * 3
    assert all(not update.missed and not update.ended for update in run.updates[3:])


# ---- whatever happens

# For each of four faces that never overlap: its place and size, or that it is not there.
lanes = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(40, 90))), min_size=4, max_size=4
)
anywhere = st.lists(
    st.tuples(st.integers(0, 150), st.integers(0, 60), st.integers(20, 90)), max_size=4
)


@given(
    script=st.one_of(
        st.lists(
            lanes.map(
                lambda row: [(200.0 * i + b[0], 10.0, float(b[1])) for i, b in enumerate(row) if b]
            )
        ),
        st.lists(anywhere),
    ),
    stay=st.integers(1, 4),
    detect_every=st.integers(1, 7),
    max_faces=st.one_of(st.none(), st.integers(1, 3)),
    max_gap=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_tracks_are_accounted_for(
    script: list[list[Box]], stay: int, detect_every: int, max_faces: int | None, max_gap: int
) -> None:
    run = Run([faces for faces in script for _ in range(stay)], detect_every, max_faces, max_gap)
    alive: set[int] = set()
    over: set[int] = set()
    absent: dict[int, int] = {}
    newest = -1
    for number, update in enumerate(run.updates):
        seen = [tracked.face_id for tracked in update.faces]
        assert seen == sorted(set(seen))
        assert len({*seen, *update.missed, *update.ended}) == len(seen) + len(update.missed) + len(
            update.ended
        )
        # Every track of the frame before is somewhere, and ids that are new count on.
        new = [face_id for face_id in seen if face_id not in alive]
        assert alive == {*seen, *update.missed, *update.ended} - set(new)
        assert new == list(range(newest + 1, newest + 1 + len(new)))
        newest += len(new)
        over |= set(update.ended)
        alive = {*seen, *update.missed}
        assert not alive & over
        if max_faces is not None:
            assert len(alive) <= max_faces
        for face_id in seen:
            absent[face_id] = 0
        for face_id in update.missed:
            absent[face_id] += 1
            assert absent[face_id] <= max_gap
        for face_id in update.ended:
            assert absent[face_id] == max_gap
        # What is reported was there.
        there = [tuple(f.box_xyxy) for f in run.script[number]]
        assert all(tuple(tracked.face.box_xyxy) in there for tracked in update.faces)
        if (
            number in run.aligner.searches
            and max_faces is None
            and len(set(there)) == len(there) <= 1
        ):
            assert len(seen) == len(there)
    assert set(run.tracker.reset()) == alive


@given(
    script=st.lists(lanes, min_size=1, max_size=25),
    detect_every=st.integers(1, 7),
    max_gap=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_faces_far_apart_are_never_confused(
    script: list[list[tuple[int, int] | None]], detect_every: int, max_gap: int
) -> None:
    run = Run(
        [
            [(1000.0 * i + b[0], 10.0, float(b[1])) for i, b in enumerate(row) if b]
            for row in script
        ],
        detect_every,
        None,
        max_gap,
    )
    lane_of: dict[int, int] = {}
    for update in run.updates:
        lanes_seen = [round(float(tracked.face.box_xyxy[0]) // 1000) for tracked in update.faces]
        assert len(set(lanes_seen)) == len(lanes_seen)  # no two tracks have the same face
        for tracked, lane in zip(update.faces, lanes_seen, strict=True):
            assert lane_of.setdefault(tracked.face_id, lane) == lane


def test_a_search_is_told_what_is_followed_already() -> None:
    told: list[list[FloatArray]] = []

    class Asking:
        def detect(self, rgb: UInt8Array, known: Sequence[FloatArray] = ()) -> list[Face]:
            told.append(list(known))
            return [face((10, 10, 50)), face((100, 10, 50))]

        def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
            return [face((10, 10, 50)), face((100, 10, 50), 0.1)][: len(boxes)]

    tracker = FaceTracker(Asking(), detect_every=2)
    image = np.zeros((200, 200, 3), np.uint8)
    for _ in range(2):
        assert [tracked.face_id for tracked in tracker.update(image).faces] == [0, 1]
    assert told[0] == []
    np.testing.assert_array_equal(told[1], [face((10, 10, 50)).box_xyxy])  # the other one was lost
