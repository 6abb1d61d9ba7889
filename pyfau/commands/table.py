"""`pyfau table`: a table that `pyfau detect` wrote, as other programs read it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyfau.errors import OptionError

_SUFFIXES = {
    "csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl", "openface": ".csv", "pyfeat": ".csv", "events": ".csv",
    "elan": ".eaf",
}  # fmt: skip
_BY_SUFFIX = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".eaf": "elan"}


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "table",
        help="write a table for other programs: OpenFace, py-feat, ELAN, events, JSON Lines",
        description="Read a table that pyfau detect wrote and write it in another format. See docs/formats.md.",
    )
    parser.add_argument("table", type=Path, metavar="TABLE", help="a .csv, .parquet or .jsonl file of pyfau detect")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--format", choices=tuple(_SUFFIXES), help="of the output (default: what its suffix says; .csv: csv, as detect)"
    )
    parser.add_argument(
        "--min-frames", type=int, metavar="N", help="events, elan: leave out events of fewer frames (default: 1)"
    )
    parser.add_argument(
        "--join-frames", type=int, metavar="N", help="events, elan: join events so few frames apart (default: 0)"
    )
    parser.add_argument(
        "--baseline", type=float, metavar="QUANTILE",
        help="first adjust each face's scores to this quantile of them, such as 0.1; see docs/baseline.md",
    )  # fmt: skip
    parser.set_defaults(run=_table)


def _table(args: argparse.Namespace) -> int:
    import sys

    from pyfau.overlay import check_is_other
    from pyfau.result import AUResult, read_result, write_whole

    kind = args.format or _BY_SUFFIX.get(args.output.suffix.lower())
    if kind is None:
        raise OptionError(f"--output {args.output}: expected {', '.join(_BY_SUFFIX)}, or --format")
    if args.output.suffix.lower() != _SUFFIXES[kind]:
        raise OptionError(f"--format {kind} is written to a {_SUFFIXES[kind]} file, got --output {args.output}")
    check_is_other(args.output, args.table)
    options = {name: value for name in ("min_frames", "join_frames") if (value := getattr(args, name)) is not None}
    if options and kind not in ("events", "elan"):
        raise OptionError("--min-frames and --join-frames are for --format events and elan")
    result: AUResult = read_result(args.table)
    if args.baseline is not None:
        result = result.baseline(quantile=args.baseline)
    for warning in result.warnings:
        print(f"pyfau: {args.table}: {warning}", file=sys.stderr)
    if kind == "pyfeat":
        write_whole(args.output, result.to_pyfeat().round(6).to_csv(index=False, lineterminator="\n"))
    else:
        getattr(result, f"to_{kind}")(args.output, **options)
    print(f"{args.table}: {len(result)} rows, {kind}, {args.output}")
    return 0
