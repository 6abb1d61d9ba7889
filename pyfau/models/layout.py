"""From the outputs of a network to the columns of a row: scores and intensities by action unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyfau.models.protocol import Output
from pyfau.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class OutputLayout:
    """Where the scores and intensities of a row come from.

    Attributes:
        aus: Names of the action units of a row, such as "AU12" or "AU12L".
        occurrence: (N,) position of each score among the outputs; -1 for none.
        intensity: (N,) position of each intensity; None if the network has no intensities.
    """

    aus: tuple[str, ...]
    occurrence: npt.NDArray[np.intp]
    intensity: npt.NDArray[np.intp] | None

    def split(self, values: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Outputs (M,) -> scores (N,) and intensities (N,), NaN for those that do not exist."""
        scores = _pick(values, self.occurrence)
        if self.intensity is None:
            return scores, None
        return scores, _pick(values, self.intensity)

    def thresholds(self, own: Sequence[float]) -> tuple[float, ...]:
        """Thresholds of the outputs (M,) -> thresholds of the scores (N,); 1 without a score."""
        values = [own[position] if position >= 0 else 1.0 for position in self.occurrence]
        return tuple(values)


def make_layout(outputs: Sequence[Output], intensity: bool = True) -> OutputLayout:
    """The layout of the rows of a network.

    Args:
        outputs: The outputs of the network.
        intensity: Whether rows get intensities, if the network has them.
    """
    aus = tuple(dict.fromkeys(output.name for output in outputs))
    positions = {(output.name, output.kind): i for i, output in enumerate(outputs)}
    occurrence = np.array([positions.get((au, "occurrence"), -1) for au in aus])
    grades = np.array([positions.get((au, "intensity"), -1) for au in aus])
    has_intensity = intensity and bool((grades >= 0).any())
    return OutputLayout(aus, occurrence, grades if has_intensity else None)


def _pick(values: FloatArray, positions: npt.NDArray[np.intp]) -> FloatArray:
    picked = values[np.maximum(positions, 0)].astype(np.float32)
    picked[positions < 0] = np.nan
    return picked
