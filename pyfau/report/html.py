"""The report: a page with timelines, summary, co-occurrence, stills and the video."""

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

from pyfau.analysis.events import find_events, scored_rows
from pyfau.analysis.pairs import co_occurrence
from pyfau.aus import full_name
from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.files import is_folder
from pyfau.intensity import grade_letter
from pyfau.limits import LIMITS, Limits
from pyfau.media.formats import is_image
from pyfau.messages import printable
from pyfau.report.extras import (
    Strip,
    compare_recordings,
    grade_bands,
    list_events,
    quality_strips,
)
from pyfau.report.stills import Still, take_stills
from pyfau.report.tables import (
    column_matrix,
    row_names,
    seconds_a_frame,
    summarize_aus,
    thresholds_of,
)
from pyfau.tables.metadata import write_whole
from pyfau.tables.rows import AURows
from pyfau.types import StrPath
from pyfau.version import __version__

if TYPE_CHECKING:
    import pandas as pd


_MIB = 1 << 20
_STILL_FACES = 10  # the page has stills of the faces that are seen longest, up to this number
_BRIEF_FRAMES = 30
_SHOWN_FAILURES = 5
_MOST_FRAME = 2**31 - 1  # the page counts frames in 32 bits


def write_report(
    result: AURows,
    path: StrPath,
    *,
    video: StrPath | None = None,
    embed_limit: float = 32.0,
    min_frames: int = 1,
    join_frames: int = 0,
    name: str | None = None,
    progress: bool = False,
    limits: Limits = LIMITS,
    compare: AURows | None = None,
) -> Path:
    """Write a self-contained page of HTML: it needs no other files and no network.

    Args:
        result: The rows.
        path: The page to write, .html; an existing one is replaced.
        video: The clip that was scored: the page then has a player and, of each face and AU, the
            best still. A folder of images gives stills alone.
        embed_limit: Largest video in MiB that becomes part of the page. For a larger video, the
            page stores its path relative to the page.
        min_frames: As in `pyfau.analysis.find_events`.
        join_frames: As in `pyfau.analysis.find_events`.
        name: Title of the page (default: the name of the scored input).
        progress: Whether to show a progress bar for the video.
        limits: Larger images and videos are refused.
        compare: The rows of a second recording, scored by the same model: the page then has a table
            with the figures of both.

    Returns:
        The path of the page.

    Raises:
        InputError: The result has no action units, or `compare` has others.
        MediaError: The video cannot be read.
        OptionError: An option has an invalid value, or the page cannot be written.
        DependencyError: plotly or jinja2 is not installed.
    """
    path = Path(path)
    _check_report(result, path, embed_limit)
    pairs = [] if compare is None else compare_recordings(result, compare)
    plotly_js, template, script = _parts()
    content = _content(result, min_frames, join_frames)
    notes = [*result.warnings, *_failures(result)]

    stills: dict[tuple[int, str], Still] = {}
    player = None
    if video is not None:
        shown = dict(list(content.faces.items())[:_STILL_FACES])
        stills, said = take_stills(video, shown, result.aus, progress, limits)
        notes += said
        if not (is_folder(video) or is_image(video)):
            player = _player(Path(video), path, embed_limit)

    sections = [_section(result, content, face_id, stills) for face_id in content.faces]
    page = template.render(
        name=name or _name_of(result, "Action units"),
        version=__version__,
        record=_about(result.metadata),
        notes=notes,
        frames=len(np.unique(result.frames)),
        frames_with_face=int(content.rows["frame"].nunique()),
        sections=sections,
        independent=content.independent,
        timed=content.timed,
        graded=result.has_intensity,
        has_stills=bool(stills),
        still_faces=_STILL_FACES if len(content.faces) > _STILL_FACES else None,
        min_frames=min_frames,
        join_frames=join_frames,
        player=player,
        is_adjusted=_is_adjusted(result),
        pairs=pairs,
        other=None if compare is None else _name_of(compare, "second recording"),
        data=_curves(result, content, sections),
        plotly_js=plotly_js,
        script=script,
        hashes=[_digest(plotly_js), _digest(script)],
    )
    return write_whole(path, page)


@dataclass(frozen=True)
class _Content:
    """What the page shows.

    Attributes:
        rows: The scored rows.
        faces: The rows of each face, in the order of the page.
        events: The events of each face; None for independent images, which have none.
        step_s: Seconds from one frame to the next; None for rows without times.
    """

    rows: pd.DataFrame
    faces: dict[int, pd.DataFrame]
    events: dict[int, pd.DataFrame] | None
    step_s: float | None

    @property
    def independent(self) -> bool:
        """Whether the images are not a sequence."""
        return self.events is None

    @property
    def timed(self) -> bool:
        """Whether the rows have times."""
        return self.step_s is not None


