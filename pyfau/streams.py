"""Standard output and standard error of the command line. An error of these streams stops no work.

`main` replaces both streams by a `GuardedStream`. So code that prints needs no error handling:
messages, progress bars, argparse, and warnings of Python and of other packages.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

# The reader of a pipe has ended. Windows reports EINVAL.
_READER_LEFT = (errno.EPIPE, errno.ESHUTDOWN, errno.EINVAL)
_CLOSED = errno.EBADF


class GuardedStream:
    """A stream of text that never raises an error. After the first error, it drops all text.

    Args:
        stream: Where the text goes. None stands for a closed stream: all text is dropped.

    Attributes:
        fault: The number of the first error (errno); None if there was none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.fault = _CLOSED if stream is None else None
        self._stream = io.TextIOWrapper(io.BytesIO(), "utf-8") if stream is None else stream
        self._has_data = False

    @property
    def lost_data(self) -> bool:
        """Whether the stream lost text that belongs to the result of a command."""
        return self.fault is not None and self._has_data

    def write(self, text: str) -> int:
        """Write text that belongs to the result of a command."""
        self._has_data = self._has_data or bool(text)
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass the text to the operating system."""
        if self._try(self._stream.flush):
            self._has_data = False

    def note(self, line: str) -> bool:
        """Write one line. A command does not fail if this line is lost.

        Returns:
            Whether the line was written.
        """
        written = self._try(lambda: self._stream.write(f"{line}\n"))
        self.flush()
        return written and self.fault is None

    def __getattr__(self, name: str) -> Any:
        """The other attributes of the stream, such as `isatty`, `fileno` and `encoding`."""
        return getattr(self._stream, name)

    def _try(self, work: Callable[[], object]) -> bool:
        if self.fault is not None:
            return False
        try:
            work()
        except (OSError, ValueError) as error:  # ValueError: Python has closed the stream
            self.fault = getattr(error, "errno", None) or _CLOSED
            drop_output(self._stream)
            return False
        return True


class CommandStreams:
    """The standard streams while a command runs.

    Attributes:
        out: Standard output.
        err: Standard error.
    """

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self.out = GuardedStream(out)
        self.err = GuardedStream(err)

    def status(self, status: int) -> int:
        """The exit status of the command. Prints a message if standard output made it fail.

        If the reader of a pipe ended or the shell closed the stream, the command fails only if it
        printed a result there. If the disk is full, the command always fails.

        Args:
            status: The exit status of the work.
        """
        self.out.flush()
        self.err.flush()
        fault = self.out.fault
        if fault is None:
            return status
        if not self.out.lost_data and fault in (*_READER_LEFT, _CLOSED):
            return status
        if fault not in _READER_LEFT:  # `pyfau models | head -n 1` prints no message
            reason = "it is closed" if fault == _CLOSED else os.strerror(fault)
            self.err.note(f"pyfau: cannot write to standard output: {reason}")
        return status or 1


@contextmanager
def guarded_streams() -> Iterator[CommandStreams]:
    """Replace the standard streams of Python by guarded streams."""
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    streams = CommandStreams(*before)
    sys.stdout, sys.stderr = cast(TextIO, streams.out), cast(TextIO, streams.err)
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def guarded(stream: Any) -> GuardedStream:
    """The stream itself if it is guarded; otherwise a guarded stream that writes to it."""
    return stream if isinstance(stream, GuardedStream) else GuardedStream(stream)


def drop_output(stream: Any) -> None:
    """Discard the text in the buffer of a stream, and all later text.

    Python flushes the standard streams again when it exits. This must not raise an error.
    """
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _fill_descriptors() -> None:
    """Open the standard descriptors that the shell closed (`>&-`).

    Otherwise the next file that is opened, such as a table, would get one of these numbers.
    Libraries in C write messages to 1 and 2, so they would write them into the table.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number, inheritable=True)  # also for worker processes
            if nowhere != number:
                os.close(nowhere)
