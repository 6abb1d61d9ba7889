"""`pyfau pin NAME`: the manifest entry of a model, with its commit, size and hash."""

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
        "pin",
        help="compute commit, size and hash of a model that is not pinned yet",
        description="Print the entry for weights_manifest.json of a model with the status "
        "'unpinned'. A file on the Hugging Face Hub is fetched. For another file, get it from "
        "its authors and give it with --file. The file must be of the network that the entry "
        "names.",
    )
    parser.add_argument("name", metavar="NAME", help="a name of `pyfau models`")
    parser.add_argument(
        "--revision", help="commit, tag or branch on the Hub (default: the main branch)"
    )
    parser.add_argument(
        "--file", type=Path, metavar="PATH", help="the authors' file, if it is not on the Hub"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the entry on standard output."""
    from pyfau.weights.pin import pin_entry

    entry = pin_entry(args.name, revision=args.revision, file=args.file, progress=not args.quiet)
    show(*json.dumps(entry, indent=2).splitlines())
    say(f"pyfau: replace the entry of {args.name} in weights_manifest.json", sys.stderr)
    return 0
