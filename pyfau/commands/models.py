"""`pyfau models`: the models that have a name."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pyfau.messages import show


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "models",
        help="list the models known by name",
        description="List the models known by name: status, backbone, data and number of action "
        "units.",
    )
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    from pyfau.weights.manifest import read_manifest

    entries = read_manifest()
    if args.json:
        records = {name: dict(entry.record) for name, entry in entries.items()}
        show(*json.dumps(records, indent=2).splitlines())
        return 0
    width = max(map(len, entries))
    for name, entry in entries.items():
        show(f"{name:{width}}  {entry.status:8} {entry.description}")
    show(
        "",
        "bundled: works offline. hub: downloaded at first use. "
        "official: the authors' file, downloaded at first use. "
        "convert: `pyfau info NAME` shows how to make it. "
        "unpinned: needs --revision, or the authors' file; see `pyfau info NAME`.",
    )
    return 0
