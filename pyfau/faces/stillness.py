"""Whether a scene has changed since its last search: small grey copies of two frames compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyfau.faces.halves import Halves
from pyfau.types import FloatArray

# Longer side of the copies in pixels. The smallest face that a search finds has two of them.
_SIDE = 96
_CHANGE = 8  # of 255, in one pixel of the copies
_MARGIN = 0.5  # around the known faces, as a share of their box


class Stillness:
    """Compares frames with the frame of the last search, outside the known faces."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.int16] | None = None
        self._size = (0, 0)

    def remember(self, image: Halves) -> None:
        """Store the frame of a search."""
        self._last = _shrink(image)
        self._size = image.size(0)

    def reset(self) -> None:
        """Forget the last frame."""
        self._last = None

    def is_still(self, image: Halves, boxes: Sequence[FloatArray]) -> bool:
        """Whether nothing has changed outside the boxes (4,) XYXY of known faces."""
        if self._last is None or self._size != image.size(0):
            return False
        change = np.abs(_shrink(image) - self._last)
        scale = change.shape[1] / image.size(0)[0]
        for box in boxes:
            margin = _MARGIN * (box[2:] - box[:2])
            low = np.floor((box[:2] - margin) * scale).astype(int)
            high = np.ceil((box[2:] + margin) * scale).astype(int)
            x0, y0 = np.maximum(low, 0)
            change[y0 : max(high[1], 0), x0 : max(high[0], 0)] = 0
        return bool(change.max() <= _CHANGE)


def _shrink(image: Halves) -> npt.NDArray[np.int16]:
    """A small grey copy."""
    width, height = image.size(0)
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.grey(size).astype(np.int16)
