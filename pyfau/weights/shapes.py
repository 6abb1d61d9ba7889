"""What tensors a network has, without the memory that they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def state_without_data(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """The state dict of a network that is built for it, with the shapes and types of its tensors.

    Those of more than some thousand numbers are on the "meta" device.
    """
    with _LargeOnMeta():
        return build().state_dict()


class _LargeOnMeta(TorchFunctionMode):
    """Makes new tensors of more than some thousand numbers without data.

    `torch.device("meta")` makes all of them so, but then torch loads its compiler, for more than a second, to add two.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.empty, torch.zeros, torch.ones):
            made = function(*args, **{**kwargs, "device": "meta"})
            if made.numel() > 10_000:
                return made
        return function(*args, **kwargs)
