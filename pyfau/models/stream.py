"""Streaming inference with `MDHR.relate`: constant work per frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyfau.models.mdhr import MDHR, POOL, TCN_KERNEL, FacialDynamics, FrameFeatures


class RelateStream:
    """A window of any length. Frames get the scores of `relate` with "inner" context.

    The stream keeps the intermediate results that later frames need, and not the frames. A copy
    (`copy.copy`) is independent of the original.

    Args:
        model: The network.
    """

    def __init__(self, model: MDHR) -> None:
        self.model = model
        self._dynamic: Tensor | None = None  # (1, 4, 49, C) of the last frame
        self._static: Tensor | None = (
            None  # (at most 5, 49, D) of frames whose changes are not all known yet
        )
        self._changes: list[tuple[Tensor, ...]] = []  # at most 9 of (49, C) for each scale
        self._units: Tensor | None = None  # (at most 4, N, D)
        self._skip = POOL // 2  # frames at the start that get no units

    def push(self, features: FrameFeatures) -> Tensor:
        """Add frames.

        Args:
            features: (F, ...) of the F next frames, F at least 1.

        Returns:
            (F', N) scores that became final, in order: up to the 7th frame before the last, and
            none of the first 7.
        """
        model, dynamics = self.model, self.model.dynamics
        dynamic, static = features.dynamic, features.static
        skip, self._skip = self._skip, max(0, self._skip - len(static))
        static = static[skip:]
        if self._dynamic is not None and self._static is not None:
            dynamic, static = torch.cat([self._dynamic, dynamic]), torch.cat([self._static, static])
        changes = [dynamics.change(dynamic[None, :, i], i)[0] for i in range(dynamic.shape[1])]
        # Copies of the features that are kept, so that the memory of the others is freed.
        new = [change[1 - POOL :].clone().unbind() for change in changes]
        held = self._changes or [()] * len(new)
        self._changes = [(*old, *own)[1 - POOL :] for old, own in zip(held, new, strict=True)]
        self._dynamic = dynamic[-1:].clone()
        ready = max(0, len(held[0]) + len(changes[0]) - POOL + 1)
        self._static = static[ready:].clone()
        if not ready:
            return static.new_empty(0, len(model.config.aus), dtype=torch.float32)
        pooled = [_pool(old, change) for old, change in zip(held, changes, strict=True)]
        units = model.relate_units(dynamics.mix(pooled)[0] + static[:ready])[0]
        units = units if self._units is None else torch.cat([self._units, units])
        self._units = units[1 - TCN_KERNEL :].clone()
        if len(units) < TCN_KERNEL:
            return units.new_empty(0, len(model.config.aus))
        return model.classify(model.temporal(units[None], "inner"))[0]


def _pool(held: Sequence[Tensor], change: Tensor) -> Tensor:
    """`FacialDynamics.pool` of stored changes (49, C) and new (T, 49, C) -> (1, T', 49, C)."""
    if len(change) > 1:
        joined = torch.cat([torch.stack(list(held)), change]) if held else change
        return FacialDynamics.pool(joined[None])
    total = held[0] + held[1]  # a single mean, without concatenating ten frames first
    for other in (*held[2:], change[0]):
        total += other
    return (total / POOL)[None, None]
