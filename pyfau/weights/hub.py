"""The Hugging Face Hub: files fetched into its client's own cache, models published, and what went wrong in words."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import getproxies

from pyfau.errors import WeightsError
from pyfau.weights.manifest import MAX_BYTES

_ATTEMPTS = 3  # after connections that broke off in ways that the client does not go on after


def fetch(
    repo: str,
    name: str,
    revision: str | None,
    *,
    local_files_only: bool = False,
    again: bool = False,
    progress: bool = True,
) -> Path:
    """A file of a model repository, from the client's cache if it is there.

    Args:
        repo: `user/repo`.
        name: Of the file.
        revision: Commit, tag or branch; None for the main branch.
        local_files_only: Do not ask the Hub.
        again: Fetch it even if it is cached.
        progress: Whether to show a progress bar.

    Returns:
        Its path, in a folder that is named by the commit.

    Raises:
        WeightsError: It could not be fetched; what to do is said.
    """
    from huggingface_hub import hf_hub_download

    for left in reversed(range(_ATTEMPTS)):
        try:
            with _progress_bars(progress):
                if not (again or local_files_only):
                    _continue_download(repo, name, revision)
                return Path(
                    hf_hub_download(
                        repo, name, revision=revision, local_files_only=local_files_only, force_download=again
                    )
                )
        except WeightsError:
            raise
        except Exception as error:  # of three libraries
            if not left or not _is_cut(error):
                where = f"{name} of {repo}@{revision or 'main'} could not be fetched from the Hugging Face Hub"
                raise WeightsError(f"{where}: {_explain(error, repo, revision, name, local_files_only)}") from error
    raise AssertionError("unreachable")


def _continue_download(repo: str, name: str, revision: str | None) -> None:
    """Put a large file into the client's cache, going on where an earlier process was interrupted.

    The client goes on within one call only: it deletes what it has when it fails or is stopped. So its own download
    function is given a file of ours, beside the place of the whole one and named by the sha256 of that, under a lock.
    """
    from filelock import FileLock
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache, utils
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import http_get

    if isinstance(try_to_load_from_cache(repo, name, revision=revision), str):
        return
    try:
        facts = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    except Exception:  # which the client has better ways to deal with
        return
    if facts.size is not None and facts.size > MAX_BYTES:
        raise WeightsError(f"{name} of {repo} has {facts.size} bytes, too many for a model: at most {MAX_BYTES}")
    if facts.size is None or not re.fullmatch("[0-9a-f]{64}", facts.etag or ""):
        return  # a small one
    folder = f"models--{repo.replace('/', '--')}"
    whole = Path(HF_HUB_CACHE, folder, "blobs", str(facts.etag))
    lock = Path(HF_HUB_CACHE, ".locks", folder, f"{facts.etag}.pyfau.lock")
    for path in (whole, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if whole.exists():
            return
        part = whole.with_suffix(".pyfau.incomplete")
        if part.exists() and part.stat().st_size > facts.size:
            part.unlink()
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(repo, name, revision=facts.commit_hash),
                stream,
                resume_size=stream.tell(),
                headers=utils.build_hf_headers(),  # type: ignore[attr-defined]
                expected_size=facts.size,
                displayed_filename=name,
            )
        part.replace(whole)


def may_ask(local_files_only: bool) -> bool:
    """Whether the Hub may be asked at all."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return not (local_files_only or HF_HUB_OFFLINE)


def cached_tag(path: Path) -> str | None:
    """What the Hub said a cached file is: its sha256, or for a small file what git calls it, in 40 digits.

    It is the name of the blob that a file of a snapshot links to, which may be a link too. Where the client cannot make
    links, nothing is known.
    """
    tag = path.readlink().name if path.is_symlink() else ""
    return tag if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", tag) else None


def publish_files(folder: Path, names: Sequence[str], repo: str, *, private: bool, message: str) -> str:
    """Upload files in one commit; the repository is made if it is not there.

    Returns:
        The commit.

    Raises:
        WeightsError: It could not be uploaded; what to do is said.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(folder / name)) for name in names],
            commit_message=message,
        )
    except Exception as error:  # of three libraries
        raise WeightsError(f"{repo} could not be published: {_explain(error, repo, None, '', False)}") from error
    return str(commit.oid)


@contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    from huggingface_hub import utils

    if wanted or utils.are_progress_bars_disabled():  # type: ignore[attr-defined]
        yield
        return
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils.enable_progress_bars()  # type: ignore[attr-defined]


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _kinds(error: BaseException) -> set[str]:
    """The names of its classes: the client's HTTP library has changed its name more than once."""
    return {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}


