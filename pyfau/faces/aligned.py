"""The aligner for images that are aligned face crops already, as BP4D and DISFA usually are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyfau.errors import OptionError
from pyfau.types import Face, FloatArray, UInt8Array


class AlignedAligner:
    """Treats every image as one aligned face. It searches nothing.

    It returns the landmarks of the model's template. `crop_face` then returns the image, resized.
    In an image that is not square, the face is the central square.

    Args:
        template: (5, 2) the model's template, in fractions of the crop; `AUDetector` passes it.

    Raises:
        OptionError: The template is missing or malformed.
    """

    def __init__(self, template: npt.ArrayLike | None = None) -> None:
        if template is None:
            raise OptionError(
                "the aligner 'aligned' needs the template of the model: template=<(5, 2) fractions>"
            )
        self._template = np.asarray(template, dtype=np.float64)
        if self._template.shape != (5, 2) or not np.isfinite(self._template).all():
            raise OptionError(f"template must be five finite x and y, got {template!r}")

    def detect(self, rgb: UInt8Array) -> list[Face]:
        """The one face of the image, with confidence 1."""
        height, width = rgb.shape[:2]
        side = min(height, width)
        corner = np.array([width - side, height - side]) / 2
        box = np.concatenate([corner, corner + side])
        # Landmarks are pixel coordinates with the first pixel's centre at 0.
        landmarks = corner + self._template * side - 0.5
        return [Face(box.astype(np.float32), landmarks.astype(np.float32), 1.0)]

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """The one face of the image, once for each box."""
        return self.detect(rgb) * len(boxes)
