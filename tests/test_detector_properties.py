"""`AUDetector` end to end on made-up images, faces and weights: all ways give the same rows."""

from __future__ import annotations

import csv
import gc
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import tiny_config, tiny_model
from test_tracker import Box, face, overlap

import pyfau
from pyfau import AUDetector, AURow
from pyfau.errors import DeviceError, InputError, OptionError, PyfauError
from pyfau.faces.crop import crop_face
from pyfau.models.mdhr import CONTEXT, FrameFeatures
from pyfau.models.windows import make_window
from pyfau.types import Face, FloatArray, Frame, UInt8Array
from pyfau.video import FrameReader, read_arrays
from pyfau.weights.store import save_model

HEIGHT, WIDTH = 96, 160
CLOSE = 1e-5
Script = Sequence[Sequence[Box]]


def image(number: int, height: int = HEIGHT, width: int = WIDTH) -> UInt8Array:
    """Coloured blocks, brighter or darker from image to image, with a number in the first
    pixel.
    """
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3)) * rng.uniform(0.1, 1.0)
    rgb = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].astype(np.uint8)
    rgb[0, 0] = number
    return rgb


def images(count: int) -> list[UInt8Array]:
    return [image(number) for number in range(count)]


class ScriptedAligner:
    """Finds the faces that the script lists for an image, at any place of a sequence."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def detect(self, rgb: UInt8Array) -> list[Face]:
        return [face(box) for box in self._script[int(rgb[0, 0, 0])]]

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        near = [
            max(self.detect(rgb), key=lambda f: overlap(f.box_xyxy, box), default=None)
            for box in boxes
        ]
        return [
            f
            if f is not None and overlap(f.box_xyxy, box) > 0.3
            else Face(box, np.zeros((5, 2), np.float32), 0.1)
            for f, box in zip(near, boxes, strict=True)
        ]


def at(number: int, left: float = 10.0, side: float = 70.0) -> Box:
    """A face that drifts and breathes a little."""
    return (left + 3 * np.sin(number / 3), 12.0 + np.cos(number), side + number % 3)


MAX_GAP, FRAMES = 5, 66


def story() -> list[list[Box]]:
    """Faces 0 (with a short gap), 1 (beside it for a while), 2 (after a long gap) and 3 (for three
    frames).
    """
    script: list[list[Box]] = [[] for _ in range(FRAMES)]
    for number in [*range(3, 21), *range(25, 35), *range(42, 54)]:
        script[number].append(at(number))
    for number in [*range(12, 31), *range(61, 64)]:
        script[number].append(at(number, left=85.0, side=60.0))
    return script


STORY = story()
EXPECTED = {
    0: [*range(3, 21), *range(25, 35)],
    1: range(12, 31),
    2: range(42, 54),
    3: range(61, 64),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(21, thresholds=tuple(0.1 + 0.1 * i for i in range(8))), folder)
    return folder


@pytest.fixture(scope="module")
def make(folder: Path) -> Callable[..., AUDetector]:
    def make(script: Script = STORY, **options: Any) -> AUDetector:
        defaults = {
            "aligner": ScriptedAligner(script),
            "device": "cpu",
            "detect_every": 1,
            "max_gap": MAX_GAP,
        }
        return AUDetector(folder, **(defaults | options))

    return make


def assert_same_rows(got: Any, want: Any, shift: int = 0, ids: int = 0) -> None:
    """Rows equal but for rounding.

    Args:
        got: Rows.
        want: Rows.
        shift: Frames that `got` is later than `want`.
        ids: By how much the ids of `got` are higher.
    """
    got, want = list(got), list(want)
    assert [(row.frame - shift, row.face_id) for row in got] == [
        (row.frame, None if row.face_id is None else row.face_id + ids) for row in want
    ]
    for a, b in zip(got, want, strict=True):
        assert (a.success, a.confidence, a.aus) == (b.success, b.confidence, b.aus)
        np.testing.assert_array_equal(a.box_xyxy, b.box_xyxy)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=CLOSE)


def push_all(stream: Any, frames: Sequence[UInt8Array], flush: bool = True) -> list[AURow]:
    rows = [row for frame in frames for row in stream.push(frame)]
    return rows + (stream.flush() if flush else [])


# ---- what the rows are


@pytest.fixture(scope="module")
def rows(make: Callable[..., AUDetector]) -> list[AURow]:
    return list(make().detect_frames(images(FRAMES)))


def test_every_frame_and_face_has_its_row_in_order(rows: list[AURow]) -> None:
    wanted = [(number, face_id) for face_id, numbers in EXPECTED.items() for number in numbers]
    empty = set(range(FRAMES)) - {number for number, _ in wanted}
    expected = sorted([*wanted, *((number, -1) for number in empty)])
    assert [(row.frame, -1 if row.face_id is None else row.face_id) for row in rows] == expected


def test_scores_are_those_of_each_track_in_one_go(
    rows: list[AURow], make: Callable[..., AUDetector]
) -> None:
    """Crops, encoding and windows put together by hand."""
    model = make().model
    seen = 0
    for face_id, numbers in EXPECTED.items():
        side = 1 if face_id in (1, 3) else 0
        crops = []
        for number in range(min(numbers), max(numbers) + 1):
            if number in numbers:
                box = STORY[number][min(side, len(STORY[number]) - 1)]
                landmarks = face(box).landmarks
                crops.append(
                    crop_face(
                        image(number), landmarks, model.config.template, model.config.input_size
                    )
                )
            else:
                crops.append(crops[-1])  # a gap is filled by the last frame
        features = model.encode(model.preprocess(np.stack(crops)))
        ends = FrameFeatures.cat([features[:1]] * CONTEXT + [features] + [features[-1:]] * CONTEXT)
        scores = model.relate(ends.unflatten(1, len(ends)), "inner")[0].numpy()
        assert scores.std(axis=0).max() > 100 * CLOSE
        for row in rows:
            if row.face_id == face_id:
                np.testing.assert_allclose(
                    row.scores, scores[row.frame - min(numbers)], rtol=0, atol=CLOSE
                )
                seen += 1
    assert seen == sum(len(numbers) for numbers in EXPECTED.values())


def test_rows_of_faces_are_whole(rows: list[AURow], make: Callable[..., AUDetector]) -> None:
    thresholds = make().thresholds
    for row in rows:
        if row.face_id is not None:
            box = STORY[row.frame][1 if row.face_id == 1 and len(STORY[row.frame]) > 1 else 0]
            np.testing.assert_array_equal(row.box_xyxy, face(box).box_xyxy)
            np.testing.assert_array_equal(row.landmarks, face(box).landmarks)
            assert row.success is True
            assert 0 < row.confidence <= 0.99  # the images are noise, so the face may be covered
            assert ((row.scores >= 0) & (row.scores <= 1)).all()
            np.testing.assert_array_equal(row.active, row.scores >= thresholds)
    active = np.array([row.active for row in rows if row.success])
    assert 0.05 < active.mean() < 0.95


def test_rows_of_frames_without_a_face_are_empty(rows: list[AURow]) -> None:
    empty = [row for row in rows if row.face_id is None]
    assert [row.frame for row in empty] == [0, 1, 2, *range(35, 42), *range(54, 61), 64, 65]
    for row in empty:
        assert row.success is False
        assert row.confidence == 0
        assert row.scores.shape == (8,)
        for values in (row.scores, row.box_xyxy, row.landmarks):
            assert np.isnan(values).all()
        assert not row.active.any()


def test_no_face_anywhere_gives_empty_rows(make: Callable[..., AUDetector]) -> None:
    result = make([[]] * 20).detect_frames(images(20))
    assert [(row.frame, row.face_id, row.success) for row in result] == [
        (t, None, False) for t in range(20)
    ]
    assert result.scores.shape == (20, 8)


def test_a_single_frame(make: Callable[..., AUDetector]) -> None:
    detector = make()
    [row] = detector.detect_frames([image(4)])
    assert (row.frame, row.face_id) == (0, 0)
    assert np.isfinite(row.scores).all()
    assert_same_rows(detector.detect_image(image(4)), [row])
    assert_same_rows(push_all(detector.stream(), [image(4)]), [row])


# ---- whatever the way


WAYS: dict[str, Callable[..., Any]] = {
    "batches of 1": lambda make, frames: make(batch_size=1).detect_frames(frames),
    "batches of 5": lambda make, frames: make(batch_size=5).detect_frames(frames),
    "batches of 7": lambda make, frames: make(batch_size=7).detect_frames(frames),
    "one batch": lambda make, frames: make(batch_size=1000).detect_frames(frames),
    "generator": lambda make, frames: make().detect_frames(frame for frame in frames),
    "one array": lambda make, frames: make().detect_frames(np.stack(frames)),
    "bgr": lambda make, frames: make().detect_frames(
        [frame[:, :, ::-1] for frame in frames], color="bgr"
    ),
    "iter_frames": lambda make, frames: make().iter_frames(frames),
    "iter_frames in batches of 1": lambda make, frames: make().iter_frames(
        iter(frames), batch_size=1
    ),
    "stream": lambda make, frames: push_all(make().stream(), frames),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_rows(
    way: str, rows: list[AURow], make: Callable[..., AUDetector]
) -> None:
    assert_same_rows(WAYS[way](make, images(FRAMES)), rows)


@pytest.mark.parametrize("window", ["continuous", "clips"])
def test_the_same_run_twice_is_the_same(window: str, make: Callable[..., AUDetector]) -> None:
    detector = make(window=window)
    first, second = (list(detector.detect_frames(images(FRAMES))) for _ in range(2))
    assert_same_rows(first, second)
    np.testing.assert_allclose(
        [r.scores for r in first], [r.scores for r in second], rtol=0, atol=1e-7
    )


class Shuffled(ScriptedAligner):
    """Finds the faces of every other image in reverse order."""

    def detect(self, rgb: UInt8Array) -> list[Face]:
        return super().detect(rgb)[:: -1 if rgb[0, 0, 0] % 2 else 1]


def test_the_order_in_which_an_aligner_finds_faces_does_not_matter(
    make: Callable[..., AUDetector],
) -> None:
    script = [[at(t), at(t, left=85.0, side=60.0)] for t in range(20)]
    assert_same_rows(
        make(script, aligner=Shuffled(script)).detect_frames(images(20)[1:]),
        make(script).detect_frames(images(20)[1:]),
    )


@pytest.mark.parametrize("batch_size", [1, 5])
def test_clips_in_batches(batch_size: int, make: Callable[..., AUDetector]) -> None:
    script = [[at(t)] for t in range(40)]
    want = make(script, window="clips").detect_frames(images(40))
    assert_same_rows(
        make(script, window="clips", batch_size=batch_size).detect_frames(images(40)), want
    )
    model = make().model
    crops = np.stack(
        [crop_face(image(t), face(at(t)).landmarks, model.config.template, 112) for t in range(40)]
    )
    clips = model.preprocess(np.concatenate([crops] + [crops[-1:]] * 8)).unflatten(0, (3, 16))
    np.testing.assert_allclose(want.scores, model(clips).flatten(0, 1)[:40], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_clips_in_batches_with_a_gap_across_their_border(
    batch_size: int, make: Callable[..., AUDetector]
) -> None:
    script = [[] if 14 <= t < 19 else [at(t)] for t in range(40)]
    want = make(script, window="clips", batch_size=40).detect_frames(images(40))
    assert_same_rows(
        make(script, window="clips", batch_size=batch_size).detect_frames(images(40)), want
    )


def test_max_faces_does_not_change_the_faces_that_are_kept(make: Callable[..., AUDetector]) -> None:
    script = [[at(t), at(t, left=85.0, side=60.0)] for t in range(20)]
    both = make(script).detect_frames(images(20))
    assert both.face_id_column == [0, 1] * 20
    assert_same_rows(
        make(script, max_faces=1).detect_frames(images(20)),
        [row for row in both if row.face_id == 0],
    )


@pytest.mark.parametrize("gap", [MAX_GAP, MAX_GAP + 1])
def test_a_gap_of_max_gap_is_bridged_and_a_longer_one_ends_the_track(
    gap: int, make: Callable[..., AUDetector]
) -> None:
    script = [[at(t)] for t in range(10)] + [[]] * gap + [[at(t)] for t in range(10)]
    result = make(script).detect_frames(images(len(script)))
    assert result.face_id_column == [0] * 10 + [None] * gap + [int(gap > MAX_GAP)] * 10
    # Frames on one side of a gap affect those on the other only if the gap is bridged.
    alone = make(script).detect_frames(images(10))
    difference = np.abs(result.scores[:10] - alone.scores).max(axis=1)
    assert difference[:2].max() <= CLOSE
    assert (difference[-1] > 10 * CLOSE) == (gap == MAX_GAP)


def test_a_change_of_size_starts_new_tracks(make: Callable[..., AUDetector]) -> None:
    script = [[at(t)] for t in range(24)]
    frames = [image(t) if t < 11 else image(t, HEIGHT + 8, WIDTH + 4) for t in range(24)]
    for batch_size in (1, 8, 32):
        result = make(script, batch_size=batch_size).detect_frames(frames)
        assert result.face_id_column == [0] * 11 + [1] * 13
        assert_same_rows(list(result)[:11], make(script).detect_frames(frames[:11]))
        assert_same_rows(
            list(result)[11:], make(script).detect_frames(frames[11:]), shift=11, ids=1
        )


def test_independent_images_know_nothing_of_each_other(
    make: Callable[..., AUDetector], tmp_path: Path
) -> None:
    for number in (3, 4, 12, 40):
        Image.fromarray(image(number)).save(tmp_path / f"{number}.png")
    detector = make()
    result = detector.detect_images(tmp_path, independent=True)
    assert [(row.frame, row.face_id, Path(str(row.file)).name) for row in result] == [
        (0, 0, "3.png"),
        (1, 1, "4.png"),
        (2, 2, "12.png"),
        (2, 3, "12.png"),
        (3, None, "40.png"),
    ]
    alone = [row for number in (3, 4, 12, 40) for row in detector.detect_image(image(number))]
    np.testing.assert_allclose(result.scores, [row.scores for row in alone], rtol=0, atol=CLOSE)


# ---- streams


def test_a_stream_gives_rows_7_frames_late(make: Callable[..., AUDetector]) -> None:
    script = [[at(t)] for t in range(30)]
    stream = make(script).stream(fps=25)
    for number in range(30):
        assert [row.frame for row in stream.push(image(number))] == (
            [number - 7] if number >= 7 else []
        )
    rest = stream.flush()
    assert [row.frame for row in rest] == list(range(23, 30))
    assert [row.time_s for row in rest] == pytest.approx([t / 25 for t in range(23, 30)])
    assert stream.flush() == []


def test_a_stream_gives_frames_without_faces_at_once(make: Callable[..., AUDetector]) -> None:
    stream = make([[]] * 9).stream()
    for number in range(9):
        [row] = stream.push(image(number))
        assert (row.frame, row.face_id) == (number, None)
        assert np.isnan(row.time_s)


def test_times_given_with_the_frames_come_back_with_the_rows(
    make: Callable[..., AUDetector],
) -> None:
    stream = make().stream(fps=30)
    rows = [
        row for t in range(12) for row in stream.push(image(t), time_s=t * 0.1 + 5)
    ] + stream.flush()
    assert [row.time_s for row in rows] == pytest.approx([t * 0.1 + 5 for t in range(12)])


def test_after_a_flush_a_stream_goes_on_as_after_a_cut(make: Callable[..., AUDetector]) -> None:
    script, frames = [[at(t)] for t in range(30)], images(30)
    stream = make(script).stream()
    before = push_all(stream, frames[:13])
    after = push_all(stream, frames[13:])
    assert_same_rows(before, make(script).detect_frames(frames[:13]))
    assert_same_rows(after, make(script).detect_frames(frames[13:]), shift=13, ids=1)


def test_after_a_reset_a_stream_is_as_new(make: Callable[..., AUDetector]) -> None:
    script, frames = [[at(t)] for t in range(30)], images(30)
    stream = make(script).stream()
    push_all(stream, frames[:13], flush=False)
    stream.reset()
    assert stream.flush() == []
    assert_same_rows(push_all(stream, frames[13:]), make(script).detect_frames(frames[13:]))


def test_streams_of_one_detector_are_apart(make: Callable[..., AUDetector]) -> None:
    detector, frames = make(), images(40)
    one, other = detector.stream(), detector.stream()
    rows: list[AURow] = []
    for number, frame in enumerate(frames):
        rows += one.push(frame)
        other.push(frames[-number])
    assert_same_rows(rows + one.flush(), detector.detect_frames(frames))


def test_a_stream_passes_over_a_bad_frame(make: Callable[..., AUDetector]) -> None:
    detector, frames = make(), images(20)
    stream = detector.stream()
    rows: list[AURow] = []
    for frame in frames:
        rows += stream.push(frame)
        with pytest.raises(InputError, match="got nan"):
            stream.push(np.full((4, 4, 3), np.nan))
    assert_same_rows(rows + stream.flush(), detector.detect_frames(frames))


class Blinded(ScriptedAligner):
    """Finds faces whose landmarks are useless in image 5."""

    def __init__(self, script: Script, landmarks: FloatArray) -> None:
        super().__init__(script)
        self._landmarks = landmarks

    def detect(self, rgb: UInt8Array) -> list[Face]:
        faces = super().detect(rgb)
        return (
            [Face(f.box_xyxy, self._landmarks, f.confidence) for f in faces]
            if rgb[0, 0, 0] == 5
            else faces
        )


@pytest.mark.parametrize("value", [float("nan"), 3.0], ids=["not finite", "in one place"])
def test_a_face_that_cannot_be_cropped_is_none(
    value: float, make: Callable[..., AUDetector]
) -> None:
    script = [[at(t)] for t in range(12)]
    aligner = Blinded(script, np.full((5, 2), value, np.float32))
    result = make(script, aligner=aligner).detect_frames(images(12))
    assert result.face_id_column == [0] * 5 + [None] + [0] * 6
    assert_same_rows(result, make([*script[:5], [], *script[6:]]).detect_frames(images(12)))


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_a_stream_wants_a_sensible_fps(fps: float, make: Callable[..., AUDetector]) -> None:
    with pytest.raises(OptionError, match="fps"):
        make().stream(fps=fps)


def test_a_stream_wants_a_number_for_fps(make: Callable[..., AUDetector]) -> None:
    with pytest.raises(OptionError, match="fps"):
        make().stream(fps="30")  # type: ignore[arg-type]


# ---- laziness and failures


def test_nothing_is_kept_of_tracks_that_are_over(
    make: Callable[..., AUDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[weakref.ref[Any]] = []

    def watched(name: str, model: Any) -> Any:
        window: Any = make_window(name, model)
        windows.append(weakref.ref(window))
        return window

    monkeypatch.setattr("pyfau.pipeline.make_window", watched)
    stream = make([[at(t)] for t in range(30)]).stream()
    for number in range(12):
        # Each of another size: a track of its own.
        stream.push(image(number, HEIGHT + 8 * (number % 2)))
    gc.collect()
    assert [window() is not None for window in windows] == [False] * 11 + [True]
    stream.flush()
    gc.collect()
    assert windows[-1]() is None


@pytest.mark.parametrize(("batch_size", "pulled"), [(1, 8), (4, 12), (5, 15), (16, 32)])
def test_frames_are_not_read_further_ahead_than_needed(
    batch_size: int, pulled: int, make: Callable[..., AUDetector]
) -> None:
    """The 7 frames of context, rounded up to batches, and one batch more while that is scored."""
    count = 0

    def frames() -> Iterator[UInt8Array]:
        nonlocal count
        for number in range(40):
            count += 1
            yield image(number)

    rows = make([[at(t)] for t in range(40)], batch_size=batch_size).iter_frames(frames())
    assert count == 0
    assert next(rows).frame == 0
    assert count == pulled
    rows.close()


def with_hole(first: int, last: int) -> FrameReader:
    """A source of 40 images of which those from `first` to `last` are missing."""
    kept = [number for number in range(40) if not first <= number <= last]
    return FrameReader("clip", "video", (Frame(k, k / 25, image(k)) for k in kept), fps=25.0)


@pytest.mark.parametrize("window", ["continuous", "clips"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_short_hole_is_like_frames_without_the_face(
    window: str, batch_size: int, make: Callable[..., AUDetector]
) -> None:
    seen = [[at(t)] for t in range(40)]
    hidden = [[] if 20 <= t < 24 else faces for t, faces in enumerate(seen)]
    options = {"window": window, "batch_size": batch_size}
    got = list(make(seen, **options).iter_frames(with_hole(20, 23)))
    want = [row for row in make(hidden, **options).detect_frames(images(40)) if row.success]
    assert_same_rows(got, want)
    assert {row.face_id for row in got} == {0}


@pytest.mark.parametrize("window", ["continuous", "clips"])
def test_a_track_ends_at_a_hole_longer_than_max_gap(
    window: str, make: Callable[..., AUDetector]
) -> None:
    script = [[at(t)] for t in range(40)]
    rows = list(make(script, window=window).iter_frames(with_hole(20, 20 + MAX_GAP)))
    ids = {row.frame: row.face_id for row in rows}
    assert [ids[19], ids[20 + MAX_GAP + 1]] == [0, 1]
    # The frames before the hole are scored as if the source ended there.
    alone = make(script, window=window).detect_frames(images(20))
    assert_same_rows([row for row in rows if row.frame < 20], alone)


class OwnError(Exception):
    pass


def failing(at_frame: int, error: Exception) -> Iterator[UInt8Array]:
    for number in range(at_frame):
        yield image(number)
    raise error


@pytest.mark.parametrize("at_frame", [0, 1, 10, 32, 45])
def test_rows_before_an_error_of_the_family_are_kept_with_it(
    at_frame: int, rows: list[AURow], make: Callable[..., AUDetector]
) -> None:
    error = InputError("the camera fell over")
    with pytest.raises(InputError) as caught:
        make().detect_frames(failing(at_frame, error))
    assert caught.value is error
    assert error.partial_result is not None
    want = make().detect_frames(images(at_frame)) if at_frame else []
    assert_same_rows(error.partial_result, want)


@pytest.mark.parametrize("at_frame", [0, 10, 45])
def test_an_error_of_the_users_own_passes_through(
    at_frame: int, make: Callable[..., AUDetector], tmp_path: Path
) -> None:
    error = OwnError("mine")
    with pytest.raises(OwnError) as caught:
        make().detect_frames(failing(at_frame, error), save=tmp_path / "rows.csv")
    assert caught.value is error
    want = make().detect_frames(images(at_frame)) if at_frame else []
    with (tmp_path / "rows.csv").open(newline="") as file:
        saved = [(int(line["frame"]), line["face_id"]) for line in csv.DictReader(file)]
    assert saved == [(row.frame, "" if row.face_id is None else str(row.face_id)) for row in want]


@pytest.mark.parametrize("error", [OwnError("mine"), InputError("ours")])
def test_an_iterator_gives_the_rows_before_an_error(
    error: Exception, make: Callable[..., AUDetector]
) -> None:
    got: list[AURow] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        for row in make().iter_frames(failing(20, error)):
            got.append(row)
    assert caught.value is error
    assert_same_rows(got, make().detect_frames(images(20)))


def test_a_bad_image_is_named_and_the_rows_before_it_are_kept(
    make: Callable[..., AUDetector],
) -> None:
    frames: list[Any] = images(12)
    frames[9] = np.zeros((3, 64, 64), np.uint8)
    with pytest.raises(InputError, match="9") as caught:
        make().detect_frames(frames)
    assert caught.value.partial_result is not None
    assert_same_rows(caught.value.partial_result, make().detect_frames(frames[:9]))


# ---- options


def test_thresholds(make: Callable[..., AUDetector]) -> None:
    own = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]  # of AU 1 2 4 6 9 12 25 26
    for option, want in [
        (None, own),
        (0.25, [0.25] * 8),
        (0, [0.0] * 8),
        (1, [1.0] * 8),
        (np.float64(0.5), [0.5] * 8),
        (np.float32(0.5), [0.5] * 8),
        ({}, own),
        ({"AU12": 0.9}, [*own[:5], 0.9, *own[6:]]),
        ({12: 0.9, "AU01": 0.0}, [0.0, *own[1:5], 0.9, *own[6:]]),
        ({4: 1}, [*own[:2], 1.0, *own[3:]]),
    ]:
        detector = make(threshold=option)
        assert detector.thresholds.dtype == np.float32
        np.testing.assert_allclose(detector.thresholds, want, rtol=1e-6)
        result = detector.detect_frames(images(5))
        assert result.metadata["thresholds"] == pytest.approx(
            dict(zip(detector.aus, want, strict=True))
        )
        for row in result:
            np.testing.assert_array_equal(row.active, row.scores >= np.float32(want))


def test_a_score_at_its_threshold_is_active(make: Callable[..., AUDetector]) -> None:
    [row] = make().detect_frames([image(4)])
    exact = dict(zip(row.aus, row.scores.tolist(), strict=True))
    [row] = make(threshold=exact).detect_frames([image(4)])
    assert row.active.all()
    above = {
        au: float(np.nextafter(np.float32(score), np.float32(2))) for au, score in exact.items()
    }
    [row] = make(threshold=above).detect_frames([image(4)])
    assert not row.active.any()


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"threshold": 1.5}, "1.5"),
    ({"threshold": -0.1}, "-0.1"),
    ({"threshold": float("nan")}, "nan"),
    ({"threshold": True}, "True"),
    ({"threshold": "0.5"}, "'0.5'"),
    ({"threshold": [0.5] * 8}, "threshold"),
    ({"threshold": {"AU12": 2}}, "AU12"),
    ({"threshold": {"AU12": None}}, "AU12"),
    ({"threshold": {"AU99": 0.5}}, "'AU99': the model scores AU01, AU02"),
    ({"threshold": {99: 0.5}}, "99"),
    ({"threshold": {"AU1": 0.5}}, "'AU1'"),
    ({"batch_size": 0}, "batch_size .* at least 1, got 0"),
    ({"batch_size": True}, "batch_size"),
    ({"batch_size": "x"}, "batch_size .*'x'"),
    ({"batch_size": 2.0}, "batch_size"),
    ({"batch_size": None}, "batch_size"),
    ({"max_gap": -1}, "max_gap .* at least 0, got -1"),
    ({"max_gap": None}, "max_gap"),
    ({"max_faces": 0}, "max_faces"),
    ({"max_faces": 1.5}, "max_faces"),
    ({"detect_every": 0}, "detect_every"),
    ({"window": "hann"}, "unknown window 'hann': expected one of continuous, clips"),
    ({"window": None}, "window"),
    ({"device": "tpu-v9"}, "tpu-v9"),
    ({"device": "cuda:99"}, "cuda:99"),
    ({"device": "meta"}, "meta"),
    ({"device": None}, "None"),
    ({"aligner": "dlib"}, "unknown aligner 'dlib': expected one of auto, mtcnn"),
    ({"aligner": object()}, "detect and refine"),
    ({"aligner": None}, "detect and refine"),
]


@pytest.mark.parametrize(
    ("options", "expected"), BAD_OPTIONS, ids=lambda value: re.sub(" at 0x.*", "", str(value))[:40]
)
def test_bad_options_are_named(
    options: dict[str, Any], expected: str, make: Callable[..., AUDetector]
) -> None:
    with pytest.raises(OptionError, match=expected) as caught:
        make(**options)
    assert isinstance(caught.value, DeviceError) == ("device" in options)


def test_whole_numbers_of_numpy_are_taken(make: Callable[..., AUDetector]) -> None:
    detector = make(
        batch_size=np.int64(3), max_gap=np.int32(0), detect_every=np.uint8(4), max_faces=np.int64(1)
    )
    assert {
        name: detector.detect_frames([image(4)]).metadata[name] for name in ("max_gap", "max_faces")
    } == {
        "max_gap": 0,
        "max_faces": 1,
    }


def test_the_model_is_where_and_what_was_asked_for(
    folder: Path, make: Callable[..., AUDetector]
) -> None:
    detector = make(device=torch.device("cpu"))
    assert detector.aus == tiny_config().au_names
    assert detector.model.training is False
    assert not any(parameter.requires_grad for parameter in detector.model.parameters())
    metadata = detector.detect_frames([image(4)]).metadata
    assert metadata["model_origin"] == str(folder)
    assert (metadata["aligner"], metadata["device"]) == ("ScriptedAligner", "cpu")


# ---- importing

IMPORTING = """
import os, sys
before = dict(os.environ)
import pyfau
heavy = {"torch", "cv2", "pandas", "scipy", "PIL", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert set(pyfau.__all__) == set(dir(pyfau)), set(pyfau.__all__) ^ set(dir(pyfau))
pyfau.AURow, pyfau.Face, pyfau.Frame, pyfau.AU_NAMES
assert not {"torch", "cv2"} & set(sys.modules)
try:
    pyfau.AUDetectr
except AttributeError as error:
    assert "AUDetectr" in str(error)
else:
    raise AssertionError("a name that does not exist was found")
"""


def test_importing_pyfau_is_light_and_leaves_the_environment_alone() -> None:
    root = str(Path(pyfau.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    for name in pyfau.__all__:
        assert getattr(pyfau, name) is not None
    assert issubclass(pyfau.ConfigError, PyfauError)


@pytest.mark.parametrize(
    "options",
    [
        {"foo": 1},
        {"device": "cpu"},
        {"min_face": "a"},
        {"min_face": 3},
        {"thresholds": 0.5},
        {1: 2},
        [1],
        "x",
    ],
    ids=str,
)
def test_aligner_options_that_are_not_taken(options: Any) -> None:
    with pytest.raises(OptionError, match=r"aligner|min_face|thresholds"):
        AUDetector(device="cpu", aligner_options=options)


def test_aligner_options_stand_in_the_metadata() -> None:
    detector = AUDetector(device="cpu", aligner_options={"min_face": 60})
    result = detector.detect_image(np.zeros((40, 40, 3), np.uint8))
    assert result.metadata["aligner_options"] == {"min_face": 60}
    assert detector.settings().items() <= result.metadata.items()


@pytest.mark.parametrize("time_s", ["x", True])
def test_a_pushed_time_is_a_number(make: Callable[..., AUDetector], time_s: Any) -> None:
    with pytest.raises(OptionError, match="time_s"):
        make().stream().push(images(1)[0], time_s=time_s)


def test_iter_camera(make: Callable[..., AUDetector], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a camera come 7 frames late, frame by frame, and the camera is let go when nobody
    reads on.
    """
    reader = read_arrays(iter(images(12)))
    monkeypatch.setattr("pyfau.detector.read_camera", lambda index: reader)
    rows = make([[at(t)] for t in range(12)]).iter_camera(3)
    first = next(rows)
    assert first.frame == 0
    assert next(reader).index == 8  # 8 frames were read for it: its own and 7 more
    rows.close()
    with pytest.raises(StopIteration):
        next(reader)
