"""Complete means complete: loss of power, damage, two writers, and processes that were killed."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from test_result import AUS, WRITE, face_row

import pyfau.files
from pyfau import AUResult, read_result
from pyfau.errors import InputError, OptionError
from pyfau.files import Disk, replace_file
from pyfau.locks import FileLock
from pyfau.tables.metadata import is_complete, write_whole
from pyfau.tables.writers import open_writer

SUFFIXES = tuple(WRITE)


def result_of(frames: int, seed: int = 0) -> AUResult:
    result = AUResult(AUS, {"source": "clip.mp4", "run": seed})
    result.extend(face_row(frame, seed=seed + frame) for frame in range(frames))
    return result


# ---- loss of power


@dataclass
class Inode:
    """A file: its bytes, and those that are surely on the disk."""

    data: bytes = b""
    synced: bytes = b""

    def torn(self) -> bytes:
        """Half of what was not synced has arrived."""
        kept = len(self.synced) if self.data.startswith(self.synced) else 0
        return self.data[: kept + (len(self.data) - kept) // 2]

    def lost(self) -> bytes:
        """The size has arrived, and not the data."""
        return self.synced + bytes(max(0, len(self.data) - len(self.synced)))


@dataclass
class Folder:
    """A folder in memory, and the names in it that are surely on the disk."""

    names: dict[str, Inode] = field(default_factory=dict)
    synced: dict[str, Inode] = field(default_factory=dict)


class FragileFile(io.RawIOBase):
    """Bytes that reach the disk when they are synced, or perhaps before."""

    def __init__(self, disk: FragileDisk, inode: Inode) -> None:
        self._disk = disk
        self.inode = inode

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return len(self.inode.data)

    def write(self, data: Any) -> int:
        self.inode.data += bytes(data)
        self._disk.step()
        return len(data)


class FragileDisk(Disk):
    """A disk that loses what was not synced, and keeps an image of itself after every step."""

    def __init__(self) -> None:
        self.folder = Folder()
        self.states: list[dict[str, bytes]] = []

    def step(self) -> None:
        """The folders that a loss of power after this step can leave.

        Names and data reach the disk in any order, unless they were synced: the extremes are
        nothing but what was synced, all names with the synced data alone, and everything.
        """
        names, synced = self.folder.names, self.folder.synced
        self.states.append({name: inode.synced for name, inode in synced.items()})
        self.states.append({name: inode.synced for name, inode in names.items()})
        self.states.append({name: inode.data for name, inode in synced.items()})
        self.states.append({name: inode.data for name, inode in names.items()})
        self.states.append({name: inode.torn() for name, inode in names.items()})
        self.states.append({name: inode.lost() for name, inode in names.items()})

    def create(self, path: Path) -> BinaryIO:
        inode = self.folder.names.setdefault(path.name, Inode())
        inode.data = b""
        self.step()
        return FragileFile(self, inode)  # type: ignore[return-value]

    def append(self, path: Path) -> BinaryIO:
        return FragileFile(self, self.folder.names[path.name])  # type: ignore[return-value]

    def sync(self, file: BinaryIO) -> None:
        inode = file.inode  # type: ignore[attr-defined]
        inode.synced = inode.data
        self.step()

    def replace(self, source: Path, target: Path) -> None:
        self.folder.names[target.name] = self.folder.names.pop(source.name)
        self.step()

    def remove(self, path: Path) -> None:
        self.folder.names.pop(path.name, None)
        self.step()

    def sync_folder(self, folder: Path) -> None:
        self.folder.synced = dict(self.folder.names)
        self.step()


def run_on_fragile_disk(
    folder: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, old: bool, fail: bool = False
) -> list[dict[str, bytes]]:
    """The states of the disk while a table is written, over an older one or not."""
    disk = FragileDisk()
    if old:
        before = folder / "before"
        WRITE[suffix](result_of(5, 100), before / f"a{suffix}")
        for file in before.iterdir():
            data = file.read_bytes()
            disk.folder.names[file.name] = Inode(data, data)
        disk.folder.synced = dict(disk.folder.names)
    monkeypatch.setattr(pyfau.files, "disk", disk)
    rows = list(result_of(40))
    try:
        with open_writer(folder / "run" / f"a{suffix}", AUS, {"run": 0}) as writer:
            for start in range(0, 40, 10):
                writer.write(rows[start : start + 10])
                if fail and start == 20:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    return disk.states


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("fail", [False, True])
def test_loss_of_power_at_every_step(
    tmp_path: Path, suffix: str, old: bool, fail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = run_on_fragile_disk(tmp_path, suffix, monkeypatch, old, fail)
    assert len(states) > 40
    new, older = result_of(40), result_of(5, 100)
    seen = set()
    for number, state in enumerate(states):
        key = tuple(sorted(state.items()))
        if key in seen:
            continue
        seen.add(key)
        folder = tmp_path / f"state{number}"
        folder.mkdir()
        for name, data in state.items():
            (folder / name).write_bytes(data)
        path = folder / f"a{suffix}"
        if not is_complete(path):
            continue
        found = read_result(path)
        right = new if found.metadata["run"] == 0 else older
        assert not found.warnings
        assert len(found) == len(right)
        np.testing.assert_allclose(found.scores, right.scores, rtol=0, atol=1e-6)
        assert found.metadata["run"] == 100 or not fail
    final = tmp_path / "final"
    final.mkdir()
    for name, data in states[-3].items():  # everything that was written
        (final / name).write_bytes(data)
    assert is_complete(final / f"a{suffix}") is not fail


# ---- a full disk


class FullDisk(Disk):
    """A real folder on a disk that has room for so many bytes."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder = folder
        self._room = room

    def create(self, path: Path) -> BinaryIO:
        return FullFile(super().create(path), self)  # type: ignore[return-value]

    def left(self) -> int:
        return self._room - sum(path.stat().st_size for path in self._folder.iterdir())


