"""From a name, path or Hub repository to a network that is what it claims to be."""

from __future__ import annotations

import difflib
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyfau.errors import ConfigError, DeviceError, OptionError, WeightsError
from pyfau.models.mdhr import MDHR
from pyfau.weights import hub
from pyfau.weights.hashes import file_sha256, git_sha1, remembered_sha256
from pyfau.weights.manifest import HUB_ID, MAX_BYTES, ManifestEntry, read_manifest
from pyfau.weights.networks import Network, read_network, read_official
from pyfau.weights.shapes import state_without_data

DEFAULT_MODEL = "mdhr-lite"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
MAX_PARAMETERS = 400_000_000  # the paper's largest network has 108 million
_MAX_HEADER = 10_000_000  # bytes; the largest network of the paper needs 50 thousand
_FLOATS = ("F16", "BF16", "F32")  # what a float32 tensor may be stored as


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
    precision: str | None = None,
    engine: str = "auto",
) -> MDHR:
    """Load a network to work with tensors: `preprocess`, `encode`, `relate`, or call it on clips.

    Args:
        name_or_path: Tried in this order: a bundled or manifest name, a model directory (config.json,
            model.safetensors) or an official `.pth` checkpoint, and `user/repo` on the Hugging Face Hub.
        device: Where to put it; see `pyfau.AUDetector`.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not ask the Hub; use what its cache holds.
        precision: None for the plain network, to train, save or look into; or how an inference copy is to encode, as
            for `pyfau.AUDetector`. Such a copy is several times faster and can do nothing else.
        engine: Who encodes, as for `pyfau.AUDetector`; needs a precision.

    Returns:
        The network in eval mode. Its gradients are off.

    Raises:
        WeightsError: It could not be found, fetched, verified or loaded.
        DeviceError: The device is unknown or not available.
        OptionError: A precision or engine that is unknown or not for this device.
    """
    if precision is None and engine != "auto":
        raise OptionError(f"engine {engine!r} is for an inference copy: give a precision, such as 'auto'")
    model = open_model(name_or_path, device, revision=revision, local_files_only=local_files_only).model
    if precision is not None:
        from pyfau.models.inference import accelerate

        accelerate(model, precision, engine)
    return model


