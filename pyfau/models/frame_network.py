"""Networks that score single frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pyfau.errors import InputError
from pyfau.models.frame_config import FrameConfig
from pyfau.models.pixels import normalise
from pyfau.types import UInt8Array


class FrameNetwork(nn.Module, ABC):
    """Base class of networks that score single frames.

    A subclass has the method `score_frames`.

    Attributes:
        config: The configuration.
        batch_frames: Largest number of frames that are scored at a time.
        heavy_part: Name of the submodule that computes in half precision if that is chosen. It is
            called with one tensor. "" for a network that computes in float32 only.
        engine: Another engine that scores frames, or None.
    """

    heavy_part = ""

    mean: Tensor
    std: Tensor
    # In this layout convolutions add in the order of the authors' code. In channels_last the
    # intensities of LibreFace differ by up to 1e-5.
    memory_format = torch.contiguous_format

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_frames = 1 << 30
        self.engine: Callable[[Tensor], Tensor] | None = None
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        self.register_buffer("mean", mean.view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", std.view(3, 1, 1) * 255, persistent=False)

    @property
    def context(self) -> int:
        """Number of frames on each side of a frame that its scores depend on."""
        return 0

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mean.device

    @abstractmethod
    def score_frames(self, x: Tensor) -> Tensor:
        """Score frames that are checked.

        Args:
            x: (F, 3, S, S) float32, normalised as by `preprocess`.

        Returns:
            (F, N) values in the order of `config.outputs`, each in its range.
        """

    def packable(self) -> tuple[nn.Module, list[nn.Module]]:
        """Parts whose layers can take oneDNN's form. They call layers by `packed.project`.

        Returns:
            The part that takes images, and the others, which have no convolutions.
        """
        return nn.Identity(), []

    def preprocess(self, crops: UInt8Array | Tensor) -> Tensor:
        """Normalise face crops.

        Args:
            crops: (..., S, S, 3) uint8, RGB, an array or a tensor; S is the model's input size.

        Returns:
            (..., 3, S, S) float32 on the model's device.

        Raises:
            InputError: Another dtype or shape.
        """
        size = self.config.input_size
        kind = str(getattr(crops, "dtype", type(crops).__name__)).removeprefix("torch.")
        shape = tuple(getattr(crops, "shape", ()))
        if kind != "uint8" or len(shape) < 3 or shape[-3:] != (size, size, 3):
            raise InputError(f"expected uint8 crops (..., {size}, {size}, 3), got {kind} {shape}")
        x = torch.as_tensor(np.ascontiguousarray(crops)) if isinstance(crops, np.ndarray) else crops
        return normalise(x.to(self.device), self.mean, self.std)

    def forward(self, x: Tensor) -> Tensor:
        """Score clips. Every frame is scored on its own.

        Args:
            x: (B, T, 3, S, S) float32, normalised as by `preprocess`.

        Returns:
            (B, T, N) values in the order of `config.outputs`, each in its range.

        Raises:
            InputError: Another shape or dtype.
        """
        size = self.config.input_size
        fits = x.ndim == 5 and tuple(x.shape[2:]) == (3, size, size) and 0 not in x.shape
        if not fits or x.dtype != torch.float32:
            raise InputError(
                f"expected normalised float32 frames (B, T, 3, {size}, {size}), "
                f"got {x.dtype} {tuple(x.shape)}"
            )
        return self.encode(x.flatten(0, 1)).view(*x.shape[:2], -1)

    def encode(self, x: Tensor) -> Tensor:
        """Score frames.

        Args:
            x: (F, 3, S, S) float32, normalised as by `preprocess`.

        Returns:
            (F, N) values in the order of `config.outputs`.
        """
        score = self.engine or self.score_frames
        return torch.cat([score(part) for part in x.split(self.batch_frames)])
