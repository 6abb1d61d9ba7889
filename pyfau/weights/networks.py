"""The kinds of networks that pyfau can load.

Each is registered under the name that config.json gives as `network`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pyfau.errors import ConfigError, WeightsError
from pyfau.models.config import MDHRConfig, read_config_text
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import MDHR
from pyfau.records import parse_json
from pyfau.weights import official, official_frames
from pyfau.weights.card import model_card
from pyfau.weights.checkpoint import read_checkpoint
from pyfau.weights.frame_card import frame_card
from pyfau.weights.rules import Rule, apply_rules, some
from pyfau.weights.shapes import state_without_data


@dataclass(frozen=True, slots=True)
class Network:
    """How to load one kind of network.

    Attributes:
        read: Text of config.json and its name for errors -> the configuration, which has the
            attributes `name`, `network`, `backbone`, `backbone_options`, `aus` and the method
            `to_json` of `MDHRConfig`.
        build: Configuration -> the network with fresh weights, which has the methods and attributes
            of `MDHR`.
        recognise: State dict of its authors' checkpoint, without `module.` -> its configuration, or
            None.
        from_official: Such a state dict, the configuration, its name for error messages -> a
            state dict of pyfau's network.
        official: What its authors' checkpoints are, in words.
        check_metadata: Checks the metadata of an official safetensors file: the metadata, the
            configuration, the name of the file for error messages.
        card: The text of the model card: the configuration and the facts of the manifest.
    """

    read: Callable[[str, str], Any]
    build: Callable[[Any], Any]
    recognise: Callable[[Mapping[str, Any]], Any | None]
    from_official: Callable[[Mapping[str, Tensor], Any, str], dict[str, Tensor]]
    official: str
    check_metadata: Callable[[Mapping[str, str], Any, str], None] = lambda *_: None
    card: Callable[[Any, Mapping[str, Any] | None], str] = model_card


def single_frame(
    build: Callable[[FrameConfig], FrameNetwork],
    recognise: Callable[[Mapping[str, Any]], FrameConfig | None],
    official: str,
    from_official: Callable[[Mapping[str, Tensor], FrameConfig, str], dict[str, Tensor]]
    | None = None,
) -> Network:
    """A kind of network that scores single frames, for `NETWORKS`.

    Args:
        build: See `Network`.
        recognise: See `Network`.
        official: See `Network`.
        from_official: See `Network`; None if the checkpoint has the names of the network. Missing
            and unexpected tensors are refused.
    """

    def same_names(
        state: Mapping[str, Tensor], config: FrameConfig, origin: str
    ) -> dict[str, Tensor]:
        own = state_without_data(lambda: build(config))
        rules = [Rule(key, (key,)) for key in own]
        return apply_rules(rules, state, own, frozenset(), f"{origin} looks like {config.name}")

    return Network(
        FrameConfig.from_json,
        build,
        recognise,
        from_official or same_names,
        official,
        card=frame_card,
    )


NETWORKS: dict[str, Network] = {
    "mdhr": Network(
        MDHRConfig.from_json,
        MDHR,
        official.recognise,
        official.from_official,
        "MDHR for BP4D (12 AUs) or DISFA (8 AUs) with ResNet-50 or Swin-B",
    ),
}
for _name, (_recognise, _official) in official_frames.OFFICIAL.items():
    NETWORKS[_name] = Network(
        FrameConfig.from_json,
        official_frames.build,
        _recognise,
        official_frames.from_official,
        _official,
        official_frames.check_metadata,
        frame_card,
    )


def read_network(path: Path) -> tuple[Network, Any]:
    """Read a config.json of any registered network.

    Returns:
        The kind of network, and its configuration.

    Raises:
        ConfigError: It is missing, too large to be one, not valid, or of a network that is not
            registered.
    """
    text = read_config_text(path)
    record = parse_json(text, str(path), ConfigError, strict_numbers=False)
    name = record.get("network", "mdhr") if isinstance(record, dict) else "mdhr"
    if not isinstance(name, str) or name not in NETWORKS:
        raise ConfigError(f"{path}: unknown network {name!r}, expected one of {sorted(NETWORKS)}")
    network = NETWORKS[name]
    return network, network.read(text, str(path))


def read_official(path: Path) -> tuple[Network, Any, dict[str, Tensor]]:
    """Read an authors' checkpoint of any registered network; see `read_checkpoint`.

    Returns:
        The kind of network, its configuration, and a state dict of it.

    Raises:
        WeightsError: Not a checkpoint, not one that loads without running code, or of no registered
            network.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint.state
    for network in NETWORKS.values():
        config = network.recognise(state)
        if config is not None:
            if checkpoint.metadata is not None:
                network.check_metadata(checkpoint.metadata, config, str(path))
            return network, config, network.from_official(state, config, str(path))
    if checkpoint.metadata is not None:
        raise WeightsError(
            f"{path} is a weights file alone: give the directory that holds it and its config.json"
        )
    *first, last = [network.official for network in NETWORKS.values()]
    known = "; ".join([*first, f"or {last}"])
    keys = f"begin with {some(sorted(state))}" if state else "are missing: it holds no tensors"
    raise WeightsError(f"{path} is not a checkpoint of {known}. Its keys {keys}")
