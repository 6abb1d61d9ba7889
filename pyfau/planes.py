"""Images of a video as the decoder stores them, so that only parts of them become RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_Pixels = npt.NDArray[np.uint8]


class Planes(NamedTuple):
    """An image as brightness and two differences of colour (Y'CbCr 4:2:0).

    The conversion of a whole large image to RGB is slow. So `pyfau.faces.halves.Halves` cuts the
    crops out of the planes and converts only the crops.

    Attributes:
        luma: (H, W) uint8, Y'. Both sizes are even.
        blue: (H / 2, W / 2) uint8, Cb. Each value belongs to four pixels of `luma`.
        red: The same for Cr.
        to_rgb: (3, 4) float64: RGB from Y', Cb, Cr and 1, all from 0 to 255.
        convert: Returns the whole image, (H, W, 3) uint8, RGB. Any thread may call it.
    """

    luma: _Pixels
    blue: _Pixels
    red: _Pixels
    to_rgb: npt.NDArray[np.float64]
    convert: Callable[[], _Pixels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3, as of the RGB image."""
        height, width = self.luma.shape
        return height, width, 3

    @property
    def nbytes(self) -> int:
        """Bytes of the three planes."""
        return self.luma.nbytes + self.blue.nbytes + self.red.nbytes
