"""Measures of scores against labels, by scikit-learn where it has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import DependencyError, InputError

CALIBRATION_BINS = 10
Measures = dict[str, Any]


def measure(
    labels: npt.NDArray[np.int8],
    scores: npt.NDArray[np.float32],
    active: npt.NDArray[np.bool_],
    aus: Sequence[str],
    more: bool = False,
) -> Measures:
    """Measure every AU over the frames that have both a label and a score.

    F1 is that of the official code: 2 P R / (P + R), and 0 where that is 0 / 0, as for an AU that neither occurs nor is
    ever reported. Without a single frame to judge by, every figure of the AU is None, and means leave it out.

    Args:
        labels: (F, N) 1 present, 0 absent, anything else ignored.
        scores: (F, N) in [0, 1], NaN where there is none.
        active: (F, N) the thresholded answer.
        aus: The N names.
        more: Also the area under the ROC curve, the best F1 that any threshold reaches on these frames and that
            threshold, ICC(3,1) of label and score, and the expected calibration error over 10 bins.

    Returns:
        `{"frames": F that count, "aus": {name: {"frames", "present", "f1", "accuracy", ...}}, "mean": {"f1", ...}}`,
        all in [0, 1] except ICC, which is in [-1, 1].

    Raises:
        InputError: The shapes differ.
        DependencyError: scikit-learn is not installed.
    """
    if not labels.shape == scores.shape == active.shape == (len(labels), len(aus)):
        raise InputError(
            f"expected labels, scores and answers of one shape (F, {len(aus)}), got {labels.shape}, {scores.shape}, "
            f"{active.shape}"
        )
    counts = ((labels == 0) | (labels == 1)) & np.isfinite(scores)
    figures = {}
    for i, au in enumerate(aus):
        mine = counts[:, i]
        figures[au] = _measure_au(labels[mine, i], scores[mine, i].astype(np.float64), active[mine, i], more)
    names = [name for name in next(iter(figures.values()), {}) if name not in ("frames", "present", "best_threshold")]
    means = {name: mean_of([figures[au][name] for au in aus]) for name in names}
    return {"frames": int(counts.any(axis=1).sum()), "aus": figures, "mean": means}


def over_folds(folds: Sequence[Measures]) -> Measures:
    """The mean of every figure over folds, as papers report it; frames are added up."""
    result: Measures = {"frames": sum(fold["frames"] for fold in folds), "aus": {}, "mean": {}}
    for au in folds[0]["aus"]:
        rows = [fold["aus"][au] for fold in folds]
        result["aus"][au] = {
            name: sum(row[name] for row in rows)
            if name in ("frames", "present")
            else mean_of([row[name] for row in rows])
            for name in rows[0]
        }
    result["mean"] = {name: mean_of([fold["mean"][name] for fold in folds]) for name in folds[0]["mean"]}
    return result


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that are numbers; None if none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def icc_3_1(ratings: npt.NDArray[np.float64]) -> float | None:
    """Intraclass correlation ICC(3,1) of Shrout and Fleiss (1979): fixed raters, single ratings, consistency.

    Args:
        ratings: (n, k) of n targets by k raters.

    Returns:
        (BMS - EMS) / (BMS + (k - 1) EMS); None for fewer than two targets or ratings that do not vary.
    """
    n, k = ratings.shape
    if n < 2 or k < 2:
        return None
    rows, columns, grand = ratings.mean(axis=1), ratings.mean(axis=0), ratings.mean()
    between = k * float(np.sum((rows - grand) ** 2)) / (n - 1)
    rest = float(np.sum((ratings - rows[:, None] - columns[None, :] + grand) ** 2)) / ((n - 1) * (k - 1))
    whole = between + (k - 1) * rest
    return (between - rest) / whole if whole > 0 else None


def calibration_error(present: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> float:
    """Expected calibration error: |share present - mean score| of 10 bins of equal width, weighted by their frames.

    Args:
        present: (F,) 0 or 1, at least one.
        scores: (F,) in [0, 1].
    """
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=present - scores, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def _measure_au(
    labels: npt.NDArray[np.int8], scores: npt.NDArray[np.float64], active: npt.NDArray[np.bool_], more: bool
) -> Mapping[str, Any]:
    try:
        from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve, roc_auc_score
    except ImportError:
        raise DependencyError("figures need the package scikit-learn: pip install 'pyfau[evaluate]'") from None
    frames, present = len(labels), int(labels.sum())
    figures: dict[str, Any] = {"frames": frames, "present": present, "f1": None, "accuracy": None}
    if more:
        figures |= dict.fromkeys(("auc", "best_f1", "best_threshold", "icc", "calibration_error"))
    if not frames:
        return figures
    figures["f1"] = float(f1_score(labels, active, zero_division=0.0))
    figures["accuracy"] = float(accuracy_score(labels, active))
    if more:
        figures["icc"] = icc_3_1(np.stack([labels, scores], axis=1))
        figures["calibration_error"] = calibration_error(labels, scores)
        if 0 < present < frames:
            figures["auc"] = float(roc_auc_score(labels, scores))
        if present:
            precision, recall, thresholds = precision_recall_curve(labels, scores)
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            best = int(np.argmax(f1[:-1]))  # the last point is no threshold
            figures["best_f1"], figures["best_threshold"] = float(f1[best]), float(thresholds[best])
    return figures
