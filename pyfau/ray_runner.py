"""Scoring on a Ray cluster: actors that hold a detector each, Parquet files, and a table of what became of every input.

Ray brings the cluster, the placement and the transport; which input goes where, and what happens when a worker dies,
is `pyfau.jobs.share_out`, as on one machine.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.errors import DependencyError, OptionError, PyfauError
from pyfau.jobs import Job, JobOptions, Lost, Report, Scorer, is_uri, share_out

if TYPE_CHECKING:
    from pyfau.detector import AUDetector

INPUTS_TABLE = "_inputs.csv"  # readers of Parquet folders pass over names that begin with an underscore
_COLUMNS = ("input", "status", "table", "rows", "faces", "seconds", "tries", "error")


def score_on_ray(
    make: Callable[[], AUDetector],
    jobs: Sequence[Job],
    options: JobOptions,
    folder: Path,
    *,
    count: int | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    address: str | None = None,
) -> Generator[Report, None, None]:
    """Score inputs on a Ray cluster.

    Every node must have pyfau, and see the folder of the results and those inputs that are not URIs.

    Args:
        make: Makes a worker's detector.
        jobs: The inputs; their tables lie in `folder`.
        options: Of the run.
        folder: Gets the table of inputs, `_inputs.csv`: a row is added when an input is finished. With `resume`, rows
            of inputs that were done before are kept.
        count: Workers; None for as many as the cluster has room for.
        cpus: Cores that Ray reserves for a worker.
        gpus: GPUs, or parts of one, that Ray reserves for a worker.
        address: Of the cluster; None for the one that the environment variable RAY_ADDRESS names, or a new one on
            this machine, which ends with the run.

    Returns:
        A report for each input, in the order in which they are finished.

    Raises:
        DependencyError: Ray is not installed.
        OptionError: The cluster has less room, or cannot be reached.
        PyfauError: A detector cannot be made.
    """
    jobs = [_anywhere(job) for job in jobs]
    workers = _RayWorkers(make, options, cpus, gpus, address)
    try:
        count = min(workers.room(count), max(1, len(jobs)))
        table = _InputsTable(folder, options.resume)
    except BaseException:
        workers.stop()
        raise

    def reports() -> Generator[Report, None, None]:
        with table, closing(share_out(workers, jobs, count)) as finished:
            for report in finished:
                table.add(report)
                yield report

    return reports()


def _anywhere(job: Job) -> Job:
    """The job with paths that do not depend on where a worker stands."""
    source = job.source if is_uri(job.source) else str(Path(job.source).absolute())
    overlay = job.overlay and job.overlay.absolute()
    return replace(job, source=source, table=job.table.absolute(), overlay=overlay)


class _RayWorkers:
    """Workers that are Ray actors, by number."""

    def __init__(
        self, make: Callable[[], AUDetector], options: JobOptions, cpus: int, gpus: float, address: str | None
    ) -> None:
        # Ray reports its use to its makers unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise DependencyError("--runner ray needs the package ray: pip install 'pyfau[ray]'") from None
        self._ray: Any = ray
        self._need = {"CPU": float(cpus), "GPU": gpus}
        self._ours = not self._ray.is_initialized()
        if self._ours:
            try:
                self._ray.init(address, include_dashboard=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise OptionError(f"Ray cannot be reached at {address or 'its default address'}: {error}") from error
        actor = self._ray.remote(Scorer)
        # Restarts are ours: a new actor is started in the place of a dead one.
        self._new = lambda: actor.options(num_cpus=cpus, num_gpus=gpus, max_restarts=0).remote(make, options)
        self._actors: list[Any] = []
        self._running: dict[Any, int] = {}  # what an actor will return -> the actor

    def room(self, asked: int | None) -> int:
        """How many workers to have."""
        there = self._ray.cluster_resources()
        room = int(min(there.get(key, 0.0) / need for key, need in self._need.items() if need > 0))
        if room < max(1, asked or 1):
            needs = ", ".join(f"{need:g} {key}" for key, need in self._need.items() if need > 0)
            raise OptionError(f"the Ray cluster has room for {room} jobs of {needs} each, got --jobs {asked or 1}")
        return asked or room

    def start(self) -> int:
        self._actors.append(self._new())  # type: ignore[no-untyped-call, unused-ignore]
        return len(self._actors) - 1

    def submit(self, worker: int, job: Job, again: bool) -> None:
        self._running[self._actors[worker].run.remote(job, again)] = worker

    def wait(self, busy: Sequence[int]) -> list[tuple[int, Report | Lost | PyfauError]]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [(self._running.pop(result), self._receive(result)) for result in ready]

    def _receive(self, result: Any) -> Report | Lost | PyfauError:
        try:
            report: Report | PyfauError = self._ray.get(result)
            return report
        except self._ray.exceptions.RayError as error:
            return Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def stop(self) -> None:
        if self._ours:
            self._ray.shutdown()
            return
        for actor in self._actors:
            self._ray.kill(actor)


class _InputsTable:
    """The table of done and failed inputs, a context manager. Every row reaches the file at once."""

    def __init__(self, folder: Path, resume: bool) -> None:
        self._path = folder / INPUTS_TABLE
        self._before: dict[str, list[str]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if resume and self._path.is_file():
                with self._path.open(encoding="utf-8", newline="") as file:
                    rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS)]
                self._before = {row[0]: row for row in rows if row[1] == "done"}
            self._file = self._path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
        except OSError as error:
            raise OptionError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._write(_COLUMNS)
        for row in self._before.values():
            self._write(row)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, report: Report) -> None:
        if report.status == "skipped" and report.source in self._before:
            return
        status = "failed" if report.failures else "done"
        error = "; ".join(complaint.removeprefix("pyfau: ") for complaint in report.complaints)
        counts = (report.rows, report.faces) if report.status == "done" else ("", "")
        self._write((report.source, status, report.table, *counts, f"{report.seconds:.2f}", report.tries, error))

    def _write(self, row: Sequence[object]) -> None:
        csv.writer(self._file).writerow(row)
        self._file.flush()
