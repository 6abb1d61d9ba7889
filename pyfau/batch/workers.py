"""Assignment of inputs to workers.

`LocalWorkers` are processes on this machine; `pyfau.batch.ray` has workers on a cluster.
"""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyfau.batch.plan import Job
from pyfau.batch.run import JobOptions, Report, failed, run_job
from pyfau.cores import share_cores
from pyfau.errors import PyfauError
from pyfau.streams import guarded_streams

if TYPE_CHECKING:
    from pyfau.detector import AUDetector


_TRIES = 3  # attempts for an input whose worker dies
_PATIENCE_S = 30.0  # time for workers to close their tables
Worker = TypeVar("Worker")


@dataclass(frozen=True, slots=True)
class Lost:
    """Takes the place of a report if the worker died.

    Attributes:
        how: The signal or the exit status.
    """

    how: str


class Workers(Protocol[Worker]):
    """Starts workers, gives them inputs and collects their reports."""

    def start(self) -> Worker:
        """Start a worker. It makes its own detector."""
        ...

    def submit(self, worker: Worker, job: Job, again: bool) -> None:
        """Give an input to an idle worker; `again` means that an earlier worker died with it."""
        ...

    def wait(self, busy: Sequence[Worker]) -> list[tuple[Worker, Report | Lost | PyfauError]]:
        """Wait for at least one busy worker.

        An error in the place of a report means that the detector cannot be made.
        """
        ...

    def stop(self) -> None:
        """End all workers. They close their tables if they can."""
        ...


def share_out(
    workers: Workers[Worker], jobs: Iterable[Job], count: int
) -> Generator[Report, None, None]:
    """Score inputs with `count` workers, and report each input when it is finished.

    If a worker dies, a new one scores its input. An input gets at most three attempts.

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
                    reason = (
                        f"the worker that scored it died {tries} times, at last with {report.how}"
                    )
                    yield failed(job, reason, tries)
    finally:
        workers.stop()


@dataclass(eq=False, slots=True)
class _LocalWorker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection[Any, Any]


class LocalWorkers:
    """Worker processes on this machine. They end when this process ends, even if it is killed.

    Args:
        make: Makes the detector in the process of the worker. It can be pickled.
        options: Options that all inputs share.
    """

    def __init__(self, make: Callable[[], AUDetector], options: JobOptions) -> None:
        self._make = make
        self._options = options
        self._workers: list[_LocalWorker] = []
        self._context = multiprocessing.get_context("spawn")  # torch does not survive a fork
        # The number of busy workers, which share the cores. Only this process writes it.
        self._busy: Any = self._context.RawValue(c_int, 0)

    def start(self) -> _LocalWorker:
        """See `Workers.start`."""
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._make, self._options, self._busy), daemon=True
        )
        process.start()
        theirs.close()
        worker = _LocalWorker(process, pipe)
        self._workers.append(worker)
        return worker

    def submit(self, worker: _LocalWorker, job: Job, again: bool) -> None:
        """See `Workers.submit`."""
        self._busy.value += 1
        with suppress(OSError):  # the worker died while it was idle: `wait` finds out
            worker.pipe.send((job, again))

    def wait(
        self, busy: Sequence[_LocalWorker]
    ) -> list[tuple[_LocalWorker, Report | Lost | PyfauError]]:
        """See `Workers.wait`."""
        ready = wait([worker.pipe for worker in busy])
        return [(worker, self._receive(worker)) for worker in busy if worker.pipe in ready]

    def _receive(self, worker: _LocalWorker) -> Report | Lost | PyfauError:
        self._busy.value -= 1
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


def _work(
    pipe: Connection[Any, Any], make: Callable[[], AUDetector], options: JobOptions, busy: Any
) -> None:
    """Worker process main loop.

    Args:
        pipe: Inputs come from here, and reports go here.
        make: Makes the detector.
        options: Options that all inputs share.
        busy: Its `value` is the number of busy workers.
    """
    share_cores(lambda: busy.value)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    signal.signal(signal.SIGTERM, _end_worker)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    scorer = Scorer(make, options)
    with guarded_streams():
        while True:
            try:
                job, again = pipe.recv()
            except EOFError:
                return
            pipe.send(scorer.run(job, again))


def _end_worker(number: int, _: object) -> None:
    """Close the tables, and exit before the interpreter ends its threads.

    C++ code in threads can crash when the interpreter ends them.
    """
    # `sys.exit` leaves the `with` blocks, so the tables are closed. After that, the interpreter
    # calls `os._exit` before it ends the threads.
    atexit.register(os._exit, 128 + number)
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class Scorer:
    """The detector of a worker, which is made with the first input.

    Args:
        make: Makes the detector.
        options: Options that all inputs share.
    """

    def __init__(self, make: Callable[[], AUDetector], options: JobOptions) -> None:
        self._make = make
        self._options = options
        self._detector: AUDetector | None = None

    def run(self, job: Job, again: bool) -> Report | PyfauError:
        """Score an input. It returns an error if the detector cannot be made.

        Args:
            job: The input.
            again: An earlier worker died with this input. If its table is complete, it is not
                scored again.
        """
        if self._detector is None:
            try:
                self._detector = self._make()
            except PyfauError as error:
                return error
        options = dataclasses.replace(self._options, resume=self._options.resume or again)
        return run_job(self._detector, job, options)
