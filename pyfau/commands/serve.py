"""`pyfau serve`: a local page that scores a camera or a clip."""

from __future__ import annotations

import argparse
import math
from typing import Any

from pyfau.commands.options import add_detector_options, make_detector
from pyfau.errors import DependencyError, OptionError


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "serve",
        help="a page on this machine that scores a camera or a clip; needs pyfau[serve]",
        description="Serve a page on which a camera or a clip is scored and the bars move. Only this machine can reach "
        "it, and nothing is kept. Ctrl-C ends it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes one that is free (default: 8765)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-sessions", type=int, default=2, metavar="N", help="at once (default: 2)")
    limits.add_argument("--max-clip-mb", type=float, default=200.0, metavar="MB", help="size (default: 200)")
    limits.add_argument("--max-clip-seconds", type=float, default=600.0, metavar="S", help="length (default: 600)")
    limits.add_argument(
        "--idle-seconds", type=float, default=60.0, metavar="S", help="end sessions that stand still (default: 60)"
    )
    add_detector_options(parser)
    parser.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    for name in ("max_sessions", "max_clip_mb", "max_clip_seconds", "idle_seconds"):
        value = getattr(args, name)
        if not 0 < value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} must be a number above 0, got {value}")
    try:
        from pyfau.serve.run import listen, serve
    except ImportError as error:
        raise DependencyError(
            f"pyfau serve needs starlette, uvicorn and websockets: pip install 'pyfau[serve]' ({error})"
        ) from error
    from pyfau.serve.server import Limits

    limits = Limits(args.max_sessions, round(args.max_clip_mb * 1e6), args.max_clip_seconds, args.idle_seconds)
    with listen(args.host, args.port) as listener:
        serve(make_detector(args), listener, args.host, limits)
    return 0
