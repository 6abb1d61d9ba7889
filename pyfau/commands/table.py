"""`pyfau table`: writes a table of `pyfau detect` in a format for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.checks import check_rules
from pyfau.commands.options import (
    add_baseline_option,
    add_limit_option,
    make_limits,
    with_baseline,
)
from pyfau.messages import say

if TYPE_CHECKING:
    from pyfau.limits import Limits
    from pyfau.result import AUResult

# The formats, and the suffixes of their files.
_SUFFIXES = {
    "csv": ".csv",
    "parquet": ".parquet",
    "jsonl": ".jsonl",
    "openface": ".csv",
    "pyfeat": ".csv",
    "events": ".csv",
    "elan": ".eaf",
    "bids": ".tsv",
}
_BY_SUFFIX = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".eaf": "elan",
    ".tsv": "bids",
}
_WITH_EVENTS = ("events", "elan", "bids")


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "table",
        help="write a table for other programs: OpenFace, py-feat, ELAN, BIDS, events, JSON Lines",
        description="Read a table that pyfau detect wrote and write it in another format. See "
        "docs/formats.md.",
    )
    parser.add_argument(
        "table", type=Path, metavar="TABLE", help="a .csv, .parquet or .jsonl file of pyfau detect"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the file to write"
    )
    parser.add_argument(
        "--format",
        choices=tuple(_SUFFIXES),
        help="format of the output (default: by its suffix; .csv is the csv format of detect)",
    )
    parser.add_argument(
        "--min-frames",
        type=int,
        metavar="N",
        help="events, elan, bids: leave out events with fewer frames (default: 1)",
    )
    parser.add_argument(
        "--join-frames",
        type=int,
        metavar="N",
        help="events, elan, bids: join two events with at most N frames between them (default: 0)",
    )
    parser.add_argument(
        "--blinks",
        action="store_true",
        default=None,
        help="events, elan, bids: list closures of the eyes under 0.5 s as AU45 instead of AU43",
    )
    parser.add_argument(
        "--markers",
        type=Path,
        metavar="EVENTS.tsv",
        help="csv: add a column marker with the codes of this file of BIDS events",
    )
    add_baseline_option(parser, "first subtract the scores of each face at rest")
    add_limit_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    from pyfau.files import check_is_other
    from pyfau.result import read_result
    from pyfau.tables.metadata import write_whole

    kind = args.format or _BY_SUFFIX.get(args.output.suffix.lower())
    options = {name: getattr(args, name) for name in ("min_frames", "join_frames", "blinks")}
    options = {name: value for name, value in options.items() if value is not None}
    _check_usage(kind, args.output, options, args.markers)
    check_is_other(args.output, args.table)
    result: AUResult = read_result(args.table, make_limits(args))
    result = with_baseline(result, args.baseline)
    for warning in result.warnings:
        say(f"pyfau: {args.table}: {warning}", sys.stderr)
    if args.markers is not None:
        write_marked(result, args.markers, args.output, make_limits(args))
    elif kind == "pyfeat":
        # The other formats have methods that write; this one makes a data frame.
        table = result.to_pyfeat().round(6)
        write_whole(args.output, table.to_csv(index=False, lineterminator="\n"))
    else:
        write = getattr(result, f"to_{kind}")
        write(args.output, **options)
    say(f"{args.table}: {len(result)} rows, {kind}, {args.output}")
    return 0


def write_marked(result: AUResult, markers: Path, output: Path, limits: Limits) -> None:
    """Write the rows as CSV, with the codes of stimuli in a column `marker`."""
    from pyfau.analysis.markers import join_markers
    from pyfau.formats.bids import read_bids_events
    from pyfau.tables.cells import guard_cell
    from pyfau.tables.metadata import write_whole

    table = join_markers(result.to_dataframe(), read_bids_events(markers, limits)).round(6)
    for name in {"file", "marker"} & set(table.columns):
        table[name] = table[name].map(guard_cell, na_action="ignore")
    write_whole(output, table.to_csv(index=False, lineterminator="\n"))


def _check_usage(
    kind: str | None, output: Path, options: dict[str, int], markers: Path | None
) -> None:
    """Refuse a format and a file that do not agree, and options of other formats."""
    suffix = _SUFFIXES.get(kind or "")
    check_rules(
        (
            kind is None,
            f"--output {output}: expected {', '.join(_BY_SUFFIX)}, or --format",
        ),
        (
            output.suffix.lower() != suffix,
            f"--format {kind} is written to a {suffix} file, got --output {output}",
        ),
        (
            bool(options) and kind not in _WITH_EVENTS,
            "--min-frames, --join-frames and --blinks are for --format events, elan and bids",
        ),
        (markers is not None and kind != "csv", "--markers is for --format csv"),
    )
