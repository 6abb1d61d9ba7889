"""Layers of a network for inference: folded batch norms and, on a CPU, the layout of oneDNN.

The networks call their layers through `convolve` and `project`, which take packed and plain layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ops = torch.ops.mkldnn
_OPS = (
    "_convolution_pointwise",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_reorder_linear_weight",
)


# Torch would choose the overload of an operator at each call. For the ten small convolutions of the
# landmark network, this takes a tenth of a millisecond. The operators exist only where torch has
# oneDNN, so they are read at the first call.
@cache
def _convolution() -> Any:
    return _ops._convolution_pointwise.default


@cache
def _linear() -> Any:
    return _ops._linear_pointwise.default


@runtime_checkable
class Foldable(Protocol):
    """A module that folds batch norms itself."""

    def fold(self) -> None:
        """Multiply its batch norms into its other parameters, in place."""
        ...


class PackedConv(nn.Module):
    """A convolution with its weights in oneDNN's order; sum and ReLU are fused into it.

    These are the operators that torch's own compiler calls for frozen networks; here they need no
    compiler.

    Args:
        conv: Convolution to take over.
        shape: (F, C, H, W) of its inputs, on which the best order depends. Others are taken too,
            but slower.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, shape: Sequence[int]) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.steps = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.register_buffer(
            "weight", _ops._reorder_convolution_weight(conv.weight.detach(), *self.steps, shape)
        )
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        """(F, C, H, W) -> the convolution, plus `add`, and ReLU of that."""
        activation = "relu" if relu else "none"
        if add is None:
            y: Tensor = _convolution()(x, self.weight, self.bias, *self.steps, activation, [], "")
        else:
            unary = "relu" if relu else None
            y = _ops._convolution_pointwise.binary(
                x, add, self.weight, self.bias, *self.steps, "add", None, unary, [], None
            )
        return y


class PackedLinear(nn.Module):
    """A linear layer with its weights in oneDNN's order; ReLU and sums are fused into it."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", _ops._reorder_linear_weight(weight.detach().contiguous()))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor, activation: str = "none", add: Tensor | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs); `activation` is "none", "relu" or "gelu" (exact)."""
        if activation == "gelu":
            # oneDNN's own exact GELU takes several times as long as this one.
            y: Tensor = _linear()(x, self.weight, self.bias, "none", [], "none")
            y = F.gelu(y)
        elif add is None:
            y = _linear()(x, self.weight, self.bias, activation, [], "none")
        else:
            y = _ops._linear_pointwise.binary(x, add, self.weight, self.bias, "add")
        return y


NO_NORM = nn.Identity()  # for a convolution that its batch norm is already part of


def convolve(
    conv: nn.Module, norm: nn.Module, x: Tensor, add: Tensor | None = None, relu: bool = True
) -> Tensor:
    """Convolution, batch norm, sum with a shortcut, ReLU."""
    if isinstance(conv, PackedConv):
        return conv.forward(x, add, relu)  # a call of the module would look for hooks
    y: Tensor = norm(conv(x))
    y = y if add is None else y + add
    return F.relu(y, inplace=True) if relu else y


def project(
    linear: nn.Module, x: Tensor, activation: str = "none", add: Tensor | None = None
) -> Tensor:
    """Linear layer, with either an activation ("none", "relu", "gelu") or a sum."""
    if isinstance(linear, PackedLinear):
        return linear.forward(x, activation, add)
    y: Tensor = linear(x)
    if add is not None:
        return y + add
    if activation == "relu":
        return F.relu(y)
    if activation == "gelu":
        return F.gelu(y)
    return y


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm does to each channel in eval mode: x * scale + shift, (C,) float64 each."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Multiply each batch norm of a network in eval mode into the layer before it, in place.

    That is the convolution or linear layer registered just before the norm. A module whose norms
    belong to something else has a method `fold`, which does it.
    """
    for module in list(network.modules()):
        if isinstance(module, Foldable):
            module.fold()
        # The order of registration says which layer a norm follows. Torch does not store the order
        # of the calls.
        for (_, layer), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and isinstance(
                layer, nn.Conv2d | nn.Linear
            ):
                # In float64: the result is rounded to the type of the weights only once.
                scale, shift = scale_and_shift(norm)
                bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
                shape = (-1,) + (1,) * (layer.weight.ndim - 1)
                dtype = layer.weight.dtype
                layer.weight = nn.Parameter(
                    (layer.weight.detach().double() * scale.view(shape)).to(dtype), False
                )
                layer.bias = nn.Parameter(bias.to(dtype), False)
                setattr(module, name, nn.Identity())


def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this torch has oneDNN and the operators that `pack` uses, and this CPU the dtype."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(_ops, name) for name in _OPS):
        return False
    if dtype == torch.float32:
        return True
    try:  # torch has no function that says for which CPUs oneDNN takes bfloat16
        _ops._reorder_convolution_weight(
            torch.zeros(8, 8, 1, 1, dtype=dtype), [0, 0], [1, 1], [1, 1], 1, [1, 8, 8, 8]
        )
    except RuntimeError:
        return False
    return True


@torch.no_grad()
def pack(network: nn.Module, example: Tensor | None = None) -> None:
    """Replace convolutions and linear layers by packed ones. For networks on a CPU, once their
    norms are folded.

    Args:
        network: Changed in place.
        example: An input, to learn the sizes that the convolutions see; needed if there are any.
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[conv] = tuple(inputs[0].shape)

    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convs]
    if example is not None:
        network(example)
    for hook in hooks:
        hook.remove()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, PackedConv(child, shapes[child]))
            elif isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child.weight, child.bias))
