"""Scoring one input of a batch, from resume to report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.batch.plan import CAMERA, Job
from pyfau.batch.remote import at_hand, is_uri, remote_record
from pyfau.errors import PyfauError
from pyfau.messages import say_traceback

if TYPE_CHECKING:
    from pyfau.detector import AUDetector
    from pyfau.limits import Limits
    from pyfau.result import AUResult


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options that all inputs of a run share.

    Attributes:
        resume: Skip an input whose table is complete and was made with the same settings.
        fps: Frames per second of image sequences.
        independent: Score the images of a folder independently of each other.
        seconds: Stop a camera after this time.
        stream: Which video stream of files with several; None for the default.
        overwrite: Replace files that are not tables of pyfau.
    """

    resume: bool = False
    fps: float | None = None
    independent: bool = False
    seconds: float | None = None
    stream: int | None = None
    overwrite: bool = False


@dataclass(slots=True)
class Report:
    """The outcome for one input.

    Attributes:
        source: The input.
        table: Its table.
        status: "done", "skipped" (its table was complete already) or "failed".
        said: One line about the result, for the user; empty if the input failed.
        complaints: Problems, each in one line.
        failures: Number of failures: the input, or single images of it.
        rows: Rows written.
        faces: Faces in the rows.
        seconds: Time for this input.
        tries: Number of attempts; more than one after a worker died.
    """

    source: str
    table: Path
    status: str
    said: str = ""
    complaints: list[str] = field(default_factory=list)
    failures: int = 0
    rows: int = 0
    faces: int = 0
    seconds: float = 0.0
    tries: int = 1


def run_job(detector: AUDetector, job: Job, options: JobOptions) -> Report:
    """Score one input, unless its table is complete.

    All errors are reported, not raised: the other inputs of the run are scored whatever happens.
    """
    started = time.monotonic()
    try:
        report = _run_job(detector, job, options)
    except PyfauError as error:
        report = failed(job, str(error))
    except Exception as error:  # a bug in pyfau or a fault of the machine
        say_traceback()
        report = failed(job, f"{type(error).__name__}: {' '.join(str(error).split())}")
    report.seconds = time.monotonic() - started
    return report


def failed(job: Job, reason: str, tries: int = 1) -> Report:
    """The report of an input that failed."""
    text = reason if job.source in reason else f"{job.source}: {reason}"
    return Report(
        job.source, job.table, "failed", complaints=[f"pyfau: {text}"], failures=1, tries=tries
    )


def _run_job(detector: AUDetector, job: Job, options: JobOptions) -> Report:
    from pyfau.media.images import file_record

    source, table = job.source, job.table
    here = remote_record(source) if is_uri(source) else file_record(source)
    if options.resume and _is_done(detector, job, options, here):
        return Report(source, table, "skipped", f"{source}: done already, {table}")
    objection = _objection(job, options, here["path"], detector.limits)
    if objection:
        return failed(job, objection)
    try:
        with at_hand(source, detector.limits) as path:
            result = _score(detector, job, path, options, here)
    except PyfauError as error:
        return failed(job, f"{error}{_kept_rows(error, table, detector.limits)}")
    complaints = [f"pyfau: {failure.source}: {failure.error}" for failure in result.failures]
    complaints += [f"pyfau: {source}: {warning}" for warning in result.warnings]
    faces = len(result.face_ids)
    said = f"{source}: {len(result)} rows, {faces} {'face' if faces == 1 else 'faces'}, {table}"
    return Report(source, table, "done", said, complaints, len(result.failures), len(result), faces)


