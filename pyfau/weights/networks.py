"""The kinds of networks that pyfau can load, each registered by the name that its config.json gives as `network`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyfau.errors import ConfigError, WeightsError
from pyfau.models.config import MDHRConfig, read_config_text
from pyfau.models.mdhr import MDHR
from pyfau.weights import convert


@dataclass(frozen=True, slots=True)
class Network:
    """All that the store must know of a kind of network.

    Attributes:
        read: Text of config.json and what to call it in errors -> the configuration, which has the attributes `name`,
            `network`, `backbone`, `backbone_options`, `aus` and the method `to_json` of `MDHRConfig`.
        build: Configuration -> the network with fresh weights, which has the methods and attributes of `MDHR`.
        recognise: State dict of its authors' checkpoint, without `module.` -> its configuration, or None.
        from_official: Such a state dict, the configuration, what to call it in errors -> a state dict of ours.
        official: What its authors' checkpoints are, in words.
    """

    read: Callable[[str, str], Any]
    build: Callable[[Any], MDHR]
    recognise: Callable[[Mapping[str, Any]], Any | None]
    from_official: Callable[[Mapping[str, Tensor], Any, str], dict[str, Tensor]]
    official: str


NETWORKS: dict[str, Network] = {
    "mdhr": Network(
        MDHRConfig.from_json, MDHR, convert.recognise, convert.from_official,
        "MDHR for BP4D (12 AUs) or DISFA (8 AUs) with ResNet-50 or Swin-B",
    ),
}  # fmt: skip


def read_network(path: Path) -> tuple[Network, Any]:
    """Read a config.json of any registered network.

    Returns:
        The kind of network, and its configuration.

    Raises:
        ConfigError: It is missing, too large to be one, not valid, or of a network that is not registered.
    """
    text = read_config_text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    name = record.get("network", "mdhr") if isinstance(record, dict) else "mdhr"
    if not isinstance(name, str) or name not in NETWORKS:
        raise ConfigError(f"{path}: unknown network {name!r}, expected one of {sorted(NETWORKS)}")
    network = NETWORKS[name]
    return network, network.read(text, str(path))


def read_official(path: Path) -> tuple[Network, Any, dict[str, Tensor]]:
    """Read an official `.pth` file: `{'epoch', 'state_dict', 'optimizer'}` of a DataParallel model.

    Returns:
        The kind of network, its configuration, and a state dict of it.

    Raises:
        WeightsError: Not a checkpoint, not one that loads without running code, or of no registered network.
    """
    try:
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged files make the unpickler raise nearly anything
        reason = "it is no PyTorch file"
        if zipfile.is_zipfile(path):
            reason = "it is damaged, or holds objects that only running code could make"
        raise WeightsError(f"{path} is not a checkpoint that loads with weights_only=True: {reason}") from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state dict: expected {{'epoch', 'state_dict', 'optimizer'}}")
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    for network in NETWORKS.values():
        config = network.recognise(state)
        if config is not None:
            return network, config, network.from_official(state, config, str(path))
    raise WeightsError(
        f"{path} is not a checkpoint of {' or '.join(network.official for network in NETWORKS.values())}; "
        f"its keys begin with {convert.some(sorted(state))}"
    )
