"""Pixels of face crops as a network expects them."""

from __future__ import annotations

from torch import Tensor


def normalise(crops: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract a mean of each colour, and divide by its standard deviation.

    Args:
        crops: (..., S, S, 3) uint8, RGB.
        mean: (3, 1, 1) float32, in levels from 0 to 255.
        std: (3, 1, 1) float32, in levels from 0 to 255.

    Returns:
        (..., 3, S, S) float32, on the device of the crops.
    """
    size = crops.shape[-2]
    # Whole rows, because torch is eight times slower with three colours in the innermost dimension.
    rows = crops.flatten(-2).float()
    rows.sub_(mean.flatten().repeat(size)).div_(std.flatten().repeat(size))
    pixels: Tensor = rows.unflatten(-1, (size, 3))
    return pixels.movedim(-1, -3)
