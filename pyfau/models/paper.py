"""The networks of the paper on BP4D and DISFA: AU sets, regions and alignment."""

from __future__ import annotations

from dataclasses import dataclass

from pyfau.models.config import MDHRConfig, Region

# Landmarks in fractions of the crop, in the order of `pyfau.types.Face`, measured with MTCNN on the
# authors' published sample images and then made level and symmetric: heights are averaged over
# left and right, and the midline is the mean of the eyes' middle, the nose and the mouth's middle.
BP4D_TEMPLATE = ((0.307, 0.276), (0.709, 0.276), (0.508, 0.512), (0.3345, 0.695), (0.6815, 0.695))
DISFA_TEMPLATE = ((0.370, 0.290), (0.660, 0.290), (0.515, 0.480), (0.391, 0.614), (0.639, 0.614))


@dataclass(frozen=True, slots=True)
class DataSet:
    """The AU set, groups and alignment of one of the paper's data sets."""

    aus: tuple[int, ...]
    regions: tuple[Region, ...]
    project_regions: bool
    template: tuple[tuple[float, float], ...]


DATA_SETS = {
    "bp4d": DataSet(
        aus=(1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24),
        regions=(
            Region("up", (0, 3), (1, 2, 4, 7)),
            Region("mid", (2, 5), (6,)),
            Region("down1", (4, 7), (12, 14, 15)),
            Region("down2", (4, 7), (10, 17, 23, 24)),
        ),
        project_regions=True,
        template=BP4D_TEMPLATE,
    ),
    "disfa": DataSet(
        aus=(1, 2, 4, 6, 9, 12, 25, 26),
        regions=(
            Region("up", (0, 3), (1, 2, 4)),
            Region("mid", (2, 5), (6, 9)),
            Region("down", (4, 7), (12, 25, 26)),
        ),
        project_regions=False,
        template=DISFA_TEMPLATE,
    ),
}
_DYNAMIC_CHANNELS = {"resnet50": 2048, "swin_b": 1024}


def paper_config(data: str, backbone: str, name: str | None = None, source: str = "") -> MDHRConfig:
    """The configuration of one of the paper's four networks.

    Args:
        data: "bp4d" or "disfa".
        backbone: "resnet50" or "swin_b".
        name: Defaults to "mdhr-{backbone}-{data}".
        source: Where the weights come from.
    """
    record = DATA_SETS[data]
    return MDHRConfig(
        name=name or f"mdhr-{backbone.replace('_', '')}-{data}",
        backbone=backbone,
        aus=record.aus,
        regions=record.regions,
        project_regions=record.project_regions,
        template=record.template,
        thresholds=(0.5,) * len(record.aus),
        dynamic_channels=_DYNAMIC_CHANNELS[backbone],
        source=source,
    )
