"""Many inputs: which table each one gets, scoring one of them, and sharing them out among workers.

What is here does not depend on where the workers run: `LocalWorkers` are processes on this machine, and
`pyfau.ray_runner` has those on a cluster.
"""

from __future__ import annotations

import atexit
import dataclasses
import glob
import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyfau.errors import MediaError, OptionError, PyfauError

if TYPE_CHECKING:
    from pyfau.detector import AUDetector
    from pyfau.result import AUResult

CAMERA = "camera:"
_TRIES = 3  # of an input whose worker dies
_PATIENCE_S = 30.0  # for workers to close their tables

Worker = TypeVar("Worker")


@dataclass(frozen=True, slots=True)
class Job:
    """One input.

    Attributes:
        source: Path, `camera:NUMBER` or a URI that fsspec opens.
        table: The file to write, with a suffix of `pyfau.result.TABLES`.
        overlay: The overlay to write, or None.
        named: Whether the user named the table, which is then replaced whatever it is the table of.
        overlay_named: The same of the overlay.
    """

    source: str
    table: Path
    overlay: Path | None = None
    named: bool = False
    overlay_named: bool = False


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What all inputs of a run share.

    Attributes:
        resume: Skip an input whose table is complete and was made with the same settings.
        fps: Frames per second of picture sequences.
        independent: Pictures are no sequence.
        seconds: Stop a camera after this time.
    """

    resume: bool = False
    fps: float | None = None
    independent: bool = False
    seconds: float | None = None


@dataclass(slots=True)
class Report:
    """What became of one input.

    Attributes:
        source: The input.
        table: Its table.
        status: "done", "skipped" (it was done already) or "failed".
        said: One line for people, empty if it failed.
        complaints: What went wrong, each in a line.
        failures: How many things failed: the input, or pictures of it.
        rows: Rows written.
        faces: Faces in them.
        seconds: Time that it took.
        tries: How often it was begun; more than once where a worker died.
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


@dataclass(frozen=True, slots=True)
class Lost:
    """In the place of a report: the worker died, and how."""

    how: str


def plan_jobs(inputs: Sequence[str], output: Path, suffix: str | None, overlay: Path | None) -> list[Job]:
    """Give every input its table and overlay.

    Args:
        inputs: As `expand` gives them.
        output: A folder; or a .csv, .parquet or .jsonl file, for one input.
        suffix: Of the tables in a folder: "csv", "parquet" or "jsonl"; None for csv.
        overlay: A folder, or a file for one input.

    Raises:
        OptionError: An overlay would replace an input, or several inputs share one file.
    """
    from pyfau.video import is_folder, is_picture

    single = is_table(output)
    overlay_single = overlay is not None and overlay.suffix != "" and not is_folder(overlay)
    if overlay_single and len(inputs) != 1:
        raise OptionError(f"{len(inputs)} inputs need a folder as --overlay, got the file {overlay}")
    files = {_file_id(source): source for source in inputs} if overlay is not None else {}
    jobs = []
    for source, name in zip(inputs, _table_names(inputs), strict=True):
        table = output if single else output / f"{name}.{suffix or 'csv'}"
        drawn = overlay
        if drawn is not None and not overlay_single:
            drawn = drawn / f"{name}{'.png' if is_picture(source) and not is_folder(source) else '.mp4'}"
        replaced = None if drawn is None else _file_id(str(drawn))
        if replaced is not None and replaced in files:
            raise OptionError(f"{drawn} would replace the input {files[replaced]}")
        jobs.append(Job(source, table, drawn, single, overlay_single))
    return jobs


def is_table(output: Path) -> bool:
    """Whether an output is one table rather than a folder of them."""
    from pyfau.result import TABLES
    from pyfau.video import is_folder

    return output.suffix.lower() in TABLES and not is_folder(output)


