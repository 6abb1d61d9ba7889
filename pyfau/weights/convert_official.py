"""From the authors' checkpoint to a model directory."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from pyfau.errors import OptionError, WeightsError
from pyfau.models.mdhr import MDHR
from pyfau.weights.hashes import file_sha256
from pyfau.weights.manifest import ManifestEntry, read_manifest
from pyfau.weights.networks import NETWORKS, read_official
from pyfau.weights.read import check_finite
from pyfau.weights.store import load_model, save_model, score_test_clip

_FRAMES = 4  # of the test clip
TOLERANCE = 1e-6  # between the scores before and after the conversion


def convert_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    net: str | None = None,
    backbone: str | None = None,
    data: str | None = None,
    fold: int | None = None,
) -> ManifestEntry | None:
    """Write a model directory from an official checkpoint.

    The network is recognised from its tensors. `net`, `backbone` and `data` state what the caller
    expects; the conversion fails if the file is something else.

    Args:
        checkpoint: The authors' `.pth` file.
        folder: New or empty directory. It appears complete, or not at all.
        net: Expected network, such as "mdhr"; None accepts any.
        backbone: Expected backbone, such as "resnet50"; None accepts any.
        data: Expected data set, such as "bp4d"; None accepts any.
        fold: The fold of the cross-validation that this file belongs to. No file states it.

    Returns:
        The manifest entry of this model, or None if the manifest does not list it.

    Raises:
        WeightsError: The file is not a checkpoint of a known network, the directory cannot be
            written, or the converted network gives other scores.
        OptionError: The directory is not empty, or the file is not what the options state.
    """
    check_new_folder(folder)
    if not checkpoint.is_file():
        raise WeightsError(
            f"{checkpoint} is not a file: expected the authors' checkpoint, "
            f"such as best_model_fold1.pth"
        )
    network, config, state = read_official(checkpoint)
    check_finite(state, str(checkpoint))
    recognised = {
        "net": config.network,
        "backbone": config.backbone,
        "data": config.name.rsplit("-", 1)[-1],
    }
    _check_expected(checkpoint, recognised, {"net": net, "backbone": backbone, "data": data})
    entry = _manifest_entry(config.name, recognised, fold)
    name = config.name if entry is None else entry.name
    source = f"{config.source} {checkpoint.name}, sha256 {file_sha256(checkpoint)}"
    config = dataclasses.replace(config, name=name, source=source)
    model = network.build(config)
    model.load_state_dict(state)
    del state  # the network holds a copy; a checkpoint can have hundreds of megabytes
    scores = score_test_clip(model.eval(), _FRAMES)
    if not bool(scores.isfinite().all()):
        raise WeightsError(f"{checkpoint} gives scores that are not finite on a test clip")
    facts = None if entry is None else entry.record
    try:
        _write_directory(model, scores, facts, checkpoint, folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} could not be written: {error}") from error
    return entry


def check_new_folder(folder: Path) -> None:
    """Make sure that a directory can appear complete in one step.

    Raises:
        OptionError: It has files, or its name cannot be given to another directory.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} already exists: give a new directory as --output")
    if folder.is_symlink() or not folder.name or folder.name == "..":
        raise OptionError(
            f"{folder} cannot be replaced by a new directory: give its own name as --output"
        )


def _check_expected(
    checkpoint: Path, recognised: Mapping[str, str], expected: Mapping[str, str | None]
) -> None:
    for option, value in expected.items():
        if value is None or value == recognised[option]:
            continue
        found = ", ".join(f"--{name} {text}" for name, text in recognised.items())
        raise OptionError(
            f"{checkpoint} is not --{option} {value}: its tensors are those of {found}"
        )


def _manifest_entry(
    name: str, recognised: Mapping[str, str], fold: int | None
) -> ManifestEntry | None:
    """The entry of the manifest for this network and fold."""
    wanted = list(recognised.values())
    by_fold = {}
    for entry in read_manifest().values():
        fields = [entry.record[field] for field in ("network", "backbone", "data")]
        # Networks of two stages share these fields.
        if fields == wanted and entry.name.partition("-fold")[0] == name:
            by_fold[entry.record.get("fold")] = entry
    if fold is not None and fold not in by_fold:
        folds = sorted(known for known in by_fold if known)
        raise OptionError(f"--fold must be one of {folds} for {name}, got {fold}")
    return by_fold.get(fold)


def _write_directory(
    model: MDHR,
    scores: Tensor,
    facts: Mapping[str, Any] | None,
    checkpoint: Path,
    folder: Path,
) -> None:
    """Write next to the directory, load it again, compare the scores, and move it into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        save_model(model, made)
        card = NETWORKS[model.config.network].card(model.config, facts)
        (made / "README.md").write_text(card, encoding="utf-8")
        difference = float((scores - score_test_clip(load_model(made), _FRAMES)).abs().max())
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{checkpoint}: the converted network gives other scores: the largest difference "
                f"is {difference:.2g}, expected at most {TOLERANCE:g}"
            )
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)
