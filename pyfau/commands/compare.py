"""`pyfau compare CLIP --models A B -o PAGE`: the same clip through several models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyfau.choices import AlignerChoice
from pyfau.commands.options import add_choice
from pyfau.messages import say


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "compare",
        help="write a web page that compares several models on one clip",
        description="Score a clip with several models and write one HTML page: a timeline for "
        "each action unit, and a table of their agreement. It works offline.",
    )
    parser.add_argument(
        "source", type=Path, metavar="CLIP", help="a video, an image or a folder of images"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="at least 2, as for pyfau detect; MODEL@REVISION for a commit, tag or branch",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PAGE.html", help="the page to write"
    )
    add_choice(
        parser,
        "--aligner",
        AlignerChoice,
        "face detector of all models; auto: that of each model's config (default: auto)",
        default="auto",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N, mps (default: auto)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="use only models that are on this machine"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score the clip and write the page."""
    from pyfau.evaluation.compare import compare_models
    from pyfau.report.comparison import check_page, write_comparison

    check_page(args.output)
    results = compare_models(
        args.source,
        args.models,
        progress=not args.quiet,
        aligner=args.aligner,
        device=args.device,
        local_files_only=args.offline,
    )
    page = write_comparison(results, args.output, name=args.source.name)
    say(f"{page}: {', '.join(results)}")
    return 0
