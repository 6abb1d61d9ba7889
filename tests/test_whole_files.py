"""Overlays, lists of inputs and evaluation records: the old file or the new one, never half of it.

`tests/tables/test_durability.py` has the same for tables.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from test_durability import FragileDisk, Inode

import pyfau.files
from pyfau.batch.ray import INPUTS_TABLE, _InputsTable
from pyfau.batch.run import Report
from pyfau.demo import write_demo_clip
from pyfau.errors import OptionError
from pyfau.evaluation.protocol import Predictions, Store
from pyfau.files import Disk
from pyfau.locks import FileLock
from pyfau.media.readers import read_video
from pyfau.overlay.writer import OverlayWriter, write_overlay_image
from pyfau.types import UInt8Array

IMAGE: UInt8Array = np.full((64, 64, 3), 99, np.uint8)
SUFFIXES = (".mp4", ".webm", ".mkv", ".avi")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class WatchedDisk(Disk):
    """A real disk that notes what is synced, and checks every file that gets its final name."""

    def __init__(self) -> None:
        self.synced: dict[str, str] = {}
        self.named: list[str] = []
        self.folders_synced = 0

    def sync(self, file: BinaryIO) -> None:
        super().sync(file)
        self.synced[file.name] = _digest(Path(file.name))

    def replace(self, source: Path, target: Path) -> None:
        # A loss of power after this step must not leave a torn file under the name.
        assert self.synced.get(str(source)) == _digest(source)
        super().replace(source, target)
        self.named.append(target.name)
        self.folders_synced = 0

    def sync_folder(self, folder: Path) -> None:
        self.folders_synced += 1


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> WatchedDisk:
    watched = WatchedDisk()
    monkeypatch.setattr(pyfau.files, "disk", watched)
    return watched


def write_overlay(path: Path, frames: int = 3) -> None:
    with OverlayWriter(path, 25) as writer:
        for _ in range(frames):
            writer.write(IMAGE, [])


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_overlay_gets_its_name_when_it_is_on_the_disk(
    tmp_path: Path, suffix: str, disk: WatchedDisk
) -> None:
    path = tmp_path / f"a{suffix}"
    with OverlayWriter(path, 25) as writer:
        writer.write(IMAGE, [])
        assert visible(tmp_path) == []
    assert (disk.named, disk.folders_synced) == ([path.name], 1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(list(read_video(path))) == 1


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_overlay_of_an_image_is_written_in_one_step(
    tmp_path: Path, name: str, disk: WatchedDisk
) -> None:
    write_overlay_image(tmp_path / name, IMAGE)
    assert (disk.named, disk.folders_synced) == ([name], 1)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_the_clip_of_the_demo_is_written_in_one_step(tmp_path: Path, disk: WatchedDisk) -> None:
    write_demo_clip(tmp_path / "demo.mp4")
    assert disk.named == ["demo.mp4"]


WRITE = """
import os, signal, sys
from pathlib import Path
from test_whole_files import IMAGE, OverlayWriter, write_overlay_image
import pyfau.files
path = Path(sys.argv[1])
if path.suffix == ".png":
    pyfau.files.disk.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
    write_overlay_image(path, IMAGE)
writer = OverlayWriter(path, 25)
for _ in range(40):
    writer.write(IMAGE, [])
