"""`pyfau evaluate`: compare scores with human labels of BP4D, DISFA or your own tables."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyfau.checks import check_rules, check_threads
from pyfau.commands.options import add_limit_option, make_limits
from pyfau.errors import InputError, OptionError
from pyfau.messages import say, show
from pyfau.records import parse_json

_LISTS_ONLY = (
    "root",
    "lists",
    "model",
    "fold",
    "align",
    "rescore",
    "predictions",
    "revision",
    "batch_size",
)
_CSV_ONLY = ("labels", "scores", "sets", "first_frame", "present")
_NOT_WITH_RESCORE = ("root", "model", "align", "revision", "batch_size")
_SHOWN_FAILURES = 5


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="compare scores with labels: BP4D, DISFA or your own",
        description="Measure F1 and accuracy against human labels. --data bp4d and disfa follow "
        "the paper's protocol with the official lists; --data csv compares tables that pyfau "
        "detect wrote with tables of labels.",
    )
    parser.add_argument(
        "--data", required=True, choices=("bp4d", "disfa", "csv"), help="source of the labels"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="OUT.json",
        help="also write all measures to this file",
    )
    parser.add_argument(
        "--more",
        action="store_true",
        help="also compute ROC-AUC, best-threshold F1, ICC(3,1) and calibration error",
    )
    parser.add_argument(
        "--threshold",
        metavar="T",
        help="score from which an AU counts as active: a number, or 'model' for the thresholds of "
        "the model (default: 0.5; csv: model)",
    )
    _add_list_options(parser.add_argument_group("bp4d and disfa"))
    _add_table_options(parser.add_argument_group("csv"))
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N, mps (default: auto)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="use only models that are on this machine"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: chosen by torch)")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_limit_option(parser)
    parser.set_defaults(run=run)


def _add_list_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of the images, or the folder that has them in img/",
    )
    group.add_argument("--lists", type=Path, metavar="DIR", help="folder of the official lists")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="as in pyfau detect; pyfau replaces {fold} with the number of the fold",
    )
    group.add_argument(
        "--fold",
        type=int,
        choices=(1, 2, 3),
        help="evaluate only this fold (default: all folds of the model)",
    )
    group.add_argument(
        "--align",
        nargs="?",
        const="auto",
        metavar="ALIGNER",
        help="the images are raw: find and align the faces (default aligner: auto)",
    )
    group.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="folder for the scores; an interrupted run continues from it "
        "(default: pyfau-predictions)",
    )
    group.add_argument(
        "--rescore",
        action="store_true",
        help="compute the figures again from the scores in --predictions; needs no model and no "
        "images",
    )
    group.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    group.add_argument(
        "--batch-size", type=int, help="number of frames encoded together (default: 32)"
    )


def _add_table_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--labels", type=Path, metavar="PATH", help="a table of labels, or a folder of them"
    )
    group.add_argument(
        "--scores",
        type=Path,
        metavar="PATH",
        help="a table that pyfau detect wrote, or a folder of them",
    )
    group.add_argument(
        "--set",
        dest="sets",
        nargs=3,
        action="append",
        metavar=("NAME", "LABELS", "SCORES"),
        help="a data set, instead of --labels and --scores; give it at least twice. Each data set "
        "is left out once: thresholds are chosen on the others (or are those of --threshold)",
    )
    group.add_argument(
        "--first-frame",
        type=int,
        metavar="N",
        help="number of the first frame in the labels (default: 0)",
    )
    group.add_argument(
        "--present",
        type=float,
        metavar="I",
        help="lowest intensity that counts as present, if the labels are intensities. If the "
        "scores have intensities (AU12_r), also compute Pearson's r, ICC(3,1) and mean absolute "
        "error",
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; the result goes to standard output, failures to standard error.

    Returns:
        1 if tables of --data csv could not be compared, otherwise 0. Images that cannot be read
        do not make the command fail.
    """
    from pyfau.evaluation.comparison import render_lines

    _check_usage(args)
    report = _evaluate_tables(args) if args.data == "csv" else _evaluate_lists(args)
    show(*render_lines(report))
    if args.report is not None:
        _write_report(args.report, report)
    return 1 if args.data == "csv" and report["failures"] else 0


def _evaluate_tables(args: argparse.Namespace) -> dict[str, Any]:
    from pyfau.evaluation.run import TableOptions, evaluate_tables

    options = TableOptions(
        threshold=_threshold(args.threshold, "model"),
        present=args.present,
        first_frame=args.first_frame or 0,
        more=args.more,
        limits=make_limits(args),
    )
    if args.sets:
        from pyfau.evaluation.left_out import evaluate_left_out, read_sets

        threshold = _threshold(args.threshold, "others")
        report = evaluate_left_out(read_sets(args.sets), options, threshold=threshold)
    else:
        report = evaluate_tables(args.labels, args.scores, options)
    for error in report["failures"].values():
        say(f"pyfau: {error}", sys.stderr)
    return report


