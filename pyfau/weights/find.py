"""From a name, path or Hub repository to files whose hashes are right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from pyfau.errors import OptionError, WeightsError
from pyfau.weights import hub
from pyfau.weights.hashes import git_sha1, remembered_sha256
from pyfau.weights.manifest import HUB_ID, MAX_BYTES, ManifestEntry, read_manifest
from pyfau.weights.networks import read_network

DEFAULT_MODEL = "mdhr-lite"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")  # names that look like repositories


@dataclass(frozen=True, slots=True)
class FoundModel:
    """The files of a model on this machine; their hashes are right.

    Attributes:
        path: A model directory, or an official `.pth` file.
        weights: The weights file: in that directory, or the `.pth` file itself.
        sha256: Hash of the weights file, hexadecimal.
        origin: Path, or Hub repository and commit.
        entry: The manifest entry, for a name that the manifest lists.
    """

    path: Path
    weights: Path
    sha256: str
    origin: str
    entry: ManifestEntry | None = None


@dataclass(frozen=True, slots=True)
class _Access:
    """How the Hub may be used.

    Attributes:
        local_files_only: Use its cache only.
        progress: Whether a download shows its progress.
    """

    local_files_only: bool
    progress: bool


@contextmanager
def find_model(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> Iterator[FoundModel]:
    """Find the files of a model and check their hashes, without reading a network from them.

    Args:
        name_or_path: As for `load_model`.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not contact the Hub; use its cache only.
        progress: Whether a download shows its progress.

    Yields:
        The files. If pyfau is installed as a zip file, a bundled model exists only until the
        context ends.

    Raises:
        WeightsError: The files could not be found or fetched, or their hashes are wrong.
        OptionError: A revision was given for a model that is not on the Hub.
    """
    name = str(name_or_path)
    entry = read_manifest().get(name)
    is_path = entry is None and _exists(Path(name))
    takes_revision = not is_path if entry is None else _needs_revision(entry)
    _check_revision(revision, name, takes_revision)
    access = _Access(local_files_only, progress)
    if entry is not None and entry.status == "bundled":
        with as_file(files("pyfau") / "assets" / name) as folder:
            yield _check_bundled(folder, entry)
    elif entry is not None:
        yield _find_listed(entry, revision, access)
    elif is_path:
        yield _find_path(Path(name), name)
    elif re.fullmatch(HUB_ID, name) and not name.endswith(_WEIGHTS_SUFFIXES):
        known = {CONFIG_FILE: None, WEIGHTS_FILE: None}
        yield _fetch_model(name, revision, known, access)
    else:
        raise WeightsError(_not_found(name))


def _needs_revision(entry: ManifestEntry) -> bool:
    """Whether the entry leaves it to the caller to choose a commit."""
    return entry.status == "unpinned" and entry.on_hub


def _check_revision(revision: str | None, name: str, takes_revision: bool) -> None:
    if revision is not None and not takes_revision:
        raise OptionError(f"revision {revision!r} is for a Hub repository, and {name} is not one")
    if revision == "":
        raise OptionError("revision is empty text: give a commit, tag or branch, or leave it out")


def _check_bundled(folder: Path, entry: ManifestEntry) -> FoundModel:
    weights = folder / entry.record["file"]
    expected = entry.record["sha256"]
    digest = _digest(weights) if weights.is_file() else "no file"
    if digest != expected:
        raise WeightsError(
            f"the weights of {entry.name} have sha256 {digest}, expected {expected}: the file is "
            f"damaged; install pyfau again"
        )
    return FoundModel(folder, weights, digest, f"bundled {entry.name}", entry)


def _find_listed(entry: ManifestEntry, revision: str | None, access: _Access) -> FoundModel:
    """A model of the manifest that is not in the package."""
    record = entry.record
    if entry.status == "hub":
        known = {CONFIG_FILE: record["config_sha256"], record["file"]: record["sha256"]}
        return _fetch_model(record["repo"], record["revision"], known, access, entry)
    if entry.status == "official":
        return _fetch_official(entry, record["revision"], access)
    if not _needs_revision(entry):
        raise WeightsError(how_to_get(entry))
    if revision is None:
        raise WeightsError(
            f"{entry.name} is not pinned: nobody has stated a commit of {record['repo']} and the "
            f"hash of {record['file']}. Give a commit, tag or branch with --revision (revision= "
            f"in Python), or run `pyfau pin {entry.name}`"
        )
    return _fetch_official(entry, revision, access)


def _fetch_official(entry: ManifestEntry, revision: str, access: _Access) -> FoundModel:
    """Fetch the authors' own file and check its hash."""
    record = entry.record
    repo, name = record["repo"], record["file"]
    path, digest = _fetch_checked(
        repo, name, revision, record["sha256"] or None, record.get("bytes"), access
    )
    if len(digest) != 64:  # git's hash of a small file
        digest = _digest(path)
    return FoundModel(path, path, digest, f"{repo}@{path.parent.name}", entry)


def _find_path(path: Path, origin: str) -> FoundModel:
    """A model directory or an official checkpoint."""
    if path.is_dir():
        weights = plain_file(path, WEIGHTS_FILE)
        return FoundModel(path, weights, _digest(weights), origin)
    if not path.is_file():
        raise WeightsError(f"{path} is neither a model directory nor a file")
    _check_size(path)
    return FoundModel(path, path, _digest(path), origin)


