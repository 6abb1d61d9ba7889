"""`pyfau doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pyfau.messages import show

if TYPE_CHECKING:
    from pyfau.doctor import Check

_MARKS = {"ok": "ok", "missing": "-", "problem": "PROBLEM"}


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "doctor",
        help="check this installation: versions, codecs, engines, speed, what is missing",
        description="Check this installation: versions, codecs, devices, the bundled model, "
        "optional packages, and the speed of one second of scoring. Each line that is not ok says "
        "what to do. Nothing is downloaded. The exit status is 1 if there is a problem. A missing "
        "optional package does not count as a problem.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed test")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        1 if there is a problem, otherwise 0.
    """
    from pyfau.doctor import examine

    checks = examine(speed=not args.no_speed)
    problems = sum(check.state == "problem" for check in checks)
    if args.json:
        show(json.dumps({"problems": problems, "checks": [check.to_dict() for check in checks]}))
    else:
        _print(checks, problems)
    return 1 if problems else 0


def _print(checks: list[Check], problems: int) -> None:
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            show(group)
        advice = f" -> {check.advice}" if check.advice else ""
        show(f"  {_MARKS[check.state]:8}{check.name:20}{check.value}{advice}")
    show("no problem" if not problems else f"{problems} problem{'' if problems == 1 else 's'}")
