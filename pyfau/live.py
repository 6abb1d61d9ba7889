"""The live view: frames are scored as they come and shown with their overlay, the rate and the latency."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2

from pyfau.errors import DependencyError, PyfauError
from pyfau.overlay import LastFaces, OverlayWriter, draw_overlay
from pyfau.result import ResultWriter
from pyfau.types import Frame, UInt8Array

if TYPE_CHECKING:
    from pyfau.detector import AUDetector

_PATIENCE_S = 0.02  # how long a source keeps the window waiting
_OPENS_A_WINDOW = "import cv2; cv2.namedWindow('pyfau'); cv2.waitKey(1); cv2.destroyAllWindows()"

# A frame and when it came, by `time.monotonic`; None while there is none yet.
Taken = tuple[Frame, float] | None


class NewestFrames:
    """The frames of a camera, without a queue: those that come while one is being scored are dropped but for the last.

    Iterating gives `Taken`, and ends when the source does.

    Args:
        frames: The source, which does not wait for anybody; read in a thread of its own.

    Attributes:
        dropped: How many frames were dropped so far.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.dropped = 0
        self._frames = frames
        self._newest: Taken = None
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Generator[Taken, None, None]:
        threading.Thread(target=self._read, name="pyfau-newest", daemon=True).start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._newest or self._ended, _PATIENCE_S)
                    taken, self._newest = self._newest, None
                    over = self._ended and taken is None
                if over:
                    break
                yield taken
        finally:
            self._ended = True
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._ended:
                        return
                    self.dropped += self._newest is not None
                    self._newest = frame, time.monotonic()
                    self._changed.notify_all()
        except BaseException as error:  # handed to the consumer
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def paced(frames: Iterable[Frame]) -> Iterator[Taken]:
    """Every frame of a file, not before its time. Where scoring is slower than that, the file plays slower."""
    start = -math.inf
    for frame in frames:
        due = start + frame.time_s
        while due > time.monotonic():
            time.sleep(min(_PATIENCE_S, max(0.0, due - time.monotonic())))
            yield None
        came = time.monotonic()
        if not due > came - _PATIENCE_S:  # the first frame, one that is late, or one without a time
            start = came - (0.0 if math.isnan(frame.time_s) else frame.time_s)
        yield frame, came


class Display(Protocol):
    """Where pictures are shown.

    Attributes:
        all_aus: Whether all action units are to be drawn, not the active ones alone.
    """

    all_aus: bool

    def show(self, picture: UInt8Array) -> None:
        """Show a picture, (H, W, 3) uint8 RGB; returns when it can be seen."""
        ...

    def is_open(self) -> bool:
        """Let the window answer, and say whether the user wants to go on."""
        ...


class Window:
    """A window on the screen. q, Esc or closing it ends; a shows all action units or the active ones.

    Args:
        title: Stands above it.
        all_aus: See `Display`.

    Raises:
        PyfauError: There is no screen.
        DependencyError: OpenCV was built without windows.
    """

    def __init__(self, title: str, all_aus: bool = False) -> None:
        check_screen()
        self.all_aus = all_aus
        self._title = title
        self._made = self._ended = False

    def show(self, picture: UInt8Array) -> None:
        """See `Display`."""
        if not self._made:
            self._made = True
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            height, width = picture.shape[:2]
            scale = min(1.0, 1280 / width, 720 / height)
            cv2.resizeWindow(self._title, max(1, round(scale * width)), max(1, round(scale * height)))
        cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._answer()

    def is_open(self) -> bool:
        """See `Display`."""
        if self._made and not self._ended:
            self._answer()
        return not self._ended

    def close(self) -> None:
        """Take the window off the screen."""
        self._ended = True
        cv2.destroyAllWindows()

    def _answer(self) -> None:
        key = cv2.waitKey(1) & 0xFF
        self._ended |= key in (ord("q"), 27) or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        self.all_aus ^= key == ord("a")


@dataclass(slots=True)
class Played:
    """What a live view showed.

    Attributes:
        frames: How many frames.
        seconds: In how long, from the first frame to the last.
        latency_s: From when a frame came to when it was shown, on average.
        worst_latency_s: The longest.
    """

    frames: int = 0
    seconds: float = 0.0
    latency_s: float = math.nan
    worst_latency_s: float = 0.0

    @property
    def fps(self) -> float:
        """Frames shown per second; NaN for a single one."""
        return (self.frames - 1) / self.seconds if self.seconds > 0 else math.nan


def play(
    detector: AUDetector,
    source: Iterable[Taken],
    display: Display,
    *,
    table: ResultWriter | None = None,
    video: OverlayWriter | None = None,
) -> Played:
    """Score frames with no delay (`AUDetector.stream(latency=0)`) and show them until they or the user end.

    Args:
        detector: What scores them.
        source: `NewestFrames`, or `paced`. Its `dropped`, if it has that, is shown.
        display: Where they are shown.
        table: Takes all rows.
        video: Takes the pictures as they are shown.

    Returns:
        The figures for all frames; those in the corner of the picture are of the last second.
    """
    stream = detector.stream(latency=0)
    faces = LastFaces(detector.settings()["max_gap"])
    played = Played()
    recent: deque[tuple[float, float]] = deque()  # when frames of the last second were shown, and their latency
    first = total = 0.0
    ended = False
    try:
        for taken in source:
            if not display.is_open():
                break
            if taken is None:
                continue
            frame, came = taken
            rows = [dataclasses.replace(row, frame=frame.index) for row in stream.push(frame.rgb, frame.time_s)]
            lost = faces.missing(rows, frame.rgb.shape)
            note = _note(recent, getattr(source, "dropped", None))
            picture = draw_overlay(frame.rgb, [*rows, *lost], all_aus=display.all_aus, note=note)
            display.show(picture)
            now = time.monotonic()
            recent.append((now, now - came))
            while recent[0][0] < now - 1.0:
                recent.popleft()
            first = first or now
            total += now - came
            played.frames += 1
            played.seconds, played.latency_s = now - first, total / played.frames
            played.worst_latency_s = max(played.worst_latency_s, now - came)
            if table is not None:
                table.write(rows)
            if video is not None:
                video.add(picture, frame.time_s)
        else:
            ended = True
    except KeyboardInterrupt:  # as good an end as any
        pass
    if video is not None and not ended:
        video.cut()
    return played


def _note(recent: deque[tuple[float, float]], dropped: int | None) -> str:
    seconds = recent[-1][0] - recent[0][0] if recent else 0.0
    parts = [f"{(len(recent) - 1) / seconds:.1f} frames/s" if seconds else "- frames/s"]
    if recent:
        parts.append(f"{1000 * sum(latency for _, latency in recent) / len(recent):.0f} ms")
    if dropped is not None:
        parts.append(f"{dropped} dropped")
    return "  ".join(parts)


def check_screen() -> None:
    """Make sure that a window can be opened. OpenCV ends the whole process if not, so another one tries.

    Raises:
        PyfauError: There is no screen.
        DependencyError: OpenCV was built without windows.
    """
    elsewhere = "; `pyfau detect` scores without one"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise PyfauError(f"there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set{elsewhere}")
    tried = subprocess.run([sys.executable, "-c", _OPENS_A_WINDOW], capture_output=True, text=True, errors="replace")
    if tried.returncode == 0:
        return
    if "not implemented" in tried.stderr:
        raise DependencyError("this OpenCV was built without windows: install opencv-python, not its headless version")
    said = next((line.strip() for line in tried.stderr.splitlines() if line.strip()), f"status {tried.returncode}")
    raise PyfauError(f"there is no screen: a window could not be opened ({said}){elsewhere}")
