"""`pyfau convert`: from the authors' checkpoint to a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyfau.messages import say


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "convert",
        help="make a model directory from the authors' checkpoint",
        description="Make a model directory (config.json, model.safetensors, README.md) from the "
        "authors' checkpoint. The network is recognised from its tensors. The command fails if "
        "--net, --backbone or --data contradict them.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="FILE", help="the checkpoint, such as best_model_fold1.pth"
    )
    parser.add_argument("--net", help="expected network, such as mdhr")
    parser.add_argument("--backbone", help="expected backbone, such as resnet50 or swin_b")
    parser.add_argument("--data", help="expected data set, such as bp4d or disfa")
    parser.add_argument(
        "--fold", type=int, help="the fold that the training left out; the file does not state it"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="a new directory"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, check, and print what was made."""
    from pyfau.weights.convert_official import convert_checkpoint

    entry = convert_checkpoint(
        args.checkpoint,
        args.output,
        net=args.net,
        backbone=args.backbone,
        data=args.data,
        fold=args.fold,
    )
    name = "a model that the manifest does not list; --fold selects the fold"
    if entry is not None:
        name = entry.name
    say(f"{args.output}: {name}, checked against {args.checkpoint} on a test clip")
    return 0
