"""The same clip through several models; `pyfau.report.comparison` makes a page of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyfau.detector import AUDetector
from pyfau.errors import InputError, OptionError
from pyfau.files import is_folder
from pyfau.media.formats import is_image
from pyfau.result import AUResult
from pyfau.types import StrPath
from pyfau.weights.find import find_model


@dataclass(frozen=True, slots=True)
class _Choice:
    """A model of a comparison: its name and its revision."""

    model: str
    revision: str | None


def compare_models(
    source: StrPath, models: Sequence[str], *, progress: bool = False, **options: Any
) -> dict[str, AUResult]:
    """Score the same clip with several models.

    Args:
        source: A video file, an image, or a folder of images.
        models: As for `AUDetector`. "NAME@REVISION" chooses a commit, tag or branch on the Hub.
        progress: Whether to show progress bars.
        options: Further options of `AUDetector`, such as `aligner`, for all models.

    Returns:
        The rows of each model, by the name of its configuration, in the order of `models`.

    Raises:
        InputError: Fewer than two models.
        OptionError: A model is given twice, or an option has an invalid value.
        WeightsError: A model is not available. It is found before any work is done.
        MediaError: The source cannot be read.
    """
    if len(models) < 2:
        raise InputError(f"a comparison needs at least 2 models, got {len(models)}")
    choices = [_choose(model) for model in models]
    offline = bool(options.get("local_files_only", False))
    for choice in choices:
        found = find_model(
            choice.model,
            revision=choice.revision,
            local_files_only=offline,
            progress=progress,
        )
        with found:
            pass
    results: dict[str, AUResult] = {}
    for choice in choices:
        detector = AUDetector(choice.model, revision=choice.revision, progress=progress, **options)
        name = str(detector.model.config.name)
        if name in results:
            raise OptionError(
                f"two of the models have the name {name}: {choice.model} and an earlier one; "
                f"expected different models"
            )
        results[name] = _score(detector, Path(source))
    return results


def _choose(model: str) -> _Choice:
    """The parts of "NAME@REVISION"; a path can have an @ in its name."""
    name, at, revision = model.rpartition("@")
    if not at or Path(model).exists():
        return _Choice(model, None)
    return _Choice(name, revision)


def _score(detector: AUDetector, source: Path) -> AUResult:
    if is_folder(source):
        return detector.detect_images(source)
    if is_image(source):
        return detector.detect_image(source)
    return detector.detect_video(source)