def _is_done(detector: AUDetector, job: Job, options: JobOptions, here: Mapping[str, Any]) -> bool:
    """Whether the table of an input is complete and was made with the settings of this run."""
    from pyfau.files import is_folder
    from pyfau.media.formats import is_image
    from pyfau.media.images import file_record
    from pyfau.tables.metadata import is_complete

    if not _has_baseline(job.table, detector.baseline, detector.limits):
        return False
    expected = detector.settings() | {"input": here, "stream": None}
    if not is_image(job.source) and not is_folder(job.source):
        expected["stream"] = options.stream
    if job.overlay is not None:
        expected["overlay"] = file_record(job.overlay)
        # An overlay that shows faces is not the one that a run with --anonymise would write.
        expected["anonymised_overlay"] = True if detector.anonymise else None
    if is_folder(job.source):
        expected |= {"fps": options.fps, "independent": options.independent}
    return is_complete(job.table, expected, detector.limits)


def _has_baseline(table: Path, option: str | None, limits: Limits) -> bool:
    """Whether the scores of a table were adjusted as this run would adjust them."""
    from pyfau.tables.metadata import read_metadata

    record = read_metadata(table, limits).get("baseline")
    if option is None or record is None:
        return record is option
    wanted = {"source": option, "mode": "subtract", "per_face": True}
    return all(record.get(key) == value for key, value in wanted.items())


def _objection(job: Job, options: JobOptions, input_path: str, limits: Limits) -> str | None:
    """The reason why the outputs of a job must not be written; None if they can be."""
    from pyfau.files import has_content
    from pyfau.media.images import file_record
    from pyfau.tables.metadata import is_foreign, read_metadata

    table, overlay = job.table, job.overlay
    if not options.overwrite and is_foreign(table, limits):
        return f"{table} exists and is not a table of pyfau; --overwrite replaces it"
    recorded = read_metadata(table, limits)
    other = _path_in(recorded, "input")
    if not job.named and other not in (None, input_path):
        return f"{table} is the table of {other}; give another --output"
    if overlay is None or not has_content(overlay):
        return None
    if _path_in(recorded, "overlay") == file_record(overlay)["path"]:
        return None
    if not job.overlay_named:
        return f"{overlay} is there and not the overlay of {table}"
    if not options.overwrite:
        return f"{overlay} exists and is not the overlay of {table}; --overwrite replaces it"
    return None


def _path_in(recorded: Mapping[str, Any], key: str) -> Any:
    """The path of the input or the overlay in the metadata of a table."""
    return (recorded.get(key) or {}).get("path")


def _kept_rows(error: PyfauError, table: Path, limits: Limits) -> str:
    """A note about the rows that were written before an error, counted in the table itself."""
    from pyfau.result import read_result

    if not error.partial_result:
        return ""
    try:
        kept = len(read_result(table, limits))
    except PyfauError:
        return ""
    return f" ({kept} rows before it are kept in {table})" if kept else ""


def _score(
    detector: AUDetector, job: Job, path: Path, options: JobOptions, record: Mapping[str, Any]
) -> AUResult:
    from pyfau.files import is_folder
    from pyfau.media.animation import kind_of
    from pyfau.media.formats import is_image

    save, overlay = job.table, job.overlay
    if job.source.startswith(CAMERA):
        index = int(job.source.removeprefix(CAMERA))
        return detector.detect_camera(index, seconds=options.seconds, save=save, overlay=overlay)
    if is_uri(job.source):
        origin = {"source": job.source, "input": record}
        if is_image(path):
            return detector.detect_image(path, save=save, overlay=overlay, metadata=origin)
        return detector.detect_video(
            path, save=save, overlay=overlay, metadata=origin, stream=options.stream
        )
    if is_folder(path):
        return detector.detect_images(
            path, fps=options.fps, independent=options.independent, save=save, overlay=overlay
        )
    # The overlay of an image file is one image: the first one is then scored, with a warning.
    kind = kind_of(path, detector.limits) if is_image(path) and overlay is None else "image"
    if kind == "images":
        return detector.detect_images(
            path, fps=options.fps, independent=options.independent, save=save
        )
    if is_image(path) and kind == "image":
        return detector.detect_image(path, save=save, overlay=overlay)
    return detector.detect_video(path, save=save, overlay=overlay, stream=options.stream)
