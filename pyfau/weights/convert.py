"""The authors' checkpoints of MDHR: their tensors, renamed and joined, as those of pyfau's network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyfau.errors import WeightsError
from pyfau.models.config import DATA_SETS, MDHRConfig, paper_config
from pyfau.models.mdhr import MDHR
from pyfau.weights.shapes import state_without_data

_BACKBONE_KEYS = {"Backbone.layer1.0.conv1.weight": "resnet50", "Backbone.patch_embed.proj.weight": "swin_b"}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class _Rule:
    """One of our tensors and the official tensors that it is made of."""

    own: str
    official: tuple[str, ...]
    combine: Callable[[list[Tensor]], Tensor] = lambda parts: parts[0]


def _rules(config: MDHRConfig, own_keys: list[str]) -> list[_Rule]:
    rules = [_Rule(key, (key.replace("backbone.", "Backbone.", 1),)) for key in own_keys if key.startswith("backbone.")]

    def norm(own: str, official: str) -> None:
        rules.extend(_Rule(f"{own}.{part}", (f"{official}.{part}",)) for part in _NORM)

    def linear(own: str, official: str, squeeze: bool = False) -> None:
        flat: Callable[[list[Tensor]], Tensor] = lambda parts: parts[0].flatten(1)  # noqa: E731
        rules.append(
            _Rule(f"{own}.weight", (f"{official}.weight",), flat) if squeeze
            else _Rule(f"{own}.weight", (f"{official}.weight",))
        )  # fmt: skip
        rules.append(_Rule(f"{own}.bias", (f"{official}.bias",)))

    def block(own: str, fc: str, bn: str, squeeze: bool = False) -> None:
        linear(f"{own}.linear", fc, squeeze)
        norm(f"{own}.norm", bn)

    block("static", "global_linear.fc", "global_linear.bn")
    for i in range(4):
        linear(f"dynamics.projections.{i}", f"MFD.conv{i + 1}")
        norm(f"dynamics.norms.{i}", f"MFD.bn{i + 1}")
        block(f"dynamics.weight_blocks.{i}", f"MFD.weight_{i + 1}", f"MFD.wbn{i + 1}", squeeze=True)
    linear("dynamics.weight", "MFD.weight", squeeze=True)
    block("dynamics.output", "MFD.convcat", "MFD.bn", squeeze=True)
    for i, region in enumerate(config.regions):
        own = f"regions.{i}"
        if config.project_regions:
            block(f"{own}.projection", f"LRM.{region.name}_linear.fc", f"LRM.{region.name}_linear.bn")
        linear(f"{own}.head", f"LRM.{region.name}_fc")
        units = [f"LRM.class_linears.{config.aus.index(au)}" for au in region.aus]
        for part in ("weight", "bias"):
            rules.append(_Rule(f"{own}.au_blocks.linear.{part}", tuple(f"{u}.fc.{part}" for u in units), torch.cat))
        for part in _NORM[:-1]:
            rules.append(_Rule(f"{own}.au_blocks.norm.{part}", tuple(f"{u}.bn.{part}" for u in units), torch.cat))
        counters = tuple(f"{u}.bn.num_batches_tracked" for u in units)
        rules.append(_Rule(f"{own}.au_blocks.norm.num_batches_tracked", counters))
    rules.append(_Rule("cross_region.linear.weight", ("CRM.gat.linear.weight",)))
    rules.append(_Rule("cross_region.receiver", ("CRM.gat.scoring_fn_source",), lambda parts: parts[0].flatten()))
    rules.append(_Rule("cross_region.neighbour", ("CRM.gat.scoring_fn_target",), lambda parts: parts[0].flatten()))
    rules.append(_Rule("cross_region.bias", ("CRM.gat.bias",)))
    kernels = [f"TCN.temporal_cnn.{i}" for i in range(len(config.aus))]
    rules.append(
        _Rule(
            "temporal.weight",
            tuple(f"{k}.weight" for k in kernels),
            lambda parts: torch.stack(parts).squeeze(2).permute(2, 0, 1).contiguous(),  # (N, D, 1, 5) -> (5, N, D)
        )
    )
    rules.append(_Rule("temporal.bias", tuple(f"{k}.bias" for k in kernels), torch.stack))
    norm("temporal.norm", "TCN.bn")
    rules.append(_Rule("classifier", ("node_classifier.sc",)))
    return rules


def recognise(state: Mapping[str, Any]) -> MDHRConfig | None:
    """Which of the paper's networks a state dict without `module.` prefixes is, from its keys and shapes.

    Returns:
        Its configuration, or None if this is no MDHR checkpoint at all.
    """
    classifier = state.get("node_classifier.sc")
    if not isinstance(classifier, Tensor) or classifier.ndim != 2:
        return None
    data = next((name for name, record in DATA_SETS.items() if len(record.aus) == classifier.shape[0]), None)
    backbone = next((name for key, name in _BACKBONE_KEYS.items() if key in state), None)
    return paper_config(data, backbone, source="official checkpoint") if data and backbone else None


def from_official(state: Mapping[str, Tensor], config: MDHRConfig, origin: str = "checkpoint") -> dict[str, Tensor]:
    """Rename and join the tensors of an official state dict.

    Args:
        state: The official state dict, without `module.` prefixes.
        config: What `recognise` made of it.
        origin: What to call it in an error.

    Returns:
        A state dict of `MDHR(config)`.

    Raises:
        WeightsError: Keys are missing or unexpected, or a tensor has the wrong shape or type.
    """
    own = state_without_data(lambda: MDHR(config))
    rules = _rules(config, list(own))
    expected = {key for rule in rules for key in rule.official}
    # Swin's constant tables are in the file, but are made anew here.
    constants = {key for key in state if re.search(r"\.(relative_position_index|attn_mask)$", key)}
    missing, unexpected = sorted(expected - state.keys()), sorted(state.keys() - expected - constants)
    if missing or unexpected:
        raise WeightsError(
            f"{origin} looks like {config.name}, but its keys do not fit: missing {some(missing)}; "
            f"unexpected {some(unexpected)}"
        )

    def refuse(rules: list[_Rule]) -> None:
        if rules:
            wrong = [
                f"{', '.join(f'{key} {tuple(state[key].shape)}' for key in rule.official)} "
                f"(for {rule.own} {tuple(own[rule.own].shape)})"
                for rule in rules
            ]
            raise WeightsError(f"{origin} looks like {config.name}, but shapes do not fit: {some(wrong)}")

    # First without a copy of anything: a small file can claim tensors of any size that are one number repeated.
    refuse([
        rule
        for rule in rules
        if any(
            part.layout != torch.strided or part.device.type != "cpu" or part.numel() > own[rule.own].numel()
            for part in (state[key] for key in rule.official)
        )
    ])  # fmt: skip
    result: dict[str, Tensor] = {}
    for rule in rules:
        with contextlib.suppress(RuntimeError, TypeError, IndexError):
            result[rule.own] = rule.combine([state[key] for key in rule.official])
    refuse([rule for rule in rules if not _is_alike(result.get(rule.own), own[rule.own])])
    return {key: value.to(own[key].dtype) for key, value in result.items()}


def _is_alike(got: Tensor | None, want: Tensor) -> bool:
    return got is not None and got.shape == want.shape and got.is_floating_point() == want.is_floating_point()


def some(items: list[str], limit: int = 12) -> str:
    """The first of a list of names, and how many more there are."""
    shown = ", ".join(items[:limit]) or "none"
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
