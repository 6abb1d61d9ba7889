"""Static plots of one face's scores over time, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyfau.analysis.events import scored_rows
from pyfau.aus import full_name
from pyfau.checks import check_choice
from pyfau.choices import PlotKind
from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.messages import printable
from pyfau.report.tables import seconds_a_frame, thresholds_of
from pyfau.tables.rows import intensity_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pyfau.tables.rows import AURows

HIGHEST_INTENSITY = 5.0


def _with_intensities(
    result: AURows,
    rows: pd.DataFrame,
    scores: npt.NDArray[np.float64],
    names: list[str],
    gaps: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """For AUs without scores, intensities are drawn as fractions of the largest possible value."""
    if not result.has_intensity:
        return scores, names
    grades = np.insert(
        rows[intensity_columns(result.aus)].to_numpy(np.float64), gaps + 1, np.nan, axis=0
    )
    alone = np.isnan(scores).all(axis=0) & ~np.isnan(grades).all(axis=0)
    shown = np.where(alone, grades / HIGHEST_INTENSITY, scores)
    titles = [
        f"{name} (intensity / {HIGHEST_INTENSITY:g})" if only else name
        for name, only in zip(names, alone, strict=True)
    ]
    return shown, titles


def plot_result(result: AURows, face_id: int | None = None, kind: str = "lines") -> Figure:
    """Plot every AU of one face over time; see `AUResult.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "plots need the package matplotlib: pip install 'pyfau[plot]'"
        ) from None
    check_choice(kind, "kind", PlotKind)
    table = scored_rows(result)
    faces, counts = np.unique(table["face_id"].to_numpy(np.int64), return_counts=True)
    if not len(faces) or not result.aus:
        raise InputError("there is nothing to plot: the result has no scores of a face")
    independent = bool(result.metadata.get("independent"))
    chosen = int(faces[counts.argmax()]) if face_id is None else face_id
    if chosen not in faces.tolist():
        raise OptionError(f"face_id must be one of {', '.join(map(str, faces))}, got {face_id!r}")
    every = independent and face_id is None  # each face has a single row
    rows = table if every else table[table["face_id"] == chosen]
    series = _series(result, rows, independent, with_intensity=kind == "lines")
    label = "time (s)" if series.timed else "face" if independent else "frame"
    height = 0.6 if kind == "lines" else 0.3
    figure = Figure(figsize=(10, 1.2 + height * len(series.names)), layout="constrained")
    source = Path(str(result.metadata.get("source") or "")).name
    title = [
        source,
        f"{len(rows)} faces" if every else f"face {chosen}",
        str(result.metadata.get("model") or ""),
    ]
    shown = printable(", ".join(part for part in title if part))
    figure.suptitle(shown, fontsize="medium", parse_math=False)
    if kind == "heatmap":
        _draw_heatmap(figure, series, label)
    else:
        limits = [thresholds_of(result, rows)[au] for au in result.aus]
        _draw_lines(figure, series, limits, label, "." if independent else "-")
    return figure


@dataclass(frozen=True, slots=True)
class _Series:
    """The scores of a face over time, with a NaN in each gap.

    Attributes:
        names: The N action units, as shown.
        x: (P,) seconds or frames.
        step: From one frame to the next, in the unit of `x`.
        timed: Whether `x` is in seconds.
        scores: (P, N).
        active: (P, N).
    """

    names: list[str]
    x: npt.NDArray[np.float64]
    step: float
    timed: bool
    scores: npt.NDArray[np.float64]
    active: npt.NDArray[np.bool_]


def _series(result: AURows, rows: pd.DataFrame, independent: bool, with_intensity: bool) -> _Series:
    interval = seconds_a_frame(result, rows)
    timed, step = interval is not None, interval or 1.0
    frame = np.arange(len(rows)) if independent else rows["frame"].to_numpy()
    x = rows["time_s"].to_numpy() if timed else frame.astype(np.float64)
    gaps = np.flatnonzero(np.diff(frame) != 1)
    x = np.insert(x, gaps + 1, x[gaps] + step)  # the lines break while the face is missing
    scores = np.insert(rows[list(result.aus)].to_numpy(np.float64), gaps + 1, np.nan, axis=0)
    flags = rows[[f"{au}_c" for au in result.aus]].to_numpy(bool)
    active = np.insert(flags, gaps + 1, False, axis=0)
    names = [printable(full_name(au)) for au in result.aus]
    if with_intensity:
        scores, names = _with_intensities(result, rows, scores, names, gaps)
    return _Series(names, x, step, timed, scores, active)


def _draw_heatmap(figure: Figure, series: _Series, label: str) -> None:
    count = len(series.names)
    axes = figure.subplots()
    edges = np.append(series.x, series.x[-1] + series.step)
    mesh = axes.pcolorfast(
        edges, np.arange(count + 1), series.scores.T, cmap="viridis", vmin=0, vmax=1
    )
    axes.set_yticks(np.arange(count) + 0.5, series.names, parse_math=False)
    axes.set_ylim(count, 0)
    axes.set_xlabel(label)
    figure.colorbar(mesh, ax=axes, label="score (probability of presence)")


def _draw_lines(
    figure: Figure, series: _Series, limits: Sequence[float | None], label: str, style: str
) -> None:
    """Draw one line for each action unit; active times are shaded, thresholds dashed."""
    x, step = series.x, series.step
    rows = figure.subplots(len(series.names), 1, sharex=True, squeeze=False)[:, 0]
    for i, axes in enumerate(rows):
        changes = np.diff(series.active[:, i], prepend=False, append=False)
        first, after = np.flatnonzero(changes).reshape(-1, 2).T
        spans = list(zip(x[first], x[after - 1] + step - x[first], strict=True))
        axes.broken_barh(spans, (0, 1), color="#b3470b", alpha=0.25, linewidth=0)
        axes.plot(x, series.scores[:, i], style, color="#0b5cad", linewidth=1, markersize=3)
        if (limit := limits[i]) is not None:
            axes.axhline(limit, color="#6e7781", linewidth=0.8, linestyle="--")
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 1])
        axes.set_ylabel(series.names[i], rotation=0, ha="right", va="center", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel(label)
