"""Compares measures with the figures that the paper reports, as a record and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The paper's figures for a data set.

    They are those of the network with this backbone, or else those with ResNet-50.

    Returns:
        `{"backbone", "average_f1", "f1": {au: percent}, "protocol", "source"}` from
        weights_manifest.json; None for data that is not in the paper.
    """
    rows = {}
    for entry in read_manifest().values():
        record = entry.record
        is_papers = record["network"] == "mdhr" and record["data"] == data
        if is_papers and "average_f1" in record.get("reported_metrics", {}):
            rows[record["backbone"]] = record
    row = rows.get(backbone) or rows.get("resnet50")
    if row is None:
        return None
    return {**row["reported_metrics"], "backbone": row["backbone"], "source": row["source"]}


def add_summary(report: dict[str, Any], paper: Mapping[str, Any] | None) -> None:
    """Add the mean over folds, the paper's row and the difference in percentage points of F1.

    Args:
        report: Has "folds" by number; gets "over_folds", "paper" and "difference".
        paper: From `paper_row`.
    """
    total = over_folds(list(report["folds"].values()))
    report["over_folds"] = total
    report["paper"] = None
    report["difference"] = None
    if not paper:
        return
    ours = {au: figures["f1"] for au, figures in total["aus"].items()}
    difference = {au: _minus(f1, paper["f1"].get(au)) for au, f1 in ours.items()}
    # A mean over fewer AUs cannot be compared with the paper's.
    same_aus = ours.keys() == paper["f1"].keys() and None not in ours.values()
    difference["mean"] = None
    if same_aus:
        difference["mean"] = _minus(total["mean"]["f1"], paper["average_f1"])
    report["paper"] = dict(paper)
    report["difference"] = difference


def render(report: Mapping[str, Any]) -> str:
    """The report as a table for people; F1 and accuracy in percent."""
    return "\n".join(render_lines(report))


def render_lines(report: Mapping[str, Any]) -> list[str]:
    """The lines of `render`."""
    aus = report["over_folds"]["aus"]
    others = [name for name in next(iter(aus.values())) if name in _TITLES]
    lines = [_head(report, others)]
    for au in [*aus, "mean"]:
        lines.append(_line(report, au, others))
    text = _aligned(lines) + _about_paper(report) + _thresholds(report)
    if "intensity" in report:
        text += ["", "intensity, FACS grades from 0 to 5:", *_intensity(report["intensity"])]
    for name, measures in report.get("intensity_folds", {}).items():
        text += ["", f"intensity, {name}:", *_intensity(measures)]
    return text + [f"note: {note}" for note in report["notes"]]


def _thresholds(report: Mapping[str, Any]) -> list[str]:
    """The threshold of each action unit by data set, if they come from the other data sets."""
    if report.get("threshold") != "others":
        return []
    chosen = report["thresholds"]
    lines = [["AU", *chosen]]
    for au in report["over_folds"]["aus"]:
        lines.append([au, *(_shown("threshold", values[au]) for values in chosen.values())])
    title = "thresholds by data set, each chosen on the other data sets:"
    return ["", title, *_aligned(lines)]


def _intensity(measures: Mapping[str, Any]) -> list[str]:
    lines = [["AU", "frames", "r", "ICC", "MAE"]]
    for au in [*measures["aus"], "mean"]:
        figures = _figures(measures, au)
        values = [_shown(name, figures[name]) for name in ("pearson", "icc", "mae")]
        lines.append([au, str(figures.get("frames", "")), *values])
    return _aligned(lines)


def _head(report: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    """Titles of the columns.

    Args:
        report: The report.
        others: Measures to show besides F1.
    """
    folds = report["folds"]
    head = ["AU", "frames", "present"]
    if len(folds) > 1:
        head += [f"fold {fold}" if str(fold).isdigit() else str(fold) for fold in folds]
    head.append("F1")
    if report["paper"]:
        head += ["paper", "diff"]
    return head + [_TITLES[name] for name in others]


def _line(report: Mapping[str, Any], au: str, others: Sequence[str]) -> list[str]:
    """The cells of an action unit, or of "mean"."""
    total = report["over_folds"]
    figures = _figures(total, au)
    line = [au, str(figures.get("frames", "")), str(figures.get("present", ""))]
    folds = report["folds"].values()
    if len(folds) > 1:
        line += [_shown("f1", _figures(fold, au)["f1"]) for fold in folds]
    line.append(_shown("f1", figures["f1"]))
    paper = report["paper"]
    if paper:
        reported = paper["average_f1"] if au == "mean" else paper["f1"].get(au)
        difference = report["difference"][au]
        line.append("" if reported is None else f"{reported:.1f}")
        line.append("" if difference is None else f"{difference:+.1f}")
    return line + [_shown(name, figures[name]) if name in figures else "" for name in others]


def _figures(measures: Mapping[str, Any], au: str) -> Mapping[str, Any]:
    """The figures of an action unit, or of "mean"."""
    figures: Mapping[str, Any] = measures["mean"] if au == "mean" else measures["aus"][au]
    return figures


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells as lines of text with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        text.append("  ".join(cells).rstrip())
    return text


def _about_paper(report: Mapping[str, Any]) -> list[str]:
    paper = report["paper"]
    if not paper:
        return []
    source = paper["source"].split(";")[0]
    lines = [
        f"paper: MDHR with {paper['backbone']}, {paper['protocol']}; {source}; F1 and differences "
        "in percent"
    ]
    folds = report["folds"]
    if len(folds) < len(FOLDS):
        lines.append(
            f"this is fold {', '.join(folds)} alone: the paper's figures are means over three folds"
        )
    return lines


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else 100 * ours - theirs


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if name in _PERCENT else f"{value:.2f}"
