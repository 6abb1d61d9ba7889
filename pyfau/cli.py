"""The command line: `main` and the list of subcommands, which are in `pyfau.commands`."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyfau.commands import (
    compare,
    convert,
    demo,
    detect,
    doctor,
    download,
    evaluate,
    export,
    info,
    live,
    models,
    pin,
    publish,
    quantise,
    report,
    serve,
    summary,
    table,
    verify,
)
from pyfau.commands.parser import CommandParser, add_completion
from pyfau.errors import PyfauError
from pyfau.messages import say
from pyfau.streams import guarded_streams
from pyfau.version import __version__

# In the order of `pyfau --help`.
_COMMANDS = (
    detect,
    demo,
    models,
    info,
    doctor,
    convert,
    publish,
    download,
    pin,
    verify,
    evaluate,
    export,
    quantise,
    serve,
    report,
    compare,
    table,
    summary,
    live,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        0 if everything succeeded; 1 if an input failed, an option has a wrong value, or the result
        could not be printed; 130 after Ctrl-C. A command line that cannot be parsed ends the
        process with 2.
    """
    _escape_output()
    with guarded_streams() as streams:
        try:
            return streams.status(_run(arguments))
        except SystemExit as ended:  # of argparse, and on SIGTERM
            if isinstance(ended.code, str):
                raise
            raise SystemExit(streams.status(ended.code or 0)) from None


def _run(arguments: Sequence[str] | None) -> int:
    args = argparse.Namespace(keeps_rows=False)
    try:
        args = _parser().parse_args(arguments)
        with _ends_in_order():
            status: int = args.run(args)
            return status
    except (PyfauError, OSError) as error:
        say(f"pyfau: {error}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "; the rows written so far are kept" if args.keeps_rows else ""
        say(f"pyfau: interrupted{kept}", sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="pyfau", description="Facial action units (FACS AUs) from images and video."
    )
    parser.add_argument("--version", action="version", version=f"pyfau {__version__}")
    add_completion(parser)
    # For subcommands that do not set it: whether rows are on disk after Ctrl-C.
    parser.set_defaults(keeps_rows=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _escape_output() -> None:
    """Print file names that the terminal cannot show with escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Close tables and overlays on SIGTERM: the signal raises an exception in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
