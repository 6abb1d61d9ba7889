"""`pyfau evaluate`: scores against human labels, on BP4D, DISFA or one's own tables."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau import __version__
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    from pyfau.evaluation.lists import FrameList
    from pyfau.evaluation.protocol import Predictions
    from pyfau.evaluation.tables import Matched

_LISTS_ONLY = ("root", "lists", "model", "fold", "align", "rescore", "predictions", "revision", "batch_size")
_CSV_ONLY = ("labels", "scores", "first_frame", "present")
_RECORD = ("model", "sha256", "backbone", "aus", "thresholds", "template", "aligner")  # what a report needs
_SHOWN_FAILURES = 5


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "evaluate",
        help="measure scores against labels: BP4D, DISFA or your own",
        description="Measure F1 and accuracy against human labels. --data bp4d and disfa follow the paper's protocol "
        "over the official lists; --data csv compares tables that pyfau detect wrote with tables of labels.",
    )
    parser.add_argument("--data", required=True, choices=("bp4d", "disfa", "csv"), help="what the labels are")
    parser.add_argument("--report", type=Path, metavar="OUT.json", help="also write everything measured to this file")
    parser.add_argument(
        "--more", action="store_true", help="also ROC-AUC, best-threshold F1, ICC(3,1) and calibration error"
    )
    parser.add_argument(
        "--threshold", metavar="T", help="a number, or model for the model's own (default: 0.5; csv: model)"
    )
    lists = parser.add_argument_group("bp4d and disfa")
    lists.add_argument("--root", type=Path, metavar="DIR", help="folder of the pictures, or of img/ with them")
    lists.add_argument("--lists", type=Path, metavar="DIR", help="folder of the official lists")
    lists.add_argument("--model", metavar="NAME", help="as in pyfau detect; {fold} in it stands for the fold's number")
    lists.add_argument("--fold", type=int, choices=(1, 2, 3), help="one fold (default: all that the model is for)")
    lists.add_argument(
        "--align", nargs="?", const="mtcnn", metavar="ALIGNER",
        help="the pictures are raw: find and align the faces (default aligner: mtcnn)",
    )  # fmt: skip
    lists.add_argument(
        "--predictions", type=Path, metavar="DIR",
        help="keeps the scores, so that a run can go on (default: pyfau-predictions)",
    )  # fmt: skip
    lists.add_argument("--rescore", action="store_true", help="measure the kept scores, without network and pictures")
    lists.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    lists.add_argument("--batch-size", type=int, help="frames encoded together (default: 32)")
    csv = parser.add_argument_group("csv")
    csv.add_argument("--labels", type=Path, metavar="PATH", help="a table of labels, or a folder of them")
    csv.add_argument("--scores", type=Path, metavar="PATH", help="what pyfau detect wrote, or a folder of that")
    csv.add_argument("--first-frame", type=int, metavar="N", help="number of the labels' first frame (default: 0)")
    csv.add_argument(
        "--present", type=float, metavar="I", help="labels are intensities; those from I on count as present"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    parser.add_argument("--offline", action="store_true", help="do not ask the Hub; use what its cache holds")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; the result goes to standard output, failures to standard error.

    Returns:
        1 if tables of --data csv could not be compared. Pictures that could not be read are no failure of the command.
    """
    from pyfau.evaluation.report import render

    _check_usage(args)
    report = _evaluate_tables(args) if args.data == "csv" else _evaluate_lists(args)
    print(render(report))
    if args.report is not None:
        try:
            args.report.parent.mkdir(parents=True, exist_ok=True)
            args.report.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"cannot write {args.report}: {error.strerror or error}") from error
    return 1 if args.data == "csv" and report["failures"] else 0


