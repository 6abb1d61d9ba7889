"""Messages for terminals: one line each, without control characters.

Everything that pyfau prints goes through this module; `ruff` refuses `print` elsewhere.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO


def printable(text: object) -> str:
    """The text with escapes, such as `\\x1b`, for characters that are not visible text.

    File names and AU names can have line breaks, control characters and characters that turn the
    direction of writing. On a terminal these could forge or hide other lines.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else _escaped(c) for c in shown)


def show(*lines: object) -> None:
    """Print the result of a command on standard output, one line for each argument.

    Args:
        lines: The lines; see `printable`.

    Raises:
        OSError: Standard output is full or closed. `say` is for messages during the work.
    """
    for line in lines:
        print(printable(line), flush=True)  # noqa: T201


def say(text: object, stream: TextIO | None = None) -> bool:
    """Print one line at once.

    If the stream is full or closed, this line and all later ones are dropped, and the work
    continues.

    Args:
        text: The line; see `printable`.
        stream: Standard output if None.

    Returns:
        Whether the line was printed.
    """
    target = sys.stdout if stream is None else stream
    try:
        print(printable(text), file=target, flush=True)
    except (OSError, ValueError):  # ValueError: the stream is closed
        drop_output(target)
        return False
    return True


def say_traceback() -> None:
    """Print the traceback of the error that is being handled, on standard error."""
    for line in traceback.format_exc().splitlines():
        say(line, sys.stderr)


def drop_output(stream: Any) -> None:
    """Discard the text in the buffer of a stream, and all later text."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
