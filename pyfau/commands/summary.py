"""`pyfau summary TABLES -o FEATURES.csv`: one row of features per video and face."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.commands.options import add_limit_option, make_limits
from pyfau.messages import say

if TYPE_CHECKING:
    from pyfau.analysis.features import Features


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "summary",
        help="make one table of features: one row per video and face",
        description="Summarise tables that pyfau detect wrote: one row per table and face, with "
        "how often each action unit was active and how its scores were distributed.",
    )
    parser.add_argument(
        "tables",
        nargs="+",
        metavar="TABLE",
        help="folder of tables, table (.csv, .parquet or .jsonl) or glob pattern",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.csv", help="the file to write"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing file even if pyfau did not write it",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_limit_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        1 if a table could not be summarised, otherwise 0.
    """
    from pyfau.analysis.features import check_features, find_tables, summarize_tables

    check_features(args.output, args.overwrite)
    tables = find_tables(args.tables, args.output)
    features = summarize_tables(tables, progress=not args.quiet, limits=make_limits(args))
    features.to_csv(args.output)
    return print_features(features, args.output)


def print_features(features: Features, output: Path) -> int:
    """Print what became of tables that were summarised.

    Returns:
        1 if a table could not be summarised, otherwise 0.
    """
    for failure in features.failures:
        say(f"pyfau: {failure.error}", sys.stderr)
    for warning in features.warnings:
        say(f"pyfau: {warning}", sys.stderr)
    rows = len(features.table)
    done = features.count - len(features.failures)
    say(f"{output}: {rows} row{'' if rows == 1 else 's'} from {done} of {features.count} tables")
    return 1 if features.failures else 0
