"""The properties that every network declares: context, outputs, crop, licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pyfau.aus import au_name

Kind = Literal["occurrence", "intensity"]
Side = Literal["", "left", "right"]
CropKind = Literal["template", "ffhq", "box"]
Outside = Literal["black", "mirror"]

MAX_SCORE = {"occurrence": 1.0, "intensity": 5.0}


@dataclass(frozen=True, slots=True)
class Output:
    """One number that a network gives for a face.

    Attributes:
        au: FACS number.
        kind: "occurrence" in [0, 1], or "intensity" in [0, 5].
        side: The side of the face, or "" for both.
    """

    au: int
    kind: Kind = "occurrence"
    side: Side = ""

    @property
    def name(self) -> str:
        """Name of the action unit, such as "AU12", or "AU12L" for its left side."""
        return au_name(self.au, self.side)

    @property
    def column(self) -> str:
        """Column of a table: the name, with "_r" for intensities."""
        return self.name + ("_r" if self.kind == "intensity" else "")

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return 0.0, MAX_SCORE[self.kind]


@dataclass(frozen=True, slots=True)
class Crop:
    """How a network's authors cut out a face.

    Attributes:
        kind: "template": landmarks are moved to a template. "ffhq": the similarity transform of the
            FFHQ data set, from eyes and mouth. "box": the box of a face detector, stretched to a
            square.
        template: For "template", (5, 2) landmarks in fractions of the crop.
        margin: For "box", what is added on each side, in fractions of the box.
        detector: For "box", the face detector whose boxes the authors used.
        keep: The middle part of the crop that the network gets, as a fraction of its side.
        square: For "box", whether the box first grows to a square by its longer side. Otherwise
            both sides are stretched to the side of the crop.
        outside: For "box", the pixels outside the image: "black", or "mirror" for its mirror image.
    """

    kind: CropKind
    template: tuple[tuple[float, float], ...] = ()
    margin: float = 0.0
    detector: str = ""
    keep: float = 1.0
    square: bool = False
    outside: Outside = "black"


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of use, in words.

    Attributes:
        code: Licence of the authors' code.
        weights: Licence of the authors' weights.
        commercial: Whether these terms allow commercial use.
    """

    code: str
    weights: str
    commercial: bool


@runtime_checkable
class AUNetwork(Protocol):
    """A network that scores action units.

    Attributes:
        config: The configuration: `name`, `outputs`, `crop`, `thresholds`, `input_size` and others.
        context: Number of frames on each side of a frame that its scores depend on; 0 for a network
            that scores single frames.
    """

    config: Any

    @property
    def context(self) -> int:
        """Number of frames on each side of a frame that its scores depend on."""
        ...

    def preprocess(self, crops: Any) -> Any:
        """(..., S, S, 3) uint8 RGB -> (..., 3, S, S) float32, normalised."""
        ...

    def __call__(self, x: Any) -> Any:
        """(B, T, 3, S, S) float32, normalised -> (B, T, N) in the order of the outputs."""
        ...
