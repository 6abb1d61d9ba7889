"""Every frame of a track is scored once, in order, and as if its whole track had been scored in one
go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import CHANNELS, WIDTH, random_features, tiny_model

from pyfau.models.mdhr import CONTEXT, POOL, TCN_KERNEL, TOKENS, FrameFeatures
from pyfau.models.windows import (
    CLIP_LENGTH,
    ClipWindow,
    ContinuousWindow,
    Scored,
    Window,
    make_window,
)

MODEL = tiny_model(11)
# Derandomised: rounding can turn an arg-max of the network over, about once in a million frames. If
# it ever does, then in every run on that machine and not now and again.
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
CLOSE = 1e-5


@dataclass(repr=False)
class Track:
    """A made-up track.

    Attributes:
        seen: For each frame, whether the face is in it; the first one is.
        features: Of the frames in which it is.
    """

    seen: list[bool]
    features: FrameFeatures

    def __repr__(self) -> str:
        return "".join(".#"[seen] for seen in self.seen)

    @property
    def keys(self) -> list[int]:
        """The seen frames."""
        return [t for t, seen in enumerate(self.seen) if seen]

    @property
    def source(self) -> list[int]:
        """For every frame, the row of `features` that stands for it."""
        return [int(i) for i in np.cumsum(self.seen) - 1]

    def filled(self) -> FrameFeatures:
        """Features of every frame, gaps filled by the last ones before."""
        return self.features[torch.tensor(self.source)]

    def pieces(self, sizes: list[int]) -> Iterator[tuple[int, int]]:
        """Cut into chunks of the given sizes, in turn, and these into stretches with and without
        the face.
        """
        start, turn = 0, 0
        while start < len(self.seen):
            end = min(len(self.seen), start + sizes[turn % len(sizes)])
            while start < end:
                stop = start
                while stop < end and self.seen[stop] == self.seen[start]:
                    stop += 1
                yield start, stop
                start = stop
            turn += 1


def feed(window: Window[int], track: Track, start: int, stop: int) -> Scored[int]:
    if not track.seen[start]:
        return window.bridge(stop - start)
    first = track.source[start]
    return window.push(track.features[first : first + stop - start], range(start, stop))


def play(window: Window[int], track: Track, sizes: list[int]) -> Scored[int]:
    scored = [
        row for start, stop in track.pieces(sizes) for row in feed(window, track, start, stop)
    ]
    return scored + window.finish()


def table(scored: Scored[int]) -> np.ndarray:
    return np.stack([row for _, row in scored])


def make_track(seen: list[bool], seed: int) -> Track:
    return Track(seen, random_features(sum(seen), seed))


def with_another_frame(track: Track, place: int) -> Track:
    """The same track with one of its seen frames exchanged."""
    static, dynamic = track.features.static.clone(), track.features.dynamic.clone()
    fresh = random_features(1, -1)  # a seed that no track has
    static[place], dynamic[place] = fresh.static[0], fresh.dynamic[0]
    return Track(track.seen, FrameFeatures(static, dynamic))


SEEDS = st.integers(0, 2**32)


@st.composite
def tracks(draw: st.DrawFn, gaps: bool = True, longest: int = 60) -> Track:
    if gaps:
        stretches = draw(
            st.lists(st.tuples(st.integers(1, 30), st.integers(0, 18)), min_size=1, max_size=4)
        )
        seen = [face for length, gap in stretches for face in [True] * length + [False] * gap]
    else:
        seen = [True] * draw(st.integers(1, longest))
    return make_track(seen[:longest], draw(SEEDS))


chunkings = st.lists(st.integers(1, 40), min_size=1, max_size=6)
names = st.sampled_from(["continuous", "clips"])


def continuous_reference(track: Track) -> np.ndarray:
    """The whole track at once: gaps filled, 7 repeats at both ends, every frame an inner frame."""
    frames = track.filled()
    parts = [frames[:1]] * CONTEXT + [frames] + [frames[-1:]] * CONTEXT
    long = FrameFeatures.cat(parts)
    scores = MODEL.relate(long.unflatten(1, len(long)), "inner")[0]
    assert len(scores) == len(track.seen)
    return scores.numpy()[track.keys]


def clips_reference(features: FrameFeatures) -> np.ndarray:
    """Consecutive frames in clips of 16, the last one filled by its last frame."""
    rows = []
    for start in range(0, len(features), 16):
        clip = features[start : start + 16]
        real = len(clip)
        clip = FrameFeatures.cat([clip] + [clip[-1:]] * (16 - real))
        rows.append(MODEL.relate(clip.unflatten(1, 16), "clip")[0, :real])
    return torch.cat(rows).numpy()


# ---- both kinds


@given(name=names, track=tracks(), sizes=chunkings)
@PROPERTY
def test_every_seen_frame_is_scored_once_and_in_order(
    name: str, track: Track, sizes: list[int]
) -> None:
    scored = play(make_window(name, MODEL), track, sizes)
    assert [key for key, _ in scored] == track.keys  # and so no filled frame is reported
    assert all(row.shape == (8,) and row.dtype == np.float32 for _, row in scored)
    assert ((table(scored) >= 0) & (table(scored) <= 1)).all()


@given(name=names, track=tracks(), other=tracks(), sizes=chunkings, seed=SEEDS)
@PROPERTY
def test_other_tracks_do_not_change_a_row(
    name: str, track: Track, other: Track, sizes: list[int], seed: int
) -> None:
    alone = table(play(make_window(name, MODEL), track, sizes))
    # Before it, in the same window.
    window = make_window(name, MODEL)
    before = play(window, other, sizes)
    np.testing.assert_allclose(table(play(window, track, sizes)), alone, rtol=0, atol=1e-6)
    # Beside it, in another window, the pieces of both in any order.
    rng = np.random.default_rng(seed)
    sides = [(make_window(name, MODEL), t, list(t.pieces(sizes)), []) for t in (track, other)]
    while any(pieces for *_, pieces, _ in sides):
        window, one, pieces, out = sides[int(rng.integers(2))]
        if pieces:
            out += feed(window, one, *pieces.pop(0))
    for (window, _, _, out), want in zip(sides, (alone, table(before)), strict=True):
        np.testing.assert_allclose(table(out + window.finish()), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["continuous", "clips"])
def test_a_window_without_frames_has_no_rows(name: str) -> None:
    window: Window[int] = make_window(name, MODEL)
    assert window.finish() == []
    assert window.bridge(5) == []  # there is no frame to fill with
    assert window.push(random_features(0, 0), []) == []
    assert window.finish() == []
    [(key, row)] = window.push(random_features(1, 0), [3]) + window.finish()
    assert key == 3
    assert np.isfinite(row).all()


@pytest.mark.parametrize("name", ["continuous", "clips"])
def test_keys_may_be_anything_even_equal_or_false(name: str) -> None:
    window: Window[object] = make_window(name, MODEL)
    same, keys = object(), [0, "", (), False, 0]
    scored = window.push(random_features(7, 0), [same, same, *keys]) + window.finish()
    assert [key for key, _ in scored] == [same, same, *keys]


def test_rows_differ_so_that_comparing_them_means_something() -> None:
    for name in ("continuous", "clips"):
        rows = table(play(make_window(name, MODEL), make_track([True] * 60, 0), [60]))
        assert (rows.std(axis=0) > 0.003).sum() >= 6
        assert (np.abs(np.diff(rows, axis=0)).max(axis=1) > 100 * CLOSE).all()


# ---- continuous


@given(track=tracks(), sizes=chunkings)
@PROPERTY
def test_continuous_rows_are_those_of_the_whole_track_in_one_go(
    track: Track, sizes: list[int]
) -> None:
    rows = table(play(ContinuousWindow(MODEL), track, sizes))
    np.testing.assert_allclose(rows, continuous_reference(track), rtol=0, atol=CLOSE)


@given(track=tracks(), one=chunkings, other=chunkings)
@PROPERTY
def test_continuous_rows_do_not_depend_on_the_chunking(
    track: Track, one: list[int], other: list[int]
) -> None:
    window: ContinuousWindow[int] = ContinuousWindow(MODEL)
    rows = table(play(window, track, one))
    np.testing.assert_allclose(table(play(window, track, other)), rows, rtol=0, atol=CLOSE)


@given(track=tracks(), sizes=chunkings)
@PROPERTY
def test_a_row_is_final_when_7_more_frames_have_come_and_not_before(
    track: Track, sizes: list[int]
) -> None:
    window: ContinuousWindow[int] = ContinuousWindow(MODEL)
    done: list[int] = []
    for start, stop in track.pieces(sizes):
        done += [key for key, _ in feed(window, track, start, stop)]
        assert done == [key for key in track.keys if key + 7 < stop]


@given(track=tracks(), sizes=chunkings, data=st.data())
@PROPERTY
def test_a_frame_reaches_7_rows_either_side_and_no_further(
    track: Track, sizes: list[int], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(track.features) - 1), label="changed")
    both = (track, with_another_frame(track, changed))
    rows, others = (table(play(ContinuousWindow(MODEL), t, sizes)) for t in both)
    places = [t for t, source in enumerate(track.source) if source == changed]  # it may fill a gap
    difference = np.abs(rows - others).max(axis=1)
    for key, amount in zip(track.keys, difference, strict=True):
        if min(abs(key - place) for place in places) > 7:
            assert amount <= 1e-6
        elif key == places[0]:
            assert amount > 1e-6


def test_the_reach_of_7_is_used_in_full() -> None:
    track = make_track([True] * 41, 5)
    rows, others = (
        table(play(ContinuousWindow(MODEL), t, [41]))
        for t in (track, with_another_frame(track, 20))
    )
    touched = np.flatnonzero(np.abs(rows - others).max(axis=1) > 1e-7)
    assert touched.tolist() == list(range(13, 28))


def test_a_gap_at_the_end_of_a_track_changes_nothing() -> None:
    seen = [True] * 12
    with_gap = play(ContinuousWindow(MODEL), make_track([*seen, *[False] * 15], 2), [27])
    without = play(ContinuousWindow(MODEL), make_track(seen, 2), [12])
    np.testing.assert_allclose(table(with_gap), table(without), rtol=0, atol=CLOSE)


def test_a_still_face_has_the_same_scores_in_every_frame() -> None:
    """Repeating a frame is what the ends of a track do, so that none of them stands out."""
    frame = random_features(1, 8)
    still = FrameFeatures(frame.static.expand(20, -1, -1), frame.dynamic.expand(20, -1, -1, -1))
    window: ContinuousWindow[int] = ContinuousWindow(MODEL)
    rows = table(window.push(still, range(20)) + window.finish())
    one = table(window.push(frame, [0]) + window.finish())
    np.testing.assert_allclose(rows, np.repeat(one, 20, axis=0), rtol=0, atol=CLOSE)


def test_as_much_is_held_after_many_frames_as_after_a_few() -> None:
    def held(window: ContinuousWindow[int]) -> int:
        stream = window._stream
        tensors = [
            stream._dynamic,
            stream._static,
            stream._units,
            *(t for held in stream._changes for t in held),
        ]
        # Storages, because a view of more frames than it shows would keep them all.
        storages = {
            s.data_ptr(): s.nbytes()
            for s in (t.untyped_storage() for t in tensors if t is not None)
        }
        return sum(storages.values())

    window: ContinuousWindow[int] = ContinuousWindow(MODEL)
    window.push(random_features(40, 0), range(40))
    first = held(window)
    dynamic = 4 * TOKENS * CHANNELS  # of the last frame, and nine changes
    units = (TCN_KERNEL - 1) * len(MODEL.config.aus) * WIDTH
    assert first == 4 * (POOL * dynamic + POOL // 2 * TOKENS * WIDTH + units)
    for start in range(40, 200, 40):
        window.push(random_features(40, start), range(start, start + 40))
        assert held(window) == first


# ---- a window that answers at once


@given(track=tracks(longest=30), sizes=chunkings)
@settings(PROPERTY, max_examples=15)
def test_a_prompt_window_scores_each_frame_as_if_the_track_ended_there(
    track: Track, sizes: list[int]
) -> None:
    window: Window[int] = make_window("prompt", MODEL)
    scored: Scored[int] = []
    for start, stop in track.pieces(sizes):
        part = feed(window, track, start, stop)
        assert len(part) == (stop - start) * track.seen[start]  # at once
        scored += part
    assert window.finish() == []
    assert [key for key, _ in scored] == track.keys
    for key, row in scored:
        prefix = Track(track.seen[: key + 1], track.features[: track.source[key] + 1])
        np.testing.assert_allclose(row, continuous_reference(prefix)[-1], rtol=0, atol=CLOSE)
    # And it can be used for another track.
    again = window.push(track.features[:1], [0])
    np.testing.assert_allclose(again[0][1], scored[0][1], rtol=0, atol=CLOSE)


# ---- clips


@given(track=tracks(gaps=False), sizes=chunkings)
@PROPERTY
def test_clips_are_those_of_the_paper(track: Track, sizes: list[int]) -> None:
    rows = table(play(ClipWindow(MODEL), track, sizes))
    np.testing.assert_allclose(rows, clips_reference(track.features), rtol=0, atol=CLOSE)


@given(length=st.integers(2, 14), gap=st.integers(1, 14), rest=st.integers(1, 30), sizes=chunkings)
@PROPERTY
def test_a_gap_within_a_clip_is_filled_by_the_last_frame(
    length: int, gap: int, rest: int, sizes: list[int]
) -> None:
    gap = min(gap, CLIP_LENGTH - 1 - length)
    track = make_track([True] * length + [False] * gap + [True] * rest, length)
    rows = table(play(ClipWindow(MODEL), track, sizes))
    np.testing.assert_allclose(
        rows, clips_reference(track.filled())[track.keys], rtol=0, atol=CLOSE
    )


@given(track=tracks(), one=chunkings, other=chunkings)
@PROPERTY
def test_clips_do_not_depend_on_the_chunking(
    track: Track, one: list[int], other: list[int]
) -> None:
    rows = table(play(ClipWindow(MODEL), track, one))
    np.testing.assert_allclose(
        table(play(ClipWindow(MODEL), track, other)), rows, rtol=0, atol=CLOSE
    )


@given(length=st.integers(1, 60), sizes=chunkings)
@PROPERTY
def test_clips_are_final_when_their_16_frames_have_come(length: int, sizes: list[int]) -> None:
    track = make_track([True] * length, length)
    window: ClipWindow[int] = ClipWindow(MODEL)
    done: list[int] = []
    for start, stop in track.pieces(sizes):
        done += [key for key, _ in feed(window, track, start, stop)]
        assert done == list(range(stop // 16 * 16))


@given(track=tracks(gaps=False), sizes=chunkings, data=st.data())
@PROPERTY
def test_a_frame_changes_no_other_clip(track: Track, sizes: list[int], data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, len(track.seen) - 1), label="changed")
    both = (track, with_another_frame(track, changed))
    rows, others = (table(play(ClipWindow(MODEL), t, sizes)) for t in both)
    difference = np.abs(rows - others).max(axis=1)
    start = changed // 16 * 16
    assert difference[changed] > 1e-6
    assert difference[:start].max(initial=0) <= 1e-6
    assert difference[start + 16 :].max(initial=0) <= 1e-6
