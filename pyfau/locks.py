"""An exclusive lock for each output, so that two processes cannot write one table."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_BYTES = 4096  # largest size of the text in a lock file
_LOCKED_BYTE = 1 << 30  # Windows locks bytes: this one is after the text, which stays readable


class FileLock:
    """The right to write an output: a locked file in the same folder, `.NAME.lock`.

    The operating system releases the lock when the process ends, even if it is killed. So a new
    process can use the lock file of a process that ended. The text of the lock file names its
    process.

    The lock works between threads and processes on one machine. Whether it works between machines
    on a network drive depends on the drive.

    Args:
        path: The output. Its folder exists.

    Attributes:
        stale: Whether the lock file existed already. In most cases, a killed process left it and
            did not close the output. Rarely, another process is releasing the lock at this moment.

    Raises:
        OptionError: Another process is writing the output.
        OSError: The lock file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._lock = path.with_name(f".{path.name}.lock")
        opened, self.stale = _open_locked(self._lock, path)
        self._handle: int | None = opened
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(self._handle, 0)
        os.write(self._handle, json.dumps(owner).encode())

    def release(self) -> None:
        """Release the lock. Calling it again does nothing."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        # Removing comes first: nobody can lock the file and see it disappear afterwards. Windows
        # cannot remove an open file; there, the empty lock file stays until it is closed.
        removed = _remove(self._lock)
        if not removed:
            os.ftruncate(handle, 0)
        os.close(handle)
        if not removed:
            _remove(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            with suppress(OSError):
                os.close(handle)


def _open_locked(lock: Path, path: Path) -> tuple[int, bool]:
    """Open the lock file and lock it.

    Returns:
        The handle, and whether the file existed before. The size does not show this, because a lock
        file can be empty after a loss of power.
    """
    while True:
        handle, existed = _open_or_create(lock)
        try:
            _check_plain(handle, lock)
            if not _lock(handle):
                raise OptionError(f"cannot write {path}: {_owner(lock)}")
            if _is_current(handle, lock):
                return handle, existed
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed it between opening and locking: try the new one


def _open_or_create(lock: Path) -> tuple[int, bool]:
    """Open the lock file. Returns the handle, and whether the file existed before."""
    with suppress(FileExistsError):
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), False
    # Another process may have removed the file, so this call can create it. A link is not followed,
    # because the file that it leads to would become empty. Windows has no such flag, and its users
    # cannot create links by default.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(lock, flags, 0o666), True
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _not_plain(lock) from None


def _check_plain(handle: int, lock: Path) -> None:
    """Raise an error if the lock file is a device or a pipe."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise _not_plain(lock)


def _not_plain(lock: Path) -> OSError:
    return OSError(errno.EINVAL, f"{lock.name} is a link, a device or a pipe: remove it")


def _is_current(handle: int, lock: Path) -> bool:
    """Whether the name still leads to the file that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False


def _owner(lock: Path) -> str:
    """The process that writes the output, from the text of the lock file."""
    owner: Any = None
    with suppress(OSError, ValueError, RecursionError), lock.open("rb") as file:
        owner = json.loads(file.read(_MOST_BYTES))
    if not isinstance(owner, dict) or not {"pid", "host", "since"} <= owner.keys():
        return "another process is writing it"
    pid, host, since = owner["pid"], owner["host"], owner["since"]
    return f"process {pid!s:.20} on {host!s:.80} has been writing it since {since!s:.40}"


def _remove(lock: Path) -> bool:
    try:
        lock.unlink(missing_ok=True)
    except OSError:
        return False
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a drive without locks: pyfau works there as well, but without protection
        return True