def _content(result: AURows, min_frames: int, join_frames: int) -> _Content:
    """The faces of a result and their events."""
    independent = bool(result.metadata.get("independent"))
    found = None
    if not independent:
        found = find_events(result, min_frames=min_frames, join_frames=join_frames)
    rows = scored_rows(result)
    rows["name"] = row_names(rows, independent)
    if len(rows) and rows["frame"].abs().max() > _MOST_FRAME:
        raise InputError(f"a report needs frame numbers of at most {_MOST_FRAME}")
    faces = _by_face(rows, independent)
    events = None
    if found is not None:
        by_face = dict(list(found.groupby("face_id", sort=False)))
        events = {face_id: by_face.get(face_id, found.iloc[:0]) for face_id in faces}
    return _Content(rows, faces, events, seconds_a_frame(result, rows))


def _curves(result: AURows, content: _Content, sections: list[_Section]) -> dict[str, Any]:
    """The data for page.js."""
    parts = zip(content.faces.values(), sections, strict=True)
    return {
        "timed": content.timed,
        "independent": content.independent,
        "step": content.step_s or 1,
        "aus": [{"name": printable(au), "label": printable(full_name(au))} for au in result.aus],
        "faces": [
            _series(part, result.aus, content.timed, content.independent)
            | _marks(section, result.has_intensity)
            | _before_baseline(result, part)
            for part, section in parts
        ],
    }


def _name_of(result: AURows, otherwise: str) -> str:
    """The name of the scored input, without its folders."""
    return Path(str(result.metadata.get("source") or "")).name or otherwise


def _check_report(result: AURows, path: Path, embed_limit: float) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"a report is written as .html, got {os.fspath(path)!r}")
    if not result.aus:
        raise InputError("a report needs scores, and this result has no action units")
    if not embed_limit >= 0:
        raise OptionError(f"embed_limit must be a size in MiB from 0, got {embed_limit}")


def _section(
    result: AURows, content: _Content, face_id: int, stills: Mapping[tuple[int, str], Still]
) -> _Section:
    """The part of the page for one face."""
    part = content.faces[face_id]
    if content.events is None:
        events = None
        label = _about_images(part)
        strips = []
    else:
        events = content.events[face_id]
        label = _label(face_id, part, content.timed)
        strips = quality_strips(part, content.timed)
    lines = summarize_aus(part, result.aus, events)
    limits = thresholds_of(result, part)
    for line in lines:
        line["threshold"], line["still"] = limits[line["au"]], stills.get((face_id, line["au"]))
    extras = _Extras(
        grade_bands(part, result.aus),
        strips,
        list_events(events),
        0 if events is None else len(events),
    )
    return _Section(face_id, label, len(part), len(part) < _BRIEF_FRAMES, lines, extras)


def _marks(section: _Section, graded: bool) -> dict[str, Any]:
    """The thresholds and intensities next to the curves of a face."""
    return {
        "thresholds": [line["threshold"] for line in section.lines],
        "intensities": _intensity_labels(section.lines) if graded else None,
    }


def _by_face(rows: pd.DataFrame, independent: bool) -> dict[int, pd.DataFrame]:
    """The rows of each face, the face with the most rows first."""
    if independent:  # each face has a single row: they are shown as one
        return {int(rows["face_id"].iloc[0]): rows} if len(rows) else {}
    faces: Any = rows.groupby("face_id", sort=True)
    groups = [(int(face_id), part) for face_id, part in faces]
    return dict(sorted(groups, key=lambda group: -len(group[1])))


def _failures(result: AURows) -> list[str]:
    """A note about the inputs that could not be scored."""
    failed = [Path(failure.source).name for failure in result.failures]
    if not failed:
        return []
    rest = len(failed) - _SHOWN_FAILURES
    more = f" and {rest} more" if rest > 0 else ""
    return [f"could not be scored: {', '.join(failed[:_SHOWN_FAILURES])}{more}"]


@dataclass(frozen=True)
class _Section:
    """The part of the page about one face; `lines` has one entry for each AU."""

    face_id: int
    label: str
    frames: int
    brief: bool
    lines: list[dict[str, Any]]
    extras: _Extras


@dataclass(frozen=True)
class _Extras:
    """The smaller parts of the page about one face; see `pyfau.report.extras`."""

    bands: dict[str, list[tuple[str, float]]]
    strips: list[Strip]
    events: list[dict[str, Any]]
    event_count: int


def _parts() -> tuple[str, Any, str]:
    """plotly.js, the template of the page and its program."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise DependencyError(
            "a report needs the packages plotly and jinja2: pip install 'pyfau[report]'"
        ) from None
    environment = make_environment()
    script = (Path(__file__).parent / "page" / "page.js").read_text(encoding="utf-8")
    return get_plotlyjs(), environment.get_template("page.html"), script


def make_environment() -> Any:
    """The jinja2 environment of the pages.

    Raises:
        DependencyError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise DependencyError(
            "a page needs the package jinja2: pip install 'pyfau[report]'"
        ) from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyfau.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    environment.filters |= {"number": _number, "percent": _percent, "grade": _grade}
    environment.filters["share"] = _share
    return environment


def _visible(value: Any) -> Any:
    """The value as the template shows it: names from files without control characters."""
    # Markup, a subclass of str, is text of the page itself; jinja2 escapes HTML afterwards.
    return printable(value) if type(value) is str else value


