"""`pyfau verify`: every model file on this machine, compared with its hash."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pyfau.messages import show

if TYPE_CHECKING:
    from pyfau.weights.verify import FileCheck


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "verify",
        help="check the bundled models and all models in the cache",
        description="Read the weights of the bundled models and every file of pyfau's models in "
        "the Hub's cache, and compare them with their hashes. The exit status is 1 if a file is "
        "damaged.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line per file."""
    from pyfau.weights.verify import check_files

    status = 0
    for check in check_files():
        if check.damaged:
            status = 1
        show(f"{check.model}: {check.path.name}: {_describe(check)}")
    return status


def _describe(check: FileCheck) -> str:
    if check.expected is None:
        return f"nothing to compare with; sha256 {check.digest}"
    if check.damaged:
        return f"DAMAGED: has {check.digest}, expected {check.expected}; {check.remedy}"
    return f"ok, {check.digest}"