def open_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> LoadedModel:
    """As `load_model`, with the hash and origin of the weights, and a choice whether a download shows its progress."""
    target = resolve_device(device)
    with find_model(name_or_path, revision=revision, local_files_only=local_files_only, progress=progress) as found:
        network, config, state = read_found(found)
    model = network.build(config)
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    model.to(target).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedModel(model, found.sha256, found.origin)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """The files of a model, which are here and are those that they should be.

    Attributes:
        path: A model directory, or an official `.pth` file.
        weights: The file of the weights: in that directory, or that file itself.
        sha256: Of that file, hexadecimal.
        origin: Path, or Hub repository and commit.
        entry: Of the manifest, for a name that it knows.
    """

    path: Path
    weights: Path
    sha256: str
    origin: str
    entry: ManifestEntry | None = None


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
        name_or_path: As for `load_model`, as are `revision` and `local_files_only`.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not ask the Hub; use what its cache holds.
        progress: Whether a download shows its progress.

    Yields:
        The files, which may be gone afterwards if they lay in a zipped package.

    Raises:
        WeightsError: They could not be found or fetched, or are not what they should be.
        OptionError: A revision of something that is not on the Hub.
    """
    name = str(name_or_path)
    entry = read_manifest().get(name)
    here = entry is None and _exists(Path(name))
    if revision is not None and (entry is not None or here):
        raise OptionError(f"revision {revision!r} is for a Hub repository, and {name} is none")
    if revision == "":
        raise OptionError("revision is empty text: give a commit, tag or branch, or leave it out")
    if entry is not None and entry.status == "bundled":
        with as_file(files("pyfau") / "assets" / name) as path:
            weights = path / entry.record["file"]
            digest = _digest(weights) if weights.is_file() else "no file"
            if digest != entry.record["sha256"]:
                raise WeightsError(
                    f"the weights of {name} have sha256 {digest}, expected {entry.record['sha256']}: the file is "
                    f"damaged; install pyfau again"
                )
            yield FoundModel(path, weights, digest, f"bundled {name}", entry)
    elif entry is not None and entry.status == "hub":
        r = entry.record
        known = {CONFIG_FILE: r["config_sha256"], r["file"]: r["sha256"]}
        yield _fetch_model(r["repo"], r["revision"], known, local_files_only, progress, entry)
    elif entry is not None:
        raise WeightsError(how_to_get(entry))
    elif here:
        path = Path(name)
        weights = path
        if path.is_dir():
            weights = plain_file(path, WEIGHTS_FILE)
        elif path.suffix == ".safetensors":
            raise WeightsError(
                f"{path} is a weights file alone: give the directory that holds it and its {CONFIG_FILE}"
            )
        elif not path.is_file():
            raise WeightsError(f"{path} is neither a model directory nor a file")
        else:
            _check_size(path)
        yield FoundModel(path, weights, _digest(weights), name)
    elif re.fullmatch(HUB_ID, name) and not name.endswith((".pth", ".pt", ".safetensors")):
        known = {CONFIG_FILE: None, WEIGHTS_FILE: None}
        yield _fetch_model(name, revision, known, local_files_only, progress)
    else:
        raise WeightsError(_not_found(name))


def _fetch_model(
    repo: str,
    revision: str | None,
    known: Mapping[str, str | None],
    local_files_only: bool,
    progress: bool,
    entry: ManifestEntry | None = None,
) -> FoundModel:
    """Fetch config.json and the weights, in this order, and check them by the hashes known or by those of the Hub."""
    path, digest = Path(), ""
    for name, expected in known.items():
        path = hub.fetch(repo, name, revision, local_files_only=local_files_only, progress=progress)
        revision = path.parent.name  # the commit: the branch may move before the next file
        expected = expected or hub.cached_tag(path)
        digest = _digest(path, expected)
        if expected is not None and digest != expected:
            kind = "sha256" if len(expected) == 64 else "the hash"
            wrong = f"{name} of {repo}@{revision} has {kind} {digest}, expected {expected}"
            if not hub.may_ask(local_files_only):
                raise WeightsError(f"{wrong}; fetch it again with `pyfau download` where the Hub may be asked")
            try:
                path = hub.fetch(repo, name, revision, again=True, progress=progress)
            except WeightsError as error:
                raise WeightsError(f"{wrong}; fetching it again failed: {error}") from error
            digest = _digest(path, expected)
            if digest != expected:
                raise WeightsError(
                    f"{wrong}; fetched again, it has {digest}: do not use this model, and tell its publisher"
                )
        if name == CONFIG_FILE:
            read_network(path)  # before a download of the weights of something else
    return FoundModel(path.parent, path, digest if len(digest) == 64 else _digest(path), f"{repo}@{revision}", entry)


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


def _digest(path: Path, expected: str | None = None) -> str:
    """The sha256, or what git calls a file where that is expected, as of a small file on the Hub."""
    try:
        return git_sha1(path) if expected is not None and len(expected) == 40 else remembered_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error}") from error


def plain_file(folder: Path, name: str) -> Path:
    """A file of a model directory: a real one that lies inside, wherever links in its path lead.

    A snapshot in the Hub's cache is a directory of links into the `blobs` of its repository or of the cache: these are
    inside.

    Raises:
        WeightsError: It is missing, a device or pipe, lies outside, or is too large for a model.
    """
    path = folder / name
    try:
        if not path.is_file():
            there = path.is_symlink() or path.exists()
            problem = f"{name} is a broken link, or not a regular file" if there else f"{name} is missing"
            raise WeightsError(f"{folder} is not a model directory: {problem}")
        inside = [folder.resolve()]
        snapshots, repo = inside[0].parent, inside[0].parent.parent
        if snapshots.name == "snapshots" and repo.name.startswith("models--"):
            inside += [repo / "blobs", repo.parent / "blobs"]
        if not any(path.resolve().is_relative_to(root) for root in inside):
            raise WeightsError(f"{folder} is refused: {name} is a link that leads out of it, to {path.resolve()}")
        _check_size(path)
    except (OSError, RuntimeError) as error:  # such as links in a circle
        raise WeightsError(f"{path} could not be read: {error}") from error
    return path


def _check_size(path: Path) -> None:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise WeightsError(f"{path} has {size} bytes, too many for a model: at most {MAX_BYTES} are read")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def read_found(found: FoundModel) -> tuple[Network, Any, dict[str, Tensor]]:
    """Read what `find_model` found.

    Returns:
        The kind of network, its configuration, and its state dict.

    Raises:
        WeightsError: It does not fit the network that its configuration, or an official checkpoint, makes.
    """
    network, config, state = (
        read_official(found.path) if found.weights == found.path else _read_directory(found.path, found.weights.name)
    )
    check_finite(state, found.origin)
    return network, config, state


def _read_directory(folder: Path, weights_file: str) -> tuple[Network, Any, dict[str, Tensor]]:
    """Everything is checked by the header of the weights file before a tensor is read."""
    network, config = read_network(plain_file(folder, CONFIG_FILE))
    expected = _expected_state(network, config, folder)
    weights = plain_file(folder, weights_file)
    try:
        with weights.open("rb") as stream:
            (header,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if header > min(_MAX_HEADER, weights.stat().st_size - 8):
            raise WeightsError(f"{weights} is not a safetensors file: it claims a header of {header} bytes")
        with safe_open(str(weights), framework="pt") as tensors:
            stored = {}
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                tensor = tensors.get_slice(key)
                stored[key] = (str(tensor.get_dtype()), tuple(tensor.get_shape()))
            _check_stored(stored, expected, folder)
            return network, config, {key: tensors.get_tensor(key) for key in stored}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights} is not a safetensors file: {error}") from error


def _expected_state(network: Network, config: Any, origin: object) -> dict[str, Tensor]:
    """The tensors that the network has, without their data: nothing of their size is allocated."""
    try:
        expected = state_without_data(lambda: network.build(config))
    except (TypeError, ValueError, RuntimeError) as error:
        options = dict(config.backbone_options)
        raise ConfigError(f"{origin}: no {config.backbone} with backbone_options {options}: {error}") from error
    count = sum(value.numel() for value in expected.values())
    if count > MAX_PARAMETERS:
        raise ConfigError(f"{origin}: its config asks for {count} parameters, at most {MAX_PARAMETERS} are allowed")
    return expected


def _check_stored(
    stored: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, Tensor], origin: Path
) -> None:
    missing, unexpected = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsError(f"{origin}: missing tensors {missing[:8] or 'none'}, unexpected {unexpected[:8] or 'none'}")
    for key, value in expected.items():
        dtype, shape = stored[key]
        allowed = _FLOATS if value.is_floating_point() else ("I64",)
        if shape != tuple(value.shape) or dtype not in allowed:
            raise WeightsError(
                f"{origin}: {key} is {dtype} {shape}, expected {' or '.join(allowed)} {tuple(value.shape)}"
            )


def check_finite(state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that are NaN or infinite, and negative variances, of which a network makes NaN.

    Raises:
        WeightsError: Names the first tensor that holds one.
    """
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{origin}: {key} holds numbers that are not finite")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise WeightsError(f"{origin}: {key} holds negative numbers, which no variance is")


def how_to_get(entry: ManifestEntry) -> str:
    """What to do about a model that nobody has published."""
    r = entry.record
    fold = f" --fold {r['fold']}" if "fold" in r else ""
    return (
        f"the weights of {entry.name} are not published in a form that pyfau can download. Get the authors' file "
        f"{r['official_file']} for {r['data'].upper()} with {r['backbone']} (once shared at {r['official_folder']}, or "
        f"ask the authors), then run `pyfau convert {r['official_file']} --net {r['network']} --backbone "
        f"{r['backbone']} --data {r['data']}{fold} -o {entry.name}` and give the directory {entry.name} as the model, "
        f'or the file itself: AUDetector("{r["official_file"]}")'
    )


def _not_found(name: str) -> str:
    known = list(read_manifest())
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown model {name!r}: {hint}expected a name listed by `pyfau models`, an existing model directory or .pth "
        f"file, or user/repo on the Hugging Face Hub"
    )