def _check_usage(args: argparse.Namespace) -> None:
    """Options that are missing or do not apply are refused before any work is done."""
    from pyfau.video import is_folder

    def given(name: str) -> bool:
        value = getattr(args, name)
        return value is not None and value is not False  # 0 is given

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    for name in _LISTS_ONLY if args.data == "csv" else _CSV_ONLY:
        if given(name):
            raise OptionError(f"{option(name)} is not for --data {args.data}")
    wanted = ("labels", "scores") if args.data == "csv" else ("lists",) if args.rescore else ("root", "lists", "model")
    missing = [option(name) for name in wanted if not given(name)]
    if missing:
        raise OptionError(f"--data {args.data} needs {' and '.join(missing)}")
    if args.rescore:
        for name in ("root", "model", "align", "revision", "batch_size"):
            if given(name):
                raise OptionError(f"{option(name)} does not go with --rescore, which uses the scores that are kept")
    if args.batch_size is not None and args.batch_size < 1:
        raise OptionError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.present is not None and not 0 < args.present < math.inf:
        raise OptionError(f"--present is the least intensity that counts as present, more than 0; got {args.present}")
    if args.align == "aligned":
        raise OptionError("--align is for raw pictures: leave it out if they are aligned")
    if args.report is not None:
        if is_folder(args.report):
            raise OptionError(f"--report is a file to write, and {args.report} is a folder")
        if args.report.is_file() and args.report.stat().st_size and not _is_report(args.report):
            raise OptionError(f"--report would replace {args.report}, which is no report of pyfau evaluate")
    _threshold(args.threshold, 0.5)


def _is_report(path: Path) -> bool:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"pyfau_version", "folds", "over_folds"} <= record.keys()


def _threshold(text: str | None, default: float | str) -> float | str:
    """A number, or "model"."""
    if text is None or text == "model":
        return text or default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise OptionError(f"--threshold takes a number in [0, 1] or model, got {text!r}")
    return value


