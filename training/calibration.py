"""Calibration, grade offsets and thresholds from coded images that no network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from data import AUS, CLEARLY_ABSENT, STRONG, TRACE
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from scoring import presence
from targets import mean_grade

# Standard deviations of the priors: of the logarithm of the slope around 0, of the offset around 0,
# and of the grade offsets around those that training found. Many action units are rare. A wider
# prior of the slope makes scores steeper, because the fit uses no ambiguous images.
SLOPE_SPREAD, OFFSET_SPREAD, GRADE_SPREAD = 0.3, 0.7, 0.5
ENOUGH = 10  # images with the AU; with fewer, F1 does not choose its threshold
RARE_THRESHOLD = 0.4
MOST_FALSE_ALARMS = 0.02  # share of images without the AU in which it may be active
MOST_AT_REST = 0.02  # and share of faces coded without any AU but AU25
MOST_ANY_AT_REST = 0.06  # share of these faces in which any AU but AU25 may be active
GRID = np.round(np.arange(0.1, 0.951, 0.01), 2)
NEIGHBOURS = 6  # thresholds on either side over which F1 is averaged
SMALLEST = 1e-6


@dataclass(frozen=True)
class Fit:
    """The calibration of one action unit: log-odds of the head to score, intensity and active flag.

    Attributes:
        slope, offset: score = sigmoid(slope * log-odds + offset).
        trace, strong: Grade offsets, see `pyfau.intensity`.
    """

    slope: float
    offset: float
    trace: float
    strong: float

    def score(self, odds: np.ndarray) -> np.ndarray:
        """Calibrated probability that the action unit is present."""
        return expit(self.slope * odds + self.offset)


def person_weights(people: np.ndarray) -> np.ndarray:
    """(F,) weight of each image: many frames of one person are not as many independent images.

    Args:
        people: (F,) name of the person in each image.
    """
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    return 1 / np.sqrt(counts[person])


def likelihood(odds: np.ndarray, reached: np.ndarray, weights: np.ndarray) -> float:
    """Weighted log-likelihood of binary outcomes, given their log-odds."""
    probability = expit(odds).clip(SMALLEST, 1 - SMALLEST)
    logs = np.where(reached, np.log(probability), np.log(1 - probability))
    return float((weights * logs).sum())


def fit_presence(odds: np.ndarray, grades: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and offset: a logistic regression on images that are clearly present or absent."""
    present = presence(mean_grade(grades[:, :, None])[:, 0])
    known = ~np.isnan(present)
    values, truth = odds[known], present[known] == 1

    def loss(free: np.ndarray) -> float:
        prior = np.sum((free / np.array([SLOPE_SPREAD, OFFSET_SPREAD])) ** 2) / 2
        fitted = np.exp(free[0]) * values + free[1]
        return float(prior) - likelihood(fitted, truth, weights[known])

    found = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def fit_step(
    log_odds: np.ndarray, grades: np.ndarray, weights: np.ndarray, level: float, start: float
) -> float:
    """The constant that turns log-odds of "present" into log-odds of another level."""
    known = ~np.isnan(grades)
    values = np.repeat(log_odds[:, None], grades.shape[1], axis=1)[known]
    reached = grades[known] >= level
    # Several coders of one image are not independent images.
    coders = np.maximum(1, known.sum(axis=1, keepdims=True))
    of_grade = np.broadcast_to(weights[:, None] / coders, grades.shape)[known]

    def loss(step: float) -> float:
        prior = ((step - start) / GRADE_SPREAD) ** 2 / 2
        return prior - likelihood(values + step, reached, of_grade)

    return float(minimize_scalar(loss, bounds=(start - 5, start + 5), method="bounded").x)


def fit_one(
    odds: np.ndarray, grades: np.ndarray, weights: np.ndarray, trace: float, strong: float
) -> Fit:
    """Fit one action unit, with weak priors.

    Args:
        odds: (F,) log-odds of the head.
        grades: (F, coders); NaN where unknown.
        weights: (F,) of `person_weights`.
        trace, strong: Grade offsets that training found.
    """
    slope, offset = fit_presence(odds, grades, weights)
    log_odds = slope * odds + offset
    return Fit(
        slope=round(slope, 4),
        offset=round(offset, 4),
        trace=round(max(0.0, fit_step(log_odds, grades, weights, TRACE, trace)), 4),
        strong=round(min(0.0, fit_step(log_odds, grades, weights, STRONG, strong)), 4),
    )


