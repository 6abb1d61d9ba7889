"""Shapes and types of a network's tensors, without allocating the tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def state_without_data(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Build a network to read the shapes and types of its tensors.

    Args:
        build: Makes the network.

    Returns:
        Its state dict. Tensors of more than 10,000 numbers are on the "meta" device: they have no
        data.
    """
    with _LargeOnMeta():
        return build().state_dict()


class _LargeOnMeta(TorchFunctionMode):
    """Creates tensors of more than 10,000 numbers without data.

    `torch.device("meta")` would do this for all tensors. But torch then loads its compiler to add
    two of them, which takes more than a second.
    """

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.empty, torch.zeros, torch.ones):
            made = function(*args, **{**kwargs, "device": "meta"})
            if made.numel() > 10_000:
                return made
        return function(*args, **kwargs)
