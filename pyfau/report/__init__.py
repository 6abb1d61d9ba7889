"""A page that shows one result: timelines, a summary, what goes together, stills and the video."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from pyfau import __version__
from pyfau.aus import full_name
from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.events import events, scored_rows
from pyfau.report.stills import Still, take_stills
from pyfau.report.tables import co_occurrence, row_names, seconds_a_frame, summarise, thresholds_of
from pyfau.result import AUResult, StrPath, write_whole
from pyfau.video import is_folder, is_picture

if TYPE_CHECKING:
    import pandas as pd

_MIB = 1 << 20
_STILL_FACES = 10  # of so many faces, those that are seen longest, the page holds stills
_BRIEF_FRAMES = 30
_SHOWN_FAILURES = 5


def write_report(
    result: AUResult,
    path: StrPath,
    *,
    video: StrPath | None = None,
    embed_limit: float = 32.0,
    min_frames: int = 1,
    join_frames: int = 0,
    name: str | None = None,
    progress: bool = False,
) -> Path:
    """Write a page of HTML that needs nothing beside it and no network.

    Args:
        result: The rows.
        path: The page to write, .html; an existing one is replaced.
        video: The clip that was scored: the page then has a player and, of each face and AU, the best still. A
            folder of pictures gives stills alone.
        embed_limit: A video of at most so many MiB becomes part of the page; of a larger one the page holds the path,
            relative to the page, and plays as long as it stays there.
        min_frames: As in `pyfau.events.events`.
        join_frames: As in `pyfau.events.events`.
        name: Title of the page (default: the name of what was scored).
        progress: Whether to show a bar while the video is read.

    Returns:
        The path of the page.

    Raises:
        InputError: The result has no action units.
        MediaError: The video cannot be read.
        OptionError: An option has no such value, or the page cannot be written.
        DependencyError: plotly or jinja2 is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"a report is written as .html, got {os.fspath(path)!r}")
    if not result.aus:
        raise InputError("a report needs scores, and this result has no action units")
    if not embed_limit >= 0:
        raise OptionError(f"embed_limit must be a size in MiB from 0, got {embed_limit}")
    plotly_js, template, script = _parts()
    record = result.metadata
    independent = bool(record.get("independent"))
    found = None if independent else events(result, min_frames=min_frames, join_frames=join_frames)
    rows = scored_rows(result)
    rows["name"] = row_names(rows, independent)
    ids, counts = np.unique(rows["face_id"].to_numpy(np.int64), return_counts=True)
    faces = {int(face_id): rows[rows["face_id"] == face_id] for face_id in ids[np.argsort(-counts, kind="stable")]}
    if independent and faces:  # each has a single row: they are shown as one
        faces = {int(ids[0]): rows}
    notes = list(result.warnings)
    if failed := [Path(failure.source).name for failure in result.failures]:
        rest = len(failed) - _SHOWN_FAILURES
        more = f" and {rest} more" if rest > 0 else ""
        notes.append(f"could not be scored: {', '.join(failed[:_SHOWN_FAILURES])}{more}")

    stills: dict[tuple[int, str], Still] = {}
    player = None
    if video is not None:
        shown = {face_id: faces[face_id] for face_id in list(faces)[:_STILL_FACES]}
        stills, said = take_stills(video, shown, result.aus, progress)
        notes += said
        if not (is_folder(video) or is_picture(video)):
            player = _player(Path(video), path, embed_limit)

    step = seconds_a_frame(result, rows)
    timed = step is not None
    sections = []
    for face_id, part in faces.items():
        of_face = None if found is None else found[found["face_id"] == face_id]
        lines = summarise(part, result.aus, of_face)
        limits = thresholds_of(result, part)
        for line in lines:
            line["threshold"], line["still"] = limits[line["au"]], stills.get((face_id, line["au"]))
        label = _about_pictures(part) if independent else _label(face_id, part, timed)
        sections.append(_Section(face_id, label, len(part), len(part) < _BRIEF_FRAMES, lines))
    data = {
        "timed": timed,
        "independent": independent,
        "step": step or 1,
        "aus": [{"name": au, "label": full_name(au)} for au in result.aus],
        "faces": [
            _series(part, result.aus, timed, independent)
            | {"thresholds": [line["threshold"] for line in section.lines]}
            for part, section in zip(faces.values(), sections, strict=True)
        ],
    }
    page = template.render(
        name=name or Path(str(record.get("source") or "")).name or "Action units",
        version=__version__,
        record=_about(record),
        notes=notes,
        frames=len(np.unique(result.frames)),
        frames_with_face=int(rows["frame"].nunique()),
        sections=sections,
        independent=independent,
        timed=timed,
        has_stills=bool(stills),
        still_faces=_STILL_FACES if len(faces) > _STILL_FACES else None,
        min_frames=min_frames,
        join_frames=join_frames,
        player=player,
        data=data,
        plotly_js=plotly_js,
        script=script,
        hashes=[_digest(plotly_js), _digest(script)],
    )
    return write_whole(path, page)


