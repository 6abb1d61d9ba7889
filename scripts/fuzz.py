"""Damage files and read them: each outcome must be a result or a `PyfauError`.

    python scripts/fuzz.py run --seed 1 --cases 100     every reader, in a separate process
    python scripts/fuzz.py run --seed new               the same with a seed of chance, printed
    python scripts/fuzz.py atheris table -- -max_total_time=3600   needs the package atheris

`run` first reads the files in tests/data/hostile as they are, then damaged copies of them. Another
exception, a crash, more than `LIMIT_S` for one file, or more than `LIMIT_BYTES` of memory is a
fault: the file is kept in the folder of `--keep`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz_readers import HOSTILE, READERS, files_of

LIMIT_S = 5.0  # processor time for one file
PATIENCE_S = 60.0  # wall time, on a busy machine; no answer at all is a hang
LIMIT_BYTES = 1_500_000_000  # above the idle process
_TOKENS = (
    b"NaN",
    b"-inf",
    b"1e400",
    b"-1",
    b"9" * 400,
    b"0x10",
    b"null",
    b"true",
    b"[" * 2000,
    b'{"a":' * 500,
    b"\0",
    b"\x1b]0;x\x07",
    b"\r\n\r\n",
    b'"',
    b",,,,",
    b"=cmd|x",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"<!ENTITY a 'b'>",
    b"../../x",
    "\u202e".encode(),
)
_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytes, rng: random.Random, is_text: bool) -> bytes:
    """A damaged copy of a file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(9 if is_text else 7)
        if kind == 0:
            changed[place:] = b""
        elif kind == 1:
            del changed[place : place + rng.choice((1, 4, 64))]
        elif kind == 2:
            changed[place:place] = changed[place : place + rng.choice((1, 8, 200))]
        elif kind == 3:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(_INTEGERS) % 256**size
            changed[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 4:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 5 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 6:
            size = rng.choice((4, 32, 256))
            changed[place : place + size] = rng.randbytes(size)
        else:
            end = place + rng.choice((0, 0, 1, 5))
            changed[place:end] = rng.choice(_TOKENS)
    return bytes(changed)


def make_case(name: str, seed: int, number: int) -> tuple[str, bytes]:
    """Case of a reader by its number: first the files as they are, then damaged ones.

    Returns:
        The name of the file that it comes from, and its bytes.
    """
    files = files_of(name)
    if number < len(files):
        return files[number].name, files[number].read_bytes()
    rng = random.Random(f"{name} {seed} {number}")
    # A damaged copy of a valid file passes more checks of a reader than random bytes.
    valid = [path for path in files if path.name.startswith("valid")]
    source = rng.choice(valid if rng.random() < 0.8 else files)
    return source.name, mutate(source.read_bytes(), rng, READERS[name].is_text)


def work(name: str, seed: int, first: int, last: int) -> None:
    """Read cases and print a line for each; runs in a separate process."""
    from pyfau.errors import PyfauError

    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / files_of(name)[-1].name
        warm.write_bytes(files_of(name)[-1].read_bytes())
        _outcome(reader.read, warm, PyfauError)  # imports
        warm.unlink()
        idle = _peak_bytes()
        _limit_memory()
        print("ready", flush=True)
        for number in range(first, last):
            source, data = make_case(name, seed, number)
            path = Path(folder) / f"case{Path(source).suffix}"
            path.write_bytes(data)
            start = time.process_time()
            outcome = _outcome(reader.read, path, PyfauError)
            used_s, grown = time.process_time() - start, _peak_bytes() - idle
            if not outcome.startswith("fault") and used_s > LIMIT_S:
                outcome = f"fault: {used_s:.1f} s of processor time"
            if not outcome.startswith("fault") and grown > LIMIT_BYTES:
                outcome = f"fault: {grown >> 20} MiB of memory"
                idle = _peak_bytes()  # the peak stays; the next one must be higher
            print(f"{number} {outcome}", flush=True)


def _outcome(read: Any, path: Path, expected: type[Exception]) -> str:
    try:
        read(path)
    except expected as error:
        return "fault: out of memory" if _is_out_of_memory(error) else "error"
    except BaseException as error:  # every other exception is a fault
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:200]
        return (
            f"fault: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {text}"
        )
    return "result"


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory() -> None:
    """Keep a fault from taking the memory of the whole machine. Only on Linux."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak_bytes() -> int:
    """The most memory that this process had."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage also counts the process that started this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """A process that reads the cases of one reader."""

    def __init__(self, name: str, seed: int, first: int, last: int) -> None:
        command = [sys.executable, __file__, "work", name, str(seed), str(first), str(last)]
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, errors="replace"
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")

    def next_line(self) -> str | None:
        """The next line; empty at the end of the process, None if none comes in time."""
        try:
            return self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            return None

    def end(self) -> str:
        """Stop the process.

        Returns:
            Its status and the end of its messages.
        """
        try:
            status = self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        assert self.process.stdout is not None
        self.log.seek(0)
        said = " ".join(self.log.read()[-300:].split())
        self.log.close()
        return f"status {status}: {said}"


def check_reader(
    name: str, seed: int, cases: int, most_s: float
) -> tuple[int, list[tuple[int, str]]]:
    """Read the files of one reader and damaged copies of them.

    Args:
        name: Of the reader.
        seed: Decides on the damage.
        cases: Number of damaged copies.
        most_s: No new case starts after this number of seconds.

    Returns:
        Number of cases read, and the faults with their case numbers.
    """
    faults: list[tuple[int, str]] = []
    number, last = 0, len(files_of(name)) + cases
    end = math.inf  # until the first process has started, which takes long on a busy machine
    while number < last and time.monotonic() < end:
        worker = Worker(name, seed, number, last)
        line = worker.next_line()
        if line != "ready":
            faults.append((number, f"fault: the reader does not start: {worker.end()}"))
            break
        end = min(end, time.monotonic() + most_s)
        while number < last and time.monotonic() < end:
            line = worker.next_line()
            if not line:
                what = "hang" if line is None else "crash"
                faults.append((number, f"fault: {what}: {worker.end()}"))
                number += 1
                break
            outcome = line.partition(" ")[2]
            if outcome.startswith("fault"):
                faults.append((number, outcome))
            number += 1
        else:
            worker.process.kill()
            worker.end()
    return number, faults


def run(arguments: argparse.Namespace) -> int:
    """All readers; the exit status."""
    print(f"seed {arguments.seed}", flush=True)
    names = arguments.readers or list(READERS)
    if unknown := set(names) - set(READERS):
        raise SystemExit(f"unknown readers: {', '.join(sorted(unknown))}")
    failed = False
    end = time.monotonic() + arguments.seconds
    for i, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - i)
        count, faults = check_reader(name, arguments.seed, arguments.cases, share)
        print(f"{name}: {count} files, {len(faults)} faults", flush=True)
        for number, what in faults:
            source, data = make_case(name, arguments.seed, number)
            print(f"  {name}/{source} number {number} {what}", flush=True)
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                (
                    arguments.keep / f"{name}-{arguments.seed}-{number}{Path(source).suffix}"
                ).write_bytes(data)
        failed = failed or bool(faults) or count == 0
    return int(failed)


def _seed(text: str) -> int:
    return random.SystemRandom().randrange(10**9) if text == "new" else int(text)


def run_atheris(name: str, options: list[str]) -> None:
    """Fuzz one reader with Atheris, guided by coverage, until it finds a fault."""
    import atheris

    reader, folder = READERS[name], Path(tempfile.mkdtemp())
    suffix = files_of(name)[-1].suffix
    with atheris.instrument_imports(include=["pyfau"]):
        from pyfau.errors import PyfauError

        # Readers import what they need when they are called: only then is it instrumented.
        path = folder / f"case{suffix}"
        path.write_bytes(files_of(name)[-1].read_bytes())
        with suppress(PyfauError):
            reader.read(path)

    def read(data: bytes) -> None:
        path = folder / f"case{suffix}"
        path.write_bytes(data)
        with suppress(PyfauError):
            reader.read(path)

    # libFuzzer adds to the first folder what it finds.
    corpus = shutil.copytree(HOSTILE / name, folder / "corpus")
    atheris.Setup([sys.argv[0], *options, str(corpus)], read)
    atheris.Fuzz()


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="every reader")
    command.add_argument("readers", nargs="*", help=f"some of {', '.join(READERS)}")
    command.add_argument("--seed", type=_seed, default=1, help="a whole number, or new")
    command.add_argument("--cases", type=int, default=100, help="damaged files for each reader")
    command.add_argument("--seconds", type=float, default=170.0, help="for all readers")
    command.add_argument("--keep", type=Path, help="folder for files with faults")
    command = commands.add_parser("atheris", help="one reader, guided by coverage")
    command.add_argument("reader", choices=READERS)
    command.add_argument("options", nargs="*", help="of libFuzzer, after --")
    command = commands.add_parser("work")
    command.add_argument("reader", choices=READERS)
    for name in ("seed", "first", "last"):
        command.add_argument(name, type=int)
    arguments = parser.parse_args()
    if arguments.command == "run":
        return run(arguments)
    if arguments.command == "atheris":
        run_atheris(arguments.reader, arguments.options)
    else:
        work(arguments.reader, arguments.seed, arguments.first, arguments.last)
    return 0


if __name__ == "__main__":
    sys.exit(main())
