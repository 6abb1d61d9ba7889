"""The published networks for single frames: their outputs, crops and licences, as data."""

from __future__ import annotations

from pyfau.models.frame_config import FrameConfig
from pyfau.models.paper import DATA_SETS
from pyfau.models.protocol import Crop, Licence, Output

# Facts from the documents of each project; docs/models.md gives the sources.
_HYBRID_AUS = (
    1,
    2,
    4,
    5,
    6,
    7,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    22,
    23,
    24,
    25,
    26,
    27,
    32,
    38,
    39,
)
_SIDED_AUS = (1, 2, 4, 6, 10, 12, 14)
_LIBREFACE_INTENSITY = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
_LIBREFACE_OCCURRENCE = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
_PYFEAT_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)

_MEGRAPHAU_LICENCE = Licence(
    "MIT", "not stated; trained on BP4D or DISFA, for research only", commercial=False
)
_OPENGRAPHAU_LICENCE = Licence(
    "Apache-2.0", "not stated; trained on data sets for research only", commercial=False
)
_LIBREFACE_LICENCE = Licence(
    "USC research licence", "USC research licence, non-commercial", commercial=False
)
_FMAE_LICENCE = Licence("CC BY-NC 4.0", "CC BY-NC 4.0, non-commercial", commercial=False)
_PYFEAT_LICENCE = Licence("MIT", "non-commercial research", commercial=False)

_MIDDLE = 224 / 256  # the middle part that most projects keep of a crop of 256 px

_FFHQ = Crop("ffhq", keep=_MIDDLE)
_SFD_BOX = Crop("box", margin=0.05, detector="sfd")
# This is the crop of py-feat's model card and of its function `extract_face_from_bbox_torch`. Notes
# in its repository say that files from v2.5 on were trained on a square with mirrored borders.
# docs/models.md describes how to choose that crop.
_RETINAFACE_BOX = Crop("box", margin=0.1, detector="retinaface", keep=_MIDDLE)


def _middle_of(template: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """A template for the middle 224 of 256 pixels."""
    edge = (1 - _MIDDLE) / 2
    return tuple(((x - edge) / _MIDDLE, (y - edge) / _MIDDLE) for x, y in template)


def _occurrences(aus: tuple[int, ...]) -> tuple[Output, ...]:
    return tuple(Output(au) for au in aus)


def megraphau_config(data: str, backbone: str, stage: int) -> FrameConfig:
    """ME-GraphAU.

    Args:
        data: "bp4d" or "disfa".
        backbone: "resnet50", "resnet101", "swin_t" and so on.
        stage: 1 or 2.
    """
    record = DATA_SETS[data]
    return FrameConfig(
        name=f"megraphau-s{stage}-{backbone.replace('_', '')}-{data}",
        network="megraphau",
        backbone=backbone,
        variant=f"stage{stage}",
        outputs=_occurrences(record.aus),
        # Its authors cut the middle out of the same images as those of MDHR.
        crop=Crop("template", template=_middle_of(record.template)),
        licence=_MEGRAPHAU_LICENCE,
        thresholds=(0.5,) * len(record.aus),
        source="official checkpoint",
    )


def opengraphau_config(backbone: str, stage: int) -> FrameConfig:
    """OpenGraphAU: 27 action units, and the left and right side of 7 of them.

    Args:
        backbone: "resnet18", "resnet50", "swin_t" and so on.
        stage: 1 or 2.
    """
    outputs = list(_occurrences(_HYBRID_AUS))
    for au in _SIDED_AUS:
        outputs += [Output(au, side="left"), Output(au, side="right")]
    return FrameConfig(
        name=f"opengraphau-s{stage}-{backbone.replace('_', '')}-hybrid",
        network="opengraphau",
        backbone=backbone,
        variant=f"stage{stage}",
        outputs=tuple(outputs),
        crop=_FFHQ,
        licence=_OPENGRAPHAU_LICENCE,
        thresholds=(0.5,) * len(outputs),
        source="official checkpoint",
    )


def libreface_config(*, joint: bool) -> FrameConfig:
    """LibreFace with a ResNet-18.

    Args:
        joint: With intensities and occurrences; otherwise with intensities only.
    """
    outputs = [Output(au, "intensity") for au in _LIBREFACE_INTENSITY]
    thresholds = [1.0] * len(outputs)  # an intensity of 1 is the trace of a movement
    if joint:
        outputs += _occurrences(_LIBREFACE_OCCURRENCE)
        thresholds += [0.5] * len(_LIBREFACE_OCCURRENCE)
    return FrameConfig(
        name="libreface-resnet18-joint" if joint else "libreface-resnet18-disfa",
        network="libreface",
        backbone="resnet18",
        variant="joint" if joint else "intensity",
        outputs=tuple(outputs),
        crop=_FFHQ,
        licence=_LIBREFACE_LICENCE,
        thresholds=tuple(thresholds),
        source="official checkpoint",
    )


def fmae_config(data: str, backbone: str) -> FrameConfig:
    """FMAE-IAT.

    Args:
        data: "bp4d", "bp4dplus" or "disfa".
        backbone: "vit_s", "vit_b" or "vit_l".
    """
    aus = DATA_SETS[data.removesuffix("plus")].aus
    return FrameConfig(
        name=f"fmae-{backbone.replace('_', '')}-{data}",
        network="fmae",
        backbone=backbone,
        variant="iat",
        outputs=_occurrences(aus),
        crop=_SFD_BOX,
        licence=_FMAE_LICENCE,
        thresholds=(0.5,) * len(aus),
        source="official checkpoint",
    )


def pyfeat_config() -> FrameConfig:
    """The action units of py-feat's multi-task network, version 2."""
    return FrameConfig(
        name="pyfeat-convnextv2t-multitask",
        network="pyfeat",
        backbone="convnextv2_t",
        variant="v2",
        outputs=_occurrences(_PYFEAT_AUS),
        crop=_RETINAFACE_BOX,
        licence=_PYFEAT_LICENCE,
        thresholds=(0.5,) * len(_PYFEAT_AUS),
        source="official checkpoint",
    )