@dataclass(frozen=True)
class _Section:
    """What the page says about one face; `lines` has one entry an AU."""

    face_id: int
    label: str
    frames: int
    brief: bool
    lines: list[dict[str, Any]]


def _parts() -> tuple[str, Any, str]:
    """plotly.js, the page's template and its program."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise DependencyError("a report needs the packages plotly and jinja2: pip install 'pyfau[report]'") from None
    loader = jinja2.PackageLoader("pyfau.report", "page")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": _number, "percent": _percent}
    script = (Path(__file__).parent / "page" / "page.js").read_text(encoding="utf-8")
    return get_plotlyjs(), environment.get_template("page.html"), script


def _digest(script: str) -> str:
    """What a content security policy knows a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"  # noqa: RUF001


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    """What made the scores, for people; the path of the input stays out."""
    fps, baseline = record.get("fps"), record.get("baseline")
    about = {
        "model": record.get("model"),
        "model version": record.get("model_version"),
        "model sha256": record.get("model_sha256"),
        "aligner": record.get("aligner"),
        "window": record.get("window"),
        "frames per second": f"{fps:.3f}" if isinstance(fps, int | float) else None,
        "person baseline": _about_baseline(baseline) if isinstance(baseline, Mapping) else None,
        "scored with pyfau": record.get("pyfau_version"),
    }
    return {key: value for key, value in about.items() if value is not None}


def _about_baseline(record: Mapping[str, Any]) -> str:
    what = "thresholds raised" if record.get("mode") == "threshold" else "scores lowered"
    level = f"{record['quantile']} quantile" if "quantile" in record else "calibration"
    return f"{what} to each face at rest ({level})"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _label(face_id: int, rows: pd.DataFrame, timed: bool) -> str:
    first, last = rows.iloc[0], rows.iloc[-1]
    if timed:
        span = f"{_clock(first['time_s'])} to {_clock(last['time_s'])}"
    else:
        span = f"frames {first['frame']} to {last['frame']}"
    return f"Face {face_id}: {span}, {len(rows)} frame{'' if len(rows) == 1 else 's'}"


def _about_pictures(rows: pd.DataFrame) -> str:
    counts = ((len(rows), "face"), (rows["frame"].nunique(), "picture"))
    return " in ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _series(rows: pd.DataFrame, aus: tuple[str, ...], timed: bool, independent: bool) -> dict[str, Any]:
    """A face's columns, as page.js reads them: little-endian arrays in base64."""
    scores = rows[list(aus)].to_numpy(np.float64)
    active = rows[[f"{au}_c" for au in aus]].to_numpy(bool)
    # 15 bits of score and, above them, whether it is active; all ones where there is no score.
    steps = np.rint(np.nan_to_num(scores).clip(0, 1) * 32766).astype(np.uint16) | (active.astype(np.uint16) << 15)
    steps[np.isnan(scores)] = 0xFFFF
    return {
        "id": int(rows["face_id"].iloc[0]),
        "frames": _base64(np.arange(len(rows), dtype="<i4") if independent else rows["frame"].to_numpy("<i4")),
        "names": rows["name"].tolist() if independent else None,
        "times": _base64(rows["time_s"].to_numpy("<f8")) if timed else None,
        "values": _base64(np.ascontiguousarray(steps.T, "<u2")),
        "together": {kind: _plain(matrix) for kind, matrix in co_occurrence(scores, active).items()},
    }


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _plain(matrix: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[round(value, 4) if math.isfinite(value) else None for value in row] for row in matrix.tolist()]


def _player(video: Path, page: Path, limit: float) -> dict[str, str | None]:
    """The video as base64, or else where it lies as seen from the page."""
    try:
        if video.stat().st_size <= limit * _MIB:
            return {"embedded": base64.b64encode(video.read_bytes()).decode(), "source": None, "name": video.name}
    except OSError as error:
        raise InputError(f"cannot read {video}: {error.strerror or error}") from error
    try:
        source = quote(Path(os.path.relpath(video.resolve(), page.parent.resolve())).as_posix())
    except ValueError:  # another drive
        source = video.resolve().as_uri()
    return {"embedded": None, "source": source, "name": video.name}
