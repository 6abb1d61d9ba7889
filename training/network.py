"""The network in training: MDHR with three levels for each action unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from data import AUS, CROP, TEMPLATE
from sampling import SHAPES
from torch import Tensor, nn

from pyfau.models.config import MDHRConfig, Region
from pyfau.models.mdhr import (
    CONTEXT,
    MDHR,
    TCN_KERNEL,
    TOKENS,
    FrameFeatures,
    TemporalConvolution,
)
from pyfau.weights.store import load_model

CONFIG = MDHRConfig(
    name="mdhr-lite",
    version="10",
    backbone="small",
    backbone_options={"widths": (24, 64, 128, 192), "blocks": (0, 2, 2, 2), "local": 96},
    aus=AUS,
    regions=(
        Region("up", (0, 3), (1, 2, 4, 5, 7, 43)),
        Region("mid", (2, 5), (6, 9)),
        Region("down1", (4, 7), (12, 14, 15, 20)),
        Region("down2", (4, 7), (10, 17, 18, 23, 24, 25, 26, 28)),
    ),
    project_regions=True,
    template=TEMPLATE,
    thresholds=(0.5,) * len(AUS),
    input_size=CROP,
    width=128,
    dynamic_channels=128,
    head="logistic",
    source="trained by training/train.py",
    aligner="mesh",
)
SQUEEZED = 32  # channels of a token from which the blendshapes are predicted
FIRST_OFFSETS = (1.5, -3.0)  # of "a trace or more" and "strong" on the log-odds of "present"
HINT = 0.1  # start of the scale of the dynamic branch; with 0, its ReLU would pass no gradient
SEES_TIME = ("dynamics", "temporal")  # the parts of the network that use neighbouring frames


class Trainee(nn.Module):
    """The network, its grade offsets, and a head for blendshapes that is used only in training."""

    def __init__(self, config: MDHRConfig = CONFIG) -> None:
        super().__init__()
        self.mdhr = MDHR(config)
        self.offsets = nn.Parameter(torch.tensor([FIRST_OFFSETS] * len(config.aus)))
        self.squeeze = nn.Linear(config.width, SQUEEZED)
        self.shapes = nn.Linear(SQUEEZED * TOKENS, SHAPES)
        with torch.no_grad():
            self.mdhr.temporal.weight.zero_()
            self.mdhr.temporal.weight[TCN_KERNEL // 2] = 1.0
            self.mdhr.temporal.bias.zero_()
        leave_out(self.mdhr, SEES_TIME)

    def levels(self, odds: Tensor) -> Tensor:
        """(..., N) log-odds of "present" -> (..., N, 3) of "a trace", "present" and "strong"."""
        trace = F.softplus(self.offsets[:, 0])
        strong = -F.softplus(-self.offsets[:, 1])
        return torch.stack([odds + trace, odds, odds + strong], dim=-1)

    def static(self, crops: Tensor) -> Tensor:
        """(F, 3, CROP, CROP) uint8 -> (F, 49, D) tokens."""
        net = self.mdhr
        pixels = (crops.float() - net.mean) / net.std
        _, tokens = net.backbone(pixels.contiguous(memory_format=torch.channels_last))
        return net.static(tokens)

    def frames(self, crops: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """(B, 3, CROP, CROP) uint8 -> levels (B, N, 3), region logits, blendshapes (B, 52)."""
        net = self.mdhr
        static = self.static(crops)
        units, regions = net.relate_units(static)
        units = net.temporal(units[:, None], "clip")[:, 0]
        seen = F.relu(self.squeeze(static)).flatten(1)
        return self.levels(head_odds(net, units)), regions, self.shapes(seen)

    def windows(self, crops: Tensor) -> Tensor:
        """(B, T, 3, CROP, CROP) uint8 -> levels (B, T, N, 3); the backbone stays unchanged."""
        net = self.mdhr
        with torch.no_grad():
            pixels = (crops.flatten(0, 1).float() - net.mean) / net.std
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            scales, tokens = net.backbone(pixels)
        features = FrameFeatures(net.static(tokens), net.dynamics.encode(scales))
        features = repeat_ends(features.unflatten(*crops.shape[:2]))
        dynamic = net.dynamics(features.dynamic, "inner")
        skip = (features.static.shape[1] - dynamic.shape[1]) // 2
        inner = dynamic + features.static[:, skip:-skip]
        units, _ = net.relate_units(inner.flatten(0, 1))
        units = net.temporal(units.unflatten(0, inner.shape[:2]), "inner")
        return self.levels(head_odds(net, units))


def head_odds(net: MDHR, units: Tensor) -> Tensor:
    """The log-odds of the head before calibration: (..., N, D) -> (..., N)."""
    return (units.float() * net.classifier).sum(dim=-1) + net.classifier_bias


def repeat_ends(features: FrameFeatures) -> FrameFeatures:
    """Repeat the first and last frame of windows (B, T, ...), as pyfau does at a track's ends."""

    def repeat(x: Tensor) -> Tensor:
        head = x[:, :1].expand(-1, CONTEXT, *x.shape[2:])
        tail = x[:, -1:].expand(-1, CONTEXT, *x.shape[2:])
        return torch.cat([head, x, tail], dim=1)

    return FrameFeatures(repeat(features.static), repeat(features.dynamic))


