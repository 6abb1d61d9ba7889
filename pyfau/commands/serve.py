"""`pyfau serve`: a local page that scores a camera or a clip."""

from __future__ import annotations

import argparse
import math
from typing import Any

from pyfau.commands.options import add_detector_options, make_detector, make_limits
from pyfau.errors import DependencyError, OptionError

_LIMITS = (
    "max_sessions",
    "max_clip_mb",
    "max_clip_seconds",
    "idle_seconds",
    "max_camera_seconds",
)


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "serve",
        help="open a local web page that scores a camera or a clip; needs pyfau[serve]",
        description="Serve a web page that scores a camera or a clip and shows the scores as bars. "
        "Only this machine can reach it, and nothing is stored. Ctrl-C ends it.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine)",
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="port, 0 for any free one (default: 8765)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-sessions",
        type=int,
        default=2,
        metavar="N",
        help="number of sessions at the same time (default: 2)",
    )
    limits.add_argument(
        "--max-clip-mb",
        type=float,
        metavar="MB",
        help="size of a clip in megabytes (default: 200)",
    )
    limits.add_argument(
        "--max-clip-seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="length of a clip in seconds (default: 600)",
    )
    limits.add_argument(
        "--idle-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="end a session after this time without frames (default: 60)",
    )
    limits.add_argument(
        "--max-camera-seconds",
        type=float,
        default=3600.0,
        metavar="S",
        help="length of a session of a camera in seconds (default: 3600)",
    )
    add_detector_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    for name in _LIMITS:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} must be a number above 0, got {value}")
    try:
        from pyfau.serve.run import listen, serve
    except ImportError as error:
        raise DependencyError(
            "pyfau serve needs starlette, uvicorn and websockets: pip install 'pyfau[serve]' "
            f"({error})"
        ) from error
    from pyfau.serve.server import ServeLimits

    limits = ServeLimits(
        sessions=args.max_sessions,
        clip_bytes=_clip_bytes(args),
        clip_seconds=args.max_clip_seconds,
        idle_seconds=args.idle_seconds,
        camera_seconds=args.max_camera_seconds,
    )
    with listen(args.host, args.port) as listener:
        serve(make_detector(args), listener, args.host, limits)
    return 0


def _clip_bytes(args: argparse.Namespace) -> int:
    """The size of a clip: `--max-clip-mb`, or else `--limit upload_bytes`."""
    megabytes: float | None = args.max_clip_mb
    if megabytes is None:
        return make_limits(args).upload_bytes
    return round(megabytes * 1e6)
