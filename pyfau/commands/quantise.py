"""`pyfau quantise MODEL --frames FACES -o DIR`: a model directory for precision "int8"."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyfau.messages import say


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "quantise",
        help="make a model directory whose encoder computes in 8-bit integers",
        description="Write a model directory with an encoder in 8-bit integers for --precision "
        "int8, and print how far its scores are from float32. Half of the faces set the ranges, "
        "the other half measures. Needs pyfau[onnx].",
    )
    parser.add_argument("model", help="name, directory, .pth file or user/repo on the Hub")
    parser.add_argument(
        "--frames",
        required=True,
        metavar="FACES",
        help="a folder of images, a video, or a .txt file with one image path a line; some dozens "
        "of faces of different people are enough",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="a new directory"
    )
    parser.add_argument(
        "--aligner",
        default="auto",
        help="what finds the faces; 'aligned': the images are crops already; auto: the aligner of "
        "the model's config (default: auto)",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take one of N frames (default: 1)"
    )
    parser.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    parser.add_argument(
        "--offline", action="store_true", help="use only models that are on this machine"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Quantise, and print what was made."""
    from pyfau.weights.quantise import quantise_model

    made = quantise_model(
        args.model,
        args.frames,
        args.output,
        aligner=args.aligner,
        every=args.every,
        revision=args.revision,
        local_files_only=args.offline,
    )
    difference = made.difference
    say(f"{made.folder}: int8 calibrated on {made.calibrated} faces, sha256 {made.sha256}")
    say(
        f"scores of {made.measured} other faces: 99 % within {difference.quantile_99:.4f} of "
        f"float32, largest difference {difference.largest:.4f}; "
        f"{100 * difference.within_01:.1f} % within 0.01, "
        f"{100 * difference.within_03:.1f} % within 0.03"
    )
    return 0
