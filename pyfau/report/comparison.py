"""A page that shows several models on one clip: a timeline for each AU, and their agreement."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.aus import full_name
from pyfau.errors import InputError, OptionError
from pyfau.messages import printable
from pyfau.report.agreement import (
    FaceSeries,
    Series,
    agreement,
    align_models,
    summarize_agreement,
)
from pyfau.report.html import make_environment
from pyfau.tables.metadata import write_whole
from pyfau.tables.rows import AURows
from pyfau.types import StrPath
from pyfau.version import __version__

WIDTH, HEIGHT = 900, 90  # of a timeline, in the units of its drawing
_MOST_POINTS = 1200  # of a line
_SHOWN_FACES = 5
# Colours that colour-blind people can distinguish (Okabe and Ito, 2008); the dashes differ as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 3", "2 2", "8 3 2 3")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a timeline: a drawing path, and how it looks."""

    label: str
    path: str
    colour: str
    dashes: str


def write_comparison(
    results: Mapping[str, AURows], path: StrPath, *, name: str | None = None
) -> Path:
    """Write a self-contained page of HTML about the rows of several models for one clip.

    Args:
        results: For each model its rows.
        path: The page to write, .html; an existing one is replaced.
        name: Title of the page (default: the name of the scored input).

    Returns:
        The path of the page.

    Raises:
        InputError: Fewer than two models, or a model without action units.
        OptionError: The page cannot be written.
        DependencyError: jinja2 is not installed.
    """
    path = check_page(path)
    for model, result in results.items():
        if not result.aus:
            raise InputError(f"a comparison needs scores, and {model} has no action units")
    template = make_environment().get_template("compare.html")
    faces = align_models(results)
    models = list(results)
    first = next(iter(results.values()))
    rows = agreement(faces)
    title = name or Path(str(first.metadata.get("source") or "")).name or "Action units"
    page = template.render(
        name=title,
        version=__version__,
        models=[_about(model, result, models) for model, result in results.items()],
        faces=[_face(face, models) for face in faces[:_SHOWN_FACES]],
        left_out=max(len(faces) - _SHOWN_FACES, 0),
        rows=rows,
        summary=summarize_agreement(rows),
        width=WIDTH,
        height=HEIGHT,
        notes=[f"{model}: {note}" for model, rows in results.items() for note in rows.warnings],
    )
    return write_whole(path, page)


def check_page(path: StrPath) -> Path:
    """Refuse a page that is not .html, before any work is done.

    Raises:
        OptionError: Another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"a comparison is written as .html, got {os.fspath(path)!r}")
    return path


def _about(model: str, result: AURows, models: Sequence[str]) -> dict[str, Any]:
    record = result.metadata
    return {
        "name": model,
        "colour": _colour(model, models),
        "sha256": record.get("model_sha256"),
        "origin": record.get("model_origin"),
        "aligner": record.get("aligner") or "not stated",
        "crop": record.get("crop") or "template",
        "aus": ", ".join(result.aus),
        "intensity": result.has_intensity,
        "frames": len(np.unique(result.frames)),
    }


def _colour(model: str, models: Sequence[str]) -> str:
    return COLOURS[models.index(model) % len(COLOURS)]


def _face(face: FaceSeries, models: Sequence[str]) -> dict[str, Any]:
    timed = bool(np.isfinite(face.times_s).all())
    x = face.times_s if timed else face.frames.astype(np.float64)
    unit = " s" if timed else ""
    units = []
    for au, series in face.series.items():
        lines = [_line(one, x, face.frames, models) for one in series]
        units.append({"label": printable(full_name(au)), "lines": lines})
    return {
        "face_id": face.face_id,
        "frames": len(face.frames),
        "first": f"{x[0]:.1f}{unit}" if timed else f"frame {int(x[0])}",
        "last": f"{x[-1]:.1f}{unit}" if timed else f"frame {int(x[-1])}",
        "units": units,
    }


def _line(
    series: Series,
    x: npt.NDArray[np.float64],
    frames: npt.NDArray[np.int64],
    models: Sequence[str],
) -> _Line:
    dashes = "2 3" if series.kind == "intensity" else ""
    number = models.index(series.model) // len(COLOURS)
    return _Line(
        printable(series.label),
        _path(series, x, frames),
        _colour(series.model, models),
        dashes or _DASHES[number % len(_DASHES)],
    )


def _path(series: Series, x: npt.NDArray[np.float64], frames: npt.NDArray[np.int64]) -> str:
    """The path of an SVG; a gap where the face or the value is missing."""
    top = 5.0 if series.kind == "intensity" else 1.0
    span = max(float(x[-1] - x[0]), 1e-9)
    across = (x - x[0]) / span * WIDTH
    down = HEIGHT * (1 - np.clip(series.values / top, 0, 1))
    step = max(1, len(x) // _MOST_POINTS)
    parts: list[str] = []
    gap = True
    for i in range(0, len(x), step):
        if np.isnan(down[i]):
            gap = True
            continue
        jump = i >= step and frames[i] - frames[i - step] > step
        parts.append(f"{'M' if gap or jump else 'L'}{across[i]:.1f} {down[i]:.1f}")
        gap = False
    if len(parts) == 1:  # a single frame is a dot
        parts.append("h.1")
    return "".join(parts)