os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
@pytest.mark.parametrize(("suffix", "old"), [(".mp4", False), (".mp4", True), (".png", True)])
def test_a_killed_process_leaves_no_half_overlay(tmp_path: Path, suffix: str, old: bool) -> None:
    path = tmp_path / f"a{suffix}"
    write = write_overlay if suffix != ".png" else lambda path: write_overlay_image(path, IMAGE)
    before = b""
    if old:
        write(path)
        before = path.read_bytes()
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", WRITE, str(path)],
        env=os.environ | {"PYTHONPATH": paths},
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    assert visible(tmp_path) == ([path.name] if old else [])
    assert not old or path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) > old  # something was left, under hidden names
    write(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_second_writer_of_an_overlay_is_refused(tmp_path: Path) -> None:
    with OverlayWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(IMAGE, [])
        with pytest.raises(OptionError, match=rf"process {os.getpid()} on .* has been writing it"):
            OverlayWriter(tmp_path / "a.mp4", 25)
    with FileLock(tmp_path / "a.png"), pytest.raises(OptionError, match="has been writing it"):
        write_overlay_image(tmp_path / "a.png", IMAGE)


def test_a_failed_overlay_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    write_overlay(path)
    before = path.read_bytes()

    class Full(Disk):
        def sync(self, file: BinaryIO) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyfau.files, "disk", Full())
    with pytest.raises(OptionError, match=r"cannot write .*a\.mp4: No space left"):
        write_overlay(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@posix
def test_an_overlay_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_overlay(tmp_path / "real" / "a.mp4")
    (tmp_path / "a.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    write_overlay(tmp_path / "a.mp4", 5)
    assert (tmp_path / "a.mp4").is_symlink()
    assert len(list(read_video(tmp_path / "real" / "a.mp4"))) == 5


# What a loss of power can leave of the text of a lock file.
@pytest.mark.parametrize("text", [b"", bytes(80), b'{"pid": 1', b'{"pid": 1, "host": "h"}'])
@pytest.mark.parametrize("suffix", [".mp4", ".png", ".csv"])
def test_a_lock_file_after_a_loss_of_power(tmp_path: Path, suffix: str, text: bytes) -> None:
    from pyfau.tables.writers import open_writer

    path = tmp_path / f"a{suffix}"
    (tmp_path / f".{path.name}.lock").write_bytes(text)
    (tmp_path / f".{path.name}.0123abcd.part{suffix}").write_bytes(b"half")
    (tmp_path / f".{path.name}.0123abcd.part").write_bytes(b"half")
    if suffix == ".csv":
        open_writer(path, ["AU01"], {}).close()
    elif suffix == ".png":
        write_overlay_image(path, IMAGE)
    else:
        write_overlay(path)
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


# ---- on a disk that loses what was not synced


def states_of(disk: FragileDisk, folder: Path) -> list[Path]:
    """The folders that a loss of power can leave, each different one once."""
    made: dict[tuple[tuple[str, bytes], ...], Path] = {}
    for number, state in enumerate(disk.states):
        key = tuple(sorted(state.items()))
        if key in made:
            continue
        made[key] = folder / f"state{number}"
        made[key].mkdir(parents=True)
        for name, data in state.items():
            (made[key] / name).write_bytes(data)
    return list(made.values())


def report(source: str) -> Report:
    return Report(source, Path(f"{source}.csv"), "done", rows=3, faces=1)


def test_the_list_of_inputs_keeps_earlier_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    table = _InputsTable(folder, resume=True)
    with table:
        for name in ("a.mp4", "b.mp4"):
            table.add(report(name))
    before = (folder / INPUTS_TABLE).read_bytes()

    disk = FragileDisk()
    disk.folder.names[INPUTS_TABLE] = Inode(before, before)
    disk.folder.synced = dict(disk.folder.names)
    monkeypatch.setattr(pyfau.files, "disk", disk)
    table = _InputsTable(folder, resume=True)
    with table:
        table.add(report("c.mp4"))
    monkeypatch.undo()

    states = states_of(disk, tmp_path / "states")
    assert len(states) > 5
    arrived = False
    for state in states:
        path = state / INPUTS_TABLE
        with path.open(newline="", encoding="utf-8") as file:
            done = [row[0] for row in csv.reader(line.replace("\0", "") for line in file) if row]
        assert done[1:3] == ["a.mp4", "b.mp4"]
        # The next run can go on from there.
        again = _InputsTable(state, resume=True)
        with again:
            again.add(report("d.mp4"))
        rows = list(csv.reader(path.read_text().splitlines()))
        assert {len(row) for row in rows} == {8}
        assert [row[0] for row in rows][-1] == "d.mp4"
        arrived = arrived or "c.mp4" in [row[0] for row in rows]
    assert arrived


def test_two_runs_cannot_share_a_list_of_inputs(tmp_path: Path) -> None:
    with _InputsTable(tmp_path, False), pytest.raises(OptionError, match="has been writing it"):
        _InputsTable(tmp_path, True)


def test_predictions_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a video are there and right, or they are computed again."""
    record = {"aus": ["AU01", "AU02"], "thresholds": [0.5, 0.5], "list": "x"}
    paths = ["1.png", "2.png", "3.png"]
    scores = np.random.default_rng(0).random((3, 2), np.float32)
    disk = FragileDisk()
    monkeypatch.setattr(pyfau.files, "disk", disk)
    store = Store(tmp_path / "run", record)
    store.open()
    store.save("video", paths, Predictions(scores))
    store.open()  # a second run
    monkeypatch.undo()
    states = states_of(disk, tmp_path / "states")
    assert len(states) > 8
    found = 0
    for state in states:
        if (state / "predictions.json").exists():
            assert json.loads((state / "predictions.json").read_bytes()) == record
        again = Store(state, record)
        loaded = again.load("video", paths)
        if loaded is not None:
            found += 1
            np.testing.assert_array_equal(loaded.scores, scores)
    assert 0 < found < len(states)
