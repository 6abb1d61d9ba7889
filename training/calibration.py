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
# and of the grade offsets around those that training found. Many action units are rare.
SLOPE_SPREAD, OFFSET_SPREAD, GRADE_SPREAD = 0.5, 0.7, 0.5
ENOUGH = 10  # images with the AU; with fewer, F1 does not choose its threshold
RARE_THRESHOLD = 0.4
MOST_FALSE_ALARMS = 0.02  # share of images without the AU in which it may be active
MOST_AT_REST = 0.02  # and share of faces coded without any AU but AU25
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


def likelihood(odds: np.ndarray, reached: np.ndarray) -> float:
    """Log-likelihood of binary outcomes, given their log-odds."""
    probability = expit(odds).clip(SMALLEST, 1 - SMALLEST)
    return float(np.where(reached, np.log(probability), np.log(1 - probability)).sum())


def fit_presence(odds: np.ndarray, grades: np.ndarray) -> tuple[float, float]:
    """Slope and offset: a logistic regression on images that are clearly present or absent."""
    present = presence(mean_grade(grades[:, :, None])[:, 0])
    known = ~np.isnan(present)
    values, truth = odds[known], present[known] == 1

    def loss(free: np.ndarray) -> float:
        prior = np.sum((free / np.array([SLOPE_SPREAD, OFFSET_SPREAD])) ** 2) / 2
        return float(prior) - likelihood(np.exp(free[0]) * values + free[1], truth)

    found = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def fit_step(log_odds: np.ndarray, grades: np.ndarray, level: float, start: float) -> float:
    """The constant that turns log-odds of "present" into log-odds of another level."""
    known = ~np.isnan(grades)
    values = np.repeat(log_odds[:, None], grades.shape[1], axis=1)[known]
    reached = grades[known] >= level
    # Several coders of one image are not independent images.
    weight = len(log_odds) / max(1, known.sum())

    def loss(step: float) -> float:
        prior = ((step - start) / GRADE_SPREAD) ** 2 / 2
        return prior - weight * likelihood(values + step, reached)

    return float(minimize_scalar(loss, bounds=(start - 5, start + 5), method="bounded").x)


def fit_one(odds: np.ndarray, grades: np.ndarray, trace: float, strong: float) -> Fit:
    """Fit one action unit, with weak priors.

    Args:
        odds: (F,) log-odds of the head.
        grades: (F, coders); NaN where unknown.
        trace, strong: Grade offsets that training found.
    """
    slope, offset = fit_presence(odds, grades)
    log_odds = slope * odds + offset
    return Fit(
        slope=round(slope, 4),
        offset=round(offset, 4),
        trace=round(max(0.0, fit_step(log_odds, grades, TRACE, trace)), 4),
        strong=round(min(0.0, fit_step(log_odds, grades, STRONG, strong)), 4),
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


def choose_threshold(scores: np.ndarray, grades: np.ndarray, resting: np.ndarray) -> float:
    """The threshold with the best F1 among those with few false alarms.

    F1 is averaged over neighbouring thresholds, because few images decide it. Where an action
    unit is present in too few images, the threshold is RARE_THRESHOLD or the lowest with few
    false alarms.

    Args:
        scores: (F,) calibrated scores.
        grades: (F, coders).
        resting: (F,) which faces are at rest; none for AU25, which counts as rest.
    """
    present = presence(mean_grade(grades[:, :, None])[:, 0])
    known = ~np.isnan(present)
    at_ease = scores[resting]
    scores, truth = scores[known], present[known] == 1
    rarely = np.array([(scores[~truth] >= t).mean() <= MOST_FALSE_ALARMS for t in GRID])
    calm = np.array([(at_ease >= t).sum() <= MOST_AT_REST * len(at_ease) for t in GRID])
    allowed = rarely & calm
    if not allowed.any():
        return float(GRID[-1])
    if truth.sum() < ENOUGH:
        return float(max(RARE_THRESHOLD, GRID[allowed][0]))
    figures = np.array([f1_at(t, scores, truth) for t in GRID])
    padded = np.pad(figures, NEIGHBOURS, mode="edge")
    width = 2 * NEIGHBOURS + 1
    smooth = np.convolve(padded, np.ones(width) / width, mode="valid")
    return float(GRID[allowed][smooth[allowed].argmax()])
