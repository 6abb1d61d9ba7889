"""`pyfau download`: a model into the Hub's cache, checked."""

from __future__ import annotations

import argparse
from typing import Any

from pyfau.errors import OptionError
from pyfau.messages import show


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "download",
        help="fetch a model into the cache and check it",
        description="Fetch a model into the cache of the Hugging Face Hub, check it, and print "
        "where it is. A model that is already in the cache is only checked.",
    )
    parser.add_argument(
        "name", metavar="NAME", help="a name of `pyfau models`, or user/repo on the Hub"
    )
    parser.add_argument("--revision", help="commit, tag or branch of a repository")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, check, and say where it is."""
    from pyfau.weights.find import find_model

    with find_model(args.name, revision=args.revision, progress=not args.quiet) as found:
        if found.origin == args.name:
            raise OptionError(
                f"{args.name} is a path on this machine: there is nothing to download"
            )
        show(
            f"{found.origin}: {found.path}",
            f"{found.weights.name} has sha256 {found.sha256}",
        )
    return 0
