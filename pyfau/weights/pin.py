"""Commit, size and hash of an authors' file, for a manifest entry that lacks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pyfau.errors import OptionError, WeightsError
from pyfau.weights.find import find_model, how_to_get
from pyfau.weights.hashes import file_sha256
from pyfau.weights.manifest import ManifestEntry, parse_manifest, read_manifest
from pyfau.weights.networks import read_official

_FIRST = ("status", "network", "backbone", "data", "fold")  # fields in the order of the manifest


def pin_entry(
    name: str,
    *,
    revision: str | None = None,
    file: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compute the missing fields of the manifest entry of a model.

    The authors' file is read, without running code from it, and must be of the network that the
    entry names.

    Args:
        name: Name of an entry with status "unpinned", or, with `file`, "convert".
        revision: For a file on the Hugging Face Hub: commit, tag or branch; None for the main
            branch. The entry gets the commit that it stands for.
        file: For a file that is not on the Hub: the file that you got from its authors.
        progress: Whether a download shows its progress.

    Returns:
        The whole entry under its name, as in weights_manifest.json. Its status is "official" for
        a file on the Hub, and "convert" for other files.

    Raises:
        OptionError: The name is not in the manifest, is pinned already, or an option does not fit.
        WeightsError: The file could not be fetched or read, or is of another network.
    """
    entry = _entry(name, revision, file)
    record = dict(entry.record)
    if file is None:
        with find_model(name, revision=revision or "main", progress=progress) as found:
            _check_network(entry, found.path)
            record |= {
                "status": "official",
                "revision": found.path.parent.name,
                "sha256": found.sha256,
                "bytes": found.path.stat().st_size,
            }
    else:
        _check_network(entry, file)
        record |= {
            "status": "convert",
            "sha256": file_sha256(file),
            "bytes": file.stat().st_size,
        }
    first = {field: record[field] for field in _FIRST if field in record}
    made = {name: first | record}
    text = json.dumps({"format": 1, "models": made})
    parse_manifest(text, origin="the entry for weights_manifest.json")
    return made


def _entry(name: str, revision: str | None, file: Path | None) -> ManifestEntry:
    """The entry to pin, once the options fit it."""
    entry = read_manifest().get(name)
    if entry is None:
        raise OptionError(f"{name} is not a name that `pyfau models` lists")
    if entry.status not in ("unpinned", "convert"):
        raise OptionError(f"{name} needs no pin: its status is {entry.status!r}")
    if entry.on_hub and file is not None:
        raise OptionError(
            f"{name} is on the Hub, in {entry.record['repo']}: --file is for files that are not"
        )
    if entry.on_hub:
        return entry
    if revision is not None:
        raise OptionError(f"{name} is not on the Hub: --revision does not apply; give --file")
    if file is None:
        raise WeightsError(f"{how_to_get(entry)}. `pyfau pin {name} --file PATH` prints its hash")
    if not file.is_file():
        raise WeightsError(f"{file} is not a file: expected the authors' checkpoint")
    return entry


def _check_network(entry: ManifestEntry, path: Path) -> None:
    """Refuse the file of another network, stage, backbone or data set."""
    _, config, _ = read_official(path)
    expected = entry.name.partition("-fold")[0]
    if config.name != expected:
        raise WeightsError(f"{path} is {config.name}, expected {expected} for {entry.name}")
