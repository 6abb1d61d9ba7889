"""`pyfau live [CAMERA or FILE]`: a window with the overlay, the frame rate and the latency."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.commands.options import add_detector_options, make_detector
from pyfau.errors import OptionError
from pyfau.messages import say

if TYPE_CHECKING:
    from pyfau.live import Played


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "live",
        help="show a camera or a video with its overlay as it is scored",
        description="Show a camera or a video in a window as it is scored. q, Esc, Ctrl-C or "
        "closing the window ends the view; a switches between all and only active action units. "
        "Camera frames that arrive while another is scored are dropped and counted. No frame of a "
        "video is dropped: it plays at its own rate, or slower if scoring takes longer.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="0",
        metavar="SOURCE",
        help="camera number or video (default: 0)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="TABLE",
        help="write the rows to a .csv, .parquet or .jsonl file",
    )
    parser.add_argument(
        "--record-video",
        type=Path,
        metavar="VIDEO",
        help="write the view to a .mp4, .mkv or .webm file with its real times",
    )
    parser.add_argument(
        "--all-aus",
        action="store_true",
        help="start with all action units instead of only active ones",
    )
    parser.add_argument(
        "--lsl",
        metavar="NAME",
        help="send the scores to a stream of Lab Streaming Layer with this name",
    )
    parser.add_argument(
        "--lsl-markers",
        metavar="NAME",
        help="receive codes of stimuli from this stream; they are written next to --record",
    )
    add_detector_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    from pyfau.live import watch

    seen = watch(
        partial(make_detector, args),
        _one_source(args.source),
        table=args.record,
        video=args.record_video,
        all_aus=args.all_aus,
        lsl=args.lsl,
        lsl_markers=args.lsl_markers,
    )
    for warning in seen.warnings:
        say(f"pyfau: {seen.source}: {warning}", sys.stderr)
    say(f"{seen.source}: {_summary(seen.played, seen.dropped)}")
    for path in (args.record, args.record_video, seen.markers):
        if path is not None:
            say(path)
    return 0


def _one_source(text: str) -> int | str:
    """The number of a camera, or a video file."""
    from pyfau.batch.plan import CAMERA, expand

    sources = expand([text])
    if len(sources) != 1:
        raise OptionError(f"pyfau live shows one camera or video, got {len(sources)} with {text!r}")
    source = sources[0]
    return int(source.removeprefix(CAMERA)) if source.startswith(CAMERA) else source


def _summary(played: Played, dropped: int | None) -> str:
    """Such as "300 frames shown at 24.9 frames/s, 2 dropped; latency 40 ms on average, ..."."""
    text = f"{played.frames} frame{'' if played.frames == 1 else 's'} shown"
    if played.frames > 1:
        text += f" at {played.fps:.1f} frames/s"
    if dropped is not None:
        text += f", {dropped} dropped"
    if played.frames:
        mean = 1000 * played.latency_s
        worst = 1000 * played.worst_latency_s
        text += f"; latency {mean:.0f} ms on average, {worst:.0f} ms at most"
    return text
