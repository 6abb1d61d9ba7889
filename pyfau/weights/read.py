"""From the files of a model to a state dict that fits its network."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyfau.errors import ConfigError, WeightsError
from pyfau.weights.find import CONFIG_FILE, FoundModel, plain_file
from pyfau.weights.networks import Network, read_network, read_official
from pyfau.weights.shapes import state_without_data

MAX_PARAMETERS = 400_000_000  # the paper's largest network has 108 million
_MAX_HEADER = 10_000_000  # bytes; the largest network of the paper needs 50 thousand
_FLOATS = ("F16", "BF16", "F32")  # what a float32 tensor may be stored as


def read_found(found: FoundModel) -> tuple[Network, Any, dict[str, Tensor]]:
    """Read what `find_model` found.

    Returns:
        The kind of network, its configuration, and its state dict.

    Raises:
        WeightsError: It does not fit the network that its configuration, or an official checkpoint,
            makes.
    """
    network, config, state = (
        read_official(found.path)
        if found.weights == found.path
        else _read_directory(found.path, found.weights.name)
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
            raise WeightsError(
                f"{weights} is not a safetensors file: it claims a header of {header} bytes"
            )
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
        raise ConfigError(
            f"{origin}: no {config.backbone} with backbone_options {options}: {error}"
        ) from error
    count = sum(value.numel() for value in expected.values())
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"{origin}: its config defines {count} parameters, at most {MAX_PARAMETERS} are allowed"
        )
    return expected


def _check_stored(
    stored: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, Tensor], origin: Path
) -> None:
    missing = sorted(expected.keys() - stored.keys())
    unexpected = sorted(stored.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsError(
            f"{origin}: missing tensors {missing[:8] or 'none'}, "
            f"unexpected {unexpected[:8] or 'none'}"
        )
    for key, value in expected.items():
        dtype, shape = stored[key]
        allowed = _FLOATS if value.is_floating_point() else ("I64",)
        if shape != tuple(value.shape) or dtype not in allowed:
            wanted = f"{' or '.join(allowed)} {tuple(value.shape)}"
            raise WeightsError(f"{origin}: {key} is {dtype} {shape}, expected {wanted}")


def check_finite(state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that are NaN or infinite, and negative variances, which result in NaN.

    Raises:
        WeightsError: The weights have such a number. The message names the first such tensor.
    """
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{origin}: {key} holds numbers that are not finite")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise WeightsError(f"{origin}: {key} holds negative numbers, expected variances")