def f1_at(threshold: float, scores: np.ndarray, present: np.ndarray) -> float:
    """F1 of score >= threshold."""
    active = scores >= threshold
    total = active.sum() + present.sum()
    return float(2 * (active & present).sum() / total) if total else 0.0


def at_rest(grades: np.ndarray) -> np.ndarray:
    """(F,) bool: faces coded without any action unit but AU25; (F, coders, N) grades."""
    others = [i for i, au in enumerate(AUS) if au != 25]
    grade = mean_grade(grades)[:, others]
    return np.nan_to_num(grade).max(axis=1) <= CLEARLY_ABSENT


def false_alarms(scores: np.ndarray, absent: np.ndarray, resting: np.ndarray) -> np.ndarray:
    """(len(GRID),) bool: the thresholds with few false alarms."""
    at_ease = scores[resting]
    rarely = np.array([(scores[absent] >= t).mean() <= MOST_FALSE_ALARMS for t in GRID])
    calm = np.array([(at_ease >= t).sum() <= MOST_AT_REST * len(at_ease) for t in GRID])
    return rarely & calm


def choose_threshold(scores: np.ndarray, grades: np.ndarray, resting: np.ndarray | None) -> float:
    """The threshold with the best F1 among those with few false alarms.

    F1 is averaged over neighbouring thresholds, because few images decide it. Where an action
    unit is present in too few images, the threshold is RARE_THRESHOLD or the lowest with few
    false alarms.

    Args:
        scores: (F,) calibrated scores.
        grades: (F, coders).
        resting: (F,) which faces are at rest. None for AU25, which counts as rest and is present
            in most images: its false alarms are not limited.
    """
    present = presence(mean_grade(grades[:, :, None])[:, 0])
    known = ~np.isnan(present)
    allowed = np.ones(len(GRID), bool)
    if resting is not None:
        allowed = false_alarms(scores, present == 0, resting)
    if not allowed.any():
        return float(GRID[-1])
    scores, truth = scores[known], present[known] == 1
    if truth.sum() < ENOUGH:
        return float(max(RARE_THRESHOLD, GRID[allowed][0]))
    figures = np.array([f1_at(t, scores, truth) for t in GRID])
    padded = np.pad(figures, NEIGHBOURS, mode="edge")
    width = 2 * NEIGHBOURS + 1
    smooth = np.convolve(padded, np.ones(width) / width, mode="valid")
    return float(GRID[allowed][smooth[allowed].argmax()])


def calm_down(
    thresholds: np.ndarray, scores: np.ndarray, present: np.ndarray, resting: np.ndarray
) -> np.ndarray:
    """Raise thresholds until few faces at rest have any active action unit.

    Each step removes one alarm at rest. It raises the threshold whose F1 falls least.

    Args:
        thresholds: (N,) of action units that do not count as rest.
        scores: (F, N) calibrated scores.
        present: (F, N) 1 present, 0 absent, NaN in between.
        resting: (F,) which faces are at rest.
    """
    limits = thresholds.copy()
    at_ease = scores[resting]
    while (at_ease >= limits).any(axis=1).mean() > MOST_ANY_AT_REST:
        raised = np.array([next_limit(t, at_ease[:, i]) for i, t in enumerate(limits)])
        losses = [
            lost_f1(limits[i], raised[i], scores[:, i], present[:, i]) for i in range(len(limits))
        ]
        best = int(np.argmin(losses))
        if np.isinf(losses[best]):
            break
        limits[best] = raised[best]
    return limits


def next_limit(threshold: float, at_ease: np.ndarray) -> float:
    """The lowest threshold of GRID with fewer alarms in faces at rest; NaN if all have as many."""
    alarms = at_ease[at_ease >= threshold]
    higher = GRID[alarms.min() < GRID] if len(alarms) else []
    return float(higher[0]) if len(higher) else np.nan


def lost_f1(threshold: float, raised: float, scores: np.ndarray, present: np.ndarray) -> float:
    """How much F1 falls with a raised threshold; infinite if the threshold is NaN."""
    if np.isnan(raised):
        return np.inf
    known = ~np.isnan(present)
    truth = present[known] == 1
    return f1_at(threshold, scores[known], truth) - f1_at(raised, scores[known], truth)
