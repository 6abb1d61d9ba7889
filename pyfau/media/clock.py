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
_EQUAL_STEPS = 4
_EQUAL = 0.08
# Two time stamps that are closer than this share of a step belong to one frame (two fields).
_ONE_FRAME = 0.75
_MAX_STAMPS = 512
_RESTART_SECONDS = 0.5
# A time stamp is wild if this number of later packets has earlier time stamps. The second number is
# for damaged files, in which frames that depend on each other may be lost together.
_AGAINST, _AGAINST_DAMAGED = 2, 8
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
        damaged: Whether the decoder marked a frame as damaged. The caller sets this.
        start_s: The time stamp that becomes time 0.
        first_s: The earliest time of a packet, whether its frame could be decoded or not.
    """

    def __init__(self, fps: float | None, start_s: float = 0.0) -> None:
        self.holes: list[Hole] = []
        self.errors = 0
        self.damaged = False
        self._fps = fps
        self.start_s = start_s
        self._ahead: list[float] = []  # sorted stamps of packets that are in the decoder
        self._durations: dict[float, float] = {}
        self._numbers: dict[float, int] = {}  # numbers of packets in the file, by their stamps
        self._packets = 0
        self._steps: deque[float] = deque(maxlen=_NEAR)
        self._index = -1  # index of the last frame
        self._time = -math.inf  # time of the last frame
        self._known = -math.inf  # the last time that is not NaN
        self._raw = -math.inf  # the time stamp that belongs to this time
        self._back: float | None = None  # time stamp of the last frame, if it went back
        self._shift = 0.0  # shift of a clock that restarted
        self._leading = 0  # packets without a time stamp that are read before the first frame
        self._first_odd: int | None = None
        self.first_s = 0.0
        self._skipped_s = 0.0  # time between the first packet and the first frame

    def announce(self, stamp_s: float | None, duration_s: float | None) -> None:
        """Store the time stamp of a packet that goes to the decoder next."""
        if stamp_s is None:
            if self._index < 0:
                self._leading += 1
            return
        stamp = self._since_start(stamp_s)
        bisect.insort(self._ahead, stamp)
        self._numbers[stamp] = self._packets
        self._packets += 1
        if duration_s:
            self._durations[stamp] = duration_s
        if len(self._ahead) > _MAX_STAMPS:  # the decoder returns no frames for them
            self._forget(self._ahead.pop(0))

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
        if self._is_wild(raw):
            return self._fill()
        lost = self._lost(raw)
        self._drop_until(raw)
        if lost:
            self.holes.append(Hole(self._index + 1, lost, self._time, time))
        else:
            self._steps.append(time - self._time)
        return self._advance(time, lost)

    def finish(self) -> None:
        """Record the frames at the end that were announced and that the decoder did not return."""
        left = self._count_apart(self._ahead[bisect.bisect_right(self._ahead, self._raw) :])
        if self.errors and left and self._index >= 0:
            self.holes.append(Hole(self._index + 1, left, self._time, math.nan))
            self._index += left

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
        damaged = self.errors > 0 or self.damaged
        far = not damaged or self._raw - raw > _RESTART_SECONDS
        if self._back is not None and raw > self._back and far:
            # The second frame in a row with a low time stamp: the clock of the file restarted.
            self._shift = self._time - self._back
            self._drop_until(raw)
            return self._advance(raw + self._shift, 0)
        stamp = self._fill()
        self._back = raw
        return stamp

    def _fill(self) -> Stamp:
        """Place a frame whose own time stamp cannot be used."""
        if self._index < 0:
            return self._advance(self._before_first(), 0)
        # The first frame without a time stamp gets time 0, which needs no warning.
        if self._first_odd is None:
            self._first_odd = self._index + 1
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

    def _is_wild(self, raw: float) -> bool:
        """Whether nearly all packets after this one have earlier time stamps."""
        if raw - self._raw < _HOLE_STEPS * self._near_step(raw):
            return False
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

    def _lost_between(self, before: float, after: float, step: float) -> int:
        gap = after - before
        lasts = self._durations.get(before, 0.0)
        sure = self.errors or self._is_regular(after)
        steps = _HOLE_STEPS_SURE if sure else _HOLE_STEPS
        # A frame that is shown during most of the gap explains it: no frame is missing.
        if gap < steps * step or lasts > 0.75 * gap:
            return 0
        return max(0, round(gap / step) - 1)

    def _is_regular(self, raw: float) -> bool:
        """Whether the steps before the last frame and after this one are all equal."""
        coming = self._coming(raw)
        steps = [*self._steps, *coming]
        if min(len(self._steps), len(coming)) < _EQUAL_STEPS:
            return False
        return max(steps) - min(steps) <= _EQUAL * max(steps) + 0.001

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


def _describe(hole: Hole) -> str:
    last = hole.index + hole.count - 1
    frames = f"frame {last} is" if hole.count == 1 else f"frames {hole.index} to {last} are"
    if math.isnan(hole.end_s):
        return f"{frames} missing at the end of the file, after {hole.start_s:.3f} s"
    length = hole.end_s - hole.start_s
    return f"{frames} missing: a hole of {length:.3f} s after {hole.start_s:.3f} s"
