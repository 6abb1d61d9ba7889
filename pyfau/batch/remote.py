"""Inputs that are URIs. The package fsspec opens them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyfau.errors import MediaError
from pyfau.limits import LIMITS, Limits

# Refused file systems of fsspec. They read a file that lists other files and addresses to open. Old
# versions of fsspec also run expressions from such a file.
_REFUSED = ("reference",)


def is_uri(text: str) -> bool:
    """Whether an input is a URI for fsspec, such as `zip://clip.mp4::archive.zip`."""
    return "://" in text


def local_path(uri: str) -> str:
    """The path of a file:// URI. Other URIs stay as they are."""
    if not uri.startswith(("file://", "local://")):
        return uri
    from fsspec.implementations.local import LocalFileSystem

    return str(LocalFileSystem._strip_protocol(uri))


def remote_name(uri: str) -> str:
    """The file name in a URI.

    In a chain such as `zip://clip.mp4::s3://bucket/archive.zip`, it is the name in the first part.
    """
    return uri.partition("::")[0].partition("?")[0].rstrip("/").rpartition("/")[2]


def remote_record(uri: str) -> dict[str, Any]:
    """Data that changes when the file changes, like `pyfau.video.file_record` of a local file."""
    with _remote(uri) as (system, path):
        info = system.info(path)
    telling = (
        "ETag",
        "etag",
        "CRC",
        "mtime",
        "LastModified",
        "last_modified",
        "updated",
        "date_time",
    )
    return {"path": uri, "bytes": info.get("size")} | {
        key: str(info[key]) for key in telling if key in info
    }


@contextmanager
def at_hand(source: str, limits: Limits = LIMITS) -> Iterator[Path]:
    """Provide an input as a local file.

    The file of a URI is copied to a temporary folder. The folder is deleted afterwards.

    Args:
        source: A path or a URI.
        limits: Limits for the copied file. A small archive can contain a very large file.

    Raises:
        MediaError: The file could not be fetched, or is too large.
    """
    if not is_uri(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="pyfau-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / (remote_name(source) or "input")
        with _remote(source) as (system, remote):
            _copy(system, remote, path, limits.remote_bytes)
        yield path


@contextmanager
def _remote(uri: str) -> Iterator[tuple[Any, str]]:
    import fsspec

    for part in uri.split("::"):
        protocol = part.partition("://")[0]
        if protocol in _REFUSED:
            raise MediaError(f"{uri}: {protocol}:// is refused, because it opens other files")
    try:
        yield fsspec.core.url_to_fs(uri)
    except MediaError:  # the file is too large
        raise
    except Exception as error:  # each file system has its own exceptions
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
        raise MediaError(f"{uri} could not be fetched: {reason}") from error


def _copy(system: Any, remote: str, path: Path, most: int) -> None:
    """Copy a remote file. Raises MediaError if it has more than `most` bytes."""
    from fsspec.callbacks import Callback

    class Counter(Callback):  # type: ignore[misc,unused-ignore]
        """Counts the bytes that arrive, because a file system can state no size or a wrong one."""

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            _check_size(self.value, most)

        def absolute_update(self, value: int) -> None:
            super().absolute_update(value)
            _check_size(self.value, most)

    _check_size(system.info(remote).get("size") or 0, most)
    system.get_file(remote, str(path), callback=Counter())


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise MediaError(
            f"the file has {size} bytes or more: expected at most {most}; raise the limits to read "
            "it"
        )
