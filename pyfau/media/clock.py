"""Turns the time stamps of a file into an index and a time that only increase.

Time stamps of files can be missing, doubled or wild, and clocks can restart. After a lost part of a
file, frames must keep their place. A `Clock` gets the time stamps of packets when they are read.
This is before their frames come out of the decoder, so it also has the time stamps of a few later
frames.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

# Number of steps next to a gap from which the frame rate there is computed.
_NEAR = 8
# A gap of this number of steps is a hole, unless the frame before it is shown during the gap.
# The second number is for damaged files, and for gaps with equal steps around them.
_HOLE_STEPS = 4.0
_HOLE_STEPS_SURE = 1.75
# Number of steps on each side that must be equal within this share. It covers rounding to 1 ms.
# Near the start and the end, one side may have fewer. The second number is for both sides together.
_EQUAL_STEPS = 4
_EQUAL_STEPS_AROUND = 7
_EQUAL = 0.08
# A time is on the grid of a constant rate if it differs from it by less than this share of a step.
_ON_GRID = 0.2
# This is computed over at most this number of steps, whose mean differs from the frame rate of the
# file by at most this share.
_GRID_STEPS = 250
_GRID_RATE = 0.02
# Two time stamps that are closer than this share of a step belong to one frame (two fields).
_ONE_FRAME = 0.75
_MAX_STAMPS = 512
_RESTART_SECONDS = 0.5
# A time stamp is wild if this number of later packets has earlier time stamps. The second number is
# for damaged files, in which frames that depend on each other may be lost together.
_AGAINST, _AGAINST_DAMAGED = 2, 8
# Decoders return their first frames after this number of packets. If they return none for more,
# they cannot read them, for example because another codec begins in the stream.
_MOST_UNSHOWN = 16
_MAX_WARNINGS = 20
# Before the first frame, this number of frames may depend on frames that the file does not have.
_FEW_SKIPPED = 4


@dataclass(frozen=True, slots=True)
class Hole:
    """Frames that are missing in the source.

    Attributes:
        index: The first missing index.
        count: Number of missing indexes.
        start_s: Time of the last frame before the hole. At the start of the source, time of the
            first missing frame.
        end_s: Time of the first frame after the hole; NaN at the end of the source.
    """

    index: int
    count: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """The place of a frame in its sequence: its index from 0 and its time in seconds."""

    index: int
    time_s: float


class Clock:
    """Turns time stamps into indexes and times.

    Args:
        fps: Frames per second, None if unknown.
        start_s: The time stamp that becomes time 0.

    Attributes:
        holes: The missing frames. `place` fills this list.
        errors: Number of packets that could not be decoded. The caller counts them.
        damaged: Number of frames that the decoder marked as damaged. The caller counts them.
        unshown: Number of the last packets for which the decoder returned no frame. The caller
            counts them.
        is_read: Whether all packets were announced. The caller sets this.
        start_s: The time stamp that becomes time 0.
        first_s: The earliest time of a packet, whether its frame could be decoded or not.
    """

    def __init__(self, fps: float | None, start_s: float = 0.0) -> None:
        self.holes: list[Hole] = []
        self.errors = 0
        self.damaged = 0
        self.unshown = 0
        self.is_read = False
        self._fps = fps
        self.start_s = start_s
        self._ahead: list[float] = []  # sorted stamps of packets that are in the decoder
        self._durations: dict[float, float] = {}
        self._numbers: dict[float, int] = {}  # numbers of packets in the file, by their stamps
        self._cut: deque[float] = deque(maxlen=_MAX_STAMPS)
        # Stamps of packets before which others may be missing.
        self._breaks: deque[float] = deque(maxlen=_MAX_STAMPS)
        self._last_announced = -math.inf
        self._is_reordered = False  # whether frames are stored in another order than shown
        self._packets = 0
        self._steps: deque[float] = deque(maxlen=_NEAR)
        self._index = -1  # index of the last frame
        self._time = -math.inf  # time of the last frame
        self._known = -math.inf  # the last time that is not NaN
        self._raw = -math.inf  # the time stamp that belongs to this time
        self._back: float | None = None  # time stamp of the last frame, if it went back
        self._shift = 0.0  # shift of a clock that restarted
        self._grid: Stamp | None = None  # the last frame in a row of equal steps
        self._grid_signs = 0  # number of signs of damage up to that frame
        self._leading = 0  # packets without a time stamp that are read before the first frame
        self._first_odd: int | None = None
        self._odd_count = 0  # frames whose own time stamp could not be used
        self.first_s = 0.0
        self._skipped_s = 0.0  # time between the first packet and the first frame

    def announce(
        self, stamp_s: float | None, duration_s: float | None, *, follows: bool = False
    ) -> None:
        """Store the time stamp of a packet that goes to the decoder next.

        Args:
            stamp_s: The time stamp; None if it has none.
            duration_s: How long its frame is shown; None if unknown.
            follows: Whether the file states that no packet is missing before this one.
        """
        if stamp_s is None:
            if self._index < 0:
                self._leading += 1
            return
        stamp = self._since_start(stamp_s)
        # Frames of a few seconds before come from another order. Longer steps back are restarts.
        self._is_reordered |= 0 < self._last_announced - stamp < _RESTART_SECONDS
        self._last_announced = stamp
        bisect.insort(self._ahead, stamp)
        self._numbers[stamp] = self._packets
        self._packets += 1
        if duration_s:
            self._durations[stamp] = duration_s
        if not follows:
            self._breaks.append(stamp)
        if len(self._ahead) > _MAX_STAMPS:  # the decoder returns no frames for them
            self._forget(self._ahead.pop(0))

    def announce_cut(self, stamp_s: float) -> None:
        """Store the time stamp of a packet that an edit list cuts off."""
        self._cut.append(self._since_start(stamp_s))

    def next_announced(self) -> float | None:
        """The earliest announced stamp after the last frame, for frames that have none."""
        place = bisect.bisect_right(self._ahead, self._raw)
        return self._ahead[place] + self.start_s if place < len(self._ahead) else None

    def place(self, stamp_s: float | None) -> Stamp:
        """The index and time of the next frame that the decoder returns."""
        if stamp_s is None:
            return self._fill()
        raw = self._since_start(stamp_s)
        time = raw + self._shift
        if self._index < 0:
            return self._place_first(raw)
        if not time > self._known:
            return self._place_back(raw)
        ordinary = self._is_ordinary(raw)
        if not ordinary and self._is_wild(raw):
            return self._fill()
        lost = self._on_grid(raw, 0 if ordinary else self._lost(raw))
        doubled = self._doubled(raw) if lost else 0
        if doubled:
            lost = max(0, lost - doubled)
            self._grid_signs = -1  # index and time differ until the doubled time stamp
        self._drop_until(raw)
        if lost:
            self.holes.append(Hole(self._index + 1, lost, self._time, time))
        else:
            self._steps.append(time - self._time)
        stamp = self._advance(time, lost)
        self._keep_grid(stamp)
        return stamp

    def finish(self, end_s: float | None = None, most: float = 0.0) -> None:
        """Record the frames that are missing at the end.

        These are frames that were announced and that the decoder did not return. If the file states
        where its video ends, they are also the frames up to there.

        Args:
            end_s: Time stamp at which the last frame ends; None if unknown.
            most: Greatest number of frames that may be missing before `end_s`. If there are more,
                the file was cut off.
        """
        if self._index < 0:
            return
        stamps = self._ahead[bisect.bisect_right(self._ahead, self._raw) :]
        left = 0
        if self.errors and stamps:
            left = self._count_apart(stamps)
            if self._is_steady():
                left = max(left, round((stamps[-1] - self._raw) / self._step()))
        if end_s is not None and self._is_steady():
            until_end = round((end_s - self.start_s - self._raw) / self._step()) - 1
            if until_end <= most:
                left = max(left, until_end)
        if self.unshown > _MOST_UNSHOWN:
            left = max(left, self.unshown)
        if left:
            self.holes.append(Hole(self._index + 1, left, self._time, math.nan))
            self._index += left

    def _is_steady(self) -> bool:
        """Whether the last steps are equal, and the frame rate of the file is right for them."""
        return len(self._steps) >= _EQUAL_STEPS_AROUND and self._are_usual(list(self._steps))

    @property
    def count(self) -> int:
        """Number of indexes that were assigned to frames or left out."""
        return self._index + 1

    @property
    def time_s(self) -> float:
        """Time of the last frame."""
        return self._time

    def warnings(self, with_end: bool = True) -> list[str]:
        """Descriptions of wrong time stamps and of missing frames.

        Args:
            with_end: Include frames that are missing at the end.
        """
        holes = [hole for hole in self.holes if with_end or not math.isnan(hole.end_s)]
        said = [_describe(hole) for hole in holes[:_MAX_WARNINGS]]
        if self._skipped_s:
            said.insert(
                0,
                f"the first {self._skipped_s:.3f} s of the video cannot be decoded: "
                "its key frame is missing or damaged",
            )
        more = holes[_MAX_WARNINGS:]
        if more:
            lost = sum(hole.count for hole in more)
            said.append(
                f"{len(more)} more holes, {lost} frames in all, until {more[-1].end_s:.3f} s"
            )
        if self._first_odd is not None:
            rule = "unknown (NaN)"
            if self._fps:
                rule = f"one step of {self._fps:g} fps after the frame before"
            said.append(
                f"frame {self._first_odd} has a missing or backward time stamp; "
                f"such times are {rule}"
            )
        return said

    def _since_start(self, stamp_s: float) -> float:
        since = stamp_s - self.start_s
        # Containers round their start to microseconds.
        return 0.0 if abs(since) < 2e-6 else since

    def _place_first(self, raw: float) -> Stamp:
        """Place the first frame. Packets before it that the decoder refused are a hole."""
        if self._is_wild_first(raw):
            self._first_odd = 0
            self._ahead.remove(raw)
            self._forget(raw)
            self._leading += 1
            return self._advance(self._before_first(), 0)
        early = self._ahead[: bisect.bisect_left(self._ahead, raw)]
        lost = 0
        if early and self.errors:
            lost = max(self._count_apart(early), round((raw - early[0]) * (self._fps or 0.0)))
            self.holes.append(Hole(0, lost, early[0], raw))
        number = self._numbers.get(raw, 0)
        before = [stamp for stamp in early if self._numbers.get(stamp, 0) < number]
        self.first_s = min([*before, raw])
        self._grid = Stamp(lost, raw)
        self._grid_signs = self._signs()
        if not lost and raw - self.first_s > _FEW_SKIPPED * self._step():
            self._skipped_s = raw - self.first_s
        self._drop_until(raw)
        return self._advance(raw, lost)

    def _is_wild_first(self, raw: float) -> bool:
        """Whether the first time stamp is long after the stamps of all later packets."""
        number = self._numbers.get(raw)
        early = self._ahead[: bisect.bisect_left(self._ahead, raw)]
        if number is None or self.errors or len(early) < len(self._ahead) - 1:
            return False
        against = sum(self._numbers.get(stamp, 0) > number for stamp in early)
        far = raw - early[-1] > _RESTART_SECONDS if early else False
        return far and against >= _AGAINST_DAMAGED

    def _place_back(self, raw: float) -> Stamp:
        """Place a frame whose time stamp is not after that of the last frame."""
        # A small step back in a damaged file is a packet in the wrong place.
        damaged = self.errors + self.damaged > 0
        far = not damaged or self._raw - raw > _RESTART_SECONDS
        if self._back is not None and raw > self._back and far and self._restarts(raw):
            # The second frame in a row with a low time stamp: the clock of the file restarted.
            self._shift = self._time - self._back
            self._steps.clear()
            self._drop_until(raw)
            return self._advance(raw + self._shift, 0)
        stamp = self._fill()
        self._back = raw
        return stamp

    def _restarts(self, raw: float) -> bool:
        """Whether the next time stamps go on from a low one, without a gap up to the last frame.

        A time stamp that was too late can come before some frames of the same clock.
        """
        end = bisect.bisect_right(self._ahead, self._raw)
        low = [raw, *self._ahead[bisect.bisect_right(self._ahead, raw) : end]]
        high = self._ahead[end:]
        if len(high) <= len(low):
            return True
        return high[0] - low[-1] < _HOLE_STEPS_SURE * self._near_step(high[0])

    def _fill(self) -> Stamp:
        """Place a frame whose own time stamp cannot be used."""
        if self._index < 0:
            return self._advance(self._before_first(), 0)
        # The first frame without a time stamp gets time 0, which needs no warning.
        if self._first_odd is None:
            self._first_odd = self._index + 1
        self._odd_count += 1
        step = self._step()
        coming = self._ahead[bisect.bisect_right(self._ahead, self._raw) :]
        if coming:  # stay below the next time stamp
            step = min(step, (coming[0] - self._raw) / 2)
        return self._advance(self._time + step, 0)

    def _before_first(self) -> float:
        """The time of a first frame without one, counted back from the first frame with a time."""
        if not self._ahead or not self._fps:
            return 0.0
        return max(0.0, self._ahead[0] - self._leading / self._fps)

    def _advance(self, time: float, lost: int) -> Stamp:
        self._index += 1 + lost
        self._time = time
        if not math.isnan(time):
            self._known = time
            self._raw = time - self._shift
        self._back = None
        return Stamp(self._index, time)

    def _step(self) -> float:
        return 1.0 / self._fps if self._fps else math.nan

    def _is_ordinary(self, raw: float) -> bool:
        """Whether the step to a time stamp is too short for a hole; a fast test for most frames."""
        shortest = min(self._steps, default=-math.inf)
        return raw - self._raw <= _HOLE_STEPS_SURE * shortest

    def _is_wild(self, raw: float) -> bool:
        """Whether nearly all packets after this one have earlier time stamps."""
        if raw - self._raw < _HOLE_STEPS * self._near_step(raw):
            return False
        if self._is_wild_last(raw):
            return True
        number = self._numbers.get(raw, 0)
        between = self._ahead[
            bisect.bisect_right(self._ahead, self._raw) : bisect.bisect_left(self._ahead, raw)
        ]
        # Packets before it in the file are lost frames. If packets after it have earlier stamps,
        # its own stamp is probably wrong.
        against = sum(self._numbers.get(stamp, 0) > number for stamp in between)
        later = len(self._ahead) - bisect.bisect_right(self._ahead, raw)
        least = _AGAINST_DAMAGED if self.errors else _AGAINST
        return against >= least and later <= against // 4

    def _doubled(self, raw: float) -> int:
        """Number of the next time stamps that another frame has too.

        After a hole, some time stamps can be too late until two frames have the same one.
        """
        coming = self._ahead[bisect.bisect_left(self._ahead, raw) :]
        return sum(a == b for a, b in pairwise(coming))

    def _is_wild_last(self, raw: float) -> bool:
        """Whether the last frame alone is long after all others, in a file without damage."""
        if not self.is_read or self._signs() or raw - self._raw < _RESTART_SECONDS:
            return False
        lasts = self._durations.get(self._raw, 0.0)
        return self._is_steady() and not self._coming(raw) and lasts < 0.75 * (raw - self._raw)

    def _lost(self, raw: float) -> int:
        """Number of frames that are missing before this one."""
        step = self._near_step(raw)
        if not raw - self._raw > _HOLE_STEPS_SURE * step:
            return 0
        points = [self._raw]
        if self.errors:
            first = bisect.bisect_right(self._ahead, self._raw)
            for stamp in self._ahead[first : bisect.bisect_left(self._ahead, raw)]:
                if stamp - points[-1] >= _ONE_FRAME * step:
                    points.append(stamp)
            if len(points) > 1 and raw - points[-1] < _ONE_FRAME * step:
                points.pop()
        lost = len(points) - 1
        for before, after in pairwise([*points, raw]):
            lost += self._lost_between(before, after, step)
        return lost

    def _on_grid(self, raw: float, lost: int) -> int:
        """The number of missing frames, so that index and time agree again after damage.

        The index follows the times if the frames before the damage and those after it are on one
        grid of equal steps.

        Args:
            raw: Time stamp of this frame.
            lost: Number of frames that are missing directly before it.
        """
        if self._grid is None or self._signs() == self._grid_signs:
            return lost
        coming = self._coming(raw)
        if len(coming) < _EQUAL_STEPS or not self._are_usual(coming):
            return lost
        steps = (raw + self._shift - self._grid.time_s) / self._step()
        if steps > _GRID_STEPS or abs(steps - round(steps)) > _ON_GRID:
            return lost
        return max(0, round(steps) - (self._index + 1 - self._grid.index))

    def _keep_grid(self, stamp: Stamp) -> None:
        """Store a frame after a row of equal steps as a place where index and time agree."""
        last = list(self._steps)[-_EQUAL_STEPS:]
        if len(last) < _EQUAL_STEPS or not self._are_usual(last):
            return
        if self._grid is not None and self._signs() != self._grid_signs:
            steps = (stamp.time_s - self._grid.time_s) / self._step()
            if steps < _GRID_STEPS and round(steps) != stamp.index - self._grid.index:
                return  # more frames than steps: the next hole makes up for it
        self._grid, self._grid_signs = stamp, self._signs()

    def _signs(self) -> int:
        """Number of signs of damage until now."""
        return self.errors + self.damaged + self._odd_count

    def _are_usual(self, steps: list[float]) -> bool:
        """Whether these steps are equal, and the frame rate of the file is right for them."""
        usual = self._step()
        mean = sum(steps) / len(steps)
        return _are_equal(steps) and abs(mean - usual) < _GRID_RATE * usual + 0.0005

    def _lost_between(self, before: float, after: float, step: float) -> int:
        gap = after - before
        lasts = self._durations.get(before, 0.0)
        sure = self.errors or self._is_regular(after, gap / step)
        steps = _HOLE_STEPS_SURE if sure else _HOLE_STEPS
        # A frame that is shown during most of the gap explains it: no frame is missing.
        if gap < steps * step or lasts > 0.75 * gap or self._is_explained(before, after):
            return 0
        if not sure and self._is_usual_gap(gap, after):
            return 0
        return max(0, round(gap / step) - 1)

    def _is_explained(self, before: float, after: float) -> bool:
        """Whether the file states that no frame is missing between two frames.

        Either an edit list cuts off the frames between them, or no packet is missing there.
        """
        if any(before < stamp < after for stamp in self._cut):
            return True
        return not self._signs() and not any(before < stamp for stamp in self._breaks)

    def _is_usual_gap(self, gap: float, after: float) -> bool:
        """Whether another step that is near is as long, as in recordings of a screen."""
        return any(step > 0.5 * gap for step in [*self._steps, *self._coming(after)])

    def _is_regular(self, raw: float, gap_steps: float) -> bool:
        """Whether nearly all steps before the last frame and after this one are equal.

        Near the start and the end, the gap between the two frames must also be whole steps.
        """
        coming = self._coming(raw)
        steps = [*self._steps, *coming]
        few = min(len(self._steps), len(coming)) < _EQUAL_STEPS
        whole = abs(gap_steps - round(gap_steps)) <= _EQUAL
        if few and not (whole and self._is_near_end(raw)):
            return False
        usual = median(steps) if steps else math.nan
        holes = [step for step in steps if not abs(step - usual) <= _EQUAL * usual + 0.001]
        equal = len(steps) - len(holes)
        if equal < max(_EQUAL_STEPS_AROUND, _EQUAL_STEPS * len(holes)):
            return False
        # Other holes that are near are whole steps.
        return all(abs(step / usual - round(step / usual)) <= _ON_GRID for step in holes)

    def _is_near_end(self, raw: float) -> bool:
        """Whether a frame is near the start or the end, and the frames before it are complete.

        At the end of a trimmed file, frames may be missing that are shown before the last one, but
        come after it in the file.
        """
        if len(self._steps) < _EQUAL_STEPS:
            return True
        if not self.is_read:
            return False
        number = self._numbers.get(raw, 0)
        later = self._ahead[bisect.bisect_right(self._ahead, raw) :]
        return not self._is_reordered or any(self._numbers.get(x, 0) > number for x in later)

    def _coming(self, raw: float) -> list[float]:
        """Steps between the next time stamps, starting with this one."""
        first = bisect.bisect_left(self._ahead, raw)
        after = self._ahead[first : first + _NEAR + 1]
        return [b - a for a, b in pairwise(after) if b > a]

    def _near_step(self, raw: float) -> float:
        """The longer of the usual steps before the last frame and after this one.

        If the frame rate changes, the first long step is not a hole.
        """
        usual = []
        if self._steps:
            usual.append(median(self._steps))
        coming = self._coming(raw)
        if coming:
            usual.append(median(coming))
        if len(self._steps) < _NEAR // 2 and self._fps:
            usual.append(self._step())
        return max(usual, default=math.nan)

    def _count_apart(self, stamps: list[float]) -> int:
        """Number of frames to which these stamps belong. Two fields of a frame have two stamps."""
        step = self._step()
        count, last = 0, -math.inf
        for stamp in stamps:
            if not stamp - last < _ONE_FRAME * step:
                count, last = count + 1, stamp
        return count

    def _drop_until(self, raw: float) -> None:
        place = bisect.bisect_right(self._ahead, raw)
        for stamp in self._ahead[:place]:
            if stamp != raw:
                self._forget(stamp)
        del self._ahead[:place]

    def _forget(self, stamp: float) -> None:
        self._durations.pop(stamp, None)
        self._numbers.pop(stamp, None)


def _are_equal(steps: list[float]) -> bool:
    """Whether the steps differ only by rounding."""
    return max(steps) - min(steps) <= _EQUAL * max(steps) + 0.001


def _describe(hole: Hole) -> str:
    last = hole.index + hole.count - 1
    frames = f"frame {last} is" if hole.count == 1 else f"frames {hole.index} to {last} are"
    if math.isnan(hole.end_s):
        return f"{frames} missing at the end of the file, after {hole.start_s:.3f} s"
    length = hole.end_s - hole.start_s
    return f"{frames} missing: a hole of {length:.3f} s after {hole.start_s:.3f} s"
