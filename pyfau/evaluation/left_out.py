"""Evaluation over several data sets: each is left out once.

A threshold that is chosen on a data set looks better there than elsewhere. Here, the threshold of
each action unit is chosen on the other data sets, and measured on the one that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError, OptionError
from pyfau.evaluation.comparison import add_summary
from pyfau.evaluation.labels import Matched
from pyfau.evaluation.lists import IGNORED
from pyfau.evaluation.metrics import Measures, best_threshold, measure, over_folds
from pyfau.evaluation.run import (
    TableOptions,
    all_aus,
    check_threshold,
    intensity_of_parts,
    match_tables,
    stacked,
)
from pyfau.types import StrPath
from pyfau.version import __version__


def evaluate_left_out(
    sets: Mapping[str, tuple[StrPath, StrPath]],
    options: TableOptions | None = None,
    *,
    threshold: str | float = "others",
) -> dict[str, Any]:
    """Measure each data set with thresholds from the others.

    Args:
        sets: For each data set its labels and its scores, as for `evaluate_tables`. The scores
            can come from one model, or for each data set from a model that was not trained on it.
        options: See `TableOptions`; its `threshold` is not used.
        threshold: "others": for each action unit the threshold with the best F1 on all other data
            sets together. "model": what the table itself says. Or a number.

    Returns:
        A report as of `evaluate_tables`. "folds" has the measures by data set, "over_folds" their
        mean, "thresholds" the thresholds by data set and action unit (None where the table itself
        decides), "intensity_folds" the measures of intensity by data set, if all have them.

    Raises:
        InputError: Fewer than two data sets, or a data set without a pair of tables.
        OptionError: An option has a wrong value.
        DependencyError: scikit-learn is not installed.
    """
    options = options or TableOptions()
    if len(sets) < 2:
        raise InputError(f"leaving one data set out needs at least 2, got {len(sets)}")
    if threshold != "others":
        check_threshold(threshold)
    parts: dict[str, list[Matched]] = {}
    inputs: dict[str, Any] = {}
    notes: list[str] = []
    failures: dict[str, str] = {}
    for name, (labels, scores) in sets.items():
        matched = match_tables(Path(labels), Path(scores), options)
        if not matched.parts:
            raise InputError(f"{name}: {'; '.join(matched.failures.values())}")
        parts[name] = matched.parts
        inputs[name] = matched.inputs
        failures |= matched.failures
        notes += [f"{name}: {note}" for note in matched.notes]
    aus = all_aus([part for group in parts.values() for part in group])
    columns = {name: _columns(group, aus) for name, group in parts.items()}
    chosen = {name: _thresholds(columns, name, threshold, len(aus)) for name in columns}
    report: dict[str, Any] = {
        "pyfau_version": __version__,
        "data": "csv",
        "threshold": threshold,
        "inputs": inputs,
        "failures": failures,
        "folds": {
            name: _measure(columns[name], chosen[name], aus, options.more) for name in columns
        },
        "thresholds": {
            name: dict(zip(aus, values, strict=True)) for name, values in chosen.items()
        },
        "notes": notes,
    }
    report |= _intensities(parts, aus, notes)
    add_summary(report, None)
    return report


_Columns = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def _columns(parts: list[Matched], aus: list[str]) -> _Columns:
    """Labels, scores and activity (F, N) of a data set."""
    return (
        stacked(parts, aus, [part.labels for part in parts], np.int8(IGNORED)),
        stacked(parts, aus, [part.scores for part in parts], np.float32(np.nan)),
        stacked(parts, aus, [part.active for part in parts], np.False_),
    )


def _thresholds(
    columns: Mapping[str, _Columns], left_out: str, threshold: str | float, count: int
) -> list[float | None]:
    """For each action unit its threshold; None if the table decides."""
    if threshold == "model":
        return [None] * count
    if threshold != "others":
        return [float(threshold)] * count
    others = [value for name, value in columns.items() if name != left_out]
    labels = np.concatenate([value[0] for value in others])
    scores = np.concatenate([value[1] for value in others])
    chosen = []
    for i in range(count):
        counts = ((labels[:, i] == 0) | (labels[:, i] == 1)) & np.isfinite(scores[:, i])
        chosen.append(best_threshold(labels[counts, i], scores[counts, i].astype(np.float64)))
    return chosen


def _measure(
    columns: _Columns, thresholds: list[float | None], aus: list[str], more: bool
) -> Measures:
    labels, scores, active = columns
    active = active.copy()
    for i, threshold in enumerate(thresholds):
        if threshold is not None:
            active[:, i] = scores[:, i] >= np.float32(threshold)
    return measure(labels, scores, active, aus, more)


def _intensities(
    parts: Mapping[str, list[Matched]], aus: list[str], notes: list[str]
) -> dict[str, Any]:
    """The measures of intensity by data set and their mean, if all data sets have them."""
    folds = {}
    for name, group in parts.items():
        found = intensity_of_parts(group, notes, aus)
        if not found:
            return {}
        folds[name] = found["intensity"]
    return {"intensity": over_folds(list(folds.values())), "intensity_folds": folds}


def read_sets(sets: list[list[str]]) -> dict[str, tuple[str, str]]:
    """The data sets of a command line: names, labels and scores.

    Raises:
        OptionError: A name occurs twice.
    """
    named: dict[str, tuple[str, str]] = {}
    for name, labels, scores in sets:
        if name in named:
            raise OptionError(f"--set {name} is given twice: each data set needs its own name")
        named[name] = (labels, scores)
    return named