class FullFile:
    def __init__(self, file: BinaryIO, disk: FullDisk) -> None:
        self._file = file
        self._disk = disk

    def write(self, data: Any) -> int:
        fits = bytes(data)[: max(0, self._disk.left())]
        self._file.write(fits)
        self._file.flush()
        if len(fits) < len(bytes(data)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(fits)

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("group", [20, 1000])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9, 0.999])
def test_a_full_disk_keeps_the_rows_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, share: float
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("pyfau.tables.writers.ROW_GROUP", group)
    rows = list(result_of(400))
    size = write_rows(tmp_path / "whole.parquet", rows).stat().st_size
    path = tmp_path / "disk" / "a.parquet"
    path.parent.mkdir()
    monkeypatch.setattr(pyfau.files, "disk", FullDisk(path.parent, int(share * size)))
    with pytest.raises(OptionError, match=r"cannot write .*a\.parquet: No space left on device"):
        write_rows(path, rows)
    assert [file.name for file in path.parent.iterdir()] == ["a.parquet"]
    assert not is_complete(path)
    found = read_result(path)
    assert 0.3 * share * len(rows) < len(found) < len(rows)
    assert [row.frame for row in found] == list(range(len(found)))
    np.testing.assert_allclose(found.scores, result_of(len(found)).scores, rtol=0, atol=1e-6)
    assert "incomplete" in found.warnings[0]


