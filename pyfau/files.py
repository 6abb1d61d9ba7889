"""Writes all outputs, in an order that keeps them complete after a loss of power.

The safety of outputs depends on the order of the writes: see `replace_file` and
`pyfau.tables.writers`. A test replaces the `Disk` and checks the state after every step.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from pyfau.errors import OptionError
from pyfau.limits import LIMITS
from pyfau.locks import FileLock
from pyfau.types import StrPath

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows has no named pipes in folders
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # errors of pipes, devices and some network drives


class Disk:
    """The file operations that all writes use."""

    def create(self, path: Path) -> BinaryIO:
        """Open a file for writing; an existing file becomes empty."""
        return _open_output(path, "wb")

    def append(self, path: Path) -> BinaryIO:
        """Open an existing file for writing at its end."""
        return _open_output(path, "ab")

    def sync(self, file: BinaryIO) -> None:
        """Wait until all data that was written to a file is on the disk."""
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise

    def replace(self, source: Path, target: Path) -> None:
        """Replace a file by another one, in one step."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; a file that does not exist is no error."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        # Windows cannot open folders, and some network drives do not sync them.
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


disk = Disk()


def _open_output(path: Path, mode: str) -> BinaryIO:
    """Open a file for writing. A pipe without a reader raises an error and does not block."""
    file = open(path, mode, opener=_open_at_once)  # noqa: SIM115
    if _NONBLOCK:
        os.set_blocking(file.fileno(), True)  # a reader of a pipe can be slow
    return cast(BinaryIO, file)


def create_file(path: Path) -> BinaryIO:
    """Open a file for writing; an existing file becomes empty."""
    return disk.create(path)


def append_to(path: Path) -> BinaryIO:
    """Open an existing file for writing at its end."""
    return disk.append(path)


def sync_file(file: BinaryIO, path: Path) -> None:
    """Wait until a file and its name are on the disk."""
    disk.sync(file)
    disk.sync_folder(path.parent)


def move_file(source: Path, target: Path) -> None:
    """Give a synced file its final name, and wait until the name is on the disk."""
    disk.replace(source, target)
    disk.sync_folder(target.parent)


def remove_file(path: Path) -> None:
    """Remove a file; a file that does not exist is no error."""
    disk.remove(path)


def replace_file(path: Path, data: bytes) -> None:
    """Write in one step: a crash or a loss of power leaves the old file or the complete new one."""
    part = part_name(path)
    try:
        with create_file(part) as file:
            file.write(data)
            disk.sync(file)
        move_file(part, path)
    except BaseException:
        remove_file(part)
        raise


class UnfinishedFile:
    """A file that other code writes. It gets its final name when it is complete.

    After a crash or a loss of power, the final name is that of the old file or of the new file.

    Args:
        path: The final name. A link is followed. A device or a pipe is written directly.

    Attributes:
        part: Path to write to. It has the suffix of `path`.
    """

    def __init__(self, path: Path) -> None:
        self._target = real_path(path)
        self._is_plain = self._target.is_file() or not self._target.exists()
        part = part_name(self._target)
        self.part = part.with_name(part.name + path.suffix) if self._is_plain else path

    def finish(self) -> None:
        """Give the file its final name. The file must be closed."""
        if not self._is_plain:
            return
        with self.part.open("rb+") as file:
            disk.sync(file)
        move_file(self.part, self._target)

    def discard(self) -> None:
        """Remove the unfinished file, if it exists."""
        if self._is_plain:
            remove_file(self.part)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Prevent other processes from writing a file. Creates the folder of the file.

    Unfinished versions that a killed process left are removed.

    Raises:
        OptionError: Another process is writing the file, or its folder cannot be written.
    """
    with writing(path):
        make_room(path)
        lock = lock_file(path)
    with lock:
        yield


def lock_file(path: Path) -> FileLock:
    """The lock of a file in an existing folder, for `locked` and for writers that stay open.

    Raises:
        OptionError: Another process is writing the file.
        OSError: The lock file cannot be created.
    """
    lock = FileLock(path)
    if lock.stale:
        try:
            remove_parts(path)
        except BaseException:
            lock.release()
            raise
    return lock


def part_name(path: Path) -> Path:
    """A new name for the unfinished version of a file. No other process uses this name."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def remove_parts(path: Path) -> None:
    """Remove unfinished versions of a file that a killed process left.

    The caller has the lock of the file, so no running process needs these versions.
    """
    # An `UnfinishedFile` has the suffix of its file. An unfinished table has a sidecar and a lock.
    suffix = rf"({re.escape(path.suffix)}|\.json|\.lock)?"
    name = re.escape(f".{path.name}.")
    pattern = re.compile(rf"\.?{name}([0-9a-f]{{8}}\.)?part{suffix}")
    for entry in list(path.parent.iterdir()):
        if pattern.fullmatch(entry.name):
            remove_file(entry)