def expand(inputs: Sequence[str]) -> list[str]:
    """Globs, lists and folders of videos to single inputs. What does not exist stays, to be reported as failed.

    Raises:
        OptionError: An input is empty, no camera, or a list that cannot be read.
    """
    from pyfau.video import is_folder, is_picture, is_video, natural_key

    found: list[str] = []
    for text in inputs:
        if not text:
            raise OptionError("an input is empty text")
        if text.isascii() and text.isdigit() and not Path(text).exists():
            found.append(f"{CAMERA}{text}")
            continue
        if text.startswith(CAMERA):
            number = text.removeprefix(CAMERA)
            if not (number.isascii() and number.isdigit()):
                raise OptionError(f"a camera is given as camera:NUMBER, got {text!r}")
            found.append(text)
            continue
        # Not pathlib, which knows no absolute patterns and raises for names that are too long.
        exists = os.path.exists(text)  # noqa: PTH110
        if text.startswith("@") and not exists:
            found += _read_list(Path(text[1:]))
            continue
        if is_uri(text):
            found.append(_local_path(text))
            continue
        globbed = [] if exists else glob.glob(text, recursive=True)  # noqa: PTH207
        matches = sorted(globbed, key=natural_key)
        for match in matches or [text]:
            path = Path(match)
            if not is_folder(path):
                found.append(match)
                continue
            files = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
            videos = [str(p) for p in files if p.is_file() and is_video(p)]
            if not videos or any(is_picture(p) for p in files):
                found.append(match)
            found += videos
    unique: dict[str, str] = {}
    for text in found:  # one file that is named in several ways is one input
        unique.setdefault(text if text.startswith(CAMERA) or is_uri(text) else os.path.realpath(text), text)
    return list(unique.values())


def is_uri(text: str) -> bool:
    """Whether an input is a URI for fsspec, such as s3://bucket/clip.mp4 or zip://clip.mp4::archive.zip."""
    return "://" in text


def run_job(detector: AUDetector, job: Job, options: JobOptions) -> Report:
    """Score one input, unless it is done. Bad inputs are reported, not raised."""
    started = time.monotonic()
    report = _run_job(detector, job, options)
    report.seconds = time.monotonic() - started
    return report


def _run_job(detector: AUDetector, job: Job, options: JobOptions) -> Report:
    from pyfau.result import is_complete, read_metadata
    from pyfau.video import file_record, is_folder

    source, table, overlay = job.source, job.table, job.overlay

    def failed(text: str) -> Report:
        return Report(source, table, "failed", complaints=[f"pyfau: {text}"], failures=1)

    recorded = read_metadata(table)
    try:
        here = _remote_record(source) if is_uri(source) else file_record(source)
    except MediaError as error:
        return failed(str(error))
    if options.resume:
        expected = detector.settings() | {"input": here, "baseline": None}  # adjusted scores are another table
        if overlay is not None:
            expected["overlay"] = file_record(overlay)
        if is_folder(source):
            expected |= {"fps": options.fps, "independent": options.independent}
        if is_complete(table, expected):
            return Report(source, table, "skipped", f"{source}: done already, {table}")
    other = (recorded.get("input") or {}).get("path", here["path"])
    if not job.named and other != here["path"]:
        return failed(f"{source}: {table} is the table of {other}; give another --output")
    if overlay is not None and not job.overlay_named and overlay.exists():
        claimed = (recorded.get("overlay") or {}).get("path")
        if claimed != file_record(overlay)["path"]:
            return failed(f"{source}: {overlay} is there and not the overlay of {table}")
    try:
        with _at_hand(source) as path:
            result = _score(detector, job, path, options, here)
    except PyfauError as error:
        kept = len(error.partial_result) if error.partial_result is not None else 0
        note = f" ({kept} rows before it are kept in {table})" if kept else ""
        named = "" if source in str(error) else f"{source}: "
        return failed(f"{named}{error}{note}")
    complaints = [f"pyfau: {failure.source}: {failure.error}" for failure in result.failures]
    complaints += [f"pyfau: {source}: {warning}" for warning in result.warnings]
    faces = len({i for i in result.face_ids if i is not None})
    said = f"{source}: {len(result)} rows, {faces} {'face' if faces == 1 else 'faces'}, {table}"
    return Report(source, table, "done", said, complaints, len(result.failures), len(result), faces)


def _score(detector: AUDetector, job: Job, path: Path, options: JobOptions, record: Mapping[str, Any]) -> AUResult:
    from pyfau.video import is_folder, is_picture

    save, overlay = job.table, job.overlay
    if job.source.startswith(CAMERA):
        index = int(job.source.removeprefix(CAMERA))
        return detector.detect_camera(index, seconds=options.seconds, save=save, overlay=overlay)
    if is_uri(job.source):
        origin = {"source": job.source, "input": record}
        if is_picture(path):
            return detector.detect_image(path, save=save, overlay=overlay, metadata=origin)
        return detector.detect_video(path, save=save, overlay=overlay, metadata=origin)
    if is_folder(path):
        return detector.detect_images(
            path, fps=options.fps, independent=options.independent, save=save, overlay=overlay
        )
    if is_picture(path):
        return detector.detect_image(path, save=save, overlay=overlay)
    return detector.detect_video(path, save=save, overlay=overlay)


