"""Backbones: one frame in, four scales and a static map out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from pyfau.models.config import MDHRConfig


class Backbone(Protocol):
    """What MDHR asks of a backbone.

    Attributes:
        scale_channels: Channels of the four maps, of 56, 28, 14 and 7 rows and columns.
        static_channels: Channels of the static map.
    """

    scale_channels: tuple[int, int, int, int]
    static_channels: int

    def __call__(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(F, 3, S, S) normalised floats -> four maps (F, C, H, W) and static tokens (F, 49, C)."""
        ...


def _resnet50(**options: Any) -> nn.Module:
    from pyfau.models.backbones.resnet import ResNet50

    return ResNet50(**options)


def _swin_b(**options: Any) -> nn.Module:
    from pyfau.models.backbones.swin import SwinB

    return SwinB(**options)


def _small(**options: Any) -> nn.Module:
    from pyfau.models.backbones.small import SmallNet

    return SmallNet(**options)


_BUILDERS: dict[str, Callable[..., nn.Module]] = {"resnet50": _resnet50, "swin_b": _swin_b, "small": _small}


def build_backbone(config: MDHRConfig) -> Backbone:
    """The backbone that a configuration names, with fresh weights."""
    return cast(Backbone, _BUILDERS[config.backbone](**config.backbone_options))