def check_is_other(path: StrPath, source: StrPath) -> None:
    """Check that an output does not replace its own input.

    Raises:
        OptionError: Both names are the same file.
    """
    try:
        same = Path(path).samefile(source)
    except (OSError, ValueError):  # one of the files does not exist
        same = False
    if same:
        raise OptionError(f"{os.fspath(path)} would replace the input {os.fspath(source)}")


def check_writable(path: Path) -> None:
    """Create the folder of a file, and check that the file can be written without changing it.

    Raises:
        OptionError: The file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        _open_output(path, "ab").close()
        if not existed:
            path.unlink()


def open_plain(path: StrPath) -> BinaryIO:
    """Open a file for reading if it is a plain file.

    Devices can have no end, and a pipe without a writer blocks.

    Raises:
        OSError: There is no such file, or it is a folder, a device, a pipe or a socket.
    """
    _check_plain(Path(path).stat().st_mode)  # opening a device can have effects
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    try:
        _check_plain(os.fstat(file.fileno()).st_mode)  # the name may lead to another file now
    except OSError:
        file.close()
        raise
    return file


def _check_plain(mode: int) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket: expected a file")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _NONBLOCK, 0o666)


def read_file(path: StrPath, most: int = LIMITS.file_bytes) -> bytes:
    """Read a plain file.

    Args:
        path: The file.
        most: Largest size in bytes. Larger files are refused before they are read. The user can
            raise this limit.

    Raises:
        OSError: The file cannot be read, is not a plain file, or is too large.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(
                errno.EFBIG,
                f"it has {size} bytes: expected at most {most}; raise the limits to read it",
            )
        return file.read()


def read_text(path: StrPath, most: int = LIMITS.file_bytes) -> str:
    """Read a plain file of UTF-8 text, with or without a byte order mark; see `read_file`.

    Raises:
        OSError: See `read_file`.
        UnicodeDecodeError: The file is not UTF-8.
    """
    return read_file(path, most).decode("utf-8-sig")


def escape_text(text: str) -> bytes:
    """The text in UTF-8.

    File names can have bytes that are not text. Python represents these bytes as lone surrogates.
    This function writes them as escapes such as `\\udcff`.
    """
    return text.encode(errors="backslashreplace")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into an OptionError that names the file."""
    try:
        yield
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error


def reason_of(error: Exception) -> str:
    """The reason why a file could not be read, without an error number and without the path."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def make_room(path: Path) -> None:
    """Create the folder of a file that will be written."""
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)


def real_path(path: StrPath) -> Path:
    """The absolute path without links. Links in a circle stay as they are.

    For links in a circle, `Path.resolve` would raise an error that is not an OSError.
    """
    return Path(os.path.realpath(path))


def has_content(path: Path) -> bool:
    """Whether the path names a plain file that is not empty; writing it would lose something."""
    return path.is_file() and path.stat().st_size > 0


def is_folder(path: StrPath) -> bool:
    """Whether the folder exists. False if the operating system rejects the path."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def cache_folder() -> Path:
    """The cache folder of pyfau: PYFAU_CACHE, or `pyfau` in XDG_CACHE_HOME or ~/.cache.

    Downloaded models are in the Hub's cache, not in this folder.
    """
    if chosen := os.environ.get("PYFAU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyfau"


def cache_path(kind: str, parts: Sequence[object], start: str, end: str) -> Path | None:
    """Path of a stored result in the cache folder, whose folder is made.

    Args:
        kind: Name of the folder.
        parts: Everything that the result depends on. Their hash is part of the file's name.
        start, end: The name before and after the hash.

    Returns:
        None where the folder cannot be found or made.
    """
    key = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
    with suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        folder = cache_folder() / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{start}{key[:32]}{end}"
    return None


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key that orders numbers in names by value: img2 before img10.

    Upper and lower case matter only between names that are otherwise equal.
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name
