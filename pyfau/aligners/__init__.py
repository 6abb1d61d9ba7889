"""Aligners find faces and their five landmarks.

An aligner is any object with the two methods of `Aligner`; `load_aligner` makes those that pyfau brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pyfau.errors import OptionError
from pyfau.types import Face, UInt8Array

if TYPE_CHECKING:
    import torch

    from pyfau.types import FloatArray


@runtime_checkable
class Aligner(Protocol):
    """What the detector asks of an aligner."""

    def detect(self, rgb: UInt8Array) -> list[Face]:
        """Search a whole picture.

        An aligner whose `detect` also takes `known`, the boxes of faces that are followed already, is given them, and
        need not report these faces.

        Args:
            rgb: (H, W, 3) uint8, RGB.

        Returns:
            The faces found, surest first; an empty list when there is none.
        """
        ...

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes, which is much cheaper than a search.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            boxes: (4,) XYXY in pixels each, as this aligner returned them for an earlier frame.

        Returns:
            One face a box, in the same order. Where nothing is left of the face, its confidence is low.
        """
        ...


def _mtcnn(device: torch.device, /, **options: Any) -> Aligner:
    from pyfau.aligners.mtcnn import MTCNNAligner

    return MTCNNAligner(device=device, **options)


def _fan(device: torch.device, /, **options: Any) -> Aligner:
    from pyfau.aligners.fan import FANAligner

    return FANAligner(device=device, **options)


def _mediapipe(device: torch.device, /, **options: Any) -> Aligner:
    from pyfau.aligners.mediapipe import MediaPipeAligner

    return MediaPipeAligner(**options)


def _aligned(device: torch.device, /, **options: Any) -> Aligner:
    from pyfau.aligners.aligned import AlignedAligner

    return AlignedAligner(**options)


_ALIGNERS: dict[str, Callable[..., Aligner]] = {
    "mtcnn": _mtcnn,
    "fan": _fan,
    "mediapipe": _mediapipe,
    "aligned": _aligned,
}
ALIGNER_NAMES = tuple(_ALIGNERS)


def load_aligner(aligner: str | Aligner, device: torch.device, /, **options: Any) -> Aligner:
    """Make an aligner by name, or pass one through.

    Args:
        aligner: "mtcnn", "fan", "mediapipe", "aligned", or an object with `detect` and `refine`.
        device: Where the aligner's networks run, for those that can choose.
        **options: Passed to the aligner's constructor.

    Raises:
        OptionError: No aligner has that name, or the object lacks a method.
        DependencyError: The aligner needs a package that is not installed.
    """
    if isinstance(aligner, str):
        if aligner not in _ALIGNERS:
            raise OptionError(f"unknown aligner {aligner!r}: expected one of {', '.join(_ALIGNERS)}, or an object")
        try:
            return _ALIGNERS[aligner](device, **options)
        except TypeError as error:  # an option that it does not have, or of a type that it does not take
            raise OptionError(f"aligner {aligner!r} with options {options}: {error}") from error
    if not isinstance(aligner, Aligner):
        raise OptionError(f"an aligner needs the methods detect and refine, which {type(aligner).__name__} lacks")
    return aligner
