"""A stream of frames, decoded ahead of the consumer: in a thread, or several at a time."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator

from pyfau.media.clock import Hole
from pyfau.types import Failure, Frame

Frames = Generator[Frame, None, None]

# Upper limit in bytes for the frames that are decoded ahead, for every value of `ahead`.
_AHEAD_BYTES = 256 << 20


class FrameReader(Iterator[Frame]):
    """A source of frames: an iterator for a `with` block, which closes itself at its end.

    Made by `pyfau.media.readers.read_frames` and its siblings. An error while reading is raised in
    the place of the frame that could not be read, after all frames before it.

    Attributes:
        name: Path, folder, "camera 0", "3 images" or "arrays".
        kind: "video", "images", "camera" or "arrays".
        fps: Frames per second, never rounded; None if unknown. For video with a variable rate, the
            average.
        frame_count: Estimate of the number of frames, None if unknown.
        failures: Image files that were skipped; filled while reading.
        warnings: What else went wrong, in words; filled while reading.
        holes: Frames that are missing in a video; filled while reading.
        size: Width and height of the first frame in pixels; None if it is not decoded on opening.

    Args:
        frames: Where the further frames come from.
        first: A frame that is decoded already.
        ahead: How many frames are decoded ahead; 0 for none.
        in_bursts: Decode them several at a time in the thread of the consumer, instead of one by
            one in another thread. This is faster on a single core.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        frames: Frames,
        *,
        first: Frame | None = None,
        fps: float | None = None,
        frame_count: int | None = None,
        failures: list[Failure] | None = None,
        warnings: list[str] | None = None,
        holes: list[Hole] | None = None,
        ahead: int = 0,
        in_bursts: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.fps = fps
        self.frame_count = frame_count
        self.failures: list[Failure] = [] if failures is None else failures
        self.warnings: list[str] = [] if warnings is None else warnings
        self.holes: list[Hole] = [] if holes is None else holes
        self.size = None if first is None else (first.image.shape[1], first.image.shape[0])
        self._first = None if ahead else first
        source: Frames | _Ahead | _Bursts = frames
        if ahead and in_bursts:
            source = _Bursts(frames, ahead, first)
        elif ahead:
            source = _Ahead(frames, ahead, first)
        self._frames: Iterator[Frame] = source
        # Also runs when the reader is garbage-collected or the interpreter ends, because a thread
        # that is still inside a decoder could crash the process. For this, the thread must have no
        # reference to the reader.
        self._finish = weakref.finalize(self, source.close)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> FrameReader:
        return self

    def __next__(self) -> Frame:
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        if self._finish.alive:
            try:
                return next(self._frames)
            except BaseException:  # the end included
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        """Stop decoding and close the source. It may be called more than once."""
        self._first = None
        self._finish()


class _Bursts(Iterator[Frame]):
    """Decodes up to `depth` frames at a time, in the thread of the consumer.

    On one core, a decoding thread and its consumer would take turns after each frame. Each would
    then find the data of the other one in the caches.
    """

    def __init__(self, frames: Frames, depth: int, first: Frame | None) -> None:
        self._frames = frames
        self._depth = depth
        self._queue: deque[Frame] = deque()
        self._error: Exception | None = None
        if first is not None:
            self._queue.append(first)

    def __next__(self) -> Frame:
        if not self._queue:
            self._fill()
        if not self._queue:
            raise StopIteration
        return self._queue.popleft()

    def close(self) -> None:
        self._queue.clear()
        self._error = None
        self._frames.close()

    def _fill(self) -> None:
        """Decode the next frames. An error waits until the frames before it are consumed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        held = 0
        try:
            for frame in self._frames:
                self._queue.append(frame)
                held += frame.image.nbytes
                if len(self._queue) >= self._depth or held >= _AHEAD_BYTES:
                    return
        except Exception as error:
            if not self._queue:
                raise
            self._error = error


class _Ahead(Iterator[Frame]):
    """Runs a generator in a daemon thread, at most `depth` frames ahead of the consumer.

    The thread starts when the first frame is requested.
    """

    def __init__(self, frames: Frames, depth: int, first: Frame | None) -> None:
        self._frames = frames
        self._depth = depth
        self._queue: deque[Frame] = deque() if first is None else deque([first])
        self._changed = threading.Condition()
        self._stopped = False  # the consumer wants no more
        self._ended = False  # the thread has no more
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __next__(self) -> Frame:
        with self._changed:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="pyfau-read", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._queue or self._ended or self._stopped)
            if self._queue:
                self._changed.notify_all()
                return self._queue.popleft()
            error, self._error = self._error, None
        raise StopIteration if error is None else error

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._frames.close()
        # This is the case if the thread itself garbage-collects the reader.
        elif thread is not threading.current_thread():
            thread.join(timeout=5.0)  # one frame's decoding; a camera that hangs is left behind

    def _run(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    break
        except BaseException as error:  # handed to the consumer
            self._error = error
        finally:
            self._frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(frame))
            if not self._stopped:
                self._queue.append(frame)
                self._changed.notify_all()
            return not self._stopped

    def _has_room(self, frame: Frame) -> bool:
        held = sum(other.image.nbytes for other in self._queue)
        return not held or (
            len(self._queue) < self._depth and held + frame.image.nbytes <= _AHEAD_BYTES
        )
