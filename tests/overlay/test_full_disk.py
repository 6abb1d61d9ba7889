"""A full disk: an overlay that is cut off never replaces an older one, and the table has all rows.

The fault is a limit on the size of files. Each program here runs in its own process, because the
limit is for all files of a process.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import write_clip

from pyfau import read_result
from pyfau.demo import demo_frames
from pyfau.errors import OptionError
from pyfau.media.readers import read_video
from pyfau.media.whole import count_packets, is_whole
from pyfau.overlay.writer import OverlayWriter
from pyfau.types import UInt8Array

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
FRAMES = 8
# With PyAV if no codec is named, which cannot write .avi; otherwise with OpenCV.
VIDEOS = [
    (".mp4", None),
    (".mkv", None),
    (".webm", None),
    (".avi", None),
    (".mp4", "mp4v"),
    (".mkv", "mp4v"),
    (".webm", "VP80"),
    (".avi", "MJPG"),
]

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
HARD = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (HARD if size is None else size, HARD))
"""

OVERLAYS = (
    LIMITED
    + """
import json
from pathlib import Path
import numpy as np
from pyfau.errors import OptionError
from pyfau.overlay.writer import OverlayWriter
from test_full_disk import FRAMES, VIDEOS
random = np.random.default_rng(0)
images = random.integers(0, 256, (FRAMES, 96, 96, 3), np.uint8)
def write(path, codec, size):
    limit(size)
    try:
        with OverlayWriter(path, 25, codec) as writer:
            for image in images:
                writer.write(image, [])
    except OptionError as error:
        return str(error)
    finally:
        limit(None)
found = []
for suffix, codec in VIDEOS:
    path = Path(sys.argv[1]) / f"{codec}{suffix}"
    assert write(path, codec, None) is None
    size = path.stat().st_size
    old = path.read_bytes()
    for most in (1, 1000, size // 2, 3 * size // 4, size - 100, size - 1):
        error = write(path, codec, most)
        found.append([suffix, codec, size - most, error, path.read_bytes() == old])
print(json.dumps(found))
"""
)

RUN = (
    LIMITED
    + """
from pathlib import Path
import numpy as np
from pyfau.cli import main
from pyfau.overlay.writer import OverlayWriter
folder = Path(sys.argv[1])
with OverlayWriter(folder / "tried.avi", 25) as writer:  # the codec is tried only once
    writer.write(np.zeros((480, 640, 3), np.uint8), [])
(folder / "tried.avi").unlink()
limit(20_000)
for name in sys.argv[2:]:
    files = ["-o", f"{folder / name}.csv", "--overlay", str(folder / name)]
    options = ["--overwrite", "--quiet", "--threads", "1"]
    status = main(["detect", str(folder / "clip.mp4"), *files, *options])
    assert status == 1, name
"""
)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    folder = Path(__file__).parent
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            "PYTHONPATH": f"{folder.parents[1]}:{folder.parent}:{folder}",
            "PYTHONDONTWRITEBYTECODE": "1",  # Python would cut its own cached modules off
            "OMP_NUM_THREADS": "1",
        },
    )


def test_a_cut_overlay_never_replaces_an_older_one(tmp_path: Path) -> None:
    done = run(OVERLAYS, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 6 * len(VIDEOS)
    for suffix, codec, missing, error, kept in found:
        case = (suffix, codec, missing, error)
        assert kept, case
        assert error is not None, case
        assert f"cannot write {tmp_path / f'{codec}{suffix}'}: " in error, case
    assert len(list(tmp_path.iterdir())) == len(VIDEOS)  # nothing unfinished remains


def test_the_table_has_all_rows(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", demo_frames()[:FRAMES])
    names = ("pyav.mp4", "opencv.avi")
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    done = run(RUN, tmp_path, *names)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("pyfau: ")]
    for name, error in zip(names, errors, strict=True):
        overlay, table = tmp_path / name, tmp_path / f"{name}.csv"
        assert f"cannot write {overlay}: " in error
        assert f"({FRAMES} rows before it are kept in {table})" in error
        assert overlay.read_bytes() == b"old"
        assert [row.frame for row in read_result(table)] == list(range(FRAMES))
        # A table is complete only if its overlay is: --resume scores the clip again.
        metadata = json.loads((tmp_path / f"{name}.csv.json").read_text(encoding="utf-8"))
        assert metadata["complete"] is False
    assert len(list(tmp_path.iterdir())) == 1 + 3 * len(names)  # nothing unfinished remains


def test_a_full_temporary_folder_is_no_missing_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.avi"
    image = np.zeros((38, 54, 3), np.uint8)  # a size for which no codec was tried yet

    def write_bytes(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        message = r"cannot write .*a\.avi: .*temporary folder, .*: No space left on device"
        with OverlayWriter(path, 25) as writer, pytest.raises(OptionError, match=message):
            writer.write(image, [])
    with OverlayWriter(path, 25) as writer:
        writer.write(image, [])
    assert path.exists()


@pytest.fixture(scope="module")
def frames() -> list[UInt8Array]:
    return [frame[::4, ::4].copy() for frame in demo_frames()[:40]]


@pytest.mark.parametrize(("suffix", "codec"), VIDEOS)
def test_whole_videos_are_whole(
    tmp_path: Path, frames: list[UInt8Array], suffix: str, codec: str | None
) -> None:
    path = tmp_path / f"a{suffix}"
    with OverlayWriter(path, 25, codec) as writer:
        for frame in frames:
            writer.write(frame, [])
    assert is_whole(path)
    assert count_packets(path) >= 40
    assert len(list(read_video(path))) == 40
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_whole(path)
    path.write_bytes(b"")
    assert not is_whole(path)


def test_other_files_are_not_whole_videos(tmp_path: Path) -> None:
    contents: list[tuple[str, Any]] = [
        (".avi", b"RIFF\0\0\0\0AVI "),
        (".avi", b"none of it"),
        (".mp4", b"\0\0\0\1ftyp\0\0\0\0\0\0\0\0"),
        (".mkv", b"\x1a\x45\xdf\xa3\xff" + bytes(20)),
        (".mkv", bytes(40)),
        (".webm", b"\x1a"),
    ]
    for suffix, content in contents:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        assert not is_whole(path), content
        assert count_packets(path) == 0
