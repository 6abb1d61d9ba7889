"""Temporary folders of uploads, and the removal of those that a killed server left."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pyfau.errors import OptionError
from pyfau.locks import FileLock

_PREFIX = "pyfau-serve-"
_CLIP = "clip"
_LOCK = ".clip.lock"  # the name that `FileLock` gives it
# A folder this young without a lock file may belong to a server that is just creating it.
_YOUNG_S = 60.0
_TRIES = 10


class UploadFolder:
    """A temporary folder for one upload.

    A locked file in the folder marks it as in use. The operating system releases the lock when the
    process ends, however it ends, so `remove_stale_folders` finds the folders of killed servers.

    Attributes:
        path: The folder. Only its owner can open it.
        clip: The path for the upload.

    Raises:
        OSError: The folder cannot be created.
    """

    def __init__(self) -> None:
        for _ in range(_TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self.clip = self.path / _CLIP
            # Until the folder is locked, another server that starts can mistake it for a stale one.
            with suppress(OptionError, FileNotFoundError):
                self._lock = FileLock(self.clip)
                return
        raise OSError(0, "no temporary folder could be locked")

    def remove(self) -> None:
        """Remove the folder with its files."""
        _remove_locked(self.path, self._lock)


def remove_stale_folders() -> int:
    """Remove the upload folders of servers that no longer run.

    Folders of running servers, of other users, and links are left alone.

    Returns:
        Number of folders removed.
    """
    removed = 0
    with os.scandir(tempfile.gettempdir()) as entries:
        folders = [Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX)]
    for folder in folders:
        # OptionError: a server uses it. OSError: another server that starts removed it first.
        with suppress(OptionError, OSError):
            removed += _remove_if_stale(folder)
    return removed


def _remove_if_stale(folder: Path) -> bool:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return False
    if sys.platform != "win32" and status.st_uid != os.getuid():
        return False
    is_young = time.time() - status.st_mtime < _YOUNG_S
    if is_young and not (folder / _LOCK).exists():
        return False
    _remove_locked(folder, FileLock(folder / _CLIP))
    return True


def _remove_locked(folder: Path, lock: FileLock) -> None:
    """Remove a folder. The upload goes first: the lock file is in the folder too."""
    with suppress(OSError):  # the folder may be gone, and what stays is removed at the next start
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)
