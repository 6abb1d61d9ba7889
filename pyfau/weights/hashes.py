"""The sha256 of files, worked out once for each file and then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

_REMEMBERED = 200  # files, the latest


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def git_sha1(path: Path) -> str:
    """What git calls a file with these contents, which is how the Hub tells small files apart."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def remembered_sha256(path: Path, *, again: bool = False) -> str:
    """As `file_sha256`, but a file that has not changed since the last time is not read again, unless `again` is set.

    A file is the same if its real path, device, inode, size and times of change in nanoseconds are. What is remembered
    lies in `hashes.json` of pyfau's cache folder; where that cannot be read or written, the file is read.
    """
    path = path.resolve()
    before = _identity(path)
    row = _read_memory().get(str(path))
    if row is not None and row[:-1] == before and not again:
        return str(row[-1])
    started = time.time()
    digest = file_sha256(path)
    # A file changed within the clock's resolution of the file system keeps its times: a fresh one is not remembered.
    changed = path.stat().st_ctime_ns
    resolution = 0.05 if changed % 1_000_000_000 else 2.0
    if _identity(path) == before and started - changed / 1e9 > resolution:
        known = _read_memory()
        known.pop(str(path), None)
        known[str(path)] = [*before, digest]
        _write_memory(dict(list(known.items())[-_REMEMBERED:]))
    return digest


def cache_folder() -> Path:
    """pyfau's own cache: PYFAU_CACHE, or `pyfau` in XDG_CACHE_HOME or ~/.cache. Models lie in the Hub's cache."""
    if chosen := os.environ.get("PYFAU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyfau"


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read_memory() -> dict[str, list[int | str]]:
    try:
        known = json.loads((cache_folder() / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError, RecursionError):  # RuntimeError: no home folder
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        path: row for path, row in known.items() if isinstance(row, list) and len(row) == 6 and isinstance(row[-1], str)
    }


def _write_memory(known: dict[str, list[int | str]]) -> None:
    """Replace the file as a whole, so that another process never reads half of it."""
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".json")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(known, stream)
            Path(name).replace(folder / "hashes.json")
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
