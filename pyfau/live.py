"""The live view: it scores frames as they arrive and shows overlay, frame rate and latency."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cv2

from pyfau.errors import DependencyError, OptionError, PyfauError
from pyfau.media.readers import read_camera, read_video
from pyfau.messages import printable
from pyfau.outputs import open_outputs
from pyfau.overlay.drawing import LastFaces, draw_overlay
from pyfau.overlay.writer import OverlayWriter
from pyfau.tables.metadata import write_whole
from pyfau.tables.writers import ResultWriter
from pyfau.types import AURow, Frame, StrPath, UInt8Array

if TYPE_CHECKING:
    from pyfau.detector import AUDetector
    from pyfau.lsl import LSLOutlet, MarkerInlet

_PATIENCE_S = 0.02  # longest time for which a source blocks the window
_DEFAULT_FPS = 30.0  # of a recording, if the camera does not state its rate
_OPENS_A_WINDOW = "import cv2; cv2.namedWindow('pyfau'); cv2.waitKey(1); cv2.destroyAllWindows()"

# A frame and its arrival time by `time.monotonic`; None if no frame has arrived yet.
Taken = tuple[Frame, float] | None


class NewestFrames:
    """Keeps only the newest camera frame.

    Frames that arrive during the scoring of another frame are dropped, except the last one.
    Iterating gives `Taken` and ends with the source.

    Args:
        frames: The source; a separate thread reads it.

    Attributes:
        dropped: Number of frames dropped so far.
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
    """The frames of a file, each at its own time.

    If scoring is slower than the file, the file plays slower.
    """
    start = -math.inf
    for frame in frames:
        due = start + frame.time_s
        while due > time.monotonic():
            time.sleep(min(_PATIENCE_S, max(0.0, due - time.monotonic())))
            yield None
        came = time.monotonic()
        # The first frame, a late frame, and a frame without a time start the clock again.
        if not due > came - _PATIENCE_S:
            start = came - (0.0 if math.isnan(frame.time_s) else frame.time_s)
        yield frame, came


@dataclass(frozen=True, slots=True)
class Watched:
    """What `watch` did.

    Attributes:
        source: The video, or "camera:NUMBER".
        played: The figures of the view.
        dropped: Number of camera frames that were dropped; None for a video.
        warnings: Problems of the source or of the recording, each in one line.
        markers: The file of the codes of stimuli; None without them.
    """

    source: str
    played: Played
    dropped: int | None
    warnings: list[str]
    markers: Path | None = None


def watch(
    make: Callable[[], AUDetector],
    source: int | StrPath = 0,
    *,
    table: StrPath | None = None,
    video: StrPath | None = None,
    all_aus: bool = False,
    lsl: str | None = None,
    lsl_markers: str | None = None,
) -> Watched:
    """Show a camera or a video in a window as it is scored, until it or the user ends.

    Args:
        make: Makes the detector. It is called after the window opens and before the camera does.
        source: Number of a camera, or a video file.
        table: Also write the rows to this .csv, .parquet or .jsonl file.
        video: Also write the view to this .mp4, .mkv or .webm file, with its real times.
        all_aus: Start with all action units instead of only active ones.
        lsl: Also send the rows to a stream of Lab Streaming Layer with this name.
        lsl_markers: Receive codes of stimuli from the stream with this name. They are written next
            to `table`, as `*_events.tsv`.

    Raises:
        OptionError: `lsl_markers` without `table`, or `video` with a detector that covers faces.
        PyfauError: There is no screen, the source cannot be read, or a file cannot be written.
    """
    _check_video(video)
    if lsl_markers is not None and table is None:
        raise OptionError("--lsl-markers needs --record: codes are written next to the table")
    name = f"camera:{source}" if isinstance(source, int) else os.fspath(source)
    with ExitStack() as stack:
        window = stack.enter_context(closing(Window(f"pyfau: {name}", all_aus)))
        # The detector is made before the camera is opened, because it takes longer. In the other
        # order, camera frames would wait and be late.
        detector = make()
        detector.stream(latency=0)  # raises before a file is opened
        if detector.anonymise and video is not None:
            raise OptionError("the live view shows faces: a recording cannot cover them")
        if isinstance(source, int):
            reader = read_camera(source)
        else:
            reader = read_video(source, limits=detector.limits)
        stack.enter_context(reader)
        record = detector.settings() | {
            "source": reader.name,
            "fps": reader.fps,
            "latency_frames": 0,
        }
        outputs = stack.enter_context(
            open_outputs(
                detector.aus,
                record,
                reader,
                table,
                video,
                fps=reader.fps or _DEFAULT_FPS,
                intensity=detector.has_intensity,
                measures=detector.has_measures,
                landmarks=detector.has_landmarks,
            )
        )
        labels = stack.enter_context(_open_labels(detector, lsl, lsl_markers))
        frames = NewestFrames(reader) if reader.kind == "camera" else paced(reader)
        played = play(
            detector, frames, window, table=outputs.table, video=outputs.video, labels=labels
        )
        markers = None
        if lsl_markers is not None and labels is not None and table is not None:
            labels.collect()
            markers = labels.write(events_path(table))
        outputs.finish(record)
        warnings = [*reader.warnings, *outputs.warnings]
        outputs.note(reader.failures, warnings)
    dropped = frames.dropped if isinstance(frames, NewestFrames) else None
    return Watched(name, played, dropped, warnings, markers)


