"""`pyfau publish`: a model directory to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pyfau.errors import OptionError, WeightsError

_NOT_STATED = "not stated"


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "publish",
        help="upload a model directory to the Hugging Face Hub",
        description="Upload config.json, model.safetensors and README.md of a model directory, and nothing else of it, "
        "in one commit, and print the entry for weights_manifest.json. Log in first: `hf auth login` or HF_TOKEN.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="such as pyfau convert makes")
    parser.add_argument("repo", metavar="user/repo", help="is made if it is not there")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is made")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the directory, upload it, and print the manifest's entry."""
    import re

    from pyfau.weights.hub import publish_files
    from pyfau.weights.manifest import HUB_ID
    from pyfau.weights.store import CONFIG_FILE, WEIGHTS_FILE, open_model, plain_file

    if not re.fullmatch(HUB_ID, args.repo):
        raise OptionError(f"a repository is given as user/repo, got {args.repo!r}")
    if not args.folder.is_dir():
        raise WeightsError(f"{args.folder} is not a model directory")
    loaded = open_model(f"{args.folder}/")  # and so complete, of the right shapes, finite
    names = (CONFIG_FILE, WEIGHTS_FILE, "README.md")
    plain_file(args.folder, names[-1])
    facts = _facts(loaded.model.config.name)
    if facts["weights_licence"].startswith("not stated"):
        print(
            f"pyfau: the licence of these weights is {facts['weights_licence']}: make sure that you may publish them",
            file=sys.stderr,
        )
    make_entry(loaded.model.config, args.folder, args.repo, "0" * 40, facts)  # fails before anything is uploaded
    commit = publish_files(
        args.folder, names, args.repo, private=args.private, message=f"{loaded.model.config.name}, made by pyfau"
    )
    entry = make_entry(loaded.model.config, args.folder, args.repo, commit, facts)
    print(json.dumps(entry, indent=2))
    empty = [field for field, value in next(iter(entry.values())).items() if value == _NOT_STATED]
    if empty:
        print(f"pyfau: state before you add it to weights_manifest.json: {', '.join(empty)}", file=sys.stderr)
    return 0


def _facts(name: str) -> dict[str, Any]:
    """What the manifest says of the model's origin, or that nobody has said it."""
    from pyfau.weights.manifest import read_manifest

    fields = ("data", "fold", "code_licence", "weights_licence", "training_data", "training_terms", "source")
    known = read_manifest().get(name)
    if known is None:
        return {field: _NOT_STATED for field in fields if field != "fold"}
    return {field: known.record[field] for field in (*fields, "reported_metrics") if field in known.record}


def make_entry(config: Any, folder: Path, repo: str, commit: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The manifest's entry of a model that was published, by its name.

    Raises:
        WeightsError: It would not be a valid entry, by the name of the model for example.
    """
    from pyfau.weights.hashes import file_sha256
    from pyfau.weights.manifest import parse_manifest
    from pyfau.weights.store import CONFIG_FILE, WEIGHTS_FILE

    record = {
        "status": "hub",
        "network": config.network,
        "backbone": config.backbone,
        "aus": list(config.aus),
        "template": [list(point) for point in config.template],
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
    parse_manifest(json.dumps({"format": 1, "models": entry}), origin="the entry for weights_manifest.json")
    return entry
