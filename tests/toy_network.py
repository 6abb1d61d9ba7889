"""A toy network for single frames: all that a new network needs, in one file.

One line registers it: `NETWORKS["toy"] = single_frame(Toy, recognise, "a toy")`. The page
docs/add-a-network.md follows this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.protocol import MAX_SCORE, Crop, Licence, Output

OUTPUTS = (
    Output(1),
    Output(12),
    Output(12, "intensity"),
    Output(5, "intensity"),  # without an occurrence
    Output(12, side="left"),
    Output(12, side="right"),
)


def toy_config(crop: Crop | None = None) -> FrameConfig:
    return FrameConfig(
        name="toy-mean-noise",
        network="toy",
        backbone="none",
        variant="mean",
        outputs=OUTPUTS,
        crop=crop or Crop("ffhq"),
        licence=Licence("MIT", "MIT", commercial=True),
        thresholds=(0.5, 0.5, 1.0, 1.0, 0.5, 0.5),
    )


class Toy(FrameNetwork):
    """A linear layer on the mean of each channel."""

    heavy_part = "linear"

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(3, len(config.outputs))
        ranges = [MAX_SCORE[output.kind] for output in config.outputs]
        self.register_buffer("ranges", torch.tensor(ranges), persistent=False)

    def score_frames(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=(2, 3))).sigmoid() * self.ranges


def recognise(state: Mapping[str, Any]) -> FrameConfig | None:
    return toy_config() if state.keys() == {"linear.weight", "linear.bias"} else None


def toy_state(seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint of the toy network."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "linear.weight": torch.randn(len(OUTPUTS), 3, generator=generator),
        "linear.bias": torch.randn(len(OUTPUTS), generator=generator),
    }
