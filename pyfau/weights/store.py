"""Loading and saving of networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyfau.errors import OptionError, WeightsError
from pyfau.models.devices import resolve_device
from pyfau.models.mdhr import MDHR
from pyfau.models.protocol import AUNetwork
from pyfau.weights.find import CONFIG_FILE, DEFAULT_MODEL, WEIGHTS_FILE, find_model
from pyfau.weights.hashes import file_sha256
from pyfau.weights.licences import print_licence
from pyfau.weights.read import read_found


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network and where it came from.

    Attributes:
        model: The network, in eval mode, on the requested device.
        sha256: Hash of the weights file, hexadecimal.
        origin: Path, or Hub repository and commit.
        folder: The model directory, which may have the file of `pyfau quantise`; None for a
            bundled model and an official checkpoint.
    """

    model: MDHR
    sha256: str
    origin: str
    folder: Path | None = None


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    precision: str | None = None,
    engine: str = "auto",
) -> MDHR:
    """Load a network to work with tensors: `preprocess`, `encode`, `relate`, or call it on clips.

    Args:
        name_or_path: Tried in this order: a name of the manifest, a model directory (config.json,
            model.safetensors) or an official `.pth` checkpoint, and `user/repo` on the Hugging
            Face Hub.
        device: Where to put it; see `pyfau.AUDetector`.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not contact the Hub; use its cache only.
        precision: None for the plain network, to train, save or examine it. Otherwise the
            precision of an inference copy, as for `pyfau.AUDetector`. Such a copy is several times
            faster, and can neither be trained nor saved.
        engine: Inference backend for the encoder, as for `pyfau.AUDetector`; needs a precision.

    Returns:
        The network in eval mode, with gradients off. A network that scores single frames is a
        `pyfau.models.frame_network.FrameNetwork`: it has `preprocess` and the call, but no
        `encode`.

    Raises:
        WeightsError: The model could not be found, fetched, verified or loaded.
        DeviceError: The device is unknown or not available.
        OptionError: The precision or engine is unknown or not for this device.
    """
    if precision is None and engine != "auto":
        raise OptionError(
            f"engine {engine!r} is for an inference copy: give a precision, such as 'auto'"
        )
    loaded = open_model(name_or_path, device, revision=revision, local_files_only=local_files_only)
    model = loaded.model
    if precision is not None:
        from pyfau.models.inference import accelerate

        accelerate(model, precision, engine, loaded.folder)
    return model


def open_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> LoadedModel:
    """As `load_model`, with the hash and origin of the weights.

    `progress` states whether a download shows its progress.
    """
    target = resolve_device(device)
    with find_model(
        name_or_path, revision=revision, local_files_only=local_files_only, progress=progress
    ) as found:
        network, config, state = read_found(found)
    print_licence(config)
    model = network.build(config)
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    bundled = found.entry is not None and found.entry.status == "bundled"
    if not bundled:  # the hash of a bundled model is known, and so are its scores
        _check_scores(model, found.origin)
    # A bundled model in a zip file is a folder only until `find_model` ends.
    folder = found.path if found.path.is_dir() and not bundled else None
    layout = getattr(model, "memory_format", torch.channels_last)
    model.to(target).to(memory_format=layout)
    return LoadedModel(model, found.sha256, found.origin, folder)


def score_test_clip(model: AUNetwork, frames: int) -> Tensor:
    """Scores (1, T, N) of a clip of noise that is the same at every call.

    Args:
        model: A plain network in eval mode.
        frames: T. With two frames, every layer of a network with context takes part.
    """
    size = model.config.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, frames, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        scores: Tensor = model(model.preprocess(pixels))
    return scores


def _check_scores(model: AUNetwork, origin: str) -> None:
    """Check that scores are finite: a product of two large finite weights can overflow."""
    frames = 2 if model.context else 1  # a network with context also uses differences of frames
    scores = score_test_clip(model, frames)[0].cpu()
    wrong = []
    for i, output in enumerate(model.config.outputs):
        least, most = output.range
        if not bool(((scores[:, i] >= least) & (scores[:, i] <= most)).all()):  # NaN is wrong too
            wrong.append(output.column)
    if wrong:
        raise WeightsError(
            f"{origin}: the network gives scores outside their range on a test clip, for "
            f"{', '.join(wrong)}: do not use this model"
        )


def save_model(model: MDHR, folder: Path, dtype: torch.dtype = torch.float32) -> str:
    """Write a model directory: config.json and model.safetensors.

    Returns:
        The sha256 of the weights file.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(state, str(folder / WEIGHTS_FILE))
    (folder / CONFIG_FILE).write_text(model.config.to_json(), encoding="utf-8")
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes files that only the owner can read
    return file_sha256(folder / WEIGHTS_FILE)
