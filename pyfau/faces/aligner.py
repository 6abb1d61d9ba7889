"""Aligners find faces and their five landmarks.

An aligner is any object with the two methods of `Aligner`. `load_aligner` makes the aligners that
pyfau includes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args, runtime_checkable

from pyfau.checks import check_choice, nearest_word
from pyfau.choices import AlignerChoice, AlignerName
from pyfau.errors import OptionError
from pyfau.types import Face, UInt8Array

if TYPE_CHECKING:
    import torch

    from pyfau.types import FloatArray


@runtime_checkable
class Aligner(Protocol):
    """The methods of an aligner.

    An aligner with the attribute `tells_upright = True` states that its confidence is highest for
    upright faces. The tracker then also finds faces that are turned in the image plane.

    An aligner can have the attribute `boxes_like`: names of detectors that draw such boxes. A
    network whose authors used one of them then gets the aligner's boxes. Otherwise they are
    estimated where `pyfau.faces.fitted_boxes` has a rule.

    An aligner with the attribute `stable_crops = True` states that the aligned crop of one person
    changes little from frame to frame. A track then ends where it shows another person.

    An aligner may have a method `follow(rgb, faces)`. It locates faces that `detect` has found, or
    that it returned for an earlier frame, at every roll. The tracker then calls it instead of
    `refine`. With the attribute `shares_halves = True`, the method gets `pyfau.faces.halves.Halves`
    instead of the array.
    """

    def detect(self, rgb: UInt8Array) -> list[Face]:
        """Find the faces of a whole image.

        `detect` may have a second argument `known`: the boxes of the faces that the tracker follows
        already. The aligner need not return these faces again.

        Args:
            rgb: (H, W, 3) uint8, RGB.

        Returns:
            The faces, the highest confidence first; an empty list if there is no face.
        """
        ...

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        """Locate faces near known boxes. This is much faster than a search.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            boxes: (4,) XYXY in pixels each, as this aligner returned them for an earlier frame.

        Returns:
            One face for each box, in the same order. The confidence is low where the face is gone.
        """
        ...


# The module and the class of each aligner, which are loaded when they are first used.
_ALIGNERS: dict[AlignerName, tuple[str, str]] = {
    "mtcnn": ("pyfau.faces.mtcnn", "MTCNNAligner"),
    "mesh": ("pyfau.faces.mesh", "MeshAligner"),
    "fan": ("pyfau.faces.fan", "FANAligner"),
    "mediapipe": ("pyfau.faces.mediapipe", "MediaPipeAligner"),
    "aligned": ("pyfau.faces.aligned", "AlignedAligner"),
}
ALIGNER_NAMES: tuple[AlignerName, ...] = get_args(AlignerName)


def resolve_aligner(aligner: str | Aligner, config: Any) -> str | Aligner:
    """The aligner that a model is used with.

    Args:
        aligner: "auto" for the aligner that the model's config names; or as of `load_aligner`.
        config: Of the model.

    Returns:
        The argument of `load_aligner`.

    Raises:
        OptionError: No aligner has that name.
    """
    if not isinstance(aligner, str):
        return aligner
    check_choice(aligner, "aligner", AlignerChoice)
    named: str = config.aligner
    return named if aligner == "auto" else aligner


def load_aligner(aligner: str | Aligner, device: torch.device, /, **options: Any) -> Aligner:
    """Make an aligner by name, or pass one through.

    Args:
        aligner: "mtcnn", "mesh", "fan", "mediapipe", "aligned", or an object with `detect` and
            `refine`.
        device: Where the aligner's networks run, for those that can choose.
        **options: Passed to the aligner's constructor.

    Raises:
        OptionError: No aligner has that name, or the object lacks a method.
        DependencyError: The aligner needs a package that is not installed.
    """
    if isinstance(aligner, str):
        check_choice(aligner, "aligner", AlignerName)
        return _make(cast(AlignerName, aligner), device, options)
    if not isinstance(aligner, Aligner):
        raise OptionError(
            f"an aligner needs the methods detect and refine, which {type(aligner).__name__} lacks"
        )
    return aligner


def _make(name: AlignerName, device: torch.device, options: dict[str, Any]) -> Aligner:
    module, class_name = _ALIGNERS[name]
    kind = getattr(import_module(module), class_name)
    known = list(signature(kind).parameters)
    own = {}
    if "device" in known:
        known.remove("device")
        own["device"] = device
    for option in options:
        if option not in known:
            nearest = nearest_word(option, known)
            suggestion = "" if nearest is None else f". Did you mean {nearest!r}?"
            raise OptionError(
                f"aligner {name!r} has no option {option!r}: expected one of "
                f"{', '.join(known)}{suggestion}"
            )
    try:
        return cast(Aligner, kind(**own, **options))
    except TypeError as error:  # a value of a wrong type
        raise OptionError(f"aligner {name!r} with options {options}: {error}") from error