def _evaluate_lists(args: argparse.Namespace) -> dict[str, Any]:
    from pyfau.evaluation.run import (
        DEFAULT_BATCH_SIZE,
        DEFAULT_PREDICTIONS,
        ListOptions,
        evaluate_lists,
    )

    if not args.rescore:  # --rescore computes nothing with torch
        from pyfau.models.devices import set_threads

        set_threads(args.threads)
    options = ListOptions(
        root=args.root,
        model=args.model,
        fold=args.fold,
        align=args.align,
        rescore=args.rescore,
        predictions=args.predictions or DEFAULT_PREDICTIONS,
        threshold=_threshold(args.threshold, 0.5),
        more=args.more,
        batch_size=args.batch_size or DEFAULT_BATCH_SIZE,
        device=args.device,
        revision=args.revision,
        offline=args.offline,
        progress=not args.quiet,
        limits=make_limits(args),
    )
    report = evaluate_lists(args.data, args.lists, options)
    for fold, failures in report["failures"].items():
        _print_failures(fold, failures)
    return report


def _print_failures(fold: str, failures: Mapping[str, str]) -> None:
    shown = list(failures.items())[:_SHOWN_FAILURES]
    for source, error in shown:
        say(f"pyfau: fold {fold}: {source}: {error}", sys.stderr)
    left = len(failures) - len(shown)
    if left:
        say(f"pyfau: fold {fold}: and {left} more (see --report)", sys.stderr)


def _write_report(path: Path, report: Mapping[str, Any]) -> None:
    from pyfau.files import replace_file

    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error


def _check_usage(args: argparse.Namespace) -> None:
    """Refuse options that are missing or do not apply, before any work is done."""
    _check_given(args)
    present = args.present
    check_rules(
        (
            args.batch_size is not None and args.batch_size < 1,
            f"--batch-size must be at least 1, got {args.batch_size}",
        ),
        (
            present is not None and not 0 < present < math.inf,
            f"--present is the lowest intensity that counts as present, and must be more than 0; "
            f"got {present}",
        ),
        (
            args.align == "aligned",
            "--align is for raw images: leave it out if they are aligned",
        ),
    )
    check_threads(args.threads)
    _check_report(args.report)
    _threshold(args.threshold, 0.5)


def _check_given(args: argparse.Namespace) -> None:
    """Check which options are given and which are missing."""

    def given(name: str) -> bool:
        value = getattr(args, name)
        return value is not None and value is not False  # 0 is a value

    for name in _LISTS_ONLY if args.data == "csv" else _CSV_ONLY:
        if given(name):
            raise OptionError(f"{_flag(name)} is not for --data {args.data}")
    missing = [_flag(name) for name in _needed(args) if not given(name)]
    if missing:
        raise OptionError(f"--data {args.data} needs {' and '.join(missing)}")
    if args.sets and (args.labels or args.scores):
        raise OptionError("--set has labels and scores: leave out --labels and --scores")
    if not args.rescore:
        return
    for name in _NOT_WITH_RESCORE:
        if given(name):
            raise OptionError(
                f"{_flag(name)} cannot be used with --rescore, which measures stored scores"
            )


def _needed(args: argparse.Namespace) -> tuple[str, ...]:
    if args.data == "csv":
        return () if args.sets else ("labels", "scores")
    if args.rescore:
        return ("lists",)
    return ("root", "lists", "model")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_report(path: Path | None) -> None:
    """Refuse to replace a file that is not a report."""
    from pyfau.files import is_folder

    if path is None:
        return
    if is_folder(path):
        raise OptionError(f"--report is a file to write, and {path} is a folder")
    if path.is_file() and path.stat().st_size and not _is_report(path):
        raise OptionError(f"--report would replace {path}, which is no report of pyfau evaluate")


def _is_report(path: Path) -> bool:
    from pyfau.files import read_file

    try:
        record = parse_json(read_file(path), str(path))
    except (OSError, InputError):
        return False
    return isinstance(record, dict) and {"pyfau_version", "folds", "over_folds"} <= record.keys()


def _threshold(text: str | None, default: Any) -> Any:
    """A number, or "model"."""
    if text is None:
        return default
    if text == "model":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise OptionError(f"--threshold takes a number in [0, 1] or model, got {text!r}")
    return value
