"""`pyfau convert`: from the authors' checkpoint to a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.errors import OptionError, WeightsError

if TYPE_CHECKING:
    from pyfau.models.mdhr import MDHR
    from pyfau.weights.manifest import ManifestEntry


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    parser = commands.add_parser(
        "convert",
        help="make a model directory of the authors' checkpoint",
        description="Make a model directory (config.json, model.safetensors, README.md) of the authors' checkpoint. "
        "The network is recognised by its tensors; what you say of it must agree.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="such as best_model_fold1.pth")
    parser.add_argument("--net", help="such as mdhr")
    parser.add_argument("--backbone", help="such as resnet50 or swin_b")
    parser.add_argument("--data", help="such as bp4d or disfa")
    parser.add_argument("--fold", type=int, help="the fold that was left out of the training; no file says it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a new directory")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, check, and say what was made."""
    entry = convert_checkpoint(
        args.checkpoint, args.output, net=args.net, backbone=args.backbone, data=args.data, fold=args.fold
    )
    name = entry.name if entry is not None else "a model that the manifest does not list; --fold names the fold"
    print(f"{args.output}: {name}, checked against {args.checkpoint} on a test clip")
    return 0


def convert_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    net: str | None = None,
    backbone: str | None = None,
    data: str | None = None,
    fold: int | None = None,
) -> ManifestEntry | None:
    """Write a model directory of an official checkpoint.

    Args:
        checkpoint: The authors' `.pth` file.
        folder: Where to write; must not exist or be empty. It appears whole or not at all.
        net: What the network is said to be; None to take what is recognised. So for the next two.
        backbone: Such as "resnet50".
        data: Such as "bp4d".
        fold: Which fold the file is of.

    Returns:
        The manifest's entry of this model, if it has one.

    Raises:
        WeightsError: No checkpoint of a known network, or it does not score as before once it is written.
        OptionError: The directory is not empty, or the file is not what it is said to be.
    """
    import dataclasses
    import shutil
    import tempfile

    from safetensors import SafetensorError

    from pyfau.weights.card import model_card
    from pyfau.weights.hashes import file_sha256
    from pyfau.weights.manifest import read_manifest
    from pyfau.weights.networks import read_official
    from pyfau.weights.store import check_finite, load_model, save_model

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} is there already: give a new directory as --output")
    if folder.is_symlink() or not folder.name or folder.name == "..":
        raise OptionError(f"{folder} cannot be replaced by a new directory: give its own name as --output")
    if not checkpoint.is_file():
        raise WeightsError(
            f"{checkpoint} is not a file: expected the authors' checkpoint, such as best_model_fold1.pth"
        )
    network, config, state = read_official(checkpoint)
    check_finite(state, str(checkpoint))
    recognised = {"net": config.network, "backbone": config.backbone, "data": config.name.rsplit("-", 1)[-1]}
    said = {"net": net, "backbone": backbone, "data": data}
    for option, value in said.items():
        if value is not None and value != recognised[option]:
            what = ", ".join(f"--{name} {found}" for name, found in recognised.items())
            raise OptionError(f"{checkpoint} is not --{option} {value}: by its tensors it is {what}")
    known = {
        e.record.get("fold"): e
        for e in read_manifest().values()
        if [e.record[k] for k in ("network", "backbone", "data")] == list(recognised.values())
    }
    if fold is not None and fold not in known:
        raise OptionError(f"--fold must be one of {sorted(k for k in known if k)} for {config.name}, got {fold}")
    entry = known.get(fold)
    source = f"{config.source} {checkpoint.name}, sha256 {file_sha256(checkpoint)}"
    config = dataclasses.replace(config, name=entry.name if entry else config.name, source=source)
    model = network.build(config)
    model.load_state_dict(state)
    before = _score(model.eval())
    if not bool(before.isfinite().all()):
        raise WeightsError(f"{checkpoint} gives scores that are not finite on a test clip")
    del state
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "model"
            save_model(model, made)
            (made / "README.md").write_text(model_card(config, entry.record if entry else None), encoding="utf-8")
            after = _score(load_model(made))
            if not (before - after).abs().max() <= 1e-6:
                raise WeightsError(
                    f"{checkpoint}: the converted network does not score as before: the largest difference is "
                    f"{float((before - after).abs().max()):.2g}, expected at most 1e-6"
                )
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} could not be written: {error}") from error
    return entry


def _score(model: MDHR) -> Any:
    """Scores (1, 4, N) of a clip of noise, the same at every call."""
    import numpy as np
    import torch

    size = model.config.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        return model(model.preprocess(pixels))
