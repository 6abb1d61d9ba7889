"""`pyfau report TABLE -o PAGE`: a web page about a table that `pyfau detect` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyfau.commands.options import (
    add_baseline_option,
    add_limit_option,
    make_limits,
    with_baseline,
)
from pyfau.messages import say


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    report = commands.add_parser(
        "report",
        help="write a web page with timelines, summary, stills and the video",
        description="Write one HTML page about a table that pyfau detect wrote. It works offline.",
    )
    report.add_argument(
        "table", type=Path, metavar="TABLE", help="a .csv, .parquet or .jsonl file of pyfau detect"
    )
    report.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PAGE.html", help="the page to write"
    )
    report.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="the scored clip: adds a player and a still of each AU",
    )
    report.add_argument(
        "--embed-limit",
        type=float,
        default=32.0,
        metavar="MIB",
        help="a larger video becomes a separate file next to the page (default: 32)",
    )
    report.add_argument(
        "--min-frames",
        type=int,
        default=1,
        metavar="N",
        help="leave out events with fewer frames (default: 1)",
    )
    report.add_argument(
        "--join-frames",
        type=int,
        default=0,
        metavar="N",
        help="join two events with at most N frames between them (default: 0)",
    )
    add_baseline_option(report, "adjust the scores to each face at rest, and show both in the page")
    report.add_argument(
        "--compare",
        type=Path,
        metavar="TABLE",
        help="table of a second recording: adds a table with the figures of both",
    )
    report.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_limit_option(report)
    report.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    from pyfau.report.html import write_report
    from pyfau.result import read_result

    limits = make_limits(args)
    result = with_baseline(read_result(args.table, limits), args.baseline)
    page = write_report(
        result,
        args.output,
        video=args.video,
        embed_limit=args.embed_limit,
        min_frames=args.min_frames,
        join_frames=args.join_frames,
        name=args.table.name,
        progress=not args.quiet,
        limits=limits,
        compare=None if args.compare is None else read_result(args.compare, limits),
    )
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    return 0
