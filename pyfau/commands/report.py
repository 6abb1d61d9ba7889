"""`pyfau report TABLE -o PAGE`: a page that shows what `pyfau detect` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    report = commands.add_parser(
        "report",
        help="a page with timelines, summary, stills and the video",
        description="Write one HTML page, which works offline, about a table that pyfau detect wrote.",
    )
    report.add_argument("table", type=Path, metavar="TABLE", help="a .csv, .parquet or .jsonl file of pyfau detect")
    report.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE.html", help="the page to write")
    report.add_argument(
        "--video", type=Path, metavar="FILE", help="the clip that was scored: adds a player and a still of each AU"
    )
    report.add_argument(
        "--embed-limit", type=float, default=32.0, metavar="MIB",
        help="a larger video stays a file of its own beside the page (default: 32)",
    )  # fmt: skip
    report.add_argument(
        "--min-frames", type=int, default=1, metavar="N", help="leave out events of fewer frames (default: 1)"
    )
    report.add_argument(
        "--join-frames", type=int, default=0, metavar="N",
        help="make one event of two with at most so many frames between them (default: 0)",
    )  # fmt: skip
    report.add_argument("--quiet", action="store_true", help="no progress bar")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from pyfau.report import write_report
    from pyfau.result import read_result

    page = write_report(
        read_result(args.table),
        args.output,
        video=args.video,
        embed_limit=args.embed_limit,
        min_frames=args.min_frames,
        join_frames=args.join_frames,
        name=args.table.name,
        progress=not args.quiet,
    )
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    return 0