def _fetch_model(
    repo: str,
    revision: str | None,
    known: Mapping[str, str | None],
    access: _Access,
    entry: ManifestEntry | None = None,
) -> FoundModel:
    """Fetch config.json and then the weights, and check their hashes.

    Args:
        repo: `user/repo`.
        revision: Commit, tag or branch.
        known: Names of the two files, with their sha256 or None.
        access: How the Hub may be used.
        entry: The manifest entry of the model.
    """
    path, digest = Path(), ""
    for name, expected in known.items():
        limit = None
        if entry is not None and name != CONFIG_FILE:
            limit = entry.record["bytes"]
        path, digest = _fetch_checked(repo, name, revision, expected, limit, access)
        revision = path.parent.name  # the commit: a branch may move before the next file
        if name == CONFIG_FILE:
            read_network(path)  # fails before the weights of a wrong model are downloaded
    if len(digest) != 64:
        digest = _digest(path)
    return FoundModel(path.parent, path, digest, f"{repo}@{revision}", entry)


def _fetch_checked(
    repo: str,
    name: str,
    revision: str | None,
    expected: str | None,
    limit: int | None,
    access: _Access,
) -> tuple[Path, str]:
    """Fetch one file; if its hash is wrong, fetch it once more.

    The expected hash is that of the manifest, or else the one that the Hub stated.
    """
    offline = access.local_files_only
    path = hub.fetch(
        repo,
        name,
        revision,
        limit=limit,
        local_files_only=offline,
        progress=access.progress,
    )
    commit = path.parent.name
    expected = expected or hub.cached_tag(path)
    digest = _digest(path, expected)
    if expected is None or digest == expected:
        return path, digest
    kind = "sha256" if len(expected) == 64 else "the hash"
    wrong = f"{name} of {repo}@{commit} has {kind} {digest}, expected {expected}"
    if not hub.may_ask(offline):
        raise WeightsError(
            f"{wrong}; fetch it again with `pyfau download` where there is a network"
        )
    try:
        path = hub.fetch(repo, name, commit, limit=limit, again=True, progress=access.progress)
    except WeightsError as error:
        raise WeightsError(f"{wrong}; fetching it again failed: {error}") from error
    digest = _digest(path, expected)
    if digest != expected:
        raise WeightsError(
            f"{wrong}; fetched again, it has {digest}: do not use this model, and inform its "
            f"publisher"
        )
    return path, digest


def _digest(path: Path, expected: str | None = None) -> str:
    """The sha256, or git's hash if that is what is expected (40 digits): small files on the Hub."""
    try:
        if expected is not None and len(expected) == 40:
            return git_sha1(path)
        return remembered_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error}") from error


def plain_file(folder: Path, name: str) -> Path:
    """A file of a model directory: a regular file that is inside after links are resolved.

    A snapshot in the Hub's cache is a directory of links into the `blobs` of its repository or of
    the whole cache. These count as inside.

    Raises:
        WeightsError: The file is missing, a device or pipe, outside, or too large for a model.
    """
    path = folder / name
    try:
        if not path.is_file():
            problem = f"{name} is missing"
            if path.is_symlink() or path.exists():
                problem = f"{name} is a broken link, or not a regular file"
            raise WeightsError(f"{folder} is not a model directory: {problem}")
        inside = [folder.resolve()]
        snapshots, repo = inside[0].parent, inside[0].parent.parent
        if snapshots.name == "snapshots" and repo.name.startswith("models--"):
            inside += [repo / "blobs", repo.parent / "blobs"]
        if not any(path.resolve().is_relative_to(root) for root in inside):
            raise WeightsError(
                f"{folder} is refused: {name} is a link that leads out of it, to {path.resolve()}"
            )
        _check_size(path)
    except (OSError, RuntimeError) as error:  # such as links in a circle
        raise WeightsError(f"{path} could not be read: {error}") from error
    return path


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise WeightsError(
            f"{path} has {size} bytes, too many for a model: at most {MAX_BYTES} are read"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def how_to_get(entry: ManifestEntry) -> str:
    """How to get a model that nobody has published."""
    r = entry.record
    known = f" with sha256 {r['sha256']}" if r.get("sha256") else ""
    fold = f" --fold {r['fold']}" if "fold" in r else ""
    return (
        f"the weights of {entry.name} are not published in a form that pyfau can download. Get the "
        f"authors' file {r['official_file']}{known} for {r['data'].upper()} with {r['backbone']} "
        f"(once shared at {r['official_folder']}, or ask the authors), then run `pyfau convert "
        f"{r['official_file']} --net {r['network']} --backbone {r['backbone']} --data {r['data']}"
        f"{fold} -o {entry.name}` and give the directory {entry.name} as the model, or the file "
        f'itself: AUDetector("{r["official_file"]}")'
    )


def _not_found(name: str) -> str:
    close = difflib.get_close_matches(name, list(read_manifest()), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown model {name!r}: {hint}expected a name listed by `pyfau models`, an existing "
        f"model directory or .pth file, or user/repo on the Hugging Face Hub"
    )
