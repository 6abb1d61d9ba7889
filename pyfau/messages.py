"""Messages for terminals: one line each, without control characters.

Everything that pyfau prints goes through this module; `ruff` refuses `print` elsewhere.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from pyfau.streams import guarded

if TYPE_CHECKING:
    from tqdm import tqdm


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

    The command fails if they cannot be printed; see `pyfau.streams`. `say` is for messages: a
    command whose result is in files prints nothing else.

    Args:
        lines: The lines; see `printable`.
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
    return guarded(sys.stdout if stream is None else stream).note(printable(text))


def say_traceback() -> None:
    """Print the traceback of the error that is being handled, on standard error."""
    for line in traceback.format_exc().splitlines():
        say(line, sys.stderr)


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A progress bar on standard error. If the stream is full or closed, the work continues.

    Args:
        iterable: What the bar counts; None if `update` of the bar does.
        options: Of `tqdm`.
    """
    from tqdm import tqdm  # for commands that show a bar, so that starting stays fast

    return tqdm(iterable, file=guarded(sys.stderr), **options)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