@torch.no_grad()
def smooth(temporal: TemporalConvolution, neighbour: float) -> None:
    """Set the convolution over time to this share of the frame before and of the frame after."""
    middle = TCN_KERNEL // 2
    whole = temporal.weight.sum(0)
    temporal.weight.zero_()
    temporal.weight[middle - 1] = neighbour * whole
    temporal.weight[middle] = (1 - 2 * neighbour) * whole
    temporal.weight[middle + 1] = neighbour * whole


@torch.no_grad()
def begin_time(net: MDHR) -> None:
    """Start the dynamic branch with small weights, so that it can learn."""
    net.dynamics.output.norm.weight.fill_(HINT)
    net.dynamics.output.norm.bias.zero_()


@torch.no_grad()
def leave_out(net: MDHR, parts: Sequence[str]) -> None:
    """Set parts of the network so that they change nothing."""
    if "dynamics" in parts:
        net.dynamics.output.norm.weight.zero_()
        net.dynamics.output.norm.bias.zero_()
    if "temporal" in parts:
        smooth(net.temporal, 0.0)


@torch.no_grad()
def adopt(new: MDHR, old: MDHR) -> None:
    """Copy the weights that two sets of action units have in common."""
    for part in ("backbone", "static", "dynamics"):
        getattr(new, part).load_state_dict(getattr(old, part).state_dict())
    names = ("linear", "receiver", "neighbour", "bias")
    state, known = new.cross_region.state_dict(), old.cross_region.state_dict()
    for name, value in known.items():
        if name.split(".")[0] in names:
            state[name].copy_(value)
    for au in set(new.config.aus) & set(old.config.aus):
        _adopt_unit(new, old, au)


def _adopt_unit(new: MDHR, old: MDHR, au: int) -> None:
    mine, its = new.config.aus.index(au), old.config.aus.index(au)
    new.classifier[mine] = old.classifier[its]
    new.classifier_bias[mine] = old.classifier_bias[its]
    for name, value in new.temporal.norm.state_dict().items():
        if value.ndim:
            value[mine] = old.temporal.norm.state_dict()[name][its]
    new.temporal.weight[TCN_KERNEL // 2, mine] = old.temporal.weight[:, its].sum(0)
    new.temporal.bias[mine] = old.temporal.bias[its]
    for region, config in zip(new.regions, new.config.regions, strict=True):
        for other, other_config in zip(old.regions, old.config.regions, strict=True):
            if au in config.aus and au in other_config.aus:
                region.projection.load_state_dict(other.projection.state_dict())
                block = _block(config, au, new.config.width)
                its_block = _block(other_config, au, old.config.width)
                state, known = region.au_blocks.state_dict(), other.au_blocks.state_dict()
                for name, value in state.items():
                    if value.ndim:
                        value[block] = known[name][its_block]


def _block(region: Region, au: int, width: int) -> slice:
    place = region.aus.index(au)
    return slice(place * width, (place + 1) * width)


def load_trainee(path: Path) -> Trainee:
    """A network of train.py, or a model directory to begin from."""
    if path.is_dir():
        trainee, model = Trainee(), load_model(path)
        if (model.config.aus, model.config.regions) == (CONFIG.aus, CONFIG.regions):
            trainee.mdhr.load_state_dict(model.state_dict())
        else:
            adopt(trainee.mdhr, model)
        leave_out(trainee.mdhr, SEES_TIME)
        return trainee
    saved = torch.load(path, weights_only=True, map_location="cpu")
    if "config" not in saved:
        raise SystemExit(f"{path} is not a network of train.py: expected NAME.pt of a stage")
    trainee = Trainee(MDHRConfig.from_json(saved["config"], str(path)))
    trainee.load_state_dict(saved["state"])
    return trainee


def save_trainee(trainee: Trainee, file: Path) -> None:
    """Write the network whole or not at all."""
    unfinished = file.with_suffix(".part")
    torch.save({"config": trainee.mdhr.config.to_json(), "state": trainee.state_dict()}, unfinished)
    unfinished.replace(file)