def events_path(table: StrPath) -> Path:
    """The file of the codes of a recording: clip_events.tsv next to clip.csv."""
    return Path(table).with_name(f"{Path(table).stem}_events.tsv")


@contextmanager
def _open_labels(
    detector: AUDetector, lsl: str | None, markers: str | None
) -> Iterator[Labels | None]:
    """Open the streams of Lab Streaming Layer; None if no name is given."""
    if lsl is None and markers is None:
        yield None
        return
    from pyfau.lsl import LSLOutlet, MarkerInlet

    with ExitStack() as stack:
        outlet = inlet = None
        if lsl is not None:
            outlet = stack.enter_context(
                LSLOutlet(
                    lsl,
                    detector.aus,
                    intensity=detector.has_intensity,
                    pose=detector.has_measures,
                )
            )
        if markers is not None:
            inlet = stack.enter_context(MarkerInlet(markers))
        yield Labels(outlet, inlet)


def _check_video(path: StrPath | None) -> None:
    """Check that the format can store the real times of frames; AVI cannot."""
    if path is not None and Path(path).suffix.lower() == ".avi":
        raise OptionError(f"--record-video writes .mp4, .mkv or .webm, got {path}")


class Code(NamedTuple):
    """A code of a stimulus in a recording.

    Attributes:
        onset_s: Its time by the clock of the table.
        code: Its text.
    """

    onset_s: float
    code: str


class Labels:
    """The streams of Lab Streaming Layer that a live view sends and receives.

    Args:
        outlet: Takes the rows; None to send nothing.
        inlet: Gives the codes of stimuli; None to receive nothing.

    Attributes:
        markers: The codes received so far.
    """

    def __init__(self, outlet: LSLOutlet | None, inlet: MarkerInlet | None) -> None:
        self._outlet, self._inlet = outlet, inlet
        self._start_s = math.nan  # when time 0 of the table was, by `time.monotonic`
        self.markers: list[Code] = []

    def exchange(self, rows: list[AURow], time_s: float, came_s: float) -> None:
        """Send the rows of a frame, and take the codes that arrived.

        Args:
            rows: The rows.
            time_s: Time of the frame in the table.
            came_s: Its arrival by `time.monotonic`.
        """
        if self._outlet is not None:
            self._outlet.push(rows, came_s)
        if math.isfinite(time_s):
            self._start_s = came_s - time_s
        self.collect()

    def collect(self) -> None:
        """Take the codes that arrived. Codes before the first frame have negative times."""
        if self._inlet is None or math.isnan(self._start_s):
            return
        for came_s, code in self._inlet.pull():
            self.markers.append(Code(came_s - self._start_s, code))

    def write(self, path: Path) -> Path:
        """Write the codes as an events file of BIDS: onset, duration, trial_type."""
        lines = ["onset\tduration\ttrial_type"]
        for onset_s, code in sorted(self.markers):
            text = printable(code).replace("\t", " ").replace('"', "'")
            lines.append(f"{onset_s:.6f}\tn/a\t{text}")
        return write_whole(path, "\n".join(lines) + "\n")


