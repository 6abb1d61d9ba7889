"""The sha256 of files, computed once for each file and then stored in a cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from pyfau.files import cache_folder, replace_file

_REMEMBERED = 200  # number of files in the cache, the newest


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def git_sha1(path: Path) -> str:
    """Git's hash of a file (blob), which the Hub states for small files."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def remembered_sha256(path: Path, *, again: bool = False) -> str:
    """The sha256 of a file, from the cache if the file has not changed.

    A file is unchanged if its real path, device, inode, size and times of change are the same. The
    cache is `hashes.json` in pyfau's cache folder. If it cannot be read or written, the hash is
    computed.

    Args:
        path: The file.
        again: Compute the hash even if the cache has it.
    """
    path = path.resolve()
    before = _identity(path)
    row = _read_memory().get(str(path))
    if row is not None and row[:-1] == before and not again:
        return str(row[-1])
    started = time.time()
    digest = file_sha256(path)
    # Two changes within the clock resolution of the file system leave the same times. Therefore the
    # hash of a file that has just changed is not stored.
    changed = path.stat().st_ctime_ns
    resolution = 0.05 if changed % 1_000_000_000 else 2.0
    if _identity(path) == before and started - changed / 1e9 > resolution:
        known = _read_memory()
        known.pop(str(path), None)
        known[str(path)] = [*before, digest]
        _write_memory(dict(list(known.items())[-_REMEMBERED:]))
    return digest


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
        path: row
        for path, row in known.items()
        if isinstance(row, list) and len(row) == 6 and isinstance(row[-1], str)
    }


def _write_memory(known: dict[str, list[int | str]]) -> None:
    """Replace the whole file, so that another process never reads an unfinished one."""
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "hashes.json", json.dumps(known).encode())
