"""Every model file on this machine, read again and compared with its hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from pyfau.errors import ConfigError
from pyfau.weights.find import CONFIG_FILE
from pyfau.weights.hashes import git_sha1, remembered_sha256
from pyfau.weights.hub import cached_tag
from pyfau.weights.manifest import read_manifest
from pyfau.weights.networks import read_network


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file of a model and the result of its check.

    Attributes:
        model: Name in the manifest, or `user/repo@commit` for the Hub's cache.
        path: The file.
        expected: Its hash as the manifest or the Hub states it; None if neither states one.
        digest: The hash of the file now, or "no contents" and the reason.
    """

    model: str
    path: Path
    expected: str | None
    digest: str

    @property
    def damaged(self) -> bool:
        """Whether the file differs from what it should be."""
        return self.expected is not None and self.digest != self.expected

    @property
    def remedy(self) -> str:
        """How to replace a damaged file."""
        if "@" in self.model:
            return f"delete {self.path.resolve()} and fetch it again"
        return "install pyfau again"


def check_files() -> Iterator[FileCheck]:
    """Check the bundled models and every pyfau model in the cache of the Hugging Face Hub.

    Yields:
        One record per file. Every file is read in full, whatever was remembered about it.
    """
    yield from _check_bundled()
    yield from _check_cache()


def _check_bundled() -> Iterator[FileCheck]:
    for name, entry in read_manifest().items():
        if entry.status != "bundled":
            continue
        with as_file(files("pyfau") / "assets" / name / entry.record["file"]) as path:
            yield _check(name, path, entry.record["sha256"])


def _check_cache() -> Iterator[FileCheck]:
    from huggingface_hub.constants import HF_HUB_CACHE

    pinned = _pinned_hashes()
    # Files of these repositories are models without a config.json of pyfau.
    listed = {entry.record["repo"] for entry in read_manifest().values() if entry.on_hub}
    for snapshot in sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*")):
        repo = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        model = f"{repo}@{snapshot.name}"
        known = pinned.get((repo, snapshot.name), {})
        if not known and repo not in listed and not _is_model(snapshot):
            # Either a model of another program, or one whose configuration is damaged.
            config = snapshot / CONFIG_FILE
            tag = cached_tag(config)
            if tag is not None:
                check = _check(model, config, tag)
                if check.damaged:
                    yield check
            continue
        for path in sorted(snapshot.iterdir()):
            if not path.is_dir():
                yield _check(model, path, known.get(path.name, cached_tag(path)))


def _pinned_hashes() -> dict[tuple[str, str], dict[str, str]]:
    """By repository and commit, the hashes that the manifest states."""
    pinned: dict[tuple[str, str], dict[str, str]] = {}
    for entry in read_manifest().values():
        if entry.status not in ("hub", "official"):
            continue
        record = entry.record
        hashes = pinned.setdefault((record["repo"], record["revision"]), {})
        hashes[record["file"]] = record["sha256"]
        if entry.status == "hub":
            hashes[CONFIG_FILE] = record["config_sha256"]
    return pinned


def _is_model(folder: Path) -> bool:
    try:
        read_network(folder / CONFIG_FILE)
    except ConfigError:
        return False
    return True


def _check(model: str, path: Path, expected: str | None) -> FileCheck:
    try:
        digest = _digest(path, expected)
    except OSError as error:
        digest = f"no contents ({error})"
    return FileCheck(model, path, expected, digest)


def _digest(path: Path, expected: str | None) -> str:
    """The sha256, or the hash that git uses if that is what is expected (40 digits)."""
    if expected is None or len(expected) == 64:
        return remembered_sha256(path, again=True)
    return git_sha1(path)
