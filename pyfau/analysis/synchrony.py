"""Intersubject correlation: how similar the faces of people are who saw the same thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyfau.analysis.series import Array, FaceSeries
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows

_LEAST_SAMPLES = 3


def intersubject_correlation(
    results: Mapping[str, AURows],
    *,
    aus: Sequence[str] | None = None,
    start_s: Mapping[str, float] | None = None,
    step_s: float | None = None,
) -> pd.DataFrame:
    """Correlate the scores of each person over time with the mean of all others.

    This is the leave-one-out intersubject correlation (Hasson and others, 2004; Nastase and others,
    2019) of each action unit. All people must have seen the same thing at the same times. Samples
    count only where all people have scores. The r of people are not independent of each other: do
    not test them with a t test; permute (shift) the series instead.

    Args:
        results: Person -> rows of the recording. Of several faces, the one in most frames is used.
        aus: The action units; None for all.
        start_s: Person -> time in the recording at which the stimulus starts, in seconds; None for
            0 for everyone.
        step_s: Seconds between samples; None for the longest frame interval of the recordings.

    Returns:
        One row for each action unit and person:

        - au: str
        - person: str
        - r: float64, Pearson's r with the mean of the others; NaN where a series is constant
        - samples: int64, number of samples

    Raises:
        InputError: There are fewer than two people; a recording has no face or no times; or the
            recordings have fewer than three common samples.
        OptionError: An option has an invalid value.
    """
    import pandas as pd

    if len(results) < 2:
        raise InputError(f"a correlation between people needs at least two, got {len(results)}")
    starts = dict.fromkeys(results, 0.0) | dict(start_s or {})
    if unknown := set(starts) - set(results):
        raise OptionError(f"start_s has a person without a result: {min(map(str, unknown))}")
    series = {}
    for person, result in results.items():
        try:
            series[person] = FaceSeries(result, aus)
        except InputError as error:
            raise InputError(f"{person}: {error}") from None
    names = _common_aus(series)
    values = _on_one_grid(series, starts, step_s, names)
    lines = []
    for number, au in enumerate(names):
        scores = values[:, :, number]
        scores = scores[:, np.isfinite(scores).all(axis=0)]
        total = scores.sum(axis=0)
        for own, person in zip(scores, series, strict=True):
            r = _correlation(own, total - own)
            lines.append({"au": au, "person": person, "r": r, "samples": len(own)})
    table: pd.DataFrame = pd.DataFrame(lines)
    return table


def _common_aus(series: Mapping[str, FaceSeries]) -> tuple[str, ...]:
    first, *others = (own.aus for own in series.values())
    if any(own != first for own in others):
        raise InputError("the results score different action units: use one model for all")
    return first


def _on_one_grid(
    series: Mapping[str, FaceSeries],
    starts: Mapping[str, float],
    step_s: float | None,
    aus: tuple[str, ...],
) -> Array:
    """(P, T, N) scores at the samples of the shortest recording; NaN where a face is missing."""
    step = max(own.step_s for own in series.values()) if step_s is None else step_s
    if not (isinstance(step, int | float) and 0 < step < math.inf):
        raise OptionError(f"step_s must be a number of seconds above 0, got {step_s!r}")
    last = min(own.times[-1] - starts[person] for person, own in series.items())
    count = max(0, math.floor(last / step + 1e-6) + 1)
    grid = np.arange(count) * step
    values = np.array([own.at(grid + starts[person]) for person, own in series.items()])
    values = values.reshape(len(series), count, len(aus))
    most = int(np.isfinite(values).all(axis=0).sum(axis=0).max(initial=0))
    if most < _LEAST_SAMPLES:
        raise InputError(
            f"the recordings have {most} samples in which all people are scored: expected "
            f"at least {_LEAST_SAMPLES}"
        )
    return values


def _correlation(a: Array, b: Array) -> float:
    """Pearson's r; NaN where a series is constant or too short."""
    if len(a) < _LEAST_SAMPLES or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])
