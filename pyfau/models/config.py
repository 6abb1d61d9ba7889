"""The configuration of a network: action units, regions, sizes and alignment."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pyfau.aus import au_name
from pyfau.choices import DEFAULT_ALIGNER, MODEL_ALIGNERS
from pyfau.errors import ConfigError
from pyfau.files import read_file, reason_of
from pyfau.models.protocol import Crop, Licence, Output
from pyfau.records import parse_json

GRID = 7  # every network ends on a 7 x 7 grid of tokens
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NetworkName = Literal["mdhr"]
BackboneName = Literal["resnet50", "swin_b", "small"]
HeadName = Literal["cosine", "logistic"]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
HEADS: tuple[HeadName, ...] = get_args(HeadName)
MAX_NAME = 100  # characters
_MOST_BYTES = 1_000_000  # of a config.json
_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]*"
_INPUT_SIZES = {"resnet50": 224, "swin_b": 224, "small": 112}
# For each option the lowest and highest value of each number. The first stage of the small
# network may have no blocks: its map is then that of the stem.
_BACKBONE_OPTIONS = {
    "small": {
        "widths": ((1, 1024),) * 4,
        "blocks": ((0, 16), (1, 16), (1, 16), (1, 16)),
        "local": ((0, 1024),),
    }
}


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
    """All properties in which networks of the kind MDHR differ.

    Attributes:
        name: For example "mdhr-resnet50-bp4d-fold1".
        version: Version of the weights, not of the code.
        backbone: One of `BACKBONES`.
        aus: FACS numbers, ascending. The scores are in this order.
        regions: Groups of action units. Each action unit is in one group.
        project_regions: Whether each group has a projection before its heads (BP4D: yes,
            DISFA: no).
        input_size: Side of the crop in pixels.
        width: D, channels of the tokens.
        dynamic_channels: Channels of each of the four difference projections.
        template: (5, 2) landmarks in fractions of the crop.
        thresholds: One per AU, in [0, 1]. An AU is active if its score reaches the threshold.
        mean, std: Mean and standard deviation of the RGB channels, for pixels in [0, 1].
        backbone_options: Passed to the backbone.
        head: "cosine", the paper's, or "logistic": a weighted sum of an AU's features, through a
            sigmoid.
        calibration: For each AU (slope, offset) on the log-odds of its score. Empty: the scores
            of the head are not changed.
        source: Where the weights came from, in words.
        grade_offsets: For each AU the constants (trace, strong) that turn a score into an
            intensity, see `pyfau.intensity`; empty: the network has no intensity.
        aligner: One of `MODEL_ALIGNERS`. The network works best with its crops, and
            `AUDetector(aligner="auto")` uses it.
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
    grade_offsets: tuple[tuple[float, float], ...] = ()
    aligner: str = DEFAULT_ALIGNER

    def __post_init__(self) -> None:
        for holds, expected, fields in _CHECKS:
            try:
                right = holds(self)
            except (TypeError, ValueError):  # a value of another type
                right = False
            if not right:
                values = " and ".join(repr(getattr(self, name)) for name in fields)
                raise ConfigError(
                    f"model config {self.name!r:.100}: {expected.format(config=self)}, "
                    f"got {values:.300}"
                )
        for region in self.regions:
            _check_region(self, region)
        for option, value in self.backbone_options.items():
            _check_backbone_option(self, option, value)

    @property
    def count(self) -> int:
        """Number of action units, and so of scores."""
        return len(self.aus)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One occurrence for each action unit, in the order of the scores."""
        return tuple(Output(au) for au in self.aus)

    @property
    def crop(self) -> Crop:
        """How a face is cut out: the landmarks are moved to the template."""
        return Crop("template", template=self.template)

    @property
    def licence(self) -> Licence | None:
        """None: the manifest states the licence of each model by its name."""
        return None

    @property
    def au_names(self) -> tuple[str, ...]:
        """Column names, in the order of the scores."""
        return tuple(au_name(au) for au in self.aus)

    @property
    def has_intensity(self) -> bool:
        """Whether scores can be turned into intensities."""
        return bool(self.grade_offsets)

    @property
    def grouped(self) -> list[int]:
        """The AUs of all regions, laid end to end."""
        return [au for region in self.regions for au in region.aus]

    @property
    def group_order(self) -> tuple[int, ...]:
        """For each AU, in the order of the scores, its position in `grouped`."""
        grouped = self.grouped
        return tuple(grouped.index(au) for au in self.aus)

    def to_json(self) -> str:
        """Text of config.json."""
        return config_text(self)

    @classmethod
    def from_json(cls, text: str, origin: str = "config") -> MDHRConfig:
        """Read config.json.

        Args:
            text: The file's contents.
            origin: Name of the file for error messages.

        Raises:
            ConfigError: Not JSON, an unknown or missing field, or a value out of bounds.
        """
        record = parse_config(text, origin)
        known = {f.name for f in dataclasses.fields(cls)}
        required = {
            f.name
            for f in dataclasses.fields(cls)
            if f.default is f.default_factory is dataclasses.MISSING
        }
        if record.keys() - known or required - record.keys():
            unknown, missing = sorted(record.keys() - known), sorted(required - record.keys())
            raise ConfigError(f"{origin}: unknown fields {unknown}, missing {missing}")
        try:
            record["regions"] = tuple(
                Region(r["name"], _pair(r["rows"]), tuple(operator.index(a) for a in r["aus"]))
                for r in record["regions"]
            )
            record["template"] = tuple((float(x), float(y)) for x, y in record["template"])
            for name in ("calibration", "grade_offsets"):
                if name in record:
                    record[name] = tuple(
                        (float(first), float(second)) for first, second in record[name]
                    )
            record["aus"] = tuple(operator.index(a) for a in record["aus"])
            for name in ("thresholds", "mean", "std"):
                if name in record:
                    record[name] = tuple(float(v) for v in record[name])
            return cls(**record)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{origin}: a field has the wrong type ({error!r})") from error


def _is_text(value: Any, pattern: str, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and bool(re.fullmatch(pattern, value))


def _are_within(values: Iterable[float], least: float, most: float) -> bool:
    return all(least <= value <= most for value in values)  # NaN is not


def _are_pairs(
    config: MDHRConfig,
    pairs: Sequence[tuple[float, float]],
    first: tuple[float, float],
    second: tuple[float, float],
) -> bool:
    """Whether there are none, or one for each AU with both numbers in their ranges."""
    return len(pairs) in (0, len(config.aus)) and all(
        _are_within([a], *first) and _are_within([b], *second) for a, b in pairs
    )


def _is_spread(points: Sequence[tuple[float, float]]) -> bool:
    """Whether the points differ in both directions, so that a crop can be fitted to them."""
    return all(max(line) - min(line) >= 0.01 for line in zip(*points, strict=True))


def _is_normalisation(mean: Sequence[float], std: Sequence[float]) -> bool:
    return (
        len(mean) == len(std) == 3
        and _are_within(mean, -1e3, 1e3)
        # Division by a tiny number would make numbers that float32 cannot represent.
        and _are_within(std, 1e-6, 1e3)
    )


# Each row has a check of a configuration, the expectation in words, and the fields. Later rows rely
# on earlier ones. The bounds are wide; they exclude sizes that exhaust the memory and numbers that
# overflow.
_Check = tuple[Callable[["MDHRConfig"], bool], str, tuple[str, ...]]
_CHECKS: list[_Check] = [
    (
        lambda c: _is_text(c.name, _NAME, MAX_NAME),
        f"name must be 1..{MAX_NAME} letters, digits, spaces or . _ -",
        ("name",),
    ),
    (
        lambda c: _is_text(c.version, _NAME, MAX_NAME),
        f"version must be 1..{MAX_NAME} letters, digits, spaces or . _ -",
        ("version",),
    ),
    (
        lambda c: isinstance(c.source, str) and len(c.source) <= 2000 and c.source.isprintable(),
        "source must be printable text of at most 2000 characters",
        ("source",),
    ),
    (
        lambda c: c.network in get_args(NetworkName),
        "unknown network, expected 'mdhr'",
        ("network",),
    ),
    (
        lambda c: c.backbone in BACKBONES,
        f"unknown backbone, expected one of {BACKBONES}",
        ("backbone",),
    ),
    (lambda c: c.head in HEADS, f"unknown head, expected one of {HEADS}", ("head",)),
    (
        lambda c: c.aligner in MODEL_ALIGNERS,
        f"aligner must be one of {MODEL_ALIGNERS}",
        ("aligner",),
    ),
    (
        lambda c: all(type(v) is int for v in (c.input_size, c.width, c.dynamic_channels)),
        "input_size, width and dynamic_channels must be whole numbers",
        ("input_size", "width", "dynamic_channels"),
    ),
    (
        lambda c: isinstance(c.project_regions, bool),
        "project_regions must be true or false",
        ("project_regions",),
    ),
    (
        lambda c: isinstance(c.backbone_options, Mapping),
        "backbone_options must be a mapping",
        ("backbone_options",),
    ),
    (
        lambda c: (
            0 < len(c.aus) <= 64
            and c.aus == tuple(sorted(set(c.aus)))
            and _are_within(c.aus, 1, 99)
        ),
        "aus must be at most 64 distinct, ascending numbers in 1..99",
        ("aus",),
    ),
    (
        lambda c: sorted(c.grouped) == list(c.aus),
        "the regions hold AUs {config.grouped}, expected each of {config.aus} once",
        ("regions",),
    ),
    (
        lambda c: c.input_size == _INPUT_SIZES[c.backbone],
        "input_size must be 112 for 'small' and 224 for the other backbones",
        ("backbone", "input_size"),
    ),
    (lambda c: 8 <= c.width <= 4096, "width must be in 8..4096", ("width",)),
    (
        lambda c: 8 <= c.dynamic_channels <= 8192,
        "dynamic_channels must be in 8..8192",
        ("dynamic_channels",),
    ),
    (
        lambda c: (
            len(c.template) == 5 and all(0.0 < x < 1.0 and 0.0 < y < 1.0 for x, y in c.template)
        ),
        "template must be five points within the crop",
        ("template",),
    ),
    (lambda c: _is_spread(c.template), "the points of the template must lie apart", ("template",)),
    (
        lambda c: len(c.thresholds) == len(c.aus) and _are_within(c.thresholds, 0.0, 1.0),
        "thresholds must be {config.count} numbers in [0, 1]",
        ("thresholds",),
    ),
    (
        lambda c: _is_normalisation(c.mean, c.std),
        "mean and std must be three numbers each, 1000 at most, std positive and 1e-6 at least",
        ("mean", "std"),
    ),
    (
        lambda c: _are_pairs(c, c.calibration, first=(1e-3, 1e3), second=(-1e3, 1e3)),
        "calibration must be empty or {config.count} pairs of a slope in 0.001..1000 and an offset "
        "in -1000..1000",
        ("calibration",),
    ),
    (
        lambda c: _are_pairs(c, c.grade_offsets, first=(0.0, 100.0), second=(-100.0, 0.0)),
        "grade_offsets must be empty or {config.count} pairs of a number in 0..100 and one in "
        "-100..0",
        ("grade_offsets",),
    ),
]


def _check_region(config: MDHRConfig, region: Region) -> None:
    where = f"model config {config.name!r}: region {region.name!r:.100}"
    if not _is_text(region.name, _NAME, MAX_NAME):
        raise ConfigError(f"{where}: the name must be 1..{MAX_NAME} letters, digits or . _ -")
    start, stop = region.rows
    if not 0 <= start < stop <= GRID:
        raise ConfigError(f"{where}: rows {region.rows} are not within 0..{GRID}")
    if not 0 < len(region.aus) <= 10:
        raise ConfigError(f"{where}: {len(region.aus)} AUs, expected at least 1 and at most 10")


def _check_backbone_option(config: MDHRConfig, option: str, value: Any) -> None:
    where = f"model config {config.name!r}: backbone_options of {config.backbone!r}"
    known = _BACKBONE_OPTIONS.get(config.backbone, {})
    if option not in known:
        raise ConfigError(
            f"{where}: unknown option {option!r:.100}, expected one of {sorted(known)}"
        )
    bounds = known[option]
    values = value if isinstance(value, list | tuple) else [value]
    shaped = len(values) == len(bounds) and (len(bounds) == 1) == (type(value) is int)
    if not shaped or not all(
        type(number) is int and least <= number <= most
        for number, (least, most) in zip(values, bounds, strict=True)
    ):
        ranges = ", ".join(f"{least}..{most}" for least, most in bounds)
        raise ConfigError(f"{where}: {option} must be {ranges}, got {value!r:.100}")


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return operator.index(first), operator.index(second)


def config_text(config: Any) -> str:
    """Text of the config.json of a configuration, a dataclass."""
    return _text_of(dataclasses.asdict(config))


def network_text(config: Any) -> str:
    """Text of the fields of a configuration that the network's outputs depend on, for hashes.

    The aligner is left out. Therefore hashes that were stored before the configuration had this
    field remain valid.
    """
    fields = dataclasses.asdict(config)
    fields.pop("aligner", None)
    return _text_of(fields)


def _text_of(fields: Mapping[str, Any]) -> str:
    return json.dumps({"format": 1, **fields}, indent=2) + "\n"


def parse_config(text: str, origin: str) -> dict[str, Any]:
    """The fields in the text of a config.json, still unchecked.

    Raises:
        ConfigError: The text is not JSON, or has another format.
    """
    record = parse_json(text, origin, ConfigError, strict_numbers=False)
    if not isinstance(record, dict) or record.pop("format", None) != 1:
        raise ConfigError(f'{origin}: expected a JSON object with "format": 1')
    return record


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
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(
                f"{path} has {path.stat().st_size} bytes: too large for a model configuration"
            )
        return read_file(path, _MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} could not be read: {reason_of(error)}") from error
