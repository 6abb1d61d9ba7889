"""The Hugging Face Hub: model files into its client's own cache, and models published to it.

The cache has the layout of huggingface_hub, so that other programs find the files too:
`blobs/HASH`, `snapshots/COMMIT/NAME` as a link to a blob, and `refs/BRANCH` with a commit.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyfau.errors import OptionError, WeightsError
from pyfau.files import replace_file
from pyfau.messages import printable
from pyfau.streams import guarded
from pyfau.weights import transfer
from pyfau.weights.hub_errors import can_retry, explain, is_cut, kinds, one_line, wait_of
from pyfau.weights.manifest import MAX_BYTES
from pyfau.weights.transfer import MAX_JSON_BYTES, Pace, RefusedAnswerError, RemoteFile

_UPLOAD_GRACE_S = 120.0
_UPLOAD_BYTES_PER_S = 50_000  # the lowest rate of an upload
_REVISION = r"\w[\w.-]*(/\w[\w.-]*)*"
_logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def fetch(
    repo: str,
    name: str,
    revision: str | None,
    *,
    limit: int | None = None,
    local_files_only: bool = False,
    again: bool = False,
    progress: bool = True,
) -> Path:
    """A file of a model repository, from the client's cache if it is there.

    Args:
        repo: `user/repo`.
        name: Name of the file.
        revision: Commit, tag or branch; None for the main branch.
        limit: Accept at most this number of bytes; None for 1 MB of JSON, or the largest model.
        local_files_only: Use the cache only.
        again: Download the file even if it is cached.
        progress: Whether to show a progress bar.

    Returns:
        Its path, in a folder that is named after the commit.

    Raises:
        WeightsError: The file could not be fetched. The message says what to do.
        OptionError: The revision is not the name of a commit, tag or branch.
    """
    revision = _check_revision(revision)
    offline = not may_ask(local_files_only)
    if limit is None:
        limit = MAX_JSON_BYTES if name.endswith(".json") else MAX_BYTES
    try:
        cached = None if again else _cached(repo, name, revision)
        is_commit = re.fullmatch("[0-9a-f]{40}", revision)
        if cached is not None and (offline or is_commit):
            return cached
        if offline:
            raise FileNotFoundError(f"{name} of {repo}@{revision} is not cached")
        return _fetch_online(repo, name, revision, limit, cached, again, progress)
    except Exception as error:  # classes of three libraries
        where = f"{name} of {repo}@{revision} could not be fetched from the Hugging Face Hub"
        raise WeightsError(f"{where}: {explain(error, repo, revision, name, offline)}") from error


def _check_revision(revision: str | None) -> str:
    """The revision is a part of paths and addresses."""
    if revision is None:
        return "main"
    if len(revision) > 200 or ".." in revision or not re.fullmatch(_REVISION, revision, re.ASCII):
        raise OptionError(
            f"revision {revision[:200]!r} is not a name: expected a commit, tag or branch"
        )
    return revision


def _cached(repo: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision)
    # The client also remembers that a file does not exist; it returns an object for that.
    return Path(path) if isinstance(path, str) else None


def _fetch_online(
    repo: str,
    name: str,
    revision: str,
    limit: int,
    cached: Path | None,
    again: bool,
    progress: bool,
) -> Path:
    """Download the file at the current commit of the revision, if the cache lacks it.

    `cached` is returned if the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo, name, revision=revision)
    headers = transfer.make_headers()
    pace = Pace()
    try:
        tries = 1 if cached is not None else transfer.MAX_TRIES
        remote = _try(lambda: transfer.read_facts(url, headers, pace), pace, tries)
    except Exception as error:
        final = {"RevisionNotFoundError", "EntryNotFoundError", "ProxyError", "RefusedAnswerError"}
        if cached is None or kinds(error) & final:
            raise
        return cached
    if remote.size is not None and remote.size > limit:
        raise RefusedAnswerError(f"the file has {remote.size} bytes, at most {limit} are accepted")
    folder = _repo_folder(repo)
    pointer = folder / "snapshots" / remote.commit / name
    if cached is not None and cached == pointer:
        return cached  # nothing to write: the cache may be read-only
    _write_ref(folder, revision, remote.commit)
    if again or not pointer.exists():
        url = hf_hub_url(repo, name, revision=remote.commit)
        _download(url, folder, pointer, remote, limit, headers, pace, again, progress)
    return pointer


