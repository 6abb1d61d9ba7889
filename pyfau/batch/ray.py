"""Scoring on a Ray cluster: one detector in each actor, Parquet files, and a table of all inputs.

Ray provides the cluster, the placement and the transport. `pyfau.batch.workers.share_out` assigns
inputs to workers and replaces dead workers, as on one machine.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.batch.plan import Job
from pyfau.batch.remote import is_uri
from pyfau.batch.run import JobOptions, Report
from pyfau.batch.workers import Lost, Scorer, share_out
from pyfau.errors import DependencyError, InputError, OptionError, PyfauError
from pyfau.files import append_to, escape_text, locked, read_file, replace_file, sync_file, writing
from pyfau.tables.cells import guard_cell, read_cell

if TYPE_CHECKING:
    from pyfau.detector import AUDetector


# Readers of Parquet folders skip names that begin with an underscore.
INPUTS_TABLE = "_inputs.csv"
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

    pyfau must be installed on every node. Every node must be able to open the folder of the
    results, and the inputs that are not URIs.

    Args:
        make: Makes the detector of a worker.
        jobs: The inputs; their tables are in `folder`.
        options: Options that all inputs share.
        folder: The folder for the list of inputs, `_inputs.csv`. It gets a row when an input is
            finished. With `resume`, the rows of inputs that were already done stay.
        count: Number of workers; None for as many as the cluster has room for.
        cpus: Cores that Ray reserves for a worker.
        gpus: Number of GPUs that Ray reserves for a worker, such as 1 or 0.25.
        address: Address of the cluster. None for the one in the environment variable RAY_ADDRESS;
            without it, a new cluster starts on this machine and ends with the run.

    Returns:
        A report for each input, in the order in which the inputs are finished.

    Raises:
        DependencyError: Ray is not installed.
        OptionError: The cluster has too little room, or cannot be reached.
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
    """The job with absolute paths: a worker may have another working directory."""
    source = job.source if is_uri(job.source) else str(Path(job.source).absolute())
    overlay = job.overlay and job.overlay.absolute()
    return replace(job, source=source, table=job.table.absolute(), overlay=overlay)


class _RayWorkers:
    """Workers that are Ray actors, by number."""

    def __init__(
        self,
        make: Callable[[], AUDetector],
        options: JobOptions,
        cpus: int,
        gpus: float,
        address: str | None,
    ) -> None:
        # Ray sends usage statistics to its authors unless this variable is 0.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise DependencyError(
                "--runner ray needs the package ray: pip install 'pyfau[ray]'"
            ) from None
        self._ray: Any = ray
        self._need = {"CPU": float(cpus), "GPU": gpus}
        self._ours = not self._ray.is_initialized()
        if self._ours:
            try:
                self._ray.init(address, include_dashboard=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise OptionError(
                    f"Ray cannot be reached at {address or 'its default address'}: {error}"
                ) from error
        actor = self._ray.remote(Scorer)
        # Ray does not restart actors: `share_out` starts a new one if one dies.
        self._new = lambda: actor.options(num_cpus=cpus, num_gpus=gpus, max_restarts=0).remote(
            make, options
        )
        self._actors: list[Any] = []
        self._running: dict[Any, int] = {}  # reference to a result -> number of the actor

    def room(self, asked: int | None) -> int:
        """The number of workers that the cluster has room for."""
        there = self._ray.cluster_resources()
        room = int(min(there.get(key, 0.0) / need for key, need in self._need.items() if need > 0))
        if room < max(1, asked or 1):
            needs = ", ".join(f"{need:g} {key}" for key, need in self._need.items() if need > 0)
            raise OptionError(
                f"the Ray cluster has room for {room} jobs of {needs} each, got --jobs {asked or 1}"
            )
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
    """The table of done and failed inputs, a context manager.

    Every row reaches the file at once. After a loss of power, the table has the rows of earlier
    runs; of this run, the last rows can be missing. `--resume` then finds their tables.

    Raises:
        OptionError: The table cannot be written, or another process is writing it.
        InputError: With `resume`, the table cannot be read.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self._path = folder / INPUTS_TABLE
        with ExitStack() as stack:
            stack.enter_context(locked(self._path))
            with writing(self._path):
                self._before = self._read_done() if resume else {}
                lines = [_csv_line(row) for row in (_COLUMNS, *self._before.values())]
                # In one step: the rows of earlier runs are never lost.
                replace_file(self._path, b"".join(lines))
                self._file = append_to(self._path)
            self._open = stack.pop_all()

    def _read_done(self) -> dict[str, list[str]]:
        """The rows of inputs that are done, by input; a torn last row is left out."""
        if not self._path.is_file():
            return {}
        try:
            # After a loss of power, a file can end in zeros.
            text = read_file(self._path).rstrip(b"\0").decode()
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except (ValueError, csv.Error) as error:
            raise InputError(f"cannot read {self._path}: {error}") from None
        whole = [[read_cell(cell) for cell in row] for row in rows if len(row) == len(_COLUMNS)]
        return {row[0]: row for row in whole if row[1] == "done"}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with self._open, self._file:
            sync_file(self._file, self._path)

    def add(self, report: Report) -> None:
        if report.status == "skipped" and report.source in self._before:
            return
        status = "failed" if report.failures else "done"
        error = "; ".join(complaint.removeprefix("pyfau: ") for complaint in report.complaints)
        counts = (report.rows, report.faces) if report.status == "done" else ("", "")
        self._write(
            (
                report.source,
                status,
                report.table,
                *counts,
                f"{report.seconds:.2f}",
                report.tries,
                error,
            )
        )

    def _write(self, row: Sequence[object]) -> None:
        self._file.write(_csv_line(row))
        self._file.flush()


def _csv_line(row: Sequence[object]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow([guard_cell(str(cell)) for cell in row])
    return escape_text(line.getvalue())
