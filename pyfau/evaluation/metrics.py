"""Measures of scores against labels; scikit-learn computes those that it has."""

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

    F1 is that of the official code: 2 P R / (P + R), and 0 where that is 0 / 0, as for an AU that
    neither occurs nor is reported. If an AU has no such frame, its figures are None, and means
    leave it out.

    Args:
        labels: (F, N) 1 present, 0 absent, anything else ignored.
        scores: (F, N) in [0, 1], NaN where there is none.
        active: (F, N) whether the score is at least the threshold.
        aus: The N names.
        more: Also compute the area under the ROC curve, the best F1 that any threshold reaches on
            these frames and that threshold, ICC(3,1) of label and score, and the expected
            calibration error over 10 bins.

    Returns:
        `{"frames": F that count, "aus": {name: {"frames", "present", "f1", "accuracy", ...}},
        "mean": {"f1", ...}}`, all in [0, 1] except ICC, which is in [-1, 1].

    Raises:
        InputError: The shapes differ.
        DependencyError: scikit-learn is not installed.
    """
    if not labels.shape == scores.shape == active.shape == (len(labels), len(aus)):
        raise InputError(
            f"expected labels, scores and active flags of one shape (F, {len(aus)}), got "
            f"{labels.shape}, {scores.shape}, {active.shape}"
        )
    counts = ((labels == 0) | (labels == 1)) & np.isfinite(scores)
    figures = {}
    for i, au in enumerate(aus):
        mine = counts[:, i]
        figures[au] = _measure_au(
            labels[mine, i], scores[mine, i].astype(np.float64), active[mine, i], more
        )
    names = [
        name
        for name in next(iter(figures.values()), {})
        if name not in ("frames", "present", "best_threshold")
    ]
    means = {name: mean_of([figures[au][name] for au in aus]) for name in names}
    return {"frames": int(counts.any(axis=1).sum()), "aus": figures, "mean": means}


def measure_intensity(
    grades: npt.NDArray[np.float32], intensities: npt.NDArray[np.float32], aus: Sequence[str]
) -> Measures:
    """Compare intensities with graded labels, over the frames that have both.

    Args:
        grades: (F, N) FACS grades in [0, 5], NaN where there is no label.
        intensities: (F, N) in [0, 5], NaN where there is none.
        aus: The N names.

    Returns:
        `{"frames": F that count, "aus": {name: {"frames", "pearson", "icc", "mae"}}, "mean":
        {"pearson", "icc", "mae"}}`. Pearson's r and ICC(3,1) are in [-1, 1], and None where the
        grades or the intensities do not vary; the mean absolute error is in grades.

    Raises:
        InputError: The shapes differ.
    """
    if not grades.shape == intensities.shape == (len(grades), len(aus)):
        raise InputError(
            f"expected grades and intensities of one shape (F, {len(aus)}), got {grades.shape}, "
            f"{intensities.shape}"
        )
    counts = np.isfinite(grades) & np.isfinite(intensities)
    figures = {}
    for i, au in enumerate(aus):
        both = np.stack([grades[:, i], intensities[:, i]], axis=1)[counts[:, i]]
        figures[au] = _measure_grades(both.astype(np.float64))
    means = {name: mean_of([figures[au][name] for au in aus]) for name in ("pearson", "icc", "mae")}
    return {"frames": int(counts.any(axis=1).sum()), "aus": figures, "mean": means}


def _measure_grades(both: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Measures of (F, 2) grades and intensities."""
    figures: dict[str, Any] = {"frames": len(both), "pearson": None, "icc": None, "mae": None}
    if not len(both):
        return figures
    figures["mae"] = float(np.abs(both[:, 0] - both[:, 1]).mean())
    if (both.std(axis=0) > 0).all():
        figures["pearson"] = float(np.corrcoef(both.T)[0, 1])
        figures["icc"] = icc_3_1(both)
    return figures


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
    result["mean"] = {
        name: mean_of([fold["mean"][name] for fold in folds]) for name in folds[0]["mean"]
    }
    return result


def best_threshold(labels: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> float | None:
    """The threshold with the highest F1 on these frames.

    Args:
        labels: (F,) 0 or 1.
        scores: (F,), finite.

    Returns:
        A score; None if no frame is present.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    if not labels.sum():
        return None
    _, threshold = _best_f1(labels, scores)
    return threshold


def _best_f1(labels: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The highest F1 that a threshold reaches, and that threshold."""
    precision, recall, thresholds = _sklearn().precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))  # the last point has no threshold
    return float(f1[best]), float(thresholds[best])


def _sklearn() -> Any:
    try:
        from sklearn import metrics
    except ImportError:
        raise DependencyError(
            "measures need the package scikit-learn: pip install 'pyfau[evaluate]'"
        ) from None
    return metrics


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def icc_3_1(ratings: npt.NDArray[np.float64]) -> float | None:
    """Intraclass correlation ICC(3,1): fixed raters, single ratings, consistency.

    Source: Shrout and Fleiss, "Intraclass correlations", Psychological Bulletin 86, 1979.

    Args:
        ratings: (n, k) of n targets by k raters.

    Returns:
        (BMS - EMS) / (BMS + (k - 1) EMS); None for fewer than two targets or ratings that do not
        vary.
    """
    n, k = ratings.shape
    if n < 2 or k < 2:
        return None
    rows = ratings.mean(axis=1)
    columns = ratings.mean(axis=0)
    grand = ratings.mean()
    between = k * float(np.sum((rows - grand) ** 2)) / (n - 1)
    errors = ratings - rows[:, None] - columns[None, :] + grand
    error = float(np.sum(errors**2)) / ((n - 1) * (k - 1))
    whole = between + (k - 1) * error
    return (between - error) / whole if whole > 0 else None


def calibration_error(present: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> float:
    """Expected calibration error: |share present - mean score| of 10 bins of equal width.

    Bins are weighted by their frames.

    Args:
        present: (F,) 0 or 1, at least one.
        scores: (F,) in [0, 1].
    """
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=present - scores, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def _measure_au(
    labels: npt.NDArray[np.int8],
    scores: npt.NDArray[np.float64],
    active: npt.NDArray[np.bool_],
    more: bool,
) -> Mapping[str, Any]:
    sklearn = _sklearn()
    frames, present = len(labels), int(labels.sum())
    figures: dict[str, Any] = {"frames": frames, "present": present, "f1": None, "accuracy": None}
    if more:
        figures |= dict.fromkeys(("auc", "best_f1", "best_threshold", "icc", "calibration_error"))
    if not frames:
        return figures
    figures["f1"] = float(sklearn.f1_score(labels, active, zero_division=0.0))
    figures["accuracy"] = float(sklearn.accuracy_score(labels, active))
    if more:
        figures["icc"] = icc_3_1(np.stack([labels, scores], axis=1))
        figures["calibration_error"] = calibration_error(labels, scores)
        if 0 < present < frames:
            figures["auc"] = float(sklearn.roc_auc_score(labels, scores))
        if present:
            figures["best_f1"], figures["best_threshold"] = _best_f1(labels, scores)
    return figures
