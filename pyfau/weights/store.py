"""From a name, path or Hub repository to a network that is what it claims to be."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyfau.errors import ConfigError, DeviceError, OptionError, WeightsError
from pyfau.models.config import MDHRConfig, read_config
from pyfau.models.mdhr import MDHR
from pyfau.weights.convert import load_official
from pyfau.weights.manifest import ManifestEntry, read_manifest

DEFAULT_MODEL = "mdhr-lite"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network and where it came from.

    Attributes:
        model: In eval mode, on the device asked for.
        sha256: Of the weights file, hexadecimal.
        origin: Path or Hub repository and revision.
    """

    model: MDHR
    sha256: str
    origin: str


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn a device option into a device that is there.

    Args:
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps", or a torch.device.

    Raises:
        DeviceError: Unknown, or not available on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"unknown device {device!r}: expected auto, cpu, cuda, cuda:N, mps or a torch.device"
        ) from error
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= count):
        raise DeviceError(f"device {str(device)!r} is not available: this torch sees {count} CUDA devices")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not available on this machine")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device {str(device)!r}: expected auto, cpu, cuda, cuda:N or mps")
    return chosen


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> MDHR:
    """Load a network to work with tensors: `preprocess`, `encode`, `relate`, or call it on clips.

    Args:
        name_or_path: A bundled or manifest name, a model directory (config.json, model.safetensors), an official
            `.pth` checkpoint, or `user/repo` on the Hugging Face Hub.
        device: Where to put it; see `pyfau.AUDetector`.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not ask the Hub; use what its cache holds.

    Returns:
        The network in eval mode. Its gradients are off.

    Raises:
        WeightsError: It could not be found, fetched, verified or loaded.
        DeviceError: The device is unknown or not available.
    """
    return open_model(name_or_path, device, revision=revision, local_files_only=local_files_only).model


def open_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> LoadedModel:
    """As `load_model`, with the hash and origin of the weights."""
    target = resolve_device(device)
    name = str(name_or_path)
    entry = read_manifest().get(name)
    with ExitStack() as stack:
        if revision is not None and (entry is not None or _exists(Path(name))):
            raise OptionError(f"revision {revision!r} is for a Hub repository, and {name} is none")
        expected: str | None = None
        if entry is not None and entry.status == "bundled":
            path = stack.enter_context(as_file(files("pyfau") / "assets" / name))
            origin, expected = f"bundled {name}", entry.record["sha256"]
        elif entry is not None and entry.status == "hub":
            pinned = entry.record["revision"]
            path = _fetch(entry.record["repo"], pinned, local_files_only)
            origin, expected = f"{entry.record['repo']}@{pinned}", entry.record["sha256"]
        elif entry is not None:
            raise WeightsError(_how_to_get(entry))
        elif _exists(Path(name)):
            path = Path(name)
            origin = str(path)
        elif _HUB_ID.fullmatch(name) and not name.endswith((".pth", ".pt", ".safetensors")):
            path = _fetch(name, revision, local_files_only)
            origin = f"{name}@{revision or 'main'}"
        else:
            raise WeightsError(_not_found(name))
        weights = path / WEIGHTS_FILE if path.is_dir() else path
        digest = file_sha256(weights) if weights.is_file() else ""
        if expected is not None and digest != expected:
            found = digest or "no file"
            raise WeightsError(f"the weights of {name} have sha256 {found}, expected {expected}: the file is damaged")
        config, state = _read_directory(path) if path.is_dir() else _read_file(path)
    try:
        model = MDHR(config)
    except (TypeError, ValueError, RuntimeError) as error:
        options = dict(config.backbone_options)
        raise ConfigError(f"{origin}: no {config.backbone} with backbone_options {options}: {error}") from error
    _check_state(model, state, origin)
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    model.to(target).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedModel(model, digest, origin)


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


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _read_directory(folder: Path) -> tuple[MDHRConfig, Mapping[str, Tensor]]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} is not a model directory: {name} is missing")
    config = read_config(folder / CONFIG_FILE)
    weights = folder / WEIGHTS_FILE
    try:
        with safe_open(str(weights), framework="pt") as tensors:
            state = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights} is not a safetensors file: {error}") from error
    return config, state


def _read_file(path: Path) -> tuple[MDHRConfig, Mapping[str, Tensor]]:
    if path.suffix == ".safetensors":
        raise WeightsError(f"{path} is a weights file alone: give the directory that holds it and its {CONFIG_FILE}")
    return load_official(path)


def _check_state(model: MDHR, state: Mapping[str, Tensor], origin: str) -> None:
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise WeightsError(f"{origin}: missing tensors {missing[:8] or 'none'}, unexpected {unexpected[:8] or 'none'}")
    for key, value in own.items():
        got = state[key]
        if got.shape != value.shape or got.is_floating_point() != value.is_floating_point():
            raise WeightsError(
                f"{origin}: {key} is {got.dtype} {tuple(got.shape)}, expected {value.dtype} {tuple(value.shape)}"
            )
        if got.is_floating_point() and not bool(torch.isfinite(got.to(value.dtype)).all()):
            raise WeightsError(f"{origin}: {key} holds numbers that are not finite")


def _fetch(repo: str, revision: str | None, local_files_only: bool) -> Path:
    """Download config.json and model.safetensors of a Hub repository into the Hub's own cache."""
    from huggingface_hub import hf_hub_download

    where = f"{repo}@{revision or 'main'}"
    try:
        paths = [
            Path(hf_hub_download(repo, name, revision=revision, local_files_only=local_files_only))
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        ]
    except Exception as error:
        # The client's errors come from three libraries; all of them mean that the files are not here.
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
        raise WeightsError(
            f"{where} could not be fetched from the Hugging Face Hub, and there is no such directory here: {reason}"
        ) from error
    return paths[0].parent


def _how_to_get(entry: ManifestEntry) -> str:
    record = entry.record
    return (
        f"the weights of {entry.name} are not published in a form that pyfau can download. Get the authors' file "
        f"{record['official_file']} for {record['data'].upper()} with {record['backbone']} "
        f"(once shared at {record['official_folder']}, or ask the authors of MDHR), then pass its path: "
        f'AUDetector("{record["official_file"]}")'
    )


def _not_found(name: str) -> str:
    known = list(read_manifest())
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown model {name!r}: {hint}expected a name listed by `pyfau models`, an existing model directory or .pth "
        f"file, or user/repo on the Hugging Face Hub"
    )
