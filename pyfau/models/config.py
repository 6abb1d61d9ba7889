"""What a model is, as data: action units, regions, sizes, alignment. One network serves all of it."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyfau.errors import ConfigError
from pyfau.types import au_name

GRID = 7  # every network ends on a 7 x 7 grid of tokens
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES = ("resnet50", "swin_b", "small")
HEADS = ("cosine", "logistic")

# Landmarks in fractions of the crop, in the order of `pyfau.types.Face`, measured with MTCNN on the authors' published
# sample pictures and then made level and symmetric: heights are averaged over left and right, and the midline is the
# mean of the eyes' middle, the nose and the mouth's middle.
BP4D_TEMPLATE = ((0.307, 0.276), (0.709, 0.276), (0.508, 0.512), (0.3345, 0.695), (0.6815, 0.695))
DISFA_TEMPLATE = ((0.370, 0.290), (0.660, 0.290), (0.515, 0.480), (0.391, 0.614), (0.639, 0.614))


@dataclass(frozen=True, slots=True)
class Region:
    """A group of action units that look at the same rows of the grid.

    Attributes:
        name: "up", "mid", "down" and so on.
        rows: First row and the row after the last, of the 7.
        aus: The action units, most significant bit of the region class first.
    """

    name: str
    rows: tuple[int, int]
    aus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MDHRConfig:
    """Everything that tells one MDHR from another.

    Attributes:
        name: For example "mdhr-resnet50-bp4d-fold1".
        version: Of the weights, not of the code.
        backbone: One of `BACKBONES`.
        aus: FACS numbers, ascending: the order of the scores.
        regions: Groups that share out `aus`.
        project_regions: Whether each group has a projection of its own before its heads (BP4D: yes, DISFA: no).
        input_size: Side of the crop in pixels.
        width: D, channels of the tokens.
        dynamic_channels: Channels of each of the four difference projections.
        template: (5, 2) landmarks in fractions of the crop.
        thresholds: A score at or over it counts as active; one an AU.
        mean, std: Of the RGB channels, for pixels in [0, 1].
        backbone_options: Passed to the backbone.
        head: "cosine", the paper's, or "logistic": a weighted sum of an AU's features, through a sigmoid.
        calibration: For each AU (slope, offset) on the log-odds of its score, or empty: scores as the head gives them.
        source: Where the weights came from, in words.
    """

    name: str
    backbone: str
    aus: tuple[int, ...]
    regions: tuple[Region, ...]
    project_regions: bool
    template: tuple[tuple[float, float], ...]
    thresholds: tuple[float, ...]
    input_size: int = 224
    width: int = 512
    dynamic_channels: int = 2048
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    version: str = "1"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    head: str = "cosine"
    calibration: tuple[tuple[float, float], ...] = ()
    source: str = ""
    network: str = "mdhr"

    def __post_init__(self) -> None:
        def demand(holds: bool, text: str) -> None:
            if not holds:
                raise ConfigError(f"model config {self.name!r}: {text}")

        for name in ("name", "backbone", "version", "source", "network"):
            value = getattr(self, name)
            demand(isinstance(value, str) and value.isprintable(), f"{name} must be printable text, got {value!r}")
        for name in ("input_size", "width", "dynamic_channels"):
            demand(type(getattr(self, name)) is int, f"{name} must be a whole number, got {getattr(self, name)!r}")
        demand(isinstance(self.project_regions, bool), f"project_regions must be a bool, got {self.project_regions!r}")
        options = self.backbone_options
        demand(isinstance(options, Mapping), f"backbone_options must be a mapping, got {options!r}")
        demand(self.head in HEADS, f"unknown head {self.head!r}, expected one of {HEADS}")
        demand(
            len(self.calibration) in (0, len(self.aus))
            and all(0 < slope < math.inf and math.isfinite(offset) for slope, offset in self.calibration),
            f"calibration must be empty or {len(self.aus)} pairs of a positive slope and an offset, "
            f"got {self.calibration}",
        )
        demand(self.network == "mdhr", f"unknown network {self.network!r}, expected 'mdhr'")
        demand(self.backbone in BACKBONES, f"unknown backbone {self.backbone!r}, expected one of {BACKBONES}")
        demand(
            0 < len(self.aus) <= 64 and self.aus == tuple(sorted(set(self.aus))) and min(self.aus) > 0,
            f"aus must be distinct, ascending and positive, got {self.aus}",
        )
        grouped = sorted(au for region in self.regions for au in region.aus)
        demand(grouped == list(self.aus), f"the regions hold AUs {grouped}, expected each of {self.aus} once")
        for region in self.regions:
            start, stop = region.rows
            demand(0 <= start < stop <= GRID, f"region {region.name!r}: rows {region.rows} are not within 0..{GRID}")
            count = len(region.aus)
            demand(0 < count <= 10, f"region {region.name!r}: {count} AUs, at least 1 and at most 10 make a class")
        demand(self.input_size in (112, 224), f"input_size must be 112 or 224, got {self.input_size}")
        size = 112 if self.backbone == "small" else 224
        demand(self.input_size == size, f"input_size must be {size} for {self.backbone!r}, got {self.input_size}")
        known = {"widths": 1024, "blocks": 16} if self.backbone == "small" else {}
        for name, values in options.items():
            if name == "local" and self.backbone == "small":
                demand(type(values) is int and 0 <= values <= 1024, f"local must be in 0..1024, got {values!r}")
                continue
            demand(
                name in known
                and isinstance(values, list | tuple)
                and len(values) == 4
                and all(type(v) is int and 1 <= v <= known[name] for v in values[1:])
                and type(values[0]) is int
                and (0 if name == "blocks" else 1) <= values[0] <= known[name],
                f"backbone_options of {self.backbone!r} may be four numbers each, {known or 'nothing'} at most, "
                f"got {name}={values!r}",
            )
        demand(8 <= self.width <= 4096, f"width must be in 8..4096, got {self.width}")
        demand(8 <= self.dynamic_channels <= 8192, f"dynamic_channels must be in 8..8192, got {self.dynamic_channels}")
        points = [c for point in self.template for c in point]
        demand(
            len(self.template) == 5 and len(points) == 10 and all(0.0 < c < 1.0 for c in points),
            f"template must be five points within the crop, got {self.template}",
        )
        demand(
            all(max(line) - min(line) >= 0.01 for line in zip(*self.template, strict=True)),
            f"the points of the template must lie apart, got {self.template}",
        )
        demand(
            len(self.thresholds) == len(self.aus) and all(0.0 <= t <= 1.0 for t in self.thresholds),
            f"thresholds must be {len(self.aus)} numbers in [0, 1], got {self.thresholds}",
        )
        demand(
            len(self.mean) == len(self.std) == 3
            and all(-1e3 <= m <= 1e3 for m in self.mean)
            and all(1e-6 <= s <= 1e3 for s in self.std),
            f"mean and std must be three numbers each, 1000 at most, std positive and 1e-6 at least, "
            f"got {self.mean}, {self.std}",
        )

    @property
    def au_names(self) -> tuple[str, ...]:
        """Column names, in the order of the scores."""
        return tuple(au_name(au) for au in self.aus)

    @property
    def group_order(self) -> tuple[int, ...]:
        """For each AU in the order of the scores, its position when the regions are laid end to end."""
        grouped = [au for region in self.regions for au in region.aus]
        return tuple(grouped.index(au) for au in self.aus)

    def to_json(self) -> str:
        """Text of config.json."""
        return json.dumps({"format": 1, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "config") -> MDHRConfig:
        """Read config.json.

        Args:
            text: The file's contents.
            origin: What to call it in an error.

        Raises:
            ConfigError: Not JSON, an unknown or missing field, or a value out of bounds.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{origin} is not JSON: {error}") from error
        if not isinstance(record, dict) or record.pop("format", None) != 1:
            raise ConfigError(f'{origin}: expected a JSON object with "format": 1')
        known = {f.name for f in dataclasses.fields(cls)}
        required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
        if record.keys() - known or required - record.keys():
            raise ConfigError(
                f"{origin}: unknown fields {sorted(record.keys() - known)}, missing {sorted(required - record.keys())}"
            )
        try:
            record["regions"] = tuple(
                Region(r["name"], _pair(r["rows"]), tuple(operator.index(a) for a in r["aus"]))
                for r in record["regions"]
            )
            record["template"] = tuple((float(x), float(y)) for x, y in record["template"])
            if "calibration" in record:
                record["calibration"] = tuple((float(slope), float(offset)) for slope, offset in record["calibration"])
            record["aus"] = tuple(operator.index(a) for a in record["aus"])
            for name in ("thresholds", "mean", "std"):
                if name in record:
                    record[name] = tuple(float(v) for v in record[name])
            return cls(**record)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{origin}: a field has the wrong type ({error!r})") from error


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return operator.index(first), operator.index(second)


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


def read_config(path: Path) -> MDHRConfig:
    """Read a config.json file.

    Raises:
        ConfigError: It is missing, too large to be one, or not valid.
    """
    return MDHRConfig.from_json(read_config_text(path), origin=str(path))


def read_config_text(path: Path) -> str:
    """The contents of a config.json file, which is not read if it is too large to be one.

    Raises:
        ConfigError: It is missing, too large, or not UTF-8.
    """
    try:
        if path.stat().st_size > 1_000_000:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes: too large for a model configuration")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} could not be read: {error}") from error
