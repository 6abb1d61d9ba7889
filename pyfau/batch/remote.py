"""Inputs that are URIs. fsspec opens them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyfau.errors import MediaError


def is_uri(text: str) -> bool:
    """Whether an input is a URI for fsspec, such as `zip://clip.mp4::archive.zip`."""
    return "://" in text


def local_path(uri: str) -> str:
    """The path of a file:// URI; other URIs stay as they are."""
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
    """Facts that change when the file changes, as `pyfau.video.file_record` of a local file."""
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
def at_hand(source: str) -> Iterator[Path]:
    """A local file for an input.

    The file of a URI is copied to a temporary folder, which is deleted afterwards.
    """
    if not is_uri(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="pyfau-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / (remote_name(source) or "input")
        with _remote(source) as (system, remote):
            system.get_file(remote, str(path))
        yield path


@contextmanager
def _remote(uri: str) -> Iterator[tuple[Any, str]]:
    import fsspec

    try:
        yield fsspec.core.url_to_fs(uri)
    except Exception as error:  # each file system has its own exceptions
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
        raise MediaError(f"{uri} could not be fetched: {reason}") from error
