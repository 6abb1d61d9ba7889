"""The landmark network: one small crop to 68 points, irises, eye openness, presence and more.

A plain convolutional network. Depth-wise convolutions have fewer multiplications, but on a CPU each
of them reads and writes as much memory, and takes longer.
"""

from __future__ import annotations

from torch import Tensor, nn

from pyfau.packed import NO_NORM, convolve, project
from pyfau.types import EYES, POINTS

SIDE = 96  # of the input, pixels
# Channels in and out, kernel and stride of each convolution. Where the shape stays, the input is
# added to the output.
LAYERS = (
    (3, 16, 3, 2),
    (16, 32, 3, 2),
    (32, 32, 3, 1),
    (32, 64, 3, 2),
    (64, 64, 3, 1),
    (64, 64, 3, 1),
    (64, 104, 3, 2),
    (104, 104, 3, 1),
    (104, 104, 3, 1),
    (104, 64, 1, 1),
)
FLAT = 64 * 6 * 6
# What the network returns, and the number of its values:
# points and irises: offset from the mean face in tenths of `SIDE`;
# openness: logits, the eye on the left of the image first;
# frame: cosine and sine of the face's roll, times its scale, and the offset of its centre in halves
# of `SIDE`; valid for every roll, whereas the points are valid near the upright direction;
# presence: logit; visible: logit of the share of the points that the image shows.
OUTPUTS = {"points": 2 * (POINTS + EYES), "openness": 2, "frame": 4, "presence": 1, "visible": 1}


class MeshNetwork(nn.Module):
    """The network without batch normalisation, which is folded into its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inner, outer, kernel, stride, kernel // 2)
            for inner, outer, kernel, stride in LAYERS
        )
        self.head = nn.Linear(FLAT, sum(OUTPUTS.values()))

    def forward(self, pixels: Tensor) -> Tensor:
        """Take the outputs of crops.

        Args:
            pixels: (K, 3, SIDE, SIDE) float, RGB in [0, 255].

        Returns:
            (K, sum of `OUTPUTS`) float.
        """
        x = pixels
        for convolution in self.convolutions:
            y = convolve(convolution, NO_NORM, x)
            x = x + y if x.shape == y.shape else y
        return project(self.head, x.flatten(1))
