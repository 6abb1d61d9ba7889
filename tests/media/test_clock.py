from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from pyfau.media.clock import Clock, Hole

STEP = 0.04


def run(
    stamps: Sequence[float | None],
    *,
    fps: float | None = 25.0,
    lost: Sequence[int] = (),
    errors: int = 0,
    ahead: int = 16,
    lasts: float | Sequence[float] | None = STEP,
) -> tuple[Clock, list[int], list[float]]:
    """A clock after a file: packets with these stamps, of which some give no frame."""
    clock = Clock(fps)
    clock.errors = errors
    indexes, times = [], []
    announced = 0
    for number, stamp in enumerate(stamps):
        while announced < min(len(stamps), number + ahead):
            duration = lasts[announced] if isinstance(lasts, Sequence) else lasts
            clock.announce(stamps[announced], duration)
            announced += 1
        clock.is_read = announced == len(stamps)
        if number in lost:
            continue
        placed = clock.place(stamp)
        indexes.append(placed.index)
        times.append(placed.time_s)
    clock.finish()
    return clock, indexes, times


def regular(count: int, step: float = STEP, start: float = 0.0) -> list[float]:
    return [start + step * k for k in range(count)]


def test_bad_time_stamps_are_filled_in_once_warned() -> None:
    clock, indexes, times = run([0.0, 0.04, 0.0, 0.0, 0.16, 0.2], lasts=None)
    assert times == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, 0.2])
    assert indexes == [0, 1, 2, 3, 4, 5]
    (warning,) = clock.warnings()
    assert warning.startswith("frame 2 has a missing or backward time stamp")


@pytest.mark.parametrize("stamp", [0.0, None])
def test_no_time_stamps_at_all(stamp: float | None) -> None:
    clock, _, times = run([stamp] * 10, fps=23.976)
    assert times == pytest.approx([k / 23.976 for k in range(10)])
    assert len(clock.warnings()) == 1


def test_no_time_stamps_and_no_rate() -> None:
    _, _, times = run([0.0, 0.0, 0.0], fps=None, lasts=None)
    assert times == pytest.approx([0.0, math.nan, math.nan], nan_ok=True)


def test_first_frames_without_a_time_stamp_are_counted_back() -> None:
    _, _, times = run([None, None, None, *regular(20, start=0.2)])
    np.testing.assert_allclose(times, regular(23, start=0.08), atol=1e-9)


def test_refused_packets_leave_their_indexes_unused() -> None:
    clock, indexes, times = run(regular(40), lost=range(10, 15), errors=5)
    assert indexes == [*range(10), *range(15, 40)]
    np.testing.assert_allclose(times, np.array(indexes) * STEP)
    assert clock.holes == [Hole(10, 5, pytest.approx(0.36), pytest.approx(0.6))]
    assert clock.warnings() == ["frames 10 to 14 are missing: a hole of 0.240 s after 0.360 s"]


def test_refused_packets_where_the_rate_varies() -> None:
    steps = np.tile([0.02, 0.06, 0.04], 20)
    stamps = (np.cumsum(steps) - steps).tolist()
    clock, indexes, _ = run(stamps, lost=range(20, 26), errors=6, lasts=steps.tolist())
    assert indexes == [*range(20), *range(26, 60)]
    assert [hole.count for hole in clock.holes] == [6]


def test_packets_that_are_gone_leave_a_hole_too() -> None:
    clock, indexes, _ = run([*regular(20), *regular(20, start=2.0)])
    assert indexes == [*range(20), *range(50, 70)]
    assert clock.holes == [Hole(20, 30, pytest.approx(0.76), pytest.approx(2.0))]


def test_a_slower_rate_is_no_hole() -> None:
    clock, indexes, _ = run([*regular(20), *regular(20, step=0.4, start=0.8)])
    assert indexes == list(range(40))
    assert not clock.holes


def test_a_frame_that_lasts_long_is_no_hole() -> None:
    stamps = [*regular(20), *regular(20, start=2.0)]
    clock = Clock(25.0)
    for stamp, after in zip(stamps, [*stamps[1:], 4.0], strict=True):
        clock.announce(stamp, after - stamp)
    assert [clock.place(stamp).index for stamp in stamps] == list(range(40))
    assert not clock.holes


def test_two_fields_are_one_frame() -> None:
    clock = Clock(25.0)
    clock.errors = 1
    for k in range(100):
        clock.announce(k * STEP / 2, None)
    frames = [k for k in range(50) if not 20 <= k < 24]
    assert [clock.place(k * STEP).index for k in frames] == frames
    assert [hole.count for hole in clock.holes] == [4]


