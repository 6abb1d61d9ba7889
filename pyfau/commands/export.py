"""`pyfau export MODEL -o DIR`: a network as ONNX files, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyfau.messages import say


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    export = commands.add_parser(
        "export",
        help="write a model as ONNX files, checked against torch",
        description="Write encode.onnx, relate.onnx, config.json and a README of inputs and "
        "outputs, and compare their scores with torch. Needs pyfau[onnx].",
    )
    export.add_argument("model", help="name, directory, .pth file or user/repo on the Hub")
    export.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    export.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    export.add_argument(
        "--offline", action="store_true", help="use only models that are on this machine"
    )
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from pyfau.models.export import export_model
    from pyfau.weights.store import load_model

    model = load_model(args.model, revision=args.revision, local_files_only=args.offline)
    differences = export_model(model, args.output)
    for name, difference in differences.items():
        size = (args.output / name).stat().st_size / 1e6
        say(f"{args.output / name}: {size:.1f} MB, at most {difference:.1e} from torch")
    return 0
