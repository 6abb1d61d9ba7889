"""Standard output and standard error that are full, closed or without a reader stop no work."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made import write_clip
from test_limits import result_of

from pyfau.cli import main
from pyfau.demo import demo_frames
from pyfau.messages import progress_bar
from pyfau.streams import GuardedStream, guarded_streams
from pyfau.tables.metadata import is_complete

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="redirections of a POSIX shell")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs an always full device")
FULL = "pyfau: cannot write to standard output: No space left on device\n"
CLOSED = "pyfau: cannot write to standard output: it is closed\n"


def run(redirections: str, *arguments: object) -> tuple[int, str]:
    """Run a command with redirections of the shell.

    `GONE` in them is a pipe whose reader has left.

    Returns:
        The exit status, and what came on standard error if it is not redirected.
    """
    reading, writing = os.pipe()
    os.close(reading)
    script = f'exec "$@" {redirections.replace("GONE", "&0")}'  # 0 is the pipe
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "pyfau", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        stdin=writing,
        timeout=300,
        check=False,
    )
    os.close(writing)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", demo_frames()[:3], 25.0)


@posix
def test_a_video_is_scored_without_any_standard_stream(clip: Path, tmp_path: Path) -> None:
    status, _ = run("<&- >&- 2>&-", "detect", clip, "-o", tmp_path / "a.csv")
    assert status == 0
    assert is_complete(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").count("\n") == 4


@posix
@full
@pytest.mark.parametrize(
    ("redirections", "status", "message"),
    [
        (">/dev/full", 1, FULL),
        (">&- 2>&-", 0, ""),
        (">GONE 2>GONE", 0, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_lost_messages_lose_no_features(
    tmp_path: Path, redirections: str, status: int, message: str
) -> None:
    table = result_of(2).to_csv(tmp_path / "a.csv")
    output = tmp_path / "features.csv"
    ended, said = run(redirections, "summary", table, "-o", output)
    assert (ended, said.rpartition("\r")[2].rpartition("]")[2].lstrip("\n")) == (status, message)
    assert output.read_text(encoding="utf-8").count("\n") == 3


@posix
@full
@pytest.mark.parametrize(
    ("redirections", "command", "status", "message"),
    [
        (">/dev/full", "models", 1, FULL),
        (">/dev/full", "--version", 1, FULL),
        (">&-", "models", 1, CLOSED),
        (">&-", "detect --help", 1, CLOSED),
        (">GONE", "models", 1, ""),
        (">GONE 2>GONE", "detect --help", 1, ""),
        ("2>&-", "models", 0, ""),
    ],
)
def test_a_result_that_cannot_be_printed_is_a_failure(
    redirections: str, command: str, status: int, message: str
) -> None:
    assert run(redirections, *command.split()) == (status, message)


@posix
@full
def test_a_wrong_command_line_stays_2() -> None:
    assert run("2>/dev/full", "unknown") == (2, "")
    assert run("2>&- >&-", "unknown") == (2, "")


class Failing(io.StringIO):
    """A stream each of whose writes fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))


@pytest.fixture(params=["ENOSPC", "EPIPE", "none"])
def failing(request: pytest.FixtureRequest) -> io.StringIO | None:
    return None if request.param == "none" else Failing(getattr(errno, request.param))


def test_progress_and_messages_that_fail_do_not_stop_scoring(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", failing)
    monkeypatch.setattr(sys, "stdout", failing)
    arguments = ["detect", str(clip), "-o", str(tmp_path / "a.csv"), "--threads", "1"]
    number = getattr(failing, "_number", errno.EBADF)
    assert main(arguments) == int(number == errno.ENOSPC)
    assert is_complete(tmp_path / "a.csv")


def test_a_progress_bar_of_a_program_in_python(
    monkeypatch: pytest.MonkeyPatch, failing: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", failing)
    assert list(progress_bar([1, 2, 3])) == [1, 2, 3]


def test_results_are_distinguished_from_messages() -> None:
    stream = GuardedStream(Failing(errno.EPIPE))
    assert not stream.note("a message")
    stream.flush()
    assert not stream.lost_data
    stream.write("a result")
    assert stream.lost_data


def test_a_result_in_the_buffer_counts_as_lost() -> None:
    class Buffered(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "full")

    stream = GuardedStream(Buffered())
    stream.write("a result")
    assert not stream.note("a message")
    assert stream.lost_data


def test_the_streams_come_back() -> None:
    before = sys.stdout, sys.stderr
    with guarded_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
