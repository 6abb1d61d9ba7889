"""What was measured beside what the paper reports, as a record and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyfau.evaluation.lists import FOLDS
from pyfau.evaluation.metrics import over_folds
from pyfau.weights.manifest import read_manifest

_TITLES = {
    "accuracy": "acc",
    "auc": "AUC",
    "best_f1": "best F1",
    "best_threshold": "at",
    "icc": "ICC",
    "calibration_error": "ECE",
}
_PERCENT = ("f1", "accuracy", "best_f1")


def paper_row(data: str, backbone: str) -> dict[str, Any] | None:
    """The paper's figures for a data set: those of the network with this backbone, else those with ResNet-50.

    Returns:
        `{"backbone", "average_f1", "f1": {au: percent}, "protocol", "source"}` from weights_manifest.json; None for
        data that the paper does not have.
    """
    rows = {
        entry.record["backbone"]: entry.record
        for entry in read_manifest().values()
        if entry.record["data"] == data and "average_f1" in entry.record.get("reported_metrics", {})
    }
    record = rows.get(backbone) or rows.get("resnet50")
    if record is None:
        return None
    return {**record["reported_metrics"], "backbone": record["backbone"], "source": record["source"]}


def add_summary(report: dict[str, Any], paper: Mapping[str, Any] | None) -> None:
    """Add the mean over folds, the paper's row and the difference from it, in percentage points of F1.

    Args:
        report: Has "folds" by number; gains "over_folds", "paper" and "difference".
        paper: From `paper_row`.
    """
    folds = list(report["folds"].values())
    total = report["over_folds"] = over_folds(folds)
    report["paper"] = dict(paper) if paper else None
    report["difference"] = None
    if paper:
        ours = {au: figures["f1"] for au, figures in total["aus"].items()}
        difference = {au: _minus(ours[au], paper["f1"].get(au)) for au in ours}
        # A mean over fewer AUs is another thing than the paper's.
        whole = ours.keys() == paper["f1"].keys() and None not in ours.values()
        difference["mean"] = _minus(total["mean"]["f1"], paper["average_f1"]) if whole else None
        report["difference"] = difference


def render(report: Mapping[str, Any]) -> str:
    """The report as a table for people; F1 and accuracy in percent."""
    folds: Mapping[str, Any] = report["folds"]
    total, paper, difference = report["over_folds"], report["paper"], report["difference"]
    others = [name for name in next(iter(total["aus"].values())) if name in _TITLES]
    head = ["AU", "frames", "present", *([f"fold {fold}" for fold in folds] if len(folds) > 1 else []), "F1"]
    head += ["paper", "diff"] if paper else []
    head += [_TITLES[name] for name in others]
    lines = [head]
    for au in [*total["aus"], "mean"]:
        mean = au == "mean"
        figures = total["mean"] if mean else total["aus"][au]
        line = [au, "" if mean else str(figures["frames"]), "" if mean else str(figures["present"])]
        if len(folds) > 1:
            line += [_shown("f1", (fold["mean"] if mean else fold["aus"][au])["f1"]) for fold in folds.values()]
        line.append(_shown("f1", figures["f1"]))
        if paper:
            reported = paper["average_f1"] if mean else paper["f1"].get(au)
            line.append("" if reported is None else f"{reported:.1f}")
            line.append("" if difference[au] is None else f"{difference[au]:+.1f}")
        line += [_shown(name, figures[name]) if name in figures else "" for name in others]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if paper:
        text.append(
            f"paper: MDHR with {paper['backbone']}, {paper['protocol']}; {paper['source'].split(';')[0]}; F1 and "
            "differences in percent"
        )
        if len(folds) < len(FOLDS):
            text.append(f"this is fold {', '.join(folds)} alone: the paper's figures are means over three folds")
    text += [f"note: {note}" for note in report["notes"]]
    return "\n".join(text)


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else 100 * ours - theirs


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if name in _PERCENT else f"{value:.2f}"
