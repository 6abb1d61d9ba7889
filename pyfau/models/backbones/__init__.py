"""Backbones: one frame in, four scales and a static map out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from torch import Tensor, nn

from pyfau.models.config import MDHRConfig


class Backbone(Protocol):
    """The interface that MDHR requires of a backbone.

    Attributes:
        scale_channels: Channels of the four maps, of 56, 28, 14 and 7 rows and columns.
        static_channels: Channels of the static map.
    """

    scale_channels: tuple[int, int, int, int]
    static_channels: int

    def __call__(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(F, 3, S, S) normalised floats -> four maps (F, C, H, W) and static tokens (F, 49, C)."""
        ...


def _resnet(depth: int, **options: Any) -> nn.Module:
    from pyfau.models.backbones.resnet import ResNet

    return ResNet(depth, **options)


def _swin(size: str, **options: Any) -> nn.Module:
    from pyfau.models.backbones.swin import Swin

    return Swin(size, **options)


def _small(**options: Any) -> nn.Module:
    from pyfau.models.backbones.small import SmallNet

    return SmallNet(**options)


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(_resnet, 18),
    "resnet50": partial(_resnet, 50),
    "resnet101": partial(_resnet, 101),
    "swin_t": partial(_swin, "t"),
    "swin_s": partial(_swin, "s"),
    "swin_b": partial(_swin, "b"),
    "small": _small,
}


def make_backbone(name: str, **options: Any) -> Backbone:
    """A backbone by its name, with fresh weights."""
    return cast(Backbone, _BUILDERS[name](**options))


def build_backbone(config: MDHRConfig) -> Backbone:
    """The backbone that a configuration names, with fresh weights."""
    return make_backbone(config.backbone, **config.backbone_options)
