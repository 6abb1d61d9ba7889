"""`pyfau verify`: every model file that is here, read again and compared with what it should be."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyfau.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "verify",
        help="check the bundled models and all models in the cache",
        description="Read the weights of the bundled models and every file of pyfau's models in the Hub's cache, "
        "and compare them with their hashes. The exit status is 1 if one is damaged.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line a file."""
    damaged = 0
    for model, path, expected in _files():
        try:
            digest = _digest(path, expected)
        except OSError as error:
            digest = f"no contents ({error})"
        if expected is None:
            state = f"nothing to compare with; sha256 {digest}"
        elif digest == expected:
            state = f"ok, {digest}"
        else:
            damaged += 1
            mend = f"delete {path.resolve()} and fetch it again" if "@" in model else "install pyfau again"
            state = f"DAMAGED: has {digest}, expected {expected}; {mend}"
        print(f"{model}: {path.name}: {state}")
    return 1 if damaged else 0


def _files() -> Iterator[tuple[str, Path, str | None]]:
    """The model, a file of it, and what its hash should be."""
    from importlib.resources import as_file, files

    from huggingface_hub.constants import HF_HUB_CACHE

    from pyfau.weights.hub import cached_tag
    from pyfau.weights.manifest import read_manifest
    from pyfau.weights.networks import read_network

    pinned: dict[tuple[str, str], dict[str, str]] = {}
    for name, entry in read_manifest().items():
        record = entry.record
        if entry.status == "bundled":
            with as_file(files("pyfau") / "assets" / name / record["file"]) as path:
                yield name, path, record["sha256"]
        elif entry.status == "hub":
            known = {"config.json": record["config_sha256"], record["file"]: record["sha256"]}
            pinned[record["repo"], record["revision"]] = known
    for snapshot in sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*")):
        repo = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        known = pinned.get((repo, snapshot.name), {})
        if not known:
            try:
                read_network(snapshot / "config.json")
            except ConfigError:
                # Not a model of pyfau, or one whose configuration is damaged.
                config = snapshot / "config.json"
                tag = cached_tag(config)
                if tag is not None and not _is_whole(config, tag):
                    yield f"{repo}@{snapshot.name}", config, tag
                continue
        for path in sorted(p for p in snapshot.iterdir() if not p.is_dir()):
            yield f"{repo}@{snapshot.name}", path, known.get(path.name, cached_tag(path))


def _digest(path: Path, expected: str | None) -> str:
    """The sha256, or what git calls a file where that is expected."""
    from pyfau.weights.hashes import git_sha1, remembered_sha256

    if expected is None or len(expected) == 64:
        return remembered_sha256(path, again=True)
    return git_sha1(path)


def _is_whole(path: Path, expected: str) -> bool:
    try:
        return _digest(path, expected) == expected
    except OSError:
        return False
