"""The authors' checkpoints of networks for single frames, as state dicts of pyfau's networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pyfau.errors import ConfigError, InputError, WeightsError
from pyfau.models.fmae import FMAE, LAYOUTS
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.graph import GraphNetwork
from pyfau.models.libreface import LibreFace
from pyfau.models.paper import DATA_SETS
from pyfau.models.pyfeat import PyFeat
from pyfau.models.zoo import (
    fmae_config,
    libreface_config,
    megraphau_config,
    opengraphau_config,
    pyfeat_config,
)
from pyfau.records import parse_json
from pyfau.weights.rules import Sources, apply_rules, make_rules
from pyfau.weights.shapes import state_without_data

State = Mapping[str, Tensor]

BUILDERS: dict[str, Callable[[FrameConfig], FrameNetwork]] = {
    "megraphau": GraphNetwork,
    "opengraphau": GraphNetwork,
    "libreface": LibreFace,
    "fmae": FMAE,
    "pyfeat": PyFeat,
}

_GRAPH_CHOICES = {
    "backbone": ("resnet18", "resnet50", "resnet101", "swin_t", "swin_s", "swin_b"),
    "variant": ("stage1", "stage2"),
}
_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "megraphau": _GRAPH_CHOICES,
    "opengraphau": _GRAPH_CHOICES,
    "libreface": {"backbone": ("resnet18",), "variant": ("joint", "intensity")},
    "fmae": {"backbone": tuple(LAYOUTS), "variant": ("iat",)},
    "pyfeat": {"backbone": ("convnextv2_t",), "variant": ("v2",)},
}

# Constant tables of Swin, which pyfau computes.
_SWIN_TABLES = re.compile(r".*\.(relative_position_index|attn_mask)")
# The heads and loss weights of py-feat's network that do not belong to the action units.
_PYFEAT_OTHERS = re.compile(
    r"(lmk|pose|blendshape|unified|emotion|gaze|gaze_eye_enc)\..*|log_var_\w+"
)
_ID_HEAD = re.compile(r"ID_head\.(weight|bias)")
_NOTHING = re.compile(r"(?!)")
_IGNORED = {
    "megraphau": _SWIN_TABLES,
    "opengraphau": _SWIN_TABLES,
    "libreface": _NOTHING,
    "fmae": _ID_HEAD,
    "pyfeat": _PYFEAT_OTHERS,
}

# Number of people in the training data: the rows of FMAE's head that identifies people. BP4D+ has
# the same action units as BP4D.
_PERSONS = {"bp4d": 41, "bp4dplus": 140, "disfa": 27}


def _rows(state: Mapping[str, Any], key: str) -> int:
    """The first axis of a tensor; 0 if it is missing or no table."""
    value = state.get(key)
    if isinstance(value, Tensor) and value.ndim >= 2:
        return value.shape[0]
    return 0


def _data_set(outputs: int) -> str | None:
    """The data set with this number of action units."""
    for name, record in DATA_SETS.items():
        if len(record.aus) == outputs:
            return name
    return None


def _resnet_or_swin(state: Mapping[str, Any]) -> str | None:
    """The name of the backbone of a graph network."""
    channels = _rows(state, "backbone.patch_embed.proj.weight")
    if channels == 128:
        return "swin_b"
    if channels == 96:
        return "swin_s" if "backbone.layers.2.blocks.6.norm1.weight" in state else "swin_t"
    if "backbone.layer1.0.conv1.weight" not in state:
        return None
    if "backbone.layer1.0.conv3.weight" not in state:
        return "resnet18"
    return "resnet101" if "backbone.layer3.22.conv1.weight" in state else "resnet50"


def _stage(state: Mapping[str, Any]) -> int:
    return 2 if any(key.startswith("head.edge_extractor.") for key in state) else 1


def recognise_megraphau(state: Mapping[str, Any]) -> FrameConfig | None:
    """The configuration of a checkpoint of ME-GraphAU, or None if it is something else."""
    data, backbone = _data_set(_rows(state, "head.sc")), _resnet_or_swin(state)
    if data is None or backbone is None:
        return None
    return megraphau_config(data, backbone, _stage(state))


def recognise_opengraphau(state: Mapping[str, Any]) -> FrameConfig | None:
    """The configuration of a checkpoint of OpenGraphAU, or None if it is something else."""
    backbone = _resnet_or_swin(state)
    if "head.main_sc" not in state or backbone is None:
        return None
    return opengraphau_config(backbone, _stage(state))


def recognise_libreface(state: Mapping[str, Any]) -> FrameConfig | None:
    """The configuration of a checkpoint of LibreFace, or None if it is something else."""
    if "encoder.0.weight" not in state or "classifier.4.weight" not in state:
        return None
    joint = any(key.startswith("classifier_2.") for key in state)
    return libreface_config(joint=joint)


def recognise_fmae(state: Mapping[str, Any]) -> FrameConfig | None:
    """The configuration of a checkpoint of FMAE-IAT, or None if it is something else."""
    width = _rows(state, "patch_embed.proj.weight")
    backbone = next((name for name, layout in LAYOUTS.items() if layout.width == width), None)
    data = _data_set(_rows(state, "head.weight"))
    if backbone is None or data is None or "fc_norm.weight" not in state:
        return None
    if data == "bp4d" and _rows(state, "ID_head.weight") == _PERSONS["bp4dplus"]:
        data = "bp4dplus"
    return fmae_config(data, backbone)


def recognise_pyfeat(state: Mapping[str, Any]) -> FrameConfig | None:
    """The configuration of a checkpoint of py-feat, version 2, or None if it is something else."""
    if "backbone.stem_0.weight" not in state or "sc.s" not in state:
        return None
    return pyfeat_config()


# For each network its `recognise` function and its authors' checkpoints, in words.
OFFICIAL: dict[str, tuple[Callable[[Mapping[str, Any]], FrameConfig | None], str]] = {
    "megraphau": (recognise_megraphau, "ME-GraphAU for BP4D or DISFA, stage 1 or 2"),
    "opengraphau": (recognise_opengraphau, "OpenGraphAU, stage 1 or 2"),
    "libreface": (recognise_libreface, "LibreFace with a ResNet-18"),
    "fmae": (recognise_fmae, "FMAE-IAT for BP4D or DISFA"),
    "pyfeat": (recognise_pyfeat, "py-feat's multi-task network, version 2"),
}


def known_configs() -> list[FrameConfig]:
    """The configurations of all checkpoints that the projects publish or can make."""
    configs = [libreface_config(joint=joint) for joint in (True, False)]
    for backbone in _GRAPH_CHOICES["backbone"]:
        for stage in (1, 2):
            configs.append(opengraphau_config(backbone, stage))
            configs += [megraphau_config(data, backbone, stage) for data in DATA_SETS]
    configs += [fmae_config(data, backbone) for data in _PERSONS for backbone in LAYOUTS]
    return [*configs, pyfeat_config()]


def build(config: FrameConfig) -> FrameNetwork:
    """The network of a configuration, with fresh weights.

    Raises:
        ConfigError: The configuration names a backbone or variant that the network does not have.
    """
    choices = _CHOICES[config.network]
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ConfigError(
                f"model config {config.name!r}: unknown {name} {getattr(config, name)!r} of "
                f"{config.network}, expected one of {', '.join(allowed)}"
            )
    return BUILDERS[config.network](config)


def _graph_sources(config: FrameConfig, nodes: int) -> dict[str, str | tuple[str, ...]]:
    is_megraphau = config.network == "megraphau"
    units = "head.class_linears" if is_megraphau else "head.main_class_linears"
    sources: dict[str, str | tuple[str, ...]] = {
        "backbone": "backbone",
        "tokens.linear": "global_linear.fc",
        "tokens.norm": "global_linear.bn",
        "units.linear": tuple(f"{units}.{node}.fc" for node in range(nodes)),
        "units.norm": tuple(f"{units}.{node}.bn" for node in range(nodes)),
        "classifier": "head.sc" if is_megraphau else ("head.main_sc", "head.sub_sc"),
    }
    if config.variant == "stage1":
        names = {"other": "V", "own": "U", "norm": "bnv"}
        return sources | {f"graph.{own}": f"head.gnn.{name}" for own, name in names.items()}
    for own, name in {"face": "FAM", "pair": "ARM"}.items():
        for part, letter in {"query": "q", "key": "k", "value": "v"}.items():
            official = f"head.edge_extractor.{name}.linear_{letter}"
            sources[f"graph.features.{own}.{part}"] = official
    sources["graph.features.projection"] = "head.edge_extractor.edge_proj"
    sources["graph.features.norm"] = "head.edge_extractor.bn"
    sources["edge_classes"] = "head.edge_fc"
    names = {"own": "U", "other": "V", "start": "A", "end": "B", "edge": "E"}
    names |= {"norm": "bnv", "edge_norm": "bne"}
    for layer in range(2):
        for own, name in names.items():
            official = f"head.gnn.graph_layers.{layer}.{name}"
            if is_megraphau:
                official = f"head.gnn.{name}{layer + 1}"
            sources[f"graph.layers.{layer}.{own}"] = official
    return sources


def _libreface_sources() -> dict[str, str | tuple[str, ...]]:
    sources: dict[str, str | tuple[str, ...]] = {
        "backbone.conv1": "encoder.0",
        "backbone.bn1": "encoder.1",
    }
    for stage in range(1, 5):
        sources[f"backbone.layer{stage}"] = f"encoder.{stage + 3}"
    for kind, head in {"intensity": "classifier", "occurrence": "classifier_2"}.items():
        for own, index in {"hidden": 0, "norm": 2, "output": 4}.items():
            sources[f"heads.{kind}.{own}"] = f"{head}.{index}"
    return sources


def _pyfeat_sources(nodes: int) -> dict[str, str | tuple[str, ...]]:
    return {
        "backbone": "backbone",
        "projection": "proj",
        "units.linear": tuple(f"afg.heads.{node}.0" for node in range(nodes)),
        "units.norm": tuple(f"afg.heads.{node}.1" for node in range(nodes)),
        "other": "fgg.W",
        "own": "fgg.W_self",
        "classifier": "sc.s",
    }


def _sources(config: FrameConfig, own_keys: list[str]) -> Sources:
    if config.network == "libreface":
        return _libreface_sources()
    if config.network == "fmae":
        return {name: name for name in {key.partition(".")[0] for key in own_keys}}
    nodes = sum(output.side == "" for output in config.outputs)
    if config.network == "pyfeat":
        return _pyfeat_sources(nodes)
    return _graph_sources(config, nodes)


def from_official(
    state: State, config: FrameConfig, origin: str = "checkpoint"
) -> dict[str, Tensor]:
    """Rename and join the tensors of an official state dict.

    Args:
        state: The official state dict, without `module.` prefixes.
        config: The configuration that a `recognise` function returned.
        origin: Name of the file for errors.

    Returns:
        A state dict of the network that `BUILDERS` makes from the configuration.

    Raises:
        WeightsError: Keys are missing or unexpected, or a tensor has the wrong shape or type.
    """
    origin = f"{origin} looks like {config.name}"
    own = state_without_data(lambda: BUILDERS[config.network](config))
    rules = make_rules(own, _sources(config, list(own)))
    ignored = frozenset(key for key in state if _IGNORED[config.network].fullmatch(key))
    if config.network == "fmae":
        _check_id_head(state, config, origin)
    return apply_rules(rules, state, own, ignored, origin)


def _check_id_head(state: State, config: FrameConfig, origin: str) -> None:
    """Check the head that identifies people: its size depends on the data set."""
    if not any(_ID_HEAD.fullmatch(key) for key in state):
        return  # fine-tuned without it
    persons = _rows(state, "ID_head.weight")
    data = config.name.rsplit("-", 1)[-1]
    if persons != _PERSONS[data]:
        raise WeightsError(
            f"{origin}, but ID_head.weight has {persons} rows: expected {_PERSONS[data]}, "
            f"the persons of {data.upper().replace('PLUS', '+')}"
        )


def check_metadata(metadata: Mapping[str, str], config: FrameConfig, origin: str) -> None:
    """Check the metadata of an official safetensors file.

    Raises:
        WeightsError: A file of py-feat whose metadata has no configuration, or another one than
            that of the network that pyfau has.
    """
    if config.network != "pyfeat":
        return
    expected = {"drop_mefl": True, "n_au": len(config.outputs)}
    try:
        stated = parse_json(metadata.get("config", ""), origin)
    except InputError:
        stated = None
    if not isinstance(stated, dict):
        raise WeightsError(f"{origin}: its metadata has no config, expected one with {expected}")
    for name, value in expected.items():
        if stated.get(name) != value:
            raise WeightsError(
                f"{origin}: its config has {name}={stated.get(name)!r}, expected {value!r}"
            )