class Workers(Protocol[Worker]):
    """Somewhere to score: starts workers, hands them inputs and collects reports."""

    def start(self) -> Worker:
        """A new worker, which makes a detector of its own."""
        ...

    def submit(self, worker: Worker, job: Job, again: bool) -> None:
        """Hand an input to an idle worker; `again` says that another worker died of it or with it."""
        ...

    def wait(self, busy: Sequence[Worker]) -> list[tuple[Worker, Report | Lost | PyfauError]]:
        """Wait for at least one of them. An error means that there can be no detector with these options."""
        ...

    def stop(self) -> None:
        """End all workers, whatever they are at; tables that can be closed are."""
        ...


def share_out(workers: Workers[Worker], jobs: Iterable[Job], count: int) -> Generator[Report, None, None]:
    """Score inputs with `count` workers, and report each one as it is finished.

    The inputs of a worker that dies are tried again by a new one, three times in all.

    Raises:
        PyfauError: A detector cannot be made.
    """
    waiting = deque((job, 0) for job in jobs)
    idle: list[Worker] = []
    busy: dict[Worker, tuple[Job, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                job, tries = waiting.popleft()
                worker = idle.pop() if idle else workers.start()
                busy[worker] = job, tries + 1
                workers.submit(worker, job, tries > 0)
            for worker, report in workers.wait(list(busy)):
                job, tries = busy.pop(worker)
                if isinstance(report, PyfauError):
                    raise report
                if isinstance(report, Report):
                    idle.append(worker)
                    report.tries = tries
                    yield report
                elif tries < _TRIES:
                    waiting.append((job, tries))
                else:
                    text = (
                        f"pyfau: {job.source}: the worker that scored it died {tries} times, at last with {report.how}"
                    )
                    yield Report(job.source, job.table, "failed", complaints=[text], failures=1, tries=tries)
    finally:
        workers.stop()


@dataclass(eq=False, slots=True)
class _LocalWorker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection[Any, Any]


class LocalWorkers:
    """Workers that are processes on this machine. They end when this process does, however it ends.

    Args:
        make: Makes a worker's detector, in its process; can be pickled.
        options: Of the run.
    """

    def __init__(self, make: Callable[[], AUDetector], options: JobOptions) -> None:
        self._make = make
        self._options = options
        self._workers: list[_LocalWorker] = []

    def start(self) -> _LocalWorker:
        """See `Workers.start`."""
        context = multiprocessing.get_context("spawn")  # torch does not survive a fork
        pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._make, self._options), daemon=True)
        process.start()
        theirs.close()
        worker = _LocalWorker(process, pipe)
        self._workers.append(worker)
        return worker

    def submit(self, worker: _LocalWorker, job: Job, again: bool) -> None:
        """See `Workers.submit`."""
        with suppress(OSError):  # it died while idle: `wait` will see that
            worker.pipe.send((job, again))

    def wait(self, busy: Sequence[_LocalWorker]) -> list[tuple[_LocalWorker, Report | Lost | PyfauError]]:
        """See `Workers.wait`."""
        ready = wait([worker.pipe for worker in busy])
        return [(worker, self._receive(worker)) for worker in busy if worker.pipe in ready]

    def _receive(self, worker: _LocalWorker) -> Report | Lost | PyfauError:
        try:
            report: Report | PyfauError = worker.pipe.recv()
            return report
        except (EOFError, OSError):
            self._end([worker])
            code = worker.process.exitcode or 0
            return Lost(signal.Signals(-code).name if code < 0 else f"exit status {code}")

    def stop(self) -> None:
        """See `Workers.stop`."""
        self._end(self._workers)

    def _end(self, workers: Sequence[_LocalWorker]) -> None:
        for worker in workers:
            worker.process.terminate()
        until = time.monotonic() + _PATIENCE_S
        for worker in list(workers):
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
            self._workers.remove(worker)


