"""Comparison of groups or conditions with the person as the unit of analysis."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.checks import check_whole, is_number
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

_Array = npt.NDArray[np.float64]
_SHOWN = 5


def compare_groups(
    table: pd.DataFrame,
    columns: Sequence[str],
    *,
    group: str,
    person: str,
    paired: bool | None = None,
    confidence: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the means of groups, with confidence intervals over people.

    The rows of one person in one group are averaged first, so a person with many recordings counts
    once. The interval is a BCa bootstrap that draws people, not rows (Efron 1987; computed by
    `scipy.stats.bootstrap`). With fewer than about ten people it is too narrow.

    Args:
        table: One row for each recording or face, such as `summarize_tables(...).table`, with a
            column of people and one of groups.
        columns: The columns to compare, such as "AU12_active_share". Rows without a value are left
            out.
        group: The column of the groups or conditions.
        person: The column of the people.
        paired: True: each person is in all groups, and differences are within people; people who
            lack a group are left out. False: no person is in two groups. None: True if people are
            in several groups.
        confidence: Coverage of the interval, in (0, 1).
        resamples: Number of bootstrap samples.
        seed: Start of the random numbers: the same seed gives the same interval.

    Returns:
        One row for each column and pair of groups (in sorted order):

        - column: str
        - group_a, group_b: the two groups
        - people_a, people_b: int64, number of people (equal if paired)
        - mean_a, mean_b: float64, mean over people
        - difference: float64, mean_b - mean_a
        - low, high: float64, the confidence interval of the difference; NaN with one person
        - effect: float64, Cohen's d: of the differences if paired, otherwise with the pooled
          standard deviation; NaN where the deviation is 0
        - paired: bool

    Raises:
        OptionError: A column does not exist, or an option has an invalid value.
        InputError: There are fewer than two groups, or the people do not fit `paired`.
    """
    import pandas as pd

    _check(table, columns, group, person, confidence)
    check_whole(resamples, "resamples", 100)
    lines = []
    for column in columns:
        means = _person_means(table, column, group, person)
        if len(means.columns) < 2:
            raise InputError(
                f"a comparison of {column} needs at least two groups in {group!r}, got "
                f"{', '.join(map(str, means.columns)) or 'none'}"
            )
        for first, second in itertools.combinations(means.columns, 2):
            two: _Array = means[[first, second]].to_numpy(np.float64)
            known: Any = np.isfinite(two).any(axis=1)
            names, two = means.index[known], two[known]
            within = _is_paired(two, names, paired, (first, second))
            line = {"column": column, "group_a": first, "group_b": second}
            lines.append(line | _compare(two, within, confidence, resamples, seed))
    comparison: pd.DataFrame = pd.DataFrame(lines)
    return comparison


def _check(
    table: pd.DataFrame, columns: Sequence[str], group: str, person: str, confidence: float
) -> None:
    if isinstance(columns, str) or not columns:
        raise OptionError(f"columns must be a list of column names, got {columns!r}")
    for name in (*columns, group, person):
        if name not in table.columns:
            raise OptionError(f"the table has no column {name!r}")
    if not is_number(confidence) or not 0 < confidence < 1:
        raise OptionError(f"confidence must be a number between 0 and 1, got {confidence!r}")


def _person_means(table: pd.DataFrame, column: str, group: str, person: str) -> pd.DataFrame:
    """The mean of each person (row) in each group (column); NaN where a person lacks a group."""
    known = table[[person, group, column]].dropna()
    means: pd.DataFrame = known.groupby([person, group])[column].mean().unstack(group)
    return means


def _is_paired(two: _Array, names: Any, paired: bool | None, groups: tuple[Any, Any]) -> bool:
    """Whether the comparison is within people.

    Raises:
        InputError: The people do not fit `paired`.
    """
    both = np.isfinite(two).all(axis=1)
    if paired is None:
        paired = bool(both.any())
        if paired and not both.all():
            lacking = ", ".join(map(str, names[~both][:_SHOWN]))
            raise InputError(
                f"some people are in {groups[0]!r} and {groups[1]!r}, and some in one of them "
                f"({lacking}): paired=True leaves those out"
            )
    if paired and not both.any():
        raise InputError(f"paired: no person is in both {groups[0]!r} and {groups[1]!r}")
    if not paired and both.any():
        shared = ", ".join(map(str, names[both][:_SHOWN]))
        raise InputError(f"paired=False, and some people are in both groups: {shared}")
    return paired


def _compare(
    two: _Array, paired: bool, confidence: float, resamples: int, seed: int
) -> dict[str, Any]:
    if paired:
        two = two[np.isfinite(two).all(axis=1)]
        samples: tuple[_Array, ...] = (two[:, 1] - two[:, 0],)
        deviation = _deviation(samples[0])
    else:
        samples = tuple(two[np.isfinite(two[:, i]), i] for i in (0, 1))
        deviation = _pooled(*samples)
    difference = _difference(*samples)
    low, high = _interval(samples, confidence, resamples, seed)
    return {
        "people_a": int(np.isfinite(two[:, 0]).sum()),
        "people_b": int(np.isfinite(two[:, 1]).sum()),
        "mean_a": float(np.nanmean(two[:, 0])),
        "mean_b": float(np.nanmean(two[:, 1])),
        "difference": float(difference),
        "low": low,
        "high": high,
        "effect": float(difference) / deviation if deviation > _noise(*samples) else math.nan,
        "paired": paired,
    }


def _difference(*samples: _Array, axis: int = -1) -> Any:
    """The mean of differences, or the difference of two means."""
    if len(samples) == 1:
        return np.mean(samples[0], axis=axis)
    return np.mean(samples[1], axis=axis) - np.mean(samples[0], axis=axis)


def _noise(*samples: _Array) -> float:
    """A spread that only comes from the rounding of equal values."""
    return 1e-9 * max(float(np.abs(values).max()) for values in samples)


def _deviation(values: _Array) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _pooled(a: _Array, b: _Array) -> float:
    """The pooled standard deviation of two samples."""
    degrees = len(a) + len(b) - 2
    if degrees < 1:
        return math.nan
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    return math.sqrt(float(squares) / degrees)


def _interval(
    samples: tuple[_Array, ...], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The BCa interval; NaN if a sample has one person."""
    from scipy.stats import bootstrap

    if min(map(len, samples)) < 2:
        return math.nan, math.nan
    if all(np.ptp(values) <= _noise(values) for values in samples):
        point = float(_difference(*samples))
        return point, point
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bootstrap(
            samples,
            _difference,
            n_resamples=resamples,
            confidence_level=confidence,
            method="BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