def _repo_folder(repo: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def _download(
    url: str,
    folder: Path,
    pointer: Path,
    remote: RemoteFile,
    limit: int,
    headers: dict[str, str],
    pace: Pace,
    again: bool,
    progress: bool,
) -> None:
    """Put a file into the cache. It continues where an earlier process was interrupted."""
    from filelock import FileLock

    blob = folder / "blobs" / remote.etag
    lock = folder.parent / ".locks" / folder.name / f"{remote.etag}.pyfau.lock"
    for path in (blob, lock, pointer):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if again or not blob.exists():
            part = blob.with_name(f"{remote.etag}.pyfau.incomplete")
            _complete(url, part, remote.size, limit, headers, pace, progress)
            # Not `replace_file`: the data is on disk already, in a part that downloads continue.
            part.replace(blob)
        _link(blob, pointer)


def _complete(
    url: str,
    part: Path,
    size: int | None,
    limit: int,
    headers: dict[str, str],
    pace: Pace,
    progress: bool,
) -> None:
    """Receive the missing bytes of the file `part`."""
    most = limit if size is None else size
    if part.exists() and (size is None or part.stat().st_size > size):
        part.unlink()
    part.touch()
    with _progress_bar(url.rpartition("/")[2], size, progress) as bar:
        bar.update(_size(part))

        def receive() -> None:
            if size is None or _size(part) < size:
                transfer.receive(url, part, most, headers, pace, bar)
            if size is not None and _size(part) < size:
                raise transfer.CutConnectionError(f"{_size(part)} of {size} bytes have arrived")

        try:
            _try(receive, pace, transfer.MAX_TRIES, lambda: _size(part))
        except RefusedAnswerError:
            part.unlink(missing_ok=True)
            raise


def _try(
    work: Callable[[], Result],
    pace: Pace,
    tries: int,
    progress: Callable[[], int] = lambda: 0,
) -> Result:
    """Repeat a request after a temporary failure. Attempts that make progress do not count."""
    left, wait, reached = tries, 1.0, progress()
    while True:
        try:
            return work()
        except Exception as error:
            if progress() > reached:
                left, wait, reached = tries, 1.0, progress()
            left -= 1
            pause = max(wait_of(error), 0.0 if is_cut(error) else wait)
            retry = left > 0 and can_retry(error, transfer.RETRY_STATUSES)
            if not retry or pause > pace.seconds_left():
                raise
            _logger.warning("%s. Trying again; a download is resumed.", one_line(error))
            time.sleep(pause)
            wait *= 2


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _progress_bar(name: str, size: int | None, shown: bool) -> Any:
    """The client's own bar, which HF_HUB_DISABLE_PROGRESS_BARS switches off."""
    from huggingface_hub import utils

    disable = None  # shown on a terminal
    if os.environ.get("TQDM_POSITION") == "-1":  # the client's way to show bars in any case
        disable = False
    if not shown:
        disable = True
    bar: Any = utils.tqdm  # type: ignore[attr-defined]
    return bar(
        desc=printable(name),
        total=size,
        unit="B",
        unit_scale=True,
        disable=disable,
        file=guarded(sys.stderr),
    )


def _link(blob: Path, pointer: Path) -> None:
    """Make the snapshot's file a link to the blob, or a copy if the system has no links."""
    if pointer.exists() and pointer.samefile(blob):
        return
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except FileExistsError:  # another process was first
        return
    except (OSError, NotImplementedError):  # such as Windows without developer mode
        shutil.copyfile(blob, pointer)


def _write_ref(folder: Path, revision: str, commit: str) -> None:
    """Remember which commit a branch or tag stands for, for use without a network."""
    if revision == commit:
        return
    ref = folder / "refs" / revision
    if ref.is_file() and ref.read_text(encoding="utf-8") == commit:
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    replace_file(ref, commit.encode())


def may_ask(local_files_only: bool) -> bool:
    """Whether the Hub may be contacted."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return not (local_files_only or HF_HUB_OFFLINE)


def cached_tag(path: Path) -> str | None:
    """The hash of a cached file as the Hub stated it: sha256, or git's hash (40 digits).

    It is the name of the blob that a file of a snapshot links to. The blob may be a link too.
    None where the cache has no links.
    """
    tag = path.readlink().name if path.is_symlink() else ""
    return tag if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", tag) else None


class _TooSlowError(Exception):
    """A call took longer than allowed."""


def _within(most_s: float, call: Callable[[], Result]) -> Result:
    """The result of a call of the Hub's client that has no deadline of its own.

    The call runs in a daemon thread: it ends with the process at the latest.

    Raises:
        _TooSlowError: It took longer than `most_s` seconds.
    """
    done: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as error:  # raised again by the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="pyfau-upload", daemon=True)
    thread.start()
    thread.join(most_s)
    if errors:
        raise errors[0]
    if not done:
        raise _TooSlowError
    return done[0]


def _check_sizes(folder: Path, names: Sequence[str]) -> int:
    """The bytes of the files of a model together.

    Raises:
        WeightsError: One is larger than pyfau would download again.
    """
    sizes = {name: (folder / name).stat().st_size for name in names}
    for name, size in sizes.items():
        most = MAX_BYTES if name.endswith(".safetensors") else MAX_JSON_BYTES
        if size > most:
            raise WeightsError(f"{folder / name} has {size} bytes: expected at most {most}")
    return sum(sizes.values())


def publish_files(
    folder: Path, names: Sequence[str], repo: str, *, private: bool, message: str
) -> str:
    """Upload files in one commit; the repository is created if it does not exist.

    Returns:
        The commit.

    Raises:
        WeightsError: A file is too large, or the upload failed or took too long. The message says
            what to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    size = _check_sizes(folder, names)
    api = HfApi()

    def upload() -> Any:
        # The Hub's words on the card are shown by the client as they are.
        with transfer.limited_session(), warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            api.create_repo(repo, private=private, exist_ok=True)
            files = [CommitOperationAdd(name, str(folder / name)) for name in names]
            commit = api.create_commit(repo, files, commit_message=message)
        for note in notes:
            _logger.warning("%s", one_line(note.message))
        return commit

    most_s = _UPLOAD_GRACE_S + size / _UPLOAD_BYTES_PER_S
    try:
        commit = _within(most_s, upload)
    except _TooSlowError:
        raise WeightsError(
            f"{repo} could not be published: {size} bytes were not accepted within {most_s:.0f} s; "
            "see on the Hub whether the commit is there, or try again"
        ) from None
    except Exception as error:  # classes of three libraries
        advice = explain(error, repo, None, "", offline=not may_ask(local_files_only=False))
        raise WeightsError(f"{repo} could not be published: {advice}") from error
    return str(commit.oid)
