"""Static plots of one face's scores over time, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyfau.aus import full_name
from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.events import scored_rows
from pyfau.report.tables import seconds_a_frame, thresholds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyfau.result import AUResult


def plot_result(result: AUResult, face_id: int | None = None, kind: str = "lines") -> Figure:
    """Plot every AU of one face over time; see `AUResult.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError("plots need the package matplotlib: pip install 'pyfau[plot]'") from None
    if kind not in ("lines", "heatmap"):
        raise OptionError(f"kind must be lines or heatmap, got {kind!r}")
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
    interval = seconds_a_frame(result, rows)
    timed, step = interval is not None, interval or 1.0

    frame = np.arange(len(rows)) if independent else rows["frame"].to_numpy()
    x = rows["time_s"].to_numpy() if timed else frame.astype(np.float64)
    gaps = np.flatnonzero(np.diff(frame) != 1)
    x = np.insert(x, gaps + 1, x[gaps] + step)  # NaN for as long as the face is missing
    scores = np.insert(rows[list(result.aus)].to_numpy(np.float64), gaps + 1, np.nan, axis=0)
    active = np.insert(rows[[f"{au}_c" for au in result.aus]].to_numpy(bool), gaps + 1, False, axis=0)
    names = [full_name(au) for au in result.aus]
    count = len(names)

    figure = Figure(figsize=(10, 1.2 + (0.6 if kind == "lines" else 0.3) * count), layout="constrained")
    source = Path(str(result.metadata.get("source") or "")).name
    title = [source, f"{len(rows)} faces" if every else f"face {chosen}", str(result.metadata.get("model") or "")]
    figure.suptitle(", ".join(part for part in title if part), fontsize="medium", parse_math=False)
    label = "time (s)" if timed else "face" if independent else "frame"
    if kind == "heatmap":
        axes = figure.subplots()
        edges = np.append(x, x[-1] + step)
        mesh = axes.pcolorfast(edges, np.arange(count + 1), scores.T, cmap="viridis", vmin=0, vmax=1)
        axes.set_yticks(np.arange(count) + 0.5, names, parse_math=False)
        axes.set_ylim(count, 0)
        axes.set_xlabel(label)
        figure.colorbar(mesh, ax=axes, label="score (probability of presence)")
        return figure
    limits = thresholds_of(result, rows)
    for i, axes in enumerate(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]):
        first, after = np.flatnonzero(np.diff(active[:, i], prepend=False, append=False)).reshape(-1, 2).T
        spans = list(zip(x[first], x[after - 1] + step - x[first], strict=True))
        axes.broken_barh(spans, (0, 1), color="#b3470b", alpha=0.25, linewidth=0)
        axes.plot(x, scores[:, i], "." if independent else "-", color="#0b5cad", linewidth=1, markersize=3)
        if (limit := limits[result.aus[i]]) is not None:
            axes.axhline(limit, color="#6e7781", linewidth=0.8, linestyle="--")
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 1])
        axes.set_ylabel(names[i], rotation=0, ha="right", va="center", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(label)
    return figure
