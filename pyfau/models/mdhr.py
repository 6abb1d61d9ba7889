"""MDHR in two stages: `encode` processes single frames, `relate` the window.

Wang et al., "Multi-scale Dynamic and Hierarchical Relationship Modeling for Facial Action Units
Recognition", CVPR 2024. The paper convolves differences of frames. The convolution of a difference
is the difference of the convolutions. Therefore `encode` convolves each frame once, without the
bias, and `relate` subtracts the results and adds the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.errors import InputError, OptionError
from pyfau.models.backbones import build_backbone
from pyfau.models.config import GRID, MDHRConfig
from pyfau.models.pixels import normalise
from pyfau.packed import PackedLinear, project, scale_and_shift
from pyfau.types import UInt8Array

TOKENS = GRID * GRID
POOL = 10  # differences averaged: d = t - 5 .. t + 4
TCN_KERNEL = 5
CONTEXT = POOL // 2 + TCN_KERNEL // 2  # a score depends on 7 frames before and 7 after its own
SCALE_WEIGHT_CHANNELS = 16
KERNELS = (8, 4, 2, 1)

Context = Literal["clip", "inner"]


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """The output of `encode` for each frame: (F, ...) for frames, or (B, T, ...) for windows.

    Attributes:
        static: (..., 49, D) tokens of the frame itself.
        dynamic: (..., 4, 49, C) the four difference projections, without bias.
    """

    static: Tensor
    dynamic: Tensor

    def __len__(self) -> int:
        return self.static.shape[0]

    def __getitem__(self, index: slice | Tensor) -> FrameFeatures:
        """Some of the frames, along the first axis."""
        return FrameFeatures(self.static[index], self.dynamic[index])

    def unflatten(self, windows: int, frames: int) -> FrameFeatures:
        """(B * T, ...) -> (B, T, ...)."""
        shape = (windows, frames)
        return FrameFeatures(self.static.unflatten(0, shape), self.dynamic.unflatten(0, shape))

    @staticmethod
    def cat(parts: Sequence[FrameFeatures]) -> FrameFeatures:
        """Join along the first axis."""
        return FrameFeatures(
            torch.cat([p.static for p in parts]), torch.cat([p.dynamic for p in parts])
        )


class ChannelNorm(nn.BatchNorm1d):
    """Batch norm over the last axis, for a tensor of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return super().forward(x.reshape(-1, x.shape[-1])).view(x.shape)


class LinearBlock(nn.Module):
    """Linear layer, batch norm over channels, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear: nn.Module = nn.Linear(inputs, outputs)
        self.norm: nn.Module = ChannelNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if isinstance(self.norm, nn.Identity):  # `fold` merged the norm into the linear layer
            return project(self.linear, x, "relu")
        return F.relu(self.norm(self.linear(x)))


class PatchProjection(nn.Module):
    """A convolution whose stride equals its kernel size, computed as a matrix product.

    `FacialDynamics.change` adds the bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        conv = nn.Conv2d(inputs, outputs, kernel)  # for its usual initialisation
        self.weight = nn.Parameter(conv.weight.detach())
        self.bias = nn.Parameter(conv.bias.detach())  # type: ignore[union-attr]
        self.packed: PackedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(F, C, 7 k, 7 k) -> (F, 49, outputs)."""
        k = self.kernel
        # In a channels_last image, the k pixels of one row of a patch are adjacent in memory.
        patches = (
            x.permute(0, 2, 3, 1).unflatten(2, (GRID, k)).unflatten(1, (GRID, k)).transpose(2, 3)
        )
        rows = patches.reshape(x.shape[0], TOKENS, -1)
        return self.packed(rows) if self.packed is not None else F.linear(rows, self._matrix())

    def pack(self) -> None:
        """Store the weight only in oneDNN's order; see `pyfau.packed`."""
        self.packed = PackedLinear(self._matrix(), None)
        del self.weight

    def _matrix(self) -> Tensor:
        return self.weight.permute(0, 2, 3, 1).flatten(1)  # a view of a channels_last weight


