"""`pyfau detect`: score inputs and write one table for each."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pyfau.choices import BaselineSource, Runner, TableFormat
from pyfau.commands.options import add_choice, add_detector_options, detector_arguments
from pyfau.commands.summary import print_features
from pyfau.errors import OptionError
from pyfau.messages import progress_bar, say

if TYPE_CHECKING:
    from pyfau.batch.scoring import Batch


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "detect",
        help="score videos, images, folders or a camera",
        description="Score inputs and write one table for each input. A folder of images is one "
        "input: its images are the frames of one recording, except with --independent. Each video "
        "in a folder of videos is an input. Name a camera by its number or as camera:NUMBER, and "
        "stop it with Ctrl-C.",
    )
    _add_files(parser)
    _add_run_options(parser)
    add_detector_options(parser)
    _add_cluster_options(parser.add_argument_group("more than one machine"))
    parser.set_defaults(run=run, keeps_rows=True)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="video, image, folder, glob pattern, camera, URI for fsspec, or @LIST: a text file "
        "with one input per line",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a .csv, .parquet or .jsonl file for one input, otherwise a folder",
    )
    parser.add_argument(
        "--format",
        choices=get_args(TableFormat),
        help="format of the tables in a folder (default: csv)",
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="also write overlays: a .mp4 or .webm, a .png for one image, or a folder",
    )
    parser.add_argument(
        "--anonymise",
        action="store_true",
        help="cover the faces in overlays; it can miss faces, so look at every overlay before you "
        "share it",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="FILE.csv",
        help="also write one table of features with one row per input and face, as pyfau summary "
        "does",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of inputs to score in parallel, each in its own process (default: 1)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip inputs whose table is complete and has the same settings",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files even if pyfau did not write them",
    )
    parser.add_argument("--fps", type=float, help="frames per second of image sequences")
    parser.add_argument(
        "--seconds", type=float, help="stop a camera after this time (default: at Ctrl-C)"
    )
    parser.add_argument(
        "--stream",
        type=int,
        metavar="N",
        help="number of the video stream, from 0, for files with several (default: the file's "
        "default stream)",
    )
    parser.add_argument(
        "--independent",
        action="store_true",
        help="score each image of a folder independently of the others",
    )
    add_choice(
        parser,
        "--baseline",
        BaselineSource,
        "auto: find the frames in which each face is at rest, and subtract its scores in them; "
        "see docs/baseline.md (default: leave the scores as they are)",
    )


def _add_cluster_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--runner",
        choices=get_args(Runner),
        default="local",
        help="where the inputs are scored: on this machine, or on a Ray cluster, which writes "
        "Parquet (default: local)",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of the cluster (default: the one that Ray finds, or a new one)",
    )
    group.add_argument(
        "--gpu-share",
        type=float,
        metavar="GPUS",
        help="GPUs per job (default: 1 with --device cuda)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        1 if an input, or an image of an input, failed; otherwise 0.
    """
    from pyfau.batch.scoring import ScoreOptions, score

    if args.anonymise and args.overlay is None:
        raise OptionError("--anonymise covers faces in overlays: add --overlay")
    options = ScoreOptions(
        format=args.format,
        overlay=args.overlay,
        summary=args.summary,
        jobs=args.jobs,
        threads=args.threads,
        resume=args.resume,
        overwrite=args.overwrite,
        fps=args.fps,
        independent=args.independent,
        seconds=args.seconds,
        stream=args.stream,
        runner=args.runner,
        ray_address=args.ray_address,
        gpu_share=args.gpu_share,
    )
    batch = score(args.inputs, args.output, options, detector_arguments(args))
    failures = _print_reports(batch, args.quiet)
    if batch.features is not None:
        failures += print_features(batch.features, args.summary)
    return 1 if failures else 0


def _print_reports(batch: Batch, quiet: bool) -> int:
    """Print the reports as they come.

    Returns:
        The number of failures.
    """
    failures = 0
    # If the inputs are scored one after another, each of them shows its own bar.
    shown = batch.parallel and not quiet
    with (
        closing(iter(batch)) as reports,
        progress_bar(total=len(batch), unit="input", disable=not shown) as bar,
    ):
        for report in reports:
            bar.clear()
            for complaint in report.complaints:
                say(complaint, sys.stderr)
            if report.said:
                say(report.said)
            failures += report.failures
            bar.update()
    return failures
