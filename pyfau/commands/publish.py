"""`pyfau publish`: a model directory to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pyfau.messages import say, show


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "publish",
        help="upload a model directory to the Hugging Face Hub",
        description="Upload config.json, model.safetensors and README.md of a model directory in "
        "one commit, and nothing else from the directory. Then print the entry for "
        "weights_manifest.json. Log in first: `hf auth login` or HF_TOKEN.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="model directory, for example from pyfau convert"
    )
    parser.add_argument(
        "repo", metavar="user/repo", help="repository on the Hub; it is made if it does not exist"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the directory, upload it, and print the manifest entry."""
    from pyfau.weights.publish import NOT_STATED, prepare_publication

    publication = prepare_publication(args.folder, args.repo)
    licence = publication.facts["weights_licence"]
    if licence.startswith(NOT_STATED):
        say(
            f"pyfau: the licence of these weights is {licence}: "
            f"make sure that you may publish them",
            sys.stderr,
        )
    entry = publication.upload(private=args.private)
    show(*json.dumps(entry, indent=2).splitlines())
    if publication.not_stated:
        say(
            f"pyfau: state before you add it to weights_manifest.json: "
            f"{', '.join(publication.not_stated)}",
            sys.stderr,
        )
    return 0