class FacialDynamics(nn.Module):
    """Multi-scale facial dynamics (MFD): changes around each frame at four scales."""

    def __init__(self, config: MDHRConfig, scale_channels: Sequence[int]) -> None:
        super().__init__()
        channels = config.dynamic_channels
        self.projections = nn.ModuleList(
            PatchProjection(c, channels, k) for c, k in zip(scale_channels, KERNELS, strict=True)
        )
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in KERNELS)
        self.weight_blocks = nn.ModuleList(
            LinearBlock(channels, SCALE_WEIGHT_CHANNELS) for _ in KERNELS
        )
        self.weight = nn.Linear(len(KERNELS) * SCALE_WEIGHT_CHANNELS, len(KERNELS))
        self.output = LinearBlock(channels, config.width)

    def encode(self, scales: Sequence[Tensor]) -> Tensor:
        """Four maps (F, C_i, H_i, W_i) -> (F, 4, 49, C)."""
        return torch.stack([p(x) for p, x in zip(self.projections, scales, strict=True)], dim=1)

    def forward(self, dynamic: Tensor, context: Context) -> Tensor:
        """(B, T, 4, 49, C) -> (B, T or T - 10, 49, D)."""
        pooled = []
        for i in range(len(KERNELS)):
            change = self.change(dynamic[:, :, i], i)
            if context == "clip":
                change = F.pad(change, (0, 0, 0, 0, POOL // 2, POOL // 2))
            pooled.append(self.pool(change))
        return self.mix(pooled)

    def change(self, frames: Tensor, scale: int) -> Tensor:
        """Changes between frames at one scale: (B, T, 49, C) -> (B, T - 1, 49, C) float32."""
        frames = frames.float()
        if frames.shape[1] == 1:  # one frame has no difference; batch norm rejects an empty batch
            return frames[:, :0]
        bias: Tensor = self.projections[scale].bias  # type: ignore[assignment]
        difference = torch.sub(frames[:, 1:], frames[:, :-1]).add_(bias)
        return F.relu(self.norms[scale](difference), inplace=True)

    @staticmethod
    def pool(change: Tensor) -> Tensor:
        """Means of ten neighbours: (B, T, 49, C) -> (B, T - 9, 49, C)."""
        # A sum of ten is a sum of eight plus a sum of two; these come from sums of four and two.
        two = change[:, :-1] + change[:, 1:]
        four = two[:, :-2] + two[:, 2:]
        eight = four[:, :-4] + four[:, 4:]
        return (eight[:, :-2] + two[:, 8:]) / POOL

    def mix(self, pooled: Sequence[Tensor]) -> Tensor:
        """Weighted sum of the four scales: 4 x (B, T, 49, C) -> (B, T, 49, D)."""
        hints = [block(x) for block, x in zip(self.weight_blocks, pooled, strict=True)]
        weights = project(self.weight, torch.cat(hints, dim=-1)).softmax(dim=-1)  # (B, T, 49, 4)
        mixed = weights[..., :1] * pooled[0]
        for i, x in enumerate(pooled[1:], start=1):
            mixed = torch.addcmul(mixed, weights[..., i, None], x)
        out: Tensor = self.output(mixed)
        return out

    @property
    def is_zero(self) -> bool:
        """Whether the output is 0 for every input, by the last layer, whose norm is folded."""
        linear = self.output.linear
        if not isinstance(linear, nn.Linear) or not isinstance(self.output.norm, nn.Identity):
            return False
        return not bool(linear.weight.any()) and bool((linear.bias <= 0).all())  # then ReLU

    def fold(self) -> None:
        """Multiply the batch norms of the differences into the projections."""
        for i, projection in enumerate(self.projections):
            assert isinstance(projection, PatchProjection)
            scale, shift = scale_and_shift(self.norms[i])
            weight, bias = projection.weight, projection.bias
            projection.weight = nn.Parameter(
                (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), False
            )
            projection.bias = nn.Parameter((bias.double() * scale + shift).to(bias.dtype), False)
            self.norms[i] = nn.Identity()


class NoDynamics(nn.Module):
    """Stands in for `FacialDynamics` whose output is 0 for every input: nothing is computed.

    Its features have no channels, so that windows and streams need no other code.

    Args:
        width: D, channels of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList()

    def encode(self, scales: Sequence[Tensor]) -> Tensor:
        """Four maps (F, C_i, H_i, W_i) -> (F, 4, 49, 0)."""
        return scales[0].new_empty(scales[0].shape[0], len(KERNELS), TOKENS, 0)

    def forward(self, dynamic: Tensor, context: Context) -> Tensor:
        """(B, T, 4, 49, C) -> zeros (B, T or T - 10, 49, D)."""
        windows, frames = dynamic.shape[:2]
        frames -= POOL if context == "inner" else 0
        return dynamic.new_zeros(windows, frames, TOKENS, self.width, dtype=torch.float32)

    def change(self, frames: Tensor, scale: int) -> Tensor:
        """(B, T, 49, C) -> (B, T - 1, 49, 0) float32; other engines may encode channels."""
        return frames[:, 1:, :, :0].float()

    def mix(self, pooled: Sequence[Tensor]) -> Tensor:
        """Four of (B, T, 49, 0) -> zeros (B, T, 49, D)."""
        return pooled[0].new_zeros(*pooled[0].shape[:3], self.width)


class RegionRelations(nn.Module):
    """Local relationship modelling (LRM): the action units of one region and their combinations."""

    def __init__(self, config: MDHRConfig, index: int) -> None:
        super().__init__()
        region, width = config.regions[index], config.width
        self.rows = slice(*region.rows)
        self.aus = len(region.aus)
        self.projection = LinearBlock(width, width) if config.project_regions else nn.Identity()
        self.head = nn.Linear(width, 2**self.aus)
        self.au_blocks = LinearBlock(width, self.aus * width)  # one block for each AU, concatenated

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(F, 49, D) -> AU features (F, n, D) in group order, region logits (F, 2^n)."""
        own = tokens.unflatten(1, (GRID, GRID))[:, self.rows].flatten(1, 2)
        own = self.projection(own)
        features = self.au_blocks(own).mean(dim=1).unflatten(1, (self.aus, -1))
        return features, project(self.head, own.mean(dim=1))


class CrossRegionRelations(nn.Module):
    """Cross-region relationship modelling (CRM).

    Each action unit receives the features of the active ones in other regions.
    """

    other_group: Tensor
    own: Tensor
    order: Tensor
    bits: Tensor

    def __init__(self, config: MDHRConfig) -> None:
        super().__init__()
        width = config.width
        self.linear = nn.Linear(width, width, bias=False)
        self.receiver = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width))[0])
        self.neighbour = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width))[0])
        self.bias = nn.Parameter(torch.zeros(width))
        group = torch.tensor(
            [next(g for g, r in enumerate(config.regions) if au in r.aus) for au in config.aus]
        )
        self.register_buffer("other_group", group[:, None] != group[None, :], persistent=False)
        self.register_buffer("own", torch.eye(len(config.aus), dtype=torch.bool), persistent=False)
        self.register_buffer("order", torch.tensor(config.group_order), persistent=False)
        most = max(len(region.aus) for region in config.regions)
        # Row c: the active action units of class c.
        bits = torch.arange(2**most)[:, None] >> torch.arange(most - 1, -1, -1) & 1
        self.register_buffer("bits", bits.bool(), persistent=False)

    def active(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits (F, 2^n) of each region -> (F, N) bool: the AUs of its most likely class."""
        bits = [
            self.bits[region.argmax(dim=-1), -(region.shape[-1].bit_length() - 1) :]
            for region in logits
        ]
        return torch.cat(bits, dim=-1)[:, self.order]

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """(F, N, D), (F, N) -> (F, N, D)."""
        h = project(self.linear, x)
        score = F.leaky_relu(
            (h @ self.receiver)[:, :, None] + (h @ self.neighbour)[:, None, :], 0.2
        )
        edges = self.other_group & active[:, None, :] | self.own
        attention = score.masked_fill(~edges, -torch.inf).softmax(dim=-1)
        return F.elu(attention @ h + x + self.bias)


class TemporalConvolution(nn.Module):
    """Individual temporal modelling (TCN): a convolution over time for every action unit."""

    def __init__(self, config: MDHRConfig) -> None:
        super().__init__()
        bound = TCN_KERNEL**-0.5
        shape = (len(config.aus), config.width)
        self.weight = nn.Parameter(torch.empty(TCN_KERNEL, *shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(len(config.aus))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, T, N, D) -> (B, T or T - 4, N, D)."""
        if context == "clip":
            x = F.pad(x, (0, 0, 0, 0, TCN_KERNEL // 2, TCN_KERNEL // 2))
        frames = x.shape[1] - TCN_KERNEL + 1
        y = self.bias + sum(x[:, k : k + frames] * w for k, w in enumerate(self.weight))
        return F.relu(self.norm(y.flatten(0, 1))).view(y.shape)

    def fold(self) -> None:
        """Multiply the batch norm into the convolution."""
        scale, shift = (part[:, None] for part in scale_and_shift(self.norm))  # (N, 1)
        self.weight = nn.Parameter((self.weight.double() * scale).to(self.weight.dtype), False)
        self.bias = nn.Parameter((self.bias.double() * scale + shift).to(self.bias.dtype), False)
        self.norm = nn.Identity()  # type: ignore[assignment]


class MDHR(nn.Module):
    """Multi-scale dynamic and hierarchical relationship network (MDHR).

    `encode` and `relate` are the two stages. `forward` runs both on clips, as in the paper.

    Attributes:
        config: The configuration.
        encode_dtype: Number type of `encode` and of its features; `relate` always computes in
            float32.
        encode_frames: Number of frames that `encode` processes at a time.
        encoder: Encodes frames instead of the backbone, for other engines; None for torch.
    """

    mean: Tensor
    std: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, config: MDHRConfig) -> None:
        super().__init__()
        self.config = config
        self.encode_dtype = torch.float32
        self.encode_frames = 1 << 30
        self.encoder: Callable[[Tensor], FrameFeatures] | None = None
        self.backbone = build_backbone(config)
        self.static = LinearBlock(self.backbone.static_channels, config.width)
        self.dynamics = FacialDynamics(config, self.backbone.scale_channels)
        self.regions = nn.ModuleList(RegionRelations(config, i) for i in range(len(config.regions)))
        self.cross_region = CrossRegionRelations(config)
        self.temporal = TemporalConvolution(config)
        self.classifier = nn.Parameter(
            nn.init.xavier_uniform_(torch.empty(len(config.aus), config.width))
        )
        if config.head == "logistic":
            self.classifier_bias = nn.Parameter(torch.zeros(len(config.aus)))
        slopes, offsets = zip(*(config.calibration or [(1.0, 0.0)] * len(config.aus)), strict=True)
        self.register_buffer("slope", torch.tensor(slopes), persistent=False)
        self.register_buffer("offset", torch.tensor(offsets), persistent=False)
        self.register_buffer(
            "mean", torch.tensor(config.mean).view(3, 1, 1) * 255, persistent=False
        )
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1) * 255, persistent=False)

    @property
    def context(self) -> int:
        """Number of frames on each side of a frame that its scores depend on."""
        return CONTEXT

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.device

    def preprocess(self, crops: UInt8Array | Tensor) -> Tensor:
        """Normalise face crops.

        Args:
            crops: (..., S, S, 3) uint8, RGB, an array or a tensor, with S the model's input size.

        Returns:
            (..., 3, S, S) float32 on the model's device.

        Raises:
            InputError: The dtype or the shape is another one.
        """
        size = self.config.input_size
        kind, shape = (
            getattr(crops, "dtype", type(crops).__name__),
            tuple(getattr(crops, "shape", ())),
        )
        if (
            str(kind).removeprefix("torch.") != "uint8"
            or len(shape) < 3
            or shape[-3:] != (size, size, 3)
        ):
            raise InputError(f"expected uint8 crops (..., {size}, {size}, 3), got {kind} {shape}")
        x = (
            torch.from_numpy(np.ascontiguousarray(crops))
            if isinstance(crops, np.ndarray)
            else crops
        )
        if self.device.type == "cuda" and not x.is_cuda:
            x = x.pin_memory()  # the CPU does not wait for a copy from pinned memory
        return normalise(x.to(self.device, non_blocking=True), self.mean, self.std)

    def encode(self, x: Tensor) -> FrameFeatures:
        """Compute everything that depends on one frame.

        Args:
            x: (F, 3, S, S) float32, normalised as by `preprocess`.

        Returns:
            Features of the F frames.

        Raises:
            InputError: The shape or the dtype is another one.
            OptionError: The features are float16, and one of them is too large for it.
        """
        self._check(x, 4, "(F, 3, {size}, {size})")
        encode = self.encoder or self.encode_batch
        parts = [encode(part) for part in x.to(self.encode_dtype).split(self.encode_frames)]
        features = parts[0] if len(parts) == 1 else FrameFeatures.cat(parts)
        finite = [
            x.isfinite().all()
            for x in (features.static, features.dynamic)
            if x.dtype == torch.float16
        ]
        if not all(finite):
            raise OptionError(
                "precision 'float16' is too small for the features of this network: its largest "
                "number is 65,504; use 'bfloat16' or 'float32'"
            )
        return features

    def relate(self, features: FrameFeatures, context: Context = "clip") -> Tensor:
        """Compute everything that depends on the window.

        Args:
            features: (B, T, ...) features of T consecutive frames.
            context: "clip" pads the window with zeros on both sides, as the paper does with its
                clips; "inner" scores only frames with 7 frames before and 7 after them in the
                window.

        Returns:
            (B, T, N) scores in [0, 1], or (B, T - 14, N) for "inner".

        Raises:
            InputError: An "inner" window has fewer than 15 frames, or the features have no window
                axis.
        """
        return self.relate_regions(features, context)[0]

    def relate_regions(
        self, features: FrameFeatures, context: Context = "clip"
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the scores as `relate` does, and the logits of the regions.

        Returns:
            The scores of `relate`, and for each region the logits (B, T, 2^n) of the combinations
            of its AUs. For "inner" these are (B, T - 10, 2^n), because a score also depends on the
            two frames before and after its own.
        """
        if features.static.ndim != 4:
            raise InputError(
                f"expected features of windows (B, T, ...), "
                f"got static {tuple(features.static.shape)}"
            )
        frames = features.static.shape[1]
        if context == "inner" and frames <= 2 * CONTEXT:
            raise InputError(
                f"an inner window needs at least {2 * CONTEXT + 1} frames, got {frames}"
            )
        tokens = self.dynamics(features.dynamic, context)
        skip = (frames - tokens.shape[1]) // 2
        return self.relate_tokens(tokens + features.static[:, skip : frames - skip], context)

    def relate_tokens(
        self, tokens: Tensor, context: Context = "clip"
    ) -> tuple[Tensor, list[Tensor]]:
        """The second part of `relate_regions`: tokens (B, T, 49, D) -> scores and region logits."""
        windows = tokens.shape[0]  # an export would store len() as a constant
        units, logits = self.relate_units(tokens.flatten(0, 1))
        units = self.temporal(units.unflatten(0, (windows, -1)), context)
        return self.classify(units), [x.unflatten(0, (windows, -1)) for x in logits]

    def relate_units(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Relate the action units of single frames.

        Args:
            tokens: (F, 49, D).

        Returns:
            (F, N, D) features of the action units, AUs ascending, and logits (F, 2^n) of each
            region.
        """
        parts, logits = zip(*(region(tokens) for region in self.regions), strict=True)
        units = torch.cat(parts, dim=1)[:, self.cross_region.order]
        return self.cross_region(units, self.cross_region.active(logits)), list(logits)

    def classify(self, units: Tensor) -> Tensor:
        """Features of the action units (..., N, D) -> calibrated scores (..., N) in [0, 1]."""
        if self.config.head == "logistic":
            odds = (units * self.classifier).sum(dim=-1) + self.classifier_bias
            return torch.sigmoid(self.slope * odds + self.offset)
        scores = (F.normalize(units, dim=-1) * F.normalize(F.relu(self.classifier), dim=-1)).sum(
            dim=-1
        )
        scores = scores.clamp(0.0, 1.0)
        if not self.config.calibration:
            return scores
        return torch.sigmoid(self.slope * scores.logit(eps=1e-6) + self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Score clips. Each clip is a separate window.

        Args:
            x: (B, T, 3, S, S) float32, normalised as by `preprocess`.

        Returns:
            (B, T, N) scores in [0, 1].

        Raises:
            InputError: The shape or the dtype is another one.
        """
        self._check(x, 5, "(B, T, 3, {size}, {size})")
        return self.relate(self.encode(x.flatten(0, 1)).unflatten(*x.shape[:2]))

    def encode_batch(self, x: Tensor) -> FrameFeatures:
        """Encode frames that are checked and already in `encode_dtype`."""
        scales, tokens = self.backbone(x)
        return FrameFeatures(self.static(tokens), self.dynamics.encode(scales))

    def _check(self, x: Tensor, ndim: int, expected: str) -> None:
        size = self.config.input_size
        if (
            x.ndim != ndim
            or tuple(x.shape[-3:]) != (3, size, size)
            or x.dtype != self.classifier.dtype
            or 0 in x.shape
        ):
            shape = expected.format(size=size)
            raise InputError(
                f"expected normalised float frames {shape}, got {x.dtype} {tuple(x.shape)}"
            )
