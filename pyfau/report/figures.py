"""Static plots of the tables of statistics, with matplotlib. No plot opens a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.messages import printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_groups(comparison: pd.DataFrame) -> Figure:
    """Plot the table of `compare_groups`: each difference with its confidence interval.

    Raises:
        InputError: The table is empty or has other columns.
        DependencyError: matplotlib is not installed.
    """
    _check(comparison, "compare_groups", ("column", "group_a", "group_b", "difference", "low"))
    figure = _figure(6.0, 1.2 + 0.32 * len(comparison))
    axes: Any = figure.subplots()
    places = np.arange(len(comparison))[::-1]
    axes.hlines(places, comparison["low"], comparison["high"], color="#3d7ea6")
    axes.plot(comparison["difference"], places, "o", color="#1f3a5f", markersize=5)
    axes.axvline(0, color="#888888", linewidth=0.8)
    lines = comparison[["column", "group_a", "group_b"]].astype(str).to_numpy()
    names = [f"{column}: {second} - {first}" for column, first, second in lines]
    axes.set_yticks(places, [printable(name) for name in names], parse_math=False)
    axes.set_xlabel("difference of means, with confidence interval over people")
    return figure


def plot_intersubject(table: pd.DataFrame) -> Figure:
    """Plot the table of `intersubject_correlation`: r of each person, and their mean.

    Raises:
        InputError: The table is empty or has other columns.
        DependencyError: matplotlib is not installed.
    """
    _check(table, "intersubject_correlation", ("au", "person", "r"))
    aus = list(dict.fromkeys(table["au"]))
    figure = _figure(max(4.0, 1.5 + 0.4 * len(aus)), 3.5)
    axes: Any = figure.subplots()
    for place, au in enumerate(aus):
        own = table.loc[table["au"] == au, "r"].to_numpy(np.float64)
        own = own[np.isfinite(own)]
        axes.plot(np.full(len(own), place), own, "o", color="#3d7ea6", alpha=0.5, markersize=4)
        if len(own):
            axes.hlines(own.mean(), place - 0.3, place + 0.3, color="#1f3a5f")
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(aus)), list(map(printable, aus)), rotation=90, parse_math=False)
    axes.set_ylabel("r with the mean of the others")
    return figure


def plot_average(averages: pd.DataFrame, code: str | None = None) -> Figure:
    """Plot the table of `average_epochs`: the mean of each action unit around one kind of marker.

    Args:
        averages: The table.
        code: The code of the markers; None for the first in the table.

    Raises:
        InputError: The table is empty or has other columns.
        OptionError: There is no such code.
        DependencyError: matplotlib is not installed.
    """
    _check(averages, "average_epochs", ("code", "au", "time_s", "mean", "low", "high"))
    codes = list(dict.fromkeys(averages["code"]))
    chosen = codes[0] if code is None else code
    if chosen not in codes:
        raise OptionError(f"code must be one of {', '.join(map(str, codes))}, got {code!r}")
    own = averages[averages["code"] == chosen]
    aus = list(dict.fromkeys(own["au"]))
    figure = _figure(6.0, 1.0 + 0.9 * len(aus))
    for axes, au in zip(
        figure.subplots(len(aus), sharex=True, squeeze=False)[:, 0], aus, strict=True
    ):
        part = own[own["au"] == au]
        axes.fill_between(part["time_s"], part["low"], part["high"], color="#3d7ea6", alpha=0.25)
        axes.plot(part["time_s"], part["mean"], color="#1f3a5f")
        axes.axvline(0, color="#888888", linewidth=0.8)
        axes.set_ylabel(printable(au), rotation=0, ha="right", va="center", parse_math=False)
    axes.set_xlabel(f"seconds from the marker {printable(chosen)}", parse_math=False)
    return figure


def plot_co_occurrence(pairs: pd.DataFrame, kind: str = "jaccard") -> Figure:
    """Plot the table of `find_co_occurrence` as a matrix.

    Args:
        pairs: The table.
        kind: "jaccard", "both" or "correlation".

    Raises:
        InputError: The table is empty or has other columns.
        OptionError: There is no such kind.
        DependencyError: matplotlib is not installed.
    """
    if kind not in ("jaccard", "both", "correlation"):
        raise OptionError(f"unknown kind {kind!r}: expected one of jaccard, both, correlation")
    _check(pairs, "find_co_occurrence", ("au_a", "au_b", kind))
    aus = list(dict.fromkeys([*pairs["au_a"], *pairs["au_b"]]))
    matrix = np.full((len(aus), len(aus)), np.nan)
    for first, second, value in zip(pairs["au_a"], pairs["au_b"], pairs[kind], strict=True):
        i, j = aus.index(first), aus.index(second)
        matrix[i, j] = matrix[j, i] = value
    side = 2.0 + 0.28 * len(aus)
    figure = _figure(side + 0.6, side)
    axes: Any = figure.subplots()
    lowest = -1 if kind == "correlation" else 0
    colours = "RdBu_r" if kind == "correlation" else "Blues"
    image = axes.imshow(matrix, vmin=lowest, vmax=1, cmap=colours)
    axes.set_xticks(range(len(aus)), list(map(printable, aus)), rotation=90, parse_math=False)
    axes.set_yticks(range(len(aus)), list(map(printable, aus)), parse_math=False)
    figure.colorbar(image, ax=axes, label=kind)
    return figure


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "plots need the package matplotlib: pip install 'pyfau[plot]'"
        ) from None
    return Figure(figsize=(width, min(height, 40.0)), layout="constrained")


def _check(table: pd.DataFrame, maker: str, columns: tuple[str, ...]) -> None:
    if missing := [name for name in columns if name not in table.columns]:
        raise InputError(f"expected the table of {maker}, which has a column {missing[0]}")
    if not len(table):
        raise InputError(f"there is nothing to plot: the table of {maker} is empty")
