"""A model directory to the Hugging Face Hub, and its entry for the manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyfau.errors import OptionError, WeightsError
from pyfau.models.config import MDHRConfig
from pyfau.weights.find import CONFIG_FILE, WEIGHTS_FILE, plain_file
from pyfau.weights.hashes import file_sha256
from pyfau.weights.hub import publish_files
from pyfau.weights.manifest import HUB_ID, parse_manifest, read_manifest
from pyfau.weights.store import open_model

CARD_FILE = "README.md"
NOT_STATED = "not stated"
_FACTS = ("data", "code_licence", "weights_licence", "training_data", "training_terms", "source")
_OPTIONAL_FACTS = ("fold", "reported_metrics")


@dataclass(frozen=True, slots=True)
class Publication:
    """A model directory that is ready for the Hub: it loads, and its manifest entry is valid.

    Attributes:
        folder: The model directory.
        repo: `user/repo`.
        config: Configuration of the network.
        facts: Licences, training data and source, as the manifest states them.
    """

    folder: Path
    repo: str
    config: MDHRConfig
    facts: Mapping[str, Any]

    @property
    def not_stated(self) -> list[str]:
        """The facts that the manifest does not state yet."""
        return [name for name, value in self.facts.items() if value == NOT_STATED]

    def upload(self, *, private: bool = False) -> dict[str, Any]:
        """Upload config.json, model.safetensors and README.md in one commit, and nothing else.

        Args:
            private: Make the repository private, if it does not exist yet.

        Returns:
            The manifest entry, with the commit, under the name of the model.

        Raises:
            WeightsError: The upload failed.
        """
        commit = publish_files(
            self.folder,
            (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE),
            self.repo,
            private=private,
            message=f"{self.config.name}, made by pyfau",
        )
        return make_entry(self.config, self.folder, self.repo, commit, self.facts)


def prepare_publication(folder: Path, repo: str) -> Publication:
    """Check a model directory before it is published. Nothing is uploaded.

    Args:
        folder: Model directory with config.json, model.safetensors and README.md.
        repo: `user/repo` on the Hugging Face Hub.

    Raises:
        OptionError: `repo` is not the name of a repository.
        WeightsError: A file is missing or damaged, or the manifest entry would not be valid.
    """
    if not re.fullmatch(HUB_ID, repo):
        raise OptionError(f"expected a repository as user/repo, got {repo!r}")
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a model directory")
    # The slash keeps a folder from being mistaken for a name of the manifest.
    config = open_model(f"{folder}/").model.config
    plain_file(folder, CARD_FILE)
    facts = _known_facts(config.name)
    make_entry(config, folder, repo, "0" * 40, facts)  # an invalid entry fails here
    return Publication(folder, repo, config, facts)


def _known_facts(name: str) -> dict[str, Any]:
    """What the manifest states about the origin of a model."""
    known = read_manifest().get(name)
    if known is None:
        return dict.fromkeys(_FACTS, NOT_STATED)
    fields = (*_FACTS, *_OPTIONAL_FACTS)
    return {field: known.record[field] for field in fields if field in known.record}


def make_entry(
    config: MDHRConfig, folder: Path, repo: str, commit: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest entry of a published model, under its name.

    Raises:
        WeightsError: The entry is not valid, for example because of the name of the model.
    """
    record = {
        "status": "hub",
        "network": config.network,
        "backbone": config.backbone,
        "aus": list(config.aus),
        "template": [list(point) for point in config.template],
        "aligner": config.aligner,
        "repo": repo,
        "revision": commit,
        "file": WEIGHTS_FILE,
        "sha256": file_sha256(folder / WEIGHTS_FILE),
        "config_sha256": file_sha256(folder / CONFIG_FILE),
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
        "version": config.version,
        **facts,
    }
    entry = {config.name: record}
    text = json.dumps({"format": 1, "models": entry})
    parse_manifest(text, origin="the entry for weights_manifest.json")
    return entry