class Display(Protocol):
    """A place that shows images.

    Attributes:
        all_aus: Whether to draw all action units instead of the active ones.
    """

    all_aus: bool

    def show(self, image: UInt8Array) -> None:
        """Show an image, (H, W, 3) uint8 RGB; returns when it is visible."""
        ...

    def is_open(self) -> bool:
        """Handle the keys of the user; False if the user has ended the view."""
        ...


class Window:
    """A window on the screen. q, Esc or closing it ends; a shows all action units or the active
    ones.

    Args:
        title: Title of the window.
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

    def show(self, image: UInt8Array) -> None:
        """See `Display`."""
        if not self._made:
            self._made = True
            cv2.namedWindow(
                self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            )
            height, width = image.shape[:2]
            scale = min(1.0, 1280 / width, 720 / height)
            cv2.resizeWindow(
                self._title, max(1, round(scale * width)), max(1, round(scale * height))
            )
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._answer()

    def is_open(self) -> bool:
        """See `Display`."""
        if self._made and not self._ended:
            self._answer()
        return not self._ended

    def close(self) -> None:
        """Close the window."""
        self._ended = True
        cv2.destroyAllWindows()

    def _answer(self) -> None:
        key = cv2.waitKey(1) & 0xFF
        self._ended |= (
            key in (ord("q"), 27) or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        )
        self.all_aus ^= key == ord("a")


@dataclass(slots=True)
class Played:
    """The figures of a live view.

    Attributes:
        frames: Number of frames shown.
        seconds: Time from the first frame to the last.
        latency_s: Mean time from the arrival of a frame to its display.
        worst_latency_s: The longest such time.
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
    labels: Labels | None = None,
) -> Played:
    """Score frames with no delay (`AUDetector.stream(latency=0)`) and show them until they or the
    user end.

    Args:
        detector: Scores the frames.
        source: `NewestFrames`, or `paced`. Its `dropped` is shown if it exists.
        display: Shows the frames.
        table: Receives all rows.
        video: Receives the images as they are shown.
        labels: Sends the rows to Lab Streaming Layer and receives codes of stimuli.

    Returns:
        The figures of all frames. The figures in the corner of the image are of the last second.
    """
    stream = detector.stream(latency=0)
    faces = LastFaces(detector.settings()["max_gap"])
    played = Played()
    # Display times of the frames of the last second, and their latencies.
    recent: deque[tuple[float, float]] = deque()
    first = total = 0.0
    ended = False
    try:
        for taken in source:
            if not display.is_open():
                break
            if taken is None:
                continue
            frame, came = taken
            rows = [
                dataclasses.replace(row, frame=frame.index)
                for row in stream.push(frame.rgb, frame.time_s)
            ]
            if labels is not None:
                labels.exchange(rows, frame.time_s, came)
            lost = faces.missing(rows, frame.rgb.shape)
            note = _note(recent, getattr(source, "dropped", None))
            image = draw_overlay(frame.rgb, [*rows, *lost], all_aus=display.all_aus, note=note)
            display.show(image)
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
                video.add(image, frame.time_s)
        else:
            ended = True
    except KeyboardInterrupt:  # Ctrl-C ends the view like q
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
    """Make sure that a window can be opened. OpenCV ends the whole process if not, so another one
    tries.

    Raises:
        PyfauError: There is no screen.
        DependencyError: OpenCV was built without windows.
    """
    elsewhere = "; `pyfau detect` scores without one"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise PyfauError(
            f"there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set{elsewhere}"
        )
    tried = subprocess.run(
        [sys.executable, "-c", _OPENS_A_WINDOW], capture_output=True, text=True, errors="replace"
    )
    if tried.returncode == 0:
        return
    if "not implemented" in tried.stderr:
        raise DependencyError(
            "this OpenCV was built without windows: install opencv-python, not its headless version"
        )
    said = next(
        (line.strip() for line in tried.stderr.splitlines() if line.strip()),
        f"status {tried.returncode}",
    )
    raise PyfauError(f"there is no screen: a window could not be opened ({said}){elsewhere}")