@pytest.mark.parametrize("room", [0, 2, 500])
def test_a_disk_without_room_keeps_the_older_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    pytest.importorskip("pyarrow")
    path = write_rows(tmp_path / "a.parquet", list(result_of(20)))
    old = path.read_bytes()
    monkeypatch.setattr(pyfau.files, "disk", FullDisk(tmp_path, len(old) + room))
    with pytest.raises(OptionError, match="No space left on device"):
        write_rows(path, list(result_of(40)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
    assert path.read_bytes() == old


def test_room_that_another_file_gives_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an overlay that is given up."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(pyfau.files, "disk", FullDisk(tmp_path, 80_000))
    overlay = tmp_path / "overlay.part"
    overlay.write_bytes(bytes(79_000))
    with open_writer(tmp_path / "a.parquet", AUS, {"run": 0}) as writer:
        writer.write(result_of(40))
        writer._flush()  # type: ignore[attr-defined]
        overlay.unlink()
    assert is_complete(tmp_path / "a.parquet")
    assert len(read_result(tmp_path / "a.parquet")) == 40


def write_rows(path: Path, rows: list[Any]) -> Path:
    with open_writer(path, AUS, {"run": 0}) as writer:
        for start in range(0, len(rows), 10):
            writer.write(rows[start : start + 10])
    return path


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FragileDisk()
    disk.folder.names["a.txt"] = Inode(b"old", b"old")
    disk.folder.synced = dict(disk.folder.names)
    monkeypatch.setattr(pyfau.files, "disk", disk)
    replace_file(tmp_path / "a.txt", b"new text")
    assert {state["a.txt"] for state in disk.states} == {b"old", b"new text"}


# ---- damage


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "changed", "fewer", "other"])
def test_a_table_that_was_damaged_is_not_complete(tmp_path: Path, suffix: str, damage: str) -> None:
    path = WRITE[suffix](result_of(30), tmp_path / f"a{suffix}")
    assert is_complete(path)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    half = len(data) // 2
    changed = {
        "empty": b"",
        "cut": data[:half],
        "longer": data + lines[-1],
        "changed": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        "fewer": b"".join(lines[:-1]),
        "other": b"frame\n1\n",
    }
    path.write_bytes(changed[damage])
    assert not is_complete(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_changed_table_is_read_with_a_warning(tmp_path: Path, suffix: str) -> None:
    path = WRITE[suffix](result_of(3), tmp_path / f"a{suffix}")
    assert read_result(path).warnings == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    (warning,) = read_result(path).warnings
    assert "was changed after it was written" in warning


# ---- two writers of one output


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_second_writer_says_who_has_the_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with open_writer(path, AUS, {}) as writer:
        writer.write(list(result_of(3)))
        said = rf"process {os.getpid()} on \S+ has been writing it since 20\d\d-\d\d-\d\dT"
        with pytest.raises(OptionError, match=said):
            open_writer(path, AUS, {})
        with pytest.raises(OptionError, match=said):
            write_whole(path, "other")
    assert is_complete(path)
    assert len(read_result(path)) == 3
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]
    WRITE[suffix](result_of(4), path)
    assert len(read_result(path)) == 4


