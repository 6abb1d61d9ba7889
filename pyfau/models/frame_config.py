"""Configuration of networks that score single frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from pyfau.choices import DEFAULT_ALIGNER, MODEL_ALIGNERS
from pyfau.errors import ConfigError
from pyfau.models.config import IMAGENET_MEAN, IMAGENET_STD, config_text, parse_config
from pyfau.models.protocol import Crop, CropKind, Kind, Licence, Output, Outside, Side

_MAX_OUTPUTS = 128


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """Configuration of a network that scores single frames.

    Attributes:
        name: For example "opengraphau-s2-resnet50".
        network: The kind of network, a key of `pyfau.weights.networks.NETWORKS`.
        backbone: Name of the backbone.
        variant: What else the kind of network has to choose from, such as the stage.
        outputs: The scores, in order.
        crop: How the authors cut out a face.
        licence: Terms of use.
        thresholds: An output at or above its threshold is active; one for each output.
        input_size: Side of the crop in pixels.
        mean: Of the RGB channels, for pixels in [0, 1].
        std: Of the RGB channels.
        version: Version of the weights.
        source: Where the weights come from, in words.
        aligner: As of `MDHRConfig`.
    """

    name: str
    network: str
    backbone: str
    variant: str
    outputs: tuple[Output, ...]
    crop: Crop
    licence: Licence
    thresholds: tuple[float, ...]
    input_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    version: str = "1"
    source: str = ""
    aligner: str = DEFAULT_ALIGNER

    def __post_init__(self) -> None:
        for problem in (*_text_problems(self), *_output_problems(self), *_crop_problems(self)):
            raise ConfigError(f"model config {self.name!r}: {problem}")

    @property
    def aus(self) -> tuple[int, ...]:
        """FACS numbers of the outputs, in order; a number can occur more than once."""
        return tuple(output.au for output in self.outputs)

    @property
    def template(self) -> tuple[tuple[float, float], ...]:
        """(5, 2) landmarks in fractions of the crop; empty for a crop without a template."""
        return self.crop.template

    @property
    def grade_offsets(self) -> tuple[tuple[float, float], ...]:
        """Empty: intensities are outputs of the network, not made of scores."""
        return ()

    @property
    def au_names(self) -> tuple[str, ...]:
        """Columns of the outputs, in order."""
        return tuple(output.column for output in self.outputs)

    @property
    def backbone_options(self) -> dict[str, Any]:
        """Options of the backbone: there are none."""
        return {}

    def to_json(self) -> str:
        """Text of config.json."""
        return config_text(self)

    @classmethod
    def from_json(cls, text: str, origin: str = "config") -> FrameConfig:
        """Read the text of a config.json.

        Args:
            text: The file's contents.
            origin: Name of the file for errors.

        Raises:
            ConfigError: Not JSON, an unknown or missing field, or a value out of bounds.
        """
        record = parse_config(text, origin)
        try:
            record["outputs"] = tuple(Output(**output) for output in record["outputs"])
            crop = dict(record["crop"])
            crop["template"] = tuple((float(x), float(y)) for x, y in crop.get("template", ()))
            record["crop"] = Crop(**crop)
            record["licence"] = Licence(**record["licence"])
            for name in ("thresholds", "mean", "std"):
                record[name] = tuple(float(value) for value in record[name])
            return cls(**record)
        except ConfigError:
            raise
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{origin}: a field is unknown, missing or of the wrong type ({error!r})"
            ) from error


def _text_problems(config: FrameConfig) -> list[str]:
    problems = []
    for name in ("name", "network", "backbone", "variant", "version", "source"):
        value = getattr(config, name)
        if not isinstance(value, str) or not value.isprintable():
            problems.append(f"{name} must be printable text, got {value!r}")
    for name in ("code", "weights"):
        value = getattr(config.licence, name)
        if not isinstance(value, str) or not value.isprintable():
            problems.append(f"the licence of the {name} must be printable text, got {value!r}")
    if config.aligner not in MODEL_ALIGNERS:
        problems.append(f"aligner must be one of {MODEL_ALIGNERS}, got {config.aligner!r}")
    commercial: object = config.licence.commercial
    if not isinstance(commercial, bool):
        problems.append(f"licence.commercial must be a bool, got {commercial!r}")
    return problems


def _output_problems(config: FrameConfig) -> list[str]:
    if not 0 < len(config.outputs) <= _MAX_OUTPUTS:
        return [f"expected 1 to {_MAX_OUTPUTS} outputs, got {len(config.outputs)}"]
    problems = []
    for output in config.outputs:
        if type(output.au) is not int or not 0 < output.au < 100:
            problems.append(f"the AU of an output must be in 1..99, got {output.au!r}")
        elif output.kind not in get_args(Kind) or output.side not in get_args(Side):
            problems.append(f"unknown kind or side of an output: {output.kind!r}, {output.side!r}")
    if problems:
        return problems
    columns = config.au_names
    if len(set(columns)) != len(columns):
        problems.append(f"the outputs must be distinct, got {', '.join(columns)}")
    if len(config.thresholds) != len(columns):
        problems.append(f"expected {len(columns)} thresholds, got {len(config.thresholds)}")
    for output, threshold in zip(config.outputs, config.thresholds, strict=False):
        low, high = output.range
        if not low <= threshold <= high:
            problems.append(
                f"the threshold of {output.column} must be in [{low:g}, {high:g}], got {threshold}"
            )
    return problems


def _crop_problems(config: FrameConfig) -> list[str]:
    crop, problems = config.crop, []
    if crop.kind not in get_args(CropKind):
        problems.append(f"unknown crop {crop.kind!r}, expected one of {get_args(CropKind)}")
    inside = all(0.0 < value < 1.0 for point in crop.template for value in point)
    if len(crop.template) != (5 if crop.kind == "template" else 0) or not inside:
        problems.append(
            f"a crop of kind 'template' has five points within the crop, others have none, "
            f"got {crop.template}"
        )
    if not _is_within(crop.margin, 0.0, 1.0) or not _is_within(crop.keep, 0.1, 1.0):
        problems.append(
            f"expected a margin in [0, 1] and keep in [0.1, 1], got {crop.margin!r}, {crop.keep!r}"
        )
    if type(crop.square) is not bool or crop.outside not in get_args(Outside):
        problems.append(
            f"expected square true or false and outside one of {get_args(Outside)}, "
            f"got {crop.square!r}, {crop.outside!r}"
        )
    if config.input_size != 224:
        problems.append(f"input_size must be 224, got {config.input_size!r}")
    colours = len(config.mean) == len(config.std) == 3
    if not colours or not all(map(math.isfinite, config.mean)) or min(config.std) < 1e-6:
        problems.append(
            f"mean and std must be three finite numbers each, std at least 1e-6, "
            f"got {config.mean}, {config.std}"
        )
    return problems


def _is_within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high