def _digest(script: str) -> str:
    """The hash of a script for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float | None, digits: int = 2) -> str:
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001
    return f"{value:.{digits}f}"


def _grade(intensity: float | None) -> str:
    """An intensity with its FACS letter, such as "B 1.6"."""
    if intensity is None or not math.isfinite(intensity):
        return "–"  # noqa: RUF001
    return f"{grade_letter(intensity)} {intensity:.1f}".strip()


def _intensity_labels(lines: list[dict[str, Any]]) -> list[str]:
    """For each AU, the text for its timeline."""
    return [
        f"intensity {_grade(line['intensity'])}, highest {_grade(line['intensity_peak'])}"
        for line in lines
    ]


def _share(value: float) -> str:
    """A share in percent, or a difference of two; a dash for NaN."""
    return _percent(value) if math.isfinite(value) else "–"  # noqa: RUF001


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "–"  # noqa: RUF001
    return f"{100 * value:.1f} %"


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    """Model, versions and options for the reader; the path of the input is left out."""
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
    if "quantile" in record:
        level = f"{record['quantile']} quantile"
    elif record.get("source") == "auto":
        level = "found in the recording"
    else:
        level = "calibration"
    return f"{what} to each face at rest ({level})"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _label(face_id: int, rows: pd.DataFrame, timed: bool) -> str:
    # Arrays, not rows of a data frame: these are slow to make, and a recording can have thousands
    # of faces.
    if timed:
        times = rows["time_s"].to_numpy()
        span = f"{_clock(times[0])} to {_clock(times[-1])}"
    else:
        frames = rows["frame"].to_numpy()
        span = f"frames {frames[0]} to {frames[-1]}"
    return f"Face {face_id}: {span}, {len(rows)} frame{'' if len(rows) == 1 else 's'}"


def _about_images(rows: pd.DataFrame) -> str:
    counts = ((len(rows), "face"), (rows["frame"].nunique(), "image"))
    return " in ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _series(
    rows: pd.DataFrame, aus: tuple[str, ...], timed: bool, independent: bool
) -> dict[str, Any]:
    """The columns of a face for page.js: little-endian arrays in base64."""
    scores = column_matrix(rows, aus, np.float64)
    active = column_matrix(rows, [f"{au}_c" for au in aus], bool)
    return {
        "id": int(rows["face_id"].iloc[0]),
        "frames": _base64(
            np.arange(len(rows), dtype="<i4") if independent else rows["frame"].to_numpy("<i4")
        ),
        "names": [printable(name) for name in rows["name"]] if independent else None,
        "times": _base64(rows["time_s"].to_numpy("<f8")) if timed else None,
        "values": _steps(scores, active),
        "together": {
            kind: _plain(matrix) for kind, matrix in co_occurrence(scores, active).items()
        },
    }


def _steps(scores: npt.NDArray[np.float64], active: npt.NDArray[np.bool_]) -> str:
    """Scores (R, N) for page.js, one AU after the other.

    15 bits of score and, above them, whether it is active; all ones where there is no score.
    """
    steps = np.rint(np.nan_to_num(scores).clip(0, 1) * 32766).astype(np.uint16) | (
        active.astype(np.uint16) << 15
    )
    steps[np.isnan(scores)] = 0xFFFF
    return _base64(np.ascontiguousarray(steps.T, "<u2"))


def _is_adjusted(result: AURows) -> bool:
    """Whether a baseline changed a score. Without a face at rest, it leaves all as they are."""
    if not result.has_raw:
        return False
    # Tables have six decimals.
    return bool((np.abs(result.scores - result.raw_scores) > 2e-6).any())


def _before_baseline(result: AURows, rows: pd.DataFrame) -> dict[str, str]:
    """The scores of a face before the baseline, for page.js; empty without a baseline."""
    if not result.has_raw:
        return {}
    raw = rows[[f"{au}_raw" for au in result.aus]].to_numpy(np.float64)
    usual = result.metadata.get("thresholds")
    known = usual if isinstance(usual, Mapping) else {}
    limits = [known.get(au) for au in result.aus]
    thresholds = [limit if isinstance(limit, int | float) else math.inf for limit in limits]
    return {"raw": _steps(raw, raw >= np.array(thresholds))}


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _plain(matrix: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [
        [round(value, 4) if math.isfinite(value) else None for value in row]
        for row in matrix.tolist()
    ]


def _player(video: Path, page: Path, limit: float) -> dict[str, str | None]:
    """The video as base64, or its path relative to the page."""
    try:
        if video.stat().st_size <= limit * _MIB:
            return {
                "embedded": base64.b64encode(video.read_bytes()).decode(),
                "source": None,
                "name": video.name,
            }
    except OSError as error:
        raise InputError(f"cannot read {video}: {error.strerror or error}") from error
    try:
        relative = Path(os.path.relpath(video.resolve(), page.parent.resolve())).as_posix()
        # File names can have bytes that are no text; Python keeps them as lone surrogates.
        source = quote(relative, errors="surrogateescape")
    except ValueError:  # another drive
        source = video.resolve().as_uri()
    return {"embedded": None, "source": source, "name": video.name}