HOLD = """
import sys, time
from pathlib import Path
from test_durability import AUS, result_of
from pyfau.tables.writers import open_writer
writer = open_writer(sys.argv[1], AUS, {})
writer.write(list(result_of(3)))
print("open", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_process_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(OptionError, match=f"process {holder.pid} on "):
            open_writer(path, AUS, {})
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()
    assert (tmp_path / f".{path.name}.lock").exists()  # it could not clean up
    if suffix != ".parquet":
        assert len(read_result(path)) == 3
        assert not is_complete(path)
    (tmp_path / f".{path.name}.json.0123abcd.part").write_bytes(b"{")
    (tmp_path / f".{path.name}.old.csv.0123abcd.part").write_bytes(b"of another table")
    WRITE[suffix](result_of(4), path)
    assert is_complete(path)
    left = sorted(file.name for file in tmp_path.iterdir() if file.name.startswith("."))
    assert left == [f".{path.name}.old.csv.0123abcd.part"]


@pytest.mark.parametrize("text", [b"", b"[" * 4000, b"\xff", b"[]", b'{"pid": 1}', b"1" * 9999])
def test_a_strange_lock_file_is_no_trouble(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.csv"
    lock = FileLock(path)
    lock_file = tmp_path / ".a.csv.lock"
    lock_file.write_bytes(text)
    with pytest.raises(OptionError, match="another process is writing it"):
        FileLock(path)
    lock.release()
    lock_file.write_bytes(text)
    with FileLock(path) as taken:
        assert taken.stale  # an empty one too: a loss of power can leave it
        assert json.loads(lock_file.read_bytes())["pid"] == os.getpid()
    assert not lock_file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "device"])
def test_only_a_plain_file_is_a_lock_file(tmp_path: Path, kind: str) -> None:
    """A link in a folder of strangers would empty the file that it leads to."""
    victim = tmp_path / "notes.txt"
    lock_file = tmp_path / ".a.csv.lock"
    if kind == "pipe":
        os.mkfifo(lock_file)
    else:
        lock_file.symlink_to("/dev/null" if kind == "device" else victim)
    if kind == "link":
        victim.write_text("notes")
    with pytest.raises(OptionError, match=r"\.a\.csv\.lock is a link, a device or a pipe"):
        result_of(1).to_csv(tmp_path / "a.csv")
    assert victim.read_text() == "notes" if kind == "link" else not victim.exists()
    assert not (tmp_path / "a.csv").exists()


PIPES = """
import sys
from pyfau.files import append_to, create_file, check_writable
from pathlib import Path
for write in (create_file, append_to, check_writable):
    try:
        write(Path(sys.argv[1]))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_pipe_without_a_reader_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    os.mkfifo(path)
    command = [sys.executable, "-c", PIPES, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("No such device or address") == 3
    assert done.stdout.count("OptionError cannot write") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_pipe_with_a_slow_reader_gets_all_rows(tmp_path: Path) -> None:
    path, wanted = tmp_path / "a.csv", result_of(1000)
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; cat '{path}'"], stdout=subprocess.PIPE) as cat:
        handle = os.open(path, os.O_RDWR)  # a reader, so that the writer need not wait for `cat`
        wanted.to_csv(path)
        os.close(handle)
        assert cat.stdout is not None
        received = cat.stdout.read()
    assert received == wanted.to_csv(tmp_path / "b.csv").read_bytes()


def test_many_processes_take_turns(tmp_path: Path) -> None:
    """Each adds one to a number under the lock: none is lost, also while the lock file comes and
    goes.
    """
    (tmp_path / "n").write_text("0")
    program = """
import sys, time
from pathlib import Path
from pyfau.errors import OptionError
from pyfau.locks import FileLock
path = Path(sys.argv[1])
done = 0
while done < 40:
    try:
        with FileLock(path):
            path.write_text(str(int(path.read_text()) + 1))
            done += 1
    except OptionError:
        time.sleep(0.0005)
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "n")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(3)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "120"


def test_unfinished_files_have_names_of_their_own(tmp_path: Path) -> None:
    names = {pyfau.files.part_name(tmp_path / "a.csv").name for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"\.a\.csv\.[0-9a-f]{8}\.part", name) for name in names)


def test_a_failed_write_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Disk):
        def sync(self, file: BinaryIO) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyfau.files, "disk", Full())
    for suffix in SUFFIXES:
        with pytest.raises(OptionError, match="No space left"):
            WRITE[suffix](result_of(2), tmp_path / f"a{suffix}")
    with pytest.raises(OptionError, match="No space left"):
        write_whole(tmp_path / "a.txt", "text")
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_lock_costs_a_few_operations_on_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks do not slow a batch down: they neither wait nor force anything to the disk."""
    calls: list[str] = []

    def count(owner: Any, name: str) -> None:
        whole = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return whole(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    for name in ("open", "write", "ftruncate", "fstat", "close", "fsync", "sync", "fdatasync"):
        if hasattr(os, name):
            count(os, name)
    for name in ("open", "stat", "unlink"):
        count(Path, name)
    count(time, "sleep")
    for _ in range(200):
        FileLock(tmp_path / "a.csv").release()
    monkeypatch.undo()
    assert set(calls) <= {"open", "write", "ftruncate", "fstat", "stat", "unlink", "close"}
    assert {"open", "write", "unlink", "close"} <= set(calls)
    assert len(calls) <= 200 * 10


def test_no_table_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_result(tmp_path / "a.csv")
