"""From coders' grades to the targets of the network: probabilities of three levels."""

from __future__ import annotations

import numpy as np
from data import LEVELS

# For each grade of a first coder (0, 0.5, 1, 2), the share of second coders whose grade reaches a
# trace, present and strong. It was measured on the images with two coders of the training people
# and of faces_validation, over all action units together; see `agreement_table`.
SECOND_OPINION = {
    0.0: (0.035, 0.002, 0.000),
    0.5: (0.614, 0.155, 0.001),
    1.0: (0.976, 0.829, 0.034),
    2.0: (1.000, 0.989, 0.716),
}
# Rendered intensities in [0, 1] at which a level begins.
RENDERED_LEVELS = (0.1, 0.3, 0.7)
RENDERED_SOFTNESS = 0.06


def agreement_table(grades: np.ndarray) -> dict[float, tuple[float, ...]]:
    """The distribution of a second coder's grades for each grade of a first coder.

    Args:
        grades: (F, coders, N); NaN where unknown.

    Returns:
        For each grade the shares of second opinions that reach the three levels.
    """
    first, second = grades[:, 0].ravel(), grades[:, 1].ravel()
    both = ~np.isnan(first) & ~np.isnan(second)
    ones = np.concatenate([first[both], second[both]])
    others = np.concatenate([second[both], first[both]])
    table = {}
    for grade in SECOND_OPINION:
        mine = others[ones == grade]
        table[grade] = tuple(round(float((mine >= level).mean()), 3) for level in LEVELS)
    return table


def level_targets(grades: np.ndarray) -> np.ndarray:
    """(F, coders, N) grades -> (F, N, 3) probabilities of the levels; NaN where nobody graded."""
    known = ~np.isnan(grades)
    opinions = np.zeros((*grades.shape, len(LEVELS)), np.float32)
    for grade, shares in SECOND_OPINION.items():
        opinions[grades == grade] = shares
    count = known.sum(axis=1)[..., None]
    total = (opinions * known[..., None]).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan).astype(np.float32)


def rendered_targets(intensity: np.ndarray) -> np.ndarray:
    """(F, N) rendered intensities in [0, 1] -> (F, N, 3); NaN where the renderer lacks the AU."""
    distance = intensity[..., None] - np.array(RENDERED_LEVELS, np.float32)
    return (1 / (1 + np.exp(-distance / RENDERED_SOFTNESS))).astype(np.float32)


def mean_grade(grades: np.ndarray) -> np.ndarray:
    """(F, coders, N) -> (F, N) mean over the coders; NaN where nobody graded."""
    known = ~np.isnan(grades)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, np.nansum(grades, axis=1) / count, np.nan)