def test_a_clock_that_restarts_keeps_its_steps() -> None:
    again = [0.0, 0.04, 0.12, 0.16]
    clock, indexes, times = run([*regular(10, start=5.0), *again])
    assert indexes == list(range(14))
    np.testing.assert_allclose(times[10:], 5.4 + np.array(again), atol=1e-9)
    assert len(clock.warnings()) == 1
    assert not clock.holes


@pytest.mark.parametrize("wild", [1000.0, -1000.0, 26.5])
def test_one_wild_time_stamp_changes_nothing_else(wild: float) -> None:
    stamps = regular(60)
    stamps[30] = wild
    clock, indexes, times = run(stamps)
    assert indexes == list(range(60))
    np.testing.assert_allclose(times, regular(60), atol=1e-9)
    assert len(clock.warnings()) == 1
    assert not clock.holes


def test_lost_frames_at_the_start_and_the_end() -> None:
    clock, indexes, _ = run(regular(30), lost=[0, 1, 2, 28, 29], errors=5)
    assert indexes == list(range(3, 28))
    assert [(hole.index, hole.count) for hole in clock.holes] == [(0, 3), (28, 2)]
    assert "missing at the end" in clock.warnings()[-1]
    assert len(clock.warnings(with_end=False)) == 1


def test_frames_that_were_cut_off_are_not_missed_without_an_error() -> None:
    clock, indexes, _ = run(regular(30), lost=[0, 1, 2])
    assert indexes == list(range(27))
    assert not clock.holes


def test_many_holes_are_summed_up() -> None:
    stamps = [k + j * STEP for k in range(40) for j in range(10)]
    clock, _, _ = run(stamps)
    assert len(clock.holes) == 39
    assert len(clock.warnings()) == 21
    assert clock.warnings()[-1] == "19 more holes, 285 frames in all, until 39.000 s"


@pytest.mark.parametrize("gap", [(10, 12), (10, 13), (3, 5), (34, 36)])
def test_two_holes_close_to_each_other(gap: tuple[int, int]) -> None:
    numbers = [k for k in range(40) if k not in gap]
    clock, indexes, _ = run([STEP * k for k in numbers])
    assert indexes == numbers
    assert [(hole.index, hole.count) for hole in clock.holes] == [(k, 1) for k in gap]


@pytest.mark.parametrize("wild", [100.0, 3.5])
def test_a_wild_time_stamp_of_the_last_frame(wild: float) -> None:
    clock, indexes, times = run([*regular(40), wild])
    assert indexes == list(range(41))
    np.testing.assert_allclose(times, regular(41), atol=1e-9)
    (warning,) = clock.warnings()
    assert warning.startswith("frame 40 has a missing or backward time stamp")


def test_a_last_frame_after_a_pause_is_no_error() -> None:
    stamps = [*regular(40), 3.5]
    clock, _, times = run(stamps, lasts=[*[STEP] * 39, 3.5 - stamps[39], STEP])
    np.testing.assert_allclose(times, stamps)
    assert not clock.warnings()


def test_a_time_stamp_that_is_too_late_is_no_restart() -> None:
    """After damage, one frame has the time stamp of a frame 25 steps later."""
    numbers = [*range(25), 50, 25, 26, 27, 28, *range(55, 80)]
    clock, indexes, times = run([STEP * k for k in numbers])
    assert indexes[30:] == list(range(55, 80))
    np.testing.assert_allclose(times[30:], STEP * np.arange(55, 80))
    assert sum(hole.count for hole in clock.holes) == 80 - len(numbers)


def test_a_doubled_time_stamp_after_a_hole_moves_no_later_index() -> None:
    """The first time stamps after the hole are one step too late."""
    numbers = [*range(20), *range(25, 30), 29, *range(30, 60)]
    clock, indexes, _ = run([STEP * k for k in numbers])
    assert indexes[-30:] == list(range(30, 60))
    assert [(hole.index, hole.count) for hole in clock.holes] == [(20, 4)]


def test_index_and_time_agree_again_after_damage() -> None:
    """As above, but the second packet with the doubled time stamp gives no frame."""
    numbers = [*range(20), *range(25, 30), 29, *range(30, 60)]
    clock, indexes, times = run([STEP * k for k in numbers], lost=[25])
    assert indexes[-30:] == list(range(30, 60))
    np.testing.assert_allclose(times[-30:], STEP * np.arange(30, 60))
    assert sum(hole.count for hole in clock.holes) == 5
