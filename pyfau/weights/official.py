"""The authors' checkpoints of MDHR: renames and joins their tensors for pyfau's network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyfau.errors import WeightsError
from pyfau.models.config import MDHRConfig, Region
from pyfau.models.mdhr import MDHR
from pyfau.models.paper import DATA_SETS, paper_config
from pyfau.weights.rules import check_keys, some
from pyfau.weights.shapes import state_without_data

_BACKBONE_KEYS = {
    "Backbone.layer1.0.conv1.weight": "resnet50",
    "Backbone.patch_embed.proj.weight": "swin_b",
}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


_Combine = Callable[[list[Tensor]], Tensor]


def _first(parts: list[Tensor]) -> Tensor:
    return parts[0]


def _flat(parts: list[Tensor]) -> Tensor:
    """(D, C, 1, 1) -> (D, C)."""
    return parts[0].flatten(1)


def _flatten(parts: list[Tensor]) -> Tensor:
    return parts[0].flatten()


def _stack_kernels(parts: list[Tensor]) -> Tensor:
    """N tensors (D, 1, 5) -> (5, N, D)."""
    return torch.stack(parts).squeeze(2).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, slots=True)
class _Rule:
    """One tensor of pyfau's network, and the official tensors that it is made from."""

    own: str
    official: tuple[str, ...]
    combine: _Combine = _first


class _Rules(list[_Rule]):
    """Rules that are added layer by layer."""

    def add(self, own: str, official: str, combine: _Combine = _first) -> None:
        """A tensor that is made from one official tensor."""
        self.append(_Rule(own, (official,), combine))

    def norm(self, own: str, official: str) -> None:
        """A batch norm."""
        for part in _NORM:
            self.add(f"{own}.{part}", f"{official}.{part}")

    def linear(self, own: str, official: str, squeeze: bool = False) -> None:
        """A linear layer; with `squeeze` from a convolution of 1 x 1."""
        self.add(f"{own}.weight", f"{official}.weight", _flat if squeeze else _first)
        self.add(f"{own}.bias", f"{official}.bias")

    def block(self, own: str, fc: str, bn: str, squeeze: bool = False) -> None:
        """A linear layer with a batch norm."""
        self.linear(f"{own}.linear", fc, squeeze)
        self.norm(f"{own}.norm", bn)

    def joined(self, own: str, officials: Sequence[str], combine: _Combine = torch.cat) -> None:
        """A tensor that is made from several official tensors."""
        self.append(_Rule(own, tuple(officials), combine))


def _rules(config: MDHRConfig, own_keys: list[str]) -> list[_Rule]:
    """Rules for all keys of a network."""
    rules = _Rules()
    for key in own_keys:
        if key.startswith("backbone."):
            rules.add(key, key.replace("backbone.", "Backbone.", 1))
    rules.block("static", "global_linear.fc", "global_linear.bn")
    _add_dynamics(rules)
    for i, region in enumerate(config.regions):
        _add_region(rules, f"regions.{i}", region, config)
    rules.add("cross_region.linear.weight", "CRM.gat.linear.weight")
    rules.add("cross_region.receiver", "CRM.gat.scoring_fn_source", _flatten)
    rules.add("cross_region.neighbour", "CRM.gat.scoring_fn_target", _flatten)
    rules.add("cross_region.bias", "CRM.gat.bias")
    kernels = [f"TCN.temporal_cnn.{i}" for i in range(len(config.aus))]
    rules.joined("temporal.weight", [f"{k}.weight" for k in kernels], _stack_kernels)
    rules.joined("temporal.bias", [f"{k}.bias" for k in kernels], torch.stack)
    rules.norm("temporal.norm", "TCN.bn")
    rules.add("classifier", "node_classifier.sc")
    return rules


def _add_dynamics(rules: _Rules) -> None:
    """Add the differences of frames and the weights of their four scales."""
    for i in range(4):
        rules.linear(f"dynamics.projections.{i}", f"MFD.conv{i + 1}")
        rules.norm(f"dynamics.norms.{i}", f"MFD.bn{i + 1}")
        own = f"dynamics.weight_blocks.{i}"
        rules.block(own, f"MFD.weight_{i + 1}", f"MFD.wbn{i + 1}", squeeze=True)
    rules.linear("dynamics.weight", "MFD.weight", squeeze=True)
    rules.block("dynamics.output", "MFD.convcat", "MFD.bn", squeeze=True)


