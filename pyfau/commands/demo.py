"""`pyfau demo`: a first run without any data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pyfau.commands.options import add_detector_options, make_detector
from pyfau.messages import say


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "demo",
        help="make a short clip, score it, and write CSV and overlay (offline)",
        description="Make a clip of three seconds from a built-in portrait, score it, and write "
        "the table and the overlay. It needs no data and no internet.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("pyfau-demo"),
        help="folder to write to (default: pyfau-demo)",
    )
    add_detector_options(parser)
    parser.set_defaults(run=run, keeps_rows=True)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    from pyfau.aus import AU_NAMES
    from pyfau.demo import write_demo_clip

    clip = write_demo_clip(args.output / "demo.mp4")
    table = args.output / "demo.csv"
    overlay = args.output / "demo-overlay.mp4"
    detector = make_detector(args)
    result = detector.detect_video(clip, save=table, overlay=overlay)
    model = detector.model
    say(f"{clip}: {len(result)} rows with {model.config.name} on {model.device}")
    say("strongest action units, mean score (presence in [0, 1], not intensity):")
    for au, score in result.strongest(5):
        say(f"  {au}  {score:.2f}  {AU_NAMES.get(au, '')}")
    say(f"scores:  {table}")
    say(f"overlay: {overlay}")
    for warning in result.warnings:
        say(f"pyfau: {warning}", sys.stderr)
    return 0