def _is_cut(error: BaseException) -> bool:
    """Whether a connection ended while it was in use."""
    cuts = {"ReadError", "RemoteProtocolError", "ChunkedEncodingError", "ConnectionResetError"}
    return bool(_kinds(error) & cuts) or "Consistency check failed" in str(error)


def _explain(error: Exception, repo: str, revision: str | None, name: str, local_files_only: bool) -> str:
    """What went wrong and what to do, on one line; `name` is of the file that was to be fetched, if one was."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE

    kinds = _kinds(error)
    status = next((r.status_code for e in _chain(error) if (r := getattr(e, "response", None)) is not None), None)
    number = next((e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno is not None), 0)
    system = errno.errorcode.get(number, "")
    login = "log in with `hf auth login` or set HF_TOKEN"
    if not name and "OfflineModeIsEnabled" in kinds:
        advice = "the Hub may not be asked: unset HF_HUB_OFFLINE"
    elif not may_ask(local_files_only) and kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        advice = (
            f"it is not in the cache {HF_HUB_CACHE}, and the Hub may not be asked (HF_HUB_OFFLINE, --offline or "
            f"local_files_only): fetch it once where there is a network, with `pyfau download`, or point HF_HOME at a "
            f"cache that holds it"
        )
    elif "GatedRepoError" in kinds:
        advice = f"the repository is gated: ask for access at {ENDPOINT}/{repo}, then {login}"
    elif "RepositoryNotFoundError" in kinds:
        advice = f"there is no such repository, or it is private: check the name, and for a private one {login}"
    elif "RevisionNotFoundError" in kinds:
        advice = f"the repository has no revision {revision!r}: check it at {ENDPOINT}/{repo}/commits/main"
    elif "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        advice = f"the repository holds no {name} there, so it is no model of pyfau: check its name and revision"
    elif system in ("ENOSPC", "EDQUOT"):
        advice = f"the disk of {HF_HUB_CACHE} is full: make room, or set HF_HOME to a folder on another disk"
    elif system in ("EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "ELOOP", "ENAMETOOLONG"):
        advice = f"the cache {HF_HUB_CACHE} cannot be written: set HF_HOME to a folder that can"
    elif "HFValidationError" in kinds:
        advice = "that is no name of a repository: expected user/repo"
    elif kinds & {"UnsupportedProtocol", "InvalidURL", "MissingSchema", "InvalidSchema"}:
        advice = (
            f"{ENDPOINT} is no address of a Hub: set HF_ENDPOINT to one such as https://huggingface.co, or unset it"
        )
    elif "FileMetadataError" in kinds:
        advice = f"{ENDPOINT} does not answer as a Hub does: check HF_ENDPOINT, the proxy and the firewall"
    elif status == 401:
        advice = f"the token was not accepted: {login} with one that is valid"
    elif status == 403:
        advice = f"the token does not allow this: {login} with one that may"
    elif status == 429:
        advice = f"the Hub was asked too often: wait some minutes and try again; to be allowed more, {login}"
    elif status is not None and status >= 500:
        advice = f"the server of {ENDPOINT} has a problem (HTTP {status}): try again later"
    elif "ProxyError" in kinds:
        advice = "the proxy does not answer: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    elif kinds & {"TimeoutException", "Timeout"}:
        advice = (
            f"{ENDPOINT} took too long to answer: try again, or set HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT to "
            f"more seconds than 10"
        )
    elif kinds & {"NetworkError", "ProtocolError", "ConnectionError"} or _is_cut(error):
        proxy = " and the proxy that HTTPS_PROXY or HTTP_PROXY names" if getproxies() else ""
        advice = f"{ENDPOINT} cannot be reached, or the connection broke off: check the network{proxy}, and try again"
    elif system == "ENOENT":
        advice = f"the cache {HF_HUB_CACHE} cannot be made: set HF_HOME to a folder that can"
    else:
        advice = "try again, and report it if it stays"
    first = "".join(c for c in " ".join(str(error).split()) if c.isprintable()) or "no reason given"
    return f"{advice} [{type(error).__name__}: {first[:500]}]"
