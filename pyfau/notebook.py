"""Results inside Jupyter: a short view of a result, and its overlay as an image or a video."""

from __future__ import annotations

import base64
import io
import tempfile
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.errors import DependencyError, InputError, OptionError, PyfauError
from pyfau.media.readers import read_frames
from pyfau.messages import printable
from pyfau.overlay.drawing import LastFaces, draw_overlay
from pyfau.overlay.writer import OverlayWriter
from pyfau.report.plot import plot_result

if TYPE_CHECKING:
    from pyfau.tables.rows import AURows
    from pyfau.types import AURow, StrPath

_ROWS = 5
_WARNINGS = 10
_MOST_PLOTTED = 200_000  # rows; a plot of more takes longer than a notebook should
_BEFORE_SCORES = ("frame", "time_s", "face_id", "success", "confidence")


def repr_html(result: AURows) -> str:
    """The result for a notebook: first rows, a plot, and warnings. All text is escaped.

    The plot is left out without matplotlib, and where there is nothing to plot.
    """
    parts = [f"<p><b>{_text(repr(result))}</b></p>", _warnings(result), _first_rows(result)]
    parts.append(_plot(result))
    return f'<div class="pyfau">{"".join(parts)}</div>'


def show(
    result: AURows,
    source: StrPath | None = None,
    *,
    frame: int | None = None,
    start_s: float = 0.0,
    seconds: float = 10.0,
    all_aus: bool = False,
) -> Any:
    """See `AUResult.show`."""
    display = _import_display()
    path = _source_of(result, source)
    if frame is not None:
        png = _png(overlay_frame(result, path, frame, all_aus))
        return display.Image(data=png, format="png")
    if not seconds > 0 or not start_s >= 0:
        raise OptionError(
            f"seconds must be above 0 and start_s at least 0, got {seconds!r} and {start_s!r}"
        )
    video = overlay_clip(result, path, start_s, seconds, all_aus)
    return display.Video(data=video, embed=True, mimetype="video/mp4")


def overlay_frame(result: AURows, source: StrPath, frame: int, all_aus: bool) -> Any:
    """The image of a frame with its overlay, (H, W, 3) uint8 RGB.

    Raises:
        InputError: There is no row of this frame, or the source ends before it.
    """
    rows = [result[i] for i in np.flatnonzero(result.frames == frame).tolist()]
    if not rows:
        raise InputError(f"there is no row of frame {frame!r}")
    with read_frames(source) as reader:
        for image in reader:
            if image.index == frame:
                return draw_overlay(image.rgb, rows, all_aus=all_aus)
    raise InputError(f"{Path(source).name} ends before frame {frame}")


def overlay_clip(
    result: AURows, source: StrPath, start_s: float, seconds: float, all_aus: bool
) -> bytes:
    """A part of the source with its overlay, as an MP4 file.

    Raises:
        InputError: The source has no frame in this time.
    """
    by_frame: dict[int, list[AURow]] = defaultdict(list)
    hold = LastFaces(int(result.metadata.get("max_gap") or 0))
    written = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overlay.mp4"
        with read_frames(source) as reader, OverlayWriter(path, reader.fps) as writer:
            for row in result:
                by_frame[row.frame].append(row)
            for image in reader:
                time_s = image.time_s if np.isfinite(image.time_s) else image.index / writer.fps
                if time_s >= start_s + seconds:
                    break
                rows = by_frame[image.index]
                lost = hold.missing(rows, image.rgb.shape)
                if time_s < start_s:
                    continue
                shown = draw_overlay(image.rgb, [*rows, *lost], all_aus=all_aus)
                writer.add(shown, time_s - start_s)
                written += 1
        if not written:
            raise InputError(f"{Path(source).name} has no frame from {start_s:g} s on")
        return path.read_bytes()


def _source_of(result: AURows, source: StrPath | None) -> StrPath:
    if source is not None:
        return source
    recorded = result.metadata.get("input")
    path = recorded.get("path") if isinstance(recorded, dict) else None
    path = path or result.metadata.get("source")
    if not isinstance(path, str) or not Path(path).exists():
        raise InputError(
            f"the scored input {printable(path)!r} is not there: give its path, as in "
            "result.show('clip.mp4')"
        )
    return path


def _import_display() -> Any:
    try:
        from IPython import display
    except ImportError:
        raise DependencyError(
            "result.show() needs Jupyter or IPython: pip install jupyterlab"
        ) from None
    return display


def _png(rgb: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def _first_rows(result: AURows) -> str:
    import pandas as pd

    names = [*_BEFORE_SCORES, *result.aus]
    head = type(result)(result.aus, {}, result.has_files)
    head.extend(result[i] for i in range(min(_ROWS, len(result))))
    table: pd.DataFrame = head.to_dataframe()[names].round(3)
    cells = "".join(f"<th>{_text(name)}</th>" for name in names)
    lines = [f"<tr>{cells}</tr>"]
    for values in table.itertuples(index=False):
        shown = ["" if pd.isna(value) else _text(value) for value in values]
        lines.append("<tr>" + "".join(f"<td>{value}</td>" for value in shown) + "</tr>")
    more = len(result) - _ROWS
    note = f"<p>{more} more rows</p>" if more > 0 else ""
    wide = 'style="overflow-x:auto"'
    return f"<div {wide}><table>{''.join(lines)}</table></div>{note}"


def _warnings(result: AURows) -> str:
    notes = [*result.warnings]
    notes += [f"{failure.source}: {failure.error}" for failure in result.failures]
    shown = [f"<li>{_text(note)}</li>" for note in notes[:_WARNINGS]]
    if len(notes) > _WARNINGS:
        shown.append(f"<li>{len(notes) - _WARNINGS} more</li>")
    return f"<p>Warnings:</p><ul>{''.join(shown)}</ul>" if shown else ""


def _plot(result: AURows) -> str:
    if len(result) > _MOST_PLOTTED:
        return f"<p>No plot: more than {_MOST_PLOTTED} rows.</p>"
    try:
        figure = plot_result(result, kind="heatmap")
    except PyfauError:  # nothing to plot, or no matplotlib
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=72)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="scores over time" src="data:image/png;base64,{data}">'


def _text(value: object) -> str:
    return escape(printable(value))