def _evaluate_tables(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from pyfau.evaluation.metrics import measure
    from pyfau.evaluation.report import add_summary
    from pyfau.evaluation.tables import match, pairs_of, read_labels
    from pyfau.result import read_result

    pairs, notes = pairs_of(args.labels, args.scores)
    parts: list[Matched] = []
    inputs = []
    failures: dict[str, str] = {}
    for label_path, score_path in pairs:
        try:
            result = read_result(score_path)
            part = match(read_labels(label_path, args.present), result, str(score_path), args.first_frame or 0)
        except InputError as error:
            if not parts and label_path == pairs[-1][0]:
                raise  # nothing is left to measure
            failures[str(label_path)] = str(error)
            print(f"pyfau: {error}", file=sys.stderr)
            continue
        parts.append(part)
        inputs.append(
            {
                "labels": str(label_path),
                "scores": str(score_path),
                "model": result.metadata.get("model"),
                "model_sha256": result.metadata.get("model_sha256"),
                "label_rows": part.label_rows,
                "matched": len(part.labels),
                "unmatched": part.unmatched,
                "unlabelled": part.unlabelled,
                "notes": part.notes + result.warnings,
            }
        )
        about = f"{label_path.name}: " if len(pairs) > 1 else ""
        notes.append(f"{about}{len(part.labels)} of {part.label_rows} rows of labels have a score")
        notes += [f"{about}{count} without: {reason}" for reason, count in part.unmatched.items()]
        notes += [f"{about}{part.unlabelled} scored rows have no label"] if part.unlabelled else []
        notes += [f"{about}{note}" for note in part.notes + result.warnings]
    aus = sorted({au for part in parts for au in part.aus})
    rows = sum(len(part.labels) for part in parts)
    labels, scores = np.full((rows, len(aus)), -1, np.int8), np.full((rows, len(aus)), np.nan, np.float32)
    active = np.zeros((rows, len(aus)), bool)
    start = 0
    for part in parts:
        stop = start + len(part.labels)
        place = np.s_[start:stop], [aus.index(au) for au in part.aus]
        labels[place], scores[place], active[place] = part.labels, part.scores, part.active
        start = stop
    models = {(entry["model"], entry["model_sha256"]) for entry in inputs}
    if len(models) > 1:
        notes.append("the tables were made by different models: " + ", ".join(sorted(str(name) for name, _ in models)))
    threshold = _threshold(args.threshold, "model")
    if threshold != "model":
        active = scores >= np.float32(threshold)
    report = {
        "pyfau_version": __version__,
        "data": "csv",
        "threshold": threshold,
        "inputs": inputs,
        "failures": failures,
        "folds": {"all": measure(labels, scores, active, aus, args.more)},
        "notes": notes,
    }
    add_summary(report, None)
    return report


def _evaluate_lists(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from pyfau.evaluation.lists import FOLDS, find_pictures, read_list
    from pyfau.evaluation.metrics import measure
    from pyfau.evaluation.report import add_summary, paper_row
    from pyfau.models.config import DATA_SETS
    from pyfau.weights.store import find_model

    own = _fold_of(args.model, args.data) if args.model is not None else None
    folds = [args.fold] if args.fold else [own] if own else list(FOLDS)
    # All lists, pictures and models first: a missing one should not be found after hours.
    lists = {fold: read_list(args.data, args.lists, fold) for fold in folds}
    for frames in lists.values() if not args.rescore else ():
        find_pictures(frames, args.root)
        with find_model(
            _model_of(args, frames.fold), revision=args.revision, local_files_only=args.offline, progress=not args.quiet
        ):
            pass
    threshold = _threshold(args.threshold, 0.5)
    report: dict[str, Any] = {
        "pyfau_version": __version__,
        "data": args.data,
        "threshold": threshold,
        "models": {},
        "failures": {},
        "folds": {},
        "notes": [],
    }
    notes = report["notes"]
    folder = args.predictions or Path("pyfau-predictions")
    for fold, frames in lists.items():
        place = folder / f"{args.data}-fold{fold}"
        record, predictions = _stored(frames, place) if args.rescore else _predict(args, frames, place)
        report["models"][str(fold)] = record
        failures = report["failures"][str(fold)] = {f.source: f.error for f in predictions.failures}
        if failures:
            some = list(failures.items())
            for source, error in some[:_SHOWN_FAILURES]:
                print(f"pyfau: fold {fold}: {source}: {error}", file=sys.stderr)
            if len(some) > _SHOWN_FAILURES:
                print(f"pyfau: fold {fold}: and {len(some) - _SHOWN_FAILURES} more (see --report)", file=sys.stderr)
            notes.append(f"fold {fold}: {len(some)} of {len(frames)} pictures could not be scored and do not count")
        aus = [au for au in frames.aus if au in record["aus"]]
        labels = frames.labels[:, [frames.aus.index(au) for au in aus]]
        columns = [record["aus"].index(au) for au in aus]
        scores = predictions.scores[:, columns]
        limits = [record["thresholds"][i] if threshold == "model" else threshold for i in columns]
        active = scores >= np.array(limits, np.float32)
        report["folds"][str(fold)] = measure(labels, scores, active, aus, args.more)
    first = report["models"][str(folds[0])]
    _check_alike(report["models"])
    left = [au for au in lists[folds[0]].aus if au not in first["aus"]]
    if left:
        notes.append(f"not scored by the model, and not in the mean: {', '.join(left)}")
    if first["aligner"] is None and first["template"] != [list(point) for point in DATA_SETS[args.data].template]:
        notes.append(f"{first['model']} is for crops of another cut than {args.data}'s aligned pictures: see --align")
    paper = paper_row(args.data, first["backbone"])
    if paper and not (paper["backbone"] == first["backbone"] and f"-{args.data}" in first["model"]):
        notes.append(f"{first['model']} is not the paper's network on {args.data}: the difference is between models")
    elif len({record["sha256"] for record in report["models"].values()}) < len(folds):
        notes.append("the same weights for several folds: the paper has one network a fold; see {fold} in --model")
    add_summary(report, paper)
    return report


def _check_alike(models: Mapping[str, Mapping[str, Any]]) -> None:
    """A mean over folds is one of networks of one kind."""
    (fold, first), *others = models.items()
    for number, record in others:
        differ = [name for name in ("backbone", "aus", "aligner") if record[name] != first[name]]
        if differ:
            raise OptionError(
                f"fold {fold} was scored with {first['model']} and fold {number} with {record['model']}, which differ "
                f"in {', '.join(differ)}: expected one kind of network for all folds; measure each with --fold"
            )


def _stored(frames: FrameList, folder: Path) -> tuple[dict[str, Any], Predictions]:
    from pyfau.evaluation.protocol import RECORD_FILE, Store, load_predictions, read_record

    record = read_record(folder)
    missing = [name for name in _RECORD if name not in record]
    if missing or len(record["aus"]) != len(record["thresholds"]):
        wrong = f"lacks {', '.join(missing)}" if missing else "has another number of thresholds than of AUs"
        raise InputError(f"{folder} holds no predictions that can be measured: {RECORD_FILE} {wrong}")
    return record, load_predictions(frames, Store(folder, record))


def _predict(args: argparse.Namespace, frames: FrameList, folder: Path) -> tuple[dict[str, Any], Predictions]:
    import torch

    from pyfau.aligners import load_aligner
    from pyfau.evaluation.lists import CLIP_LENGTH, find_pictures
    from pyfau.evaluation.protocol import Store, predict
    from pyfau.weights.store import open_model, resolve_device

    if args.threads is not None:
        if args.threads < 1:
            raise OptionError(f"--threads must be at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    pictures = find_pictures(frames, args.root)
    device = resolve_device(args.device)
    name = _model_of(args, frames.fold)
    loaded = open_model(name, device, revision=args.revision, local_files_only=args.offline)
    config = loaded.model.config
    if not set(config.au_names) & set(frames.aus):
        raise OptionError(
            f"{name} scores {', '.join(config.au_names)} and {frames.data} has labels of {', '.join(frames.aus)}: "
            f"none in common"
        )
    trained = _fold_in(config.name) or _fold_in(name)
    if trained not in (None, frames.fold) and f"-{frames.data}" in config.name:
        raise OptionError(
            f"{name} is of fold {trained} and was trained on the test people of fold {frames.fold}: expected the "
            f"weights of fold {frames.fold} (write {{fold}} in --model for the number)"
        )
    record = {
        "data": frames.data,
        "fold": frames.fold,
        "model": config.name,
        "sha256": loaded.sha256,
        "config_sha256": hashlib.sha256(config.to_json().encode()).hexdigest(),  # it holds the calibration
        "backbone": config.backbone,
        "aus": list(config.au_names),
        "thresholds": [round(threshold, 6) for threshold in config.thresholds],
        "template": [list(point) for point in config.template],
        "clip_length": CLIP_LENGTH,
        "aligner": args.align,
    }
    predictions = predict(
        loaded.model,
        frames,
        pictures,
        store=Store(folder, record),
        aligner=load_aligner(args.align, device) if args.align else None,
        batch_size=args.batch_size or 32,
        progress=not args.quiet,
    )
    return record, predictions


def _model_of(args: argparse.Namespace, fold: int) -> str:
    return str(args.model).replace("{fold}", str(fold))


def _fold_of(model: str, data: str) -> int | None:
    """The fold of a data set that a model was trained for, as far as its name or its config's name tells."""
    from pyfau.models.config import DATA_SETS, read_config
    from pyfau.video import is_folder

    config = Path(model) / "config.json"
    name = read_config(config).name if is_folder(model) and config.is_file() else model
    others = any(f"-{other}-" in name for other in DATA_SETS if other != data)
    return None if others else _fold_in(name) or _fold_in(model)


def _fold_in(name: str) -> int | None:
    """The fold that a name ends with, as in mdhr-resnet50-bp4d-fold1 or best_model_fold1.pth."""
    found = re.search(r"fold_?([123])(?:\.[a-z]+)?/?$", name)
    return int(found[1]) if found else None
