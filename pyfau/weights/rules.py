"""Renames and joins the tensors of an authors' checkpoint, and checks all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from pyfau.errors import WeightsError

Sources = Mapping[str, str | tuple[str, ...]]
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Rule:
    """One tensor of pyfau's network and the official tensors that it is made of.

    Attributes:
        own: Key in the state dict of pyfau's network.
        official: Keys in the official state dict; several tensors are joined along the first axis.
    """

    own: str
    official: tuple[str, ...]


def make_rules(own_keys: Iterable[str], sources: Sources) -> list[Rule]:
    """Rules for all keys of a network.

    Args:
        own_keys: Keys of the state dict of pyfau's network.
        sources: For each module or parameter of pyfau's network the official module or parameter,
            or several to join. The longest match counts. The name of a parameter in a module
            stays, such as ".weight".
    """
    by_length = sorted(sources, key=len, reverse=True)
    rules = []
    for own in own_keys:
        module = next(name for name in by_length if own == name or own.startswith(f"{name}."))
        official = sources[module]
        names = (official,) if isinstance(official, str) else official
        rules.append(Rule(own, tuple(name + own[len(module) :] for name in names)))
    return rules


def apply_rules(
    rules: Iterable[Rule],
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    ignored: frozenset[str],
    origin: str,
) -> dict[str, Tensor]:
    """A state dict of pyfau's network from an official one.

    Args:
        rules: One for each tensor of `own`.
        state: The official state dict, without `module.` prefixes.
        own: State dict of pyfau's network; only shapes and types are read.
        ignored: Keys of `state` that pyfau's network does not need.
        origin: Name of the file and the network for errors, such as "a.pth looks like NAME".

    Raises:
        WeightsError: Keys are missing or unexpected, or a tensor has the wrong shape or type.
    """
    rules = list(rules)
    expected = {key for rule in rules for key in rule.official}
    check_keys(state, expected, ignored, origin)
    # Shapes first, without a copy: a small file can claim tensors of any size.
    wrong = [
        f"{', '.join(f'{key} {_form(state[key])}' for key in rule.official)} "
        f"(for {rule.own} {_form(own[rule.own])})"
        for rule in rules
        if not _fits([state[key] for key in rule.official], own[rule.own])
    ]
    if wrong:
        raise WeightsError(f"{origin}, but shapes or types do not fit: {some(wrong)}")
    return {rule.own: _join([state[key] for key in rule.official], own[rule.own]) for rule in rules}


def check_keys(
    state: Mapping[str, Tensor], expected: Set[str], ignored: Set[str], origin: str
) -> None:
    """Check that an official state dict has the expected keys and no others.

    Args:
        state: The official state dict.
        expected: The keys that it must have.
        ignored: Further keys that it may have.
        origin: As in `apply_rules`.

    Raises:
        WeightsError: Keys are missing or unexpected.
    """
    missing = sorted(expected - state.keys())
    unexpected = sorted(state.keys() - expected - ignored)
    if missing or unexpected:
        raise WeightsError(
            f"{origin}, but its keys do not fit: missing {some(missing)}; "
            f"unexpected {some(unexpected)}"
        )


def _form(tensor: Tensor) -> str:
    """Shape and type of a tensor, and its layout or device if these are not the usual ones."""
    words = [str(tuple(tensor.shape)), str(tensor.dtype).removeprefix("torch.")]
    if tensor.layout != torch.strided:
        words.append(str(tensor.layout).removeprefix("torch."))
    if tensor.device.type not in ("cpu", "meta"):  # own tensors have no data
        words.append(f"on {tensor.device}")
    return " ".join(words)


def _fits(parts: list[Tensor], own: Tensor) -> bool:
    """Whether tensors, joined along the first axis, have the shape and type of `own`."""
    for part in parts:
        plain = part.layout == torch.strided and part.device.type == "cpu"
        if not plain or part.is_floating_point() != own.is_floating_point():
            return False
    shapes = [_without_unit_axes(part, own.ndim) for part in parts]
    if own.ndim == 0:  # a counter: the first is taken
        return all(shape == () for shape in shapes)
    if any(len(shape) != own.ndim or shape[1:] != tuple(own.shape[1:]) for shape in shapes):
        return False
    return sum(shape[0] for shape in shapes) == own.shape[0]


def _without_unit_axes(part: Tensor, ndim: int) -> tuple[int, ...]:
    """The shape without axes of size 1 at its end, such as those of a 1 x 1 convolution."""
    shape = tuple(part.shape)
    while len(shape) > ndim and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _join(parts: list[Tensor], own: Tensor) -> Tensor:
    is_counter = own.ndim == 0
    # One tensor is not copied: a file of several gigabytes is mapped, not read.
    joined = parts[0] if is_counter or len(parts) == 1 else torch.cat(parts)
    return joined.reshape(own.shape).to(own.dtype)


def some(items: list[str]) -> str:
    """The first items of a list, and how many more there are."""
    shown = ", ".join(items[:_SHOWN]) or "none"
    if len(items) <= _SHOWN:
        return shown
    return f"{shown} and {len(items) - _SHOWN} more"