def _add_region(rules: _Rules, own: str, region: Region, config: MDHRConfig) -> None:
    """Add a region: its projection, its head, and the layers of its action units, joined."""
    name = region.name
    if config.project_regions:
        rules.block(f"{own}.projection", f"LRM.{name}_linear.fc", f"LRM.{name}_linear.bn")
    rules.linear(f"{own}.head", f"LRM.{name}_fc")
    units = [f"LRM.class_linears.{config.aus.index(au)}" for au in region.aus]
    for part in ("weight", "bias"):
        rules.joined(f"{own}.au_blocks.linear.{part}", [f"{u}.fc.{part}" for u in units])
    for part in _NORM[:-1]:
        rules.joined(f"{own}.au_blocks.norm.{part}", [f"{u}.bn.{part}" for u in units])
    counters = [f"{u}.bn.num_batches_tracked" for u in units]
    rules.joined(f"{own}.au_blocks.norm.num_batches_tracked", counters, _first)


def recognise(state: Mapping[str, Any]) -> MDHRConfig | None:
    """Which of the paper's networks a state dict without `module.` prefixes is, from its keys and
    shapes.

    Returns:
        Its configuration, or None if this is no MDHR checkpoint at all.
    """
    classifier = state.get("node_classifier.sc")
    if not isinstance(classifier, Tensor) or classifier.ndim != 2:
        return None
    data = next(
        (name for name, record in DATA_SETS.items() if len(record.aus) == classifier.shape[0]), None
    )
    backbone = next((name for key, name in _BACKBONE_KEYS.items() if key in state), None)
    if data is None or backbone is None:
        return None
    return paper_config(data, backbone, source="official checkpoint")


def from_official(
    state: Mapping[str, Tensor], config: MDHRConfig, origin: str = "checkpoint"
) -> dict[str, Tensor]:
    """Rename and join the tensors of an official state dict.

    Args:
        state: The official state dict, without `module.` prefixes.
        config: The configuration that `recognise` returned.
        origin: Name of the file for error messages.

    Returns:
        A state dict of `MDHR(config)`.

    Raises:
        WeightsError: Keys are missing or unexpected, or a tensor has the wrong shape or type.
    """
    own = state_without_data(lambda: MDHR(config))
    rules = _rules(config, list(own))
    expected = {key for rule in rules for key in rule.official}
    # The file contains Swin's constant tables. pyfau computes them.
    constants = {key for key in state if re.search(r"\.(relative_position_index|attn_mask)$", key)}
    check_keys(state, expected, constants, f"{origin} looks like {config.name}")

    def refuse(wrong_rules: list[_Rule]) -> None:
        if not wrong_rules:
            return
        wrong = [_describe(rule, state, own[rule.own]) for rule in wrong_rules]
        raise WeightsError(
            f"{origin} looks like {config.name}, but shapes do not fit: {some(wrong)}"
        )

    # This check copies nothing: in a small file, one number that is repeated can claim to be a
    # tensor of any size.
    refuse([rule for rule in rules if not _can_combine(rule, state, own[rule.own])])
    result: dict[str, Tensor] = {}
    for rule in rules:
        with contextlib.suppress(RuntimeError, TypeError, IndexError):
            result[rule.own] = rule.combine([state[key] for key in rule.official])
    refuse([rule for rule in rules if not _is_alike(result.get(rule.own), own[rule.own])])
    return {key: value.to(own[key].dtype) for key, value in result.items()}


def _describe(rule: _Rule, state: Mapping[str, Tensor], own: Tensor) -> str:
    parts = ", ".join(f"{key} {tuple(state[key].shape)}" for key in rule.official)
    return f"{parts} (for {rule.own} {tuple(own.shape)})"


def _can_combine(rule: _Rule, state: Mapping[str, Tensor], own: Tensor) -> bool:
    """Whether the official tensors are plain ones, and none is larger than the result."""
    parts = [state[key] for key in rule.official]
    return all(
        part.layout == torch.strided and part.device.type == "cpu" and part.numel() <= own.numel()
        for part in parts
    )


def _is_alike(got: Tensor | None, want: Tensor) -> bool:
    return (
        got is not None
        and got.shape == want.shape
        and got.is_floating_point() == want.is_floating_point()
    )