def _work(pipe: Connection[Any, Any], make: Callable[[], AUDetector], options: JobOptions) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    signal.signal(signal.SIGTERM, _end_worker)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    scorer = Scorer(make, options)
    while True:
        try:
            job, again = pipe.recv()
        except EOFError:
            return
        pipe.send(scorer.run(job, again))


def _end_worker(number: int, _: object) -> None:
    """Close tables on the way out, and leave before the interpreter takes down threads: C++ code may not bear that."""
    atexit.register(os._exit, 128 + number)
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class Scorer:
    """What is in a worker: one detector, made with the first input.

    Args:
        make: Makes the detector.
        options: Of the run.
    """

    def __init__(self, make: Callable[[], AUDetector], options: JobOptions) -> None:
        self._make = make
        self._options = options
        self._detector: AUDetector | None = None

    def run(self, job: Job, again: bool) -> Report | PyfauError:
        """Score an input; an error means that the detector could not be made.

        Args:
            job: The input.
            again: A worker died with it. If that was after its table was complete, it is not scored twice.
        """
        if self._detector is None:
            try:
                self._detector = self._make()
            except PyfauError as error:
                return error
        options = dataclasses.replace(self._options, resume=self._options.resume or again)
        try:
            return run_job(self._detector, job, options)
        except Exception as error:  # a fault of pyfau or of the machine; it must not cost the other inputs
            traceback.print_exc()
            text = f"pyfau: {job.source}: {type(error).__name__}: {' '.join(str(error).split())}"
            return Report(job.source, job.table, "failed", complaints=[text], failures=1)


def _table_names(inputs: Sequence[str]) -> list[str]:
    """A file name without suffix for each input, all different."""
    from pyfau.video import is_folder

    names: list[str] = []
    taken: set[str] = set()  # without case, which some file systems do not know
    for text in inputs:
        path = Path(text)
        if text.startswith(CAMERA):
            name = text.replace(":", "")
        elif is_uri(text):  # the same in every list that it stands in
            name = f"{Path(_remote_name(text)).stem or 'input'}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        else:
            name = (path.resolve().name if is_folder(path) else path.stem) or "input"
        if name.casefold() in taken and not text.startswith(CAMERA):
            name = path.name.replace(".", "_")  # clip.mp4 beside clip.avi
        unique, count = name, 2
        while unique.casefold() in taken:
            unique, count = f"{name}-{count}", count + 1
        names.append(unique)
        taken.add(unique.casefold())
    return names


def _file_id(path: str) -> tuple[int, int] | None:
    """What two names of one file have in common; None if there is no file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _read_list(path: Path) -> list[str]:
    """The inputs in a text file, one a line; empty lines and those that begin with # are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise OptionError(f"@{path}: expected a text file with an input on each line: {error}") from error
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [_local_path(text) if is_uri(text) else text for text in texts]


def _local_path(uri: str) -> str:
    """The path that a file:// URI names; other URIs as they are."""
    if not uri.startswith(("file://", "local://")):
        return uri
    from fsspec.implementations.local import LocalFileSystem

    return str(LocalFileSystem._strip_protocol(uri))


def _remote_name(uri: str) -> str:
    """The file name in a URI; of a chain such as zip://clip.mp4::s3://bucket/archive.zip that of its first part."""
    return uri.partition("::")[0].partition("?")[0].rstrip("/").rpartition("/")[2]


def _remote_record(uri: str) -> dict[str, Any]:
    """As `pyfau.video.file_record` of a local file: what changes when the file does."""
    with _remote(uri) as (system, path):
        info = system.info(path)
    telling = ("ETag", "etag", "CRC", "mtime", "LastModified", "last_modified", "updated", "date_time")
    return {"path": uri, "bytes": info.get("size")} | {key: str(info[key]) for key in telling if key in info}


@contextmanager
def _at_hand(source: str) -> Iterator[Path]:
    """A local file for an input. One that is elsewhere is copied to the temporary folder in pieces, for as long."""
    if not is_uri(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="pyfau-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / (_remote_name(source) or "input")
        with _remote(source) as (system, remote):
            system.get_file(remote, str(path))
        yield path


@contextmanager
def _remote(uri: str) -> Iterator[tuple[Any, str]]:
    import fsspec

    try:
        yield fsspec.core.url_to_fs(uri)
    except Exception as error:  # each file system has errors of its own
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
        raise MediaError(f"{uri} could not be fetched: {reason}") from error
