"""Whole evaluations: `evaluate_lists` for BP4D and DISFA, `evaluate_tables` for your own labels.

Both return a report, a dict that JSON can express. `pyfau.evaluation.comparison.render` makes text
from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pyfau.checks import is_number
from pyfau.errors import InputError, OptionError
from pyfau.evaluation.comparison import add_summary, paper_row
from pyfau.evaluation.labels import Matched, match, pairs_of, read_labels
from pyfau.evaluation.lists import FOLDS, IGNORED, FrameList, find_images, read_list
from pyfau.evaluation.metrics import Measures, measure, measure_intensity
from pyfau.files import is_folder
from pyfau.limits import LIMITS, Limits
from pyfau.models.config import MDHRConfig, network_text
from pyfau.models.frame_config import FrameConfig
from pyfau.models.paper import DATA_SETS
from pyfau.result import AUResult, read_result
from pyfau.types import StrPath
from pyfau.version import __version__
from pyfau.weights.find import find_model
from pyfau.weights.manifest import read_manifest
from pyfau.weights.networks import read_network

if TYPE_CHECKING:
    from pyfau.evaluation.protocol import Predictions

Threshold = float | Literal["model"]

DEFAULT_PREDICTIONS = Path("pyfau-predictions")
DEFAULT_BATCH_SIZE = 32
HIGHEST_GRADE = 5.0  # of FACS
_SHOWN_ERRORS = 5
# Fields of a stored record that a report needs.
_RECORD = ("model", "sha256", "backbone", "aus", "thresholds", "template", "aligner")


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Options of `evaluate_tables`.

    Attributes:
        threshold: Score that counts as active; "model" for the column `AU.._c` of the table itself.
        present: If the labels are intensities: the lowest one that counts as present. If the
            tables of scores have intensities as well, these are compared too.
        first_frame: Number that the labels give to the first frame. pyfau counts from 0.
        more: Also compute ROC-AUC, best-threshold F1, ICC(3,1) and calibration error.
        limits: Larger tables are refused.
    """

    threshold: Threshold = "model"
    present: float | None = None
    first_frame: int = 0
    more: bool = False
    limits: Limits = LIMITS


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options of `evaluate_lists`.

    Attributes:
        root: Folder of the images, or of the folder `img` with them. Needed unless `rescore`.
        model: Name, directory, .pth file or user/repo; "{fold}" in it stands for the number of the
            fold. Needed unless `rescore`.
        fold: 1, 2 or 3; None for all folds that the model is for.
        align: Aligner for raw images, such as "mtcnn", or "auto" for that of the model's config;
            None if the images are aligned.
        rescore: Measure stored scores, without network and images.
        predictions: Folder that keeps the scores, so that an interrupted run can continue.
        threshold: Score that counts as active; "model" for the model's own thresholds.
        more: Also compute ROC-AUC, best-threshold F1, ICC(3,1) and calibration error.
        batch_size: Number of frames that are encoded together.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        revision: Commit, tag or branch of a Hub repository.
        offline: Use only models that are on this machine.
        progress: Show progress bars on standard error.
        limits: Larger images are refused.
    """

    root: Path | None = None
    model: str | None = None
    fold: int | None = None
    align: str | None = None
    rescore: bool = False
    predictions: Path = DEFAULT_PREDICTIONS
    threshold: Threshold = 0.5
    more: bool = False
    batch_size: int = DEFAULT_BATCH_SIZE
    device: str = "auto"
    revision: str | None = None
    offline: bool = False
    progress: bool = False
    limits: Limits = LIMITS


def evaluate_tables(
    labels: StrPath, scores: StrPath, options: TableOptions | None = None
) -> dict[str, Any]:
    """Compare tables that pyfau wrote with tables of labels.

    Args:
        labels: A table of labels, or a folder of them.
        scores: A table that pyfau wrote, or a folder of them. Files in folders go together by name.
        options: See `TableOptions`.

    Returns:
        The report. A pair of tables that cannot be compared is in "failures", with the reason.
        "intensity" is there if labels and scores have intensities; see
        `pyfau.evaluation.metrics.measure_intensity`.

    Raises:
        InputError: No pair of tables can be compared.
        OptionError: An option has a wrong value.
        DependencyError: scikit-learn is not installed.
    """
    options = options or TableOptions()
    check_threshold(options.threshold)
    matched = match_tables(Path(labels), Path(scores), options)
    parts, notes, inputs, failures = (
        matched.parts,
        matched.notes,
        matched.inputs,
        matched.failures,
    )
    if not parts:
        errors = list(failures.values())
        raise InputError("; ".join(errors[:_SHOWN_ERRORS]))
    notes += _mixed_models(inputs)
    report = {
        "pyfau_version": __version__,
        "data": "csv",
        "threshold": options.threshold,
        "inputs": inputs,
        "failures": failures,
        "folds": {"all": _measure_parts(parts, options)},
        "notes": notes,
    }
    report |= intensity_of_parts(parts, notes)
    add_summary(report, None)
    return report


@dataclass(slots=True)
class MatchedTables:
    """Labels and scores of all pairs of tables.

    Attributes:
        parts: For each pair that can be compared.
        inputs: A record of each of these.
        failures: Why other pairs cannot be compared, by the path of the labels.
        notes: Facts that matter for the interpretation of the figures.
    """

    parts: list[Matched]
    inputs: list[dict[str, Any]]
    failures: dict[str, str]
    notes: list[str]


def match_tables(labels: Path, scores: Path, options: TableOptions) -> MatchedTables:
    """Read and match all pairs of tables; see `evaluate_tables`.

    Raises:
        InputError: There is no pair.
    """
    pairs, notes = pairs_of(labels, scores)
    result = MatchedTables([], [], {}, notes)
    for label_path, score_path in pairs:
        try:
            rows = read_result(score_path, options.limits)
            table = read_labels(label_path, options.present, options.limits)
            part = match(table, rows, str(score_path), options.first_frame)
        except InputError as error:
            result.failures[str(label_path)] = str(error)
            continue
        result.parts.append(part)
        result.inputs.append(_input_record(label_path, score_path, part, rows))
        name = f"{label_path.name}: " if len(pairs) > 1 else ""
        notes += [name + note for note in _pair_notes(part, rows)]
    return result


def _input_record(labels: Path, scores: Path, part: Matched, result: AUResult) -> dict[str, Any]:
    return {
        "labels": str(labels),
        "scores": str(scores),
        "model": result.metadata.get("model"),
        "model_sha256": result.metadata.get("model_sha256"),
        "label_rows": part.label_rows,
        "matched": len(part.labels),
        "unmatched": part.unmatched,
        "unlabelled": part.unlabelled,
        "notes": part.notes + result.warnings,
    }


def _pair_notes(part: Matched, result: AUResult) -> list[str]:
    notes = [f"{len(part.labels)} of {part.label_rows} rows of labels have a score"]
    notes += [f"{count} without: {reason}" for reason, count in part.unmatched.items()]
    if part.unlabelled:
        notes.append(f"{part.unlabelled} scored rows have no label")
    return notes + part.notes + result.warnings


def _mixed_models(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    models = {(entry["model"], entry["model_sha256"]) for entry in inputs}
    if len(models) < 2:
        return []
    names = sorted(str(name) for name, _ in models)
    return [f"the tables were made by different models: {', '.join(names)}"]


def _measure_parts(parts: Sequence[Matched], options: TableOptions) -> Measures:
    """Measure all pairs of tables together."""
    aus = all_aus(parts)
    labels = stacked(parts, aus, [part.labels for part in parts], np.int8(IGNORED))
    scores = stacked(parts, aus, [part.scores for part in parts], np.float32(np.nan))
    active = stacked(parts, aus, [part.active for part in parts], np.False_)
    if options.threshold != "model":
        active = scores >= np.float32(options.threshold)
    return measure(labels, scores, active, aus, options.more)


def intensity_of_parts(
    parts: Sequence[Matched], notes: list[str], aus: list[str] | None = None
) -> dict[str, Any]:
    """The measures of intensity, if all tables of labels and of scores have intensities.

    Args:
        parts: Pairs of tables.
        notes: Gets the reason why intensity is not measured.
        aus: The action units of the measures; None for all that the tables have.
    """
    grades = [part.grades for part in parts if part.grades is not None]
    intensities = [part.intensities for part in parts if part.intensities is not None]
    if len(grades) < len(parts) or not intensities:
        return {}
    if len(intensities) < len(parts):
        notes.append(
            f"intensity is not measured: {len(parts) - len(intensities)} of {len(parts)} tables "
            "have no columns such as AU12_r"
        )
        return {}
    highest = max(float(np.nan_to_num(part).max(initial=0.0)) for part in grades)
    if highest > HIGHEST_GRADE:
        notes.append(
            f"intensity is not measured: expected FACS grades from 0 to {HIGHEST_GRADE:g}, and "
            f"labels go up to {highest:g}"
        )
        return {}
    aus = all_aus(parts) if aus is None else aus
    nothing = np.float32(np.nan)
    measures = measure_intensity(
        stacked(parts, aus, grades, nothing), stacked(parts, aus, intensities, nothing), aus
    )
    return {"intensity": measures}


def all_aus(parts: Sequence[Matched]) -> list[str]:
    """The names of the action units of all tables, sorted."""
    return sorted({au for part in parts for au in part.aus})


def stacked(
    parts: Sequence[Matched], aus: Sequence[str], arrays: Sequence[npt.NDArray[Any]], fill: Any
) -> npt.NDArray[Any]:
    """The arrays of all parts below each other, with a column for each action unit.

    Tables can have different action units. `fill` is for those that a table does not have.
    """
    rows = []
    for part, array in zip(parts, arrays, strict=True):
        wide = np.full((len(array), len(aus)), fill)
        wide[:, [aus.index(au) for au in part.aus]] = array
        rows.append(wide)
    return np.concatenate(rows)


def evaluate_lists(data: str, lists: StrPath, options: ListOptions) -> dict[str, Any]:
    """Evaluate a model on BP4D or DISFA by the paper's protocol.

    Args:
        data: "bp4d" or "disfa".
        lists: Folder of the official lists.
        options: See `ListOptions`.

    Returns:
        The report. Images that could not be scored are in "failures" by fold, with the reason;
        they do not count in the figures.

    Raises:
        InputError: A list, or all images of a list, are missing or wrong.
        OptionError: An option has a wrong value.
        WeightsError: A model is not available.
        DependencyError: scikit-learn is not installed.
    """
    check_threshold(options.threshold)
    folds = _folds(data, options)
    # Read all lists and look for all images and models first: a missing one should not be found
    # after hours of work.
    frame_lists = {fold: read_list(data, Path(lists), fold) for fold in folds}
    if not options.rescore:
        for frames in frame_lists.values():
            _check_there(frames, options)
    report: dict[str, Any] = {
        "pyfau_version": __version__,
        "data": data,
        "threshold": options.threshold,
        "models": {},
        "failures": {},
        "folds": {},
        "notes": [],
    }
    for fold, frames in frame_lists.items():
        folder = options.predictions / f"{data}-fold{fold}"
        if options.rescore:
            record, predictions = _stored(frames, folder)
        else:
            record, predictions = _predict(frames, folder, options)
        failures = {failure.source: failure.error for failure in predictions.failures}
        report["models"][str(fold)] = record
        report["failures"][str(fold)] = failures
        if failures:
            report["notes"].append(
                f"fold {fold}: {len(failures)} of {len(frames)} images could not be scored and "
                "do not count"
            )
        report["folds"][str(fold)] = _measure_fold(frames, record, predictions, options)
    _check_alike(report["models"])
    first = report["models"][str(folds[0])]
    paper = paper_row(data, first["backbone"])
    report["notes"] += _list_notes(report, frame_lists[folds[0]].aus, paper)
    add_summary(report, paper)
    return report


def _folds(data: str, options: ListOptions) -> list[int]:
    if options.fold is not None:
        return [options.fold]
    own = None
    if options.model is not None:
        own = _fold_of_model(options.model, data)
    return list(FOLDS) if own is None else [own]


def _check_there(frames: FrameList, options: ListOptions) -> None:
    """Check that the images and the model of a fold are available; fetch the model if needed."""
    find_images(frames, _needed_root(options))
    found = find_model(
        _model_name(options, frames.fold),
        revision=options.revision,
        local_files_only=options.offline,
        progress=options.progress,
    )
    with found:
        pass


def _needed_root(options: ListOptions) -> Path:
    if options.root is None:
        raise OptionError("root is missing: expected the folder of the images")
    return options.root


def _model_name(options: ListOptions, fold: int) -> str:
    if options.model is None:
        raise OptionError("model is missing: expected a name, directory, .pth file or user/repo")
    return options.model.replace("{fold}", str(fold))


def _measure_fold(
    frames: FrameList,
    record: Mapping[str, Any],
    predictions: Predictions,
    options: ListOptions,
) -> Measures:
    """Measure the action units that both the data set and the model have."""
    aus = [au for au in frames.aus if au in record["aus"]]
    columns = [record["aus"].index(au) for au in aus]
    labels = frames.labels[:, [frames.aus.index(au) for au in aus]]
    scores = predictions.scores[:, columns]
    limits = [options.threshold] * len(aus)
    if options.threshold == "model":
        limits = [record["thresholds"][column] for column in columns]
    active = scores >= np.array(limits, np.float32)
    return measure(labels, scores, active, aus, options.more)


def _list_notes(
    report: Mapping[str, Any], aus: Sequence[str], paper: Mapping[str, Any] | None
) -> list[str]:
    """Facts about the models that matter for a comparison with the paper."""
    data = report["data"]
    models = report["models"]
    first = next(iter(models.values()))
    name = first["model"]
    notes = []
    missing = [au for au in aus if au not in first["aus"]]
    if missing:
        notes.append(f"not scored by the model, and not in the mean: {', '.join(missing)}")
    own_template = [list(point) for point in DATA_SETS[data].template]
    fits = first["template"] == own_template or first.get("part", 1.0) < 1.0
    if first["aligner"] is None and not fits:
        notes.append(
            f"{name} is for another crop than that of the aligned images of {data}: see --align"
        )
    is_papers = paper is not None and paper["backbone"] == first["backbone"] and f"-{data}" in name
    notes += _training_notes(data, name)
    different_weights = {record["sha256"] for record in models.values()}
    if paper is not None and not is_papers:
        notes.append(
            f"{name} is not the paper's network on {data}: the difference is between models"
        )
    elif len(different_weights) < len(models):
        notes.append(
            "several folds have the same weights, but the paper has one network per fold: see "
            "{fold} in --model"
        )
    return notes


def _training_notes(data: str, name: str) -> list[str]:
    """A warning if the network was trained on this data set, and nobody has stated which people."""
    for entry in read_manifest().values():
        is_named = entry.name == name and "fold" not in entry.record
        if is_named and data.upper() in entry.record["training_data"].upper():
            return [
                f"{name} was trained on {data.upper()}: people of this list may be among its "
                "training data"
            ]
    return []


def _check_alike(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a mean over folds that were scored by networks of different kinds."""
    (fold, first), *others = models.items()
    for number, record in others:
        differ = [name for name in ("backbone", "aus", "aligner") if record[name] != first[name]]
        if differ:
            raise OptionError(
                f"fold {fold} was scored with {first['model']} and fold {number} with "
                f"{record['model']}, which differ in {', '.join(differ)}: expected one kind of "
                "network for all folds; measure each fold with --fold"
            )


def _stored(frames: FrameList, folder: Path) -> tuple[dict[str, Any], Predictions]:
    """The scores of an earlier run."""
    from pyfau.evaluation.protocol import RECORD_FILE, Store, load_predictions, read_record

    record = read_record(folder)
    missing = [name for name in _RECORD if name not in record]
    wrong = None
    if missing:
        wrong = f"lacks {', '.join(missing)}"
    elif len(record["aus"]) != len(record["thresholds"]):
        wrong = "has a different number of thresholds and AUs"
    if wrong is not None:
        raise InputError(
            f"{folder} holds no predictions that can be measured: {RECORD_FILE} {wrong}"
        )
    return record, load_predictions(frames, Store(folder, record))


def _predict(
    frames: FrameList, folder: Path, options: ListOptions
) -> tuple[dict[str, Any], Predictions]:
    """Score the images of a fold."""
    # The network and what it needs are imported here: --rescore works without them.
    from pyfau.evaluation.protocol import Store, aligned_part, predict
    from pyfau.faces.aligner import load_aligner, resolve_aligner
    from pyfau.models.devices import resolve_device
    from pyfau.models.windows import CLIP_LENGTH
    from pyfau.weights.store import open_model

    images = find_images(frames, _needed_root(options))
    device = resolve_device(options.device)
    name = _model_name(options, frames.fold)
    loaded = open_model(name, device, revision=options.revision, local_files_only=options.offline)
    config: MDHRConfig | FrameConfig = loaded.model.config
    _check_aus(name, config.au_names, frames)
    _check_fold(name, config.name, frames)
    # A name, because `ListOptions` takes no objects.
    align = None if options.align is None else str(resolve_aligner(options.align, config))
    # Everything that the scores depend on. A folder with other predictions is refused.
    record = {
        "data": frames.data,
        "fold": frames.fold,
        "model": config.name,
        "sha256": loaded.sha256,
        # The configuration contains the calibration, which is not in the weights.
        "config_sha256": hashlib.sha256(network_text(config).encode()).hexdigest(),
        "backbone": config.backbone,
        "aus": list(config.au_names),
        "thresholds": [round(threshold, 6) for threshold in config.thresholds],
        "template": [list(point) for point in config.template],
        "clip_length": CLIP_LENGTH if loaded.model.context else 1,
        "aligner": align,
    }
    if isinstance(config, FrameConfig):
        record["crop"] = config.crop.kind
        if align is None:
            record["part"] = round(aligned_part(config, frames.data), 4)
    predictions = predict(
        loaded.model,
        frames,
        images,
        store=Store(folder, record),
        aligner=None if align is None else load_aligner(align, device),
        batch_size=options.batch_size,
        progress=options.progress,
        limits=options.limits,
    )
    return record, predictions


def _check_aus(name: str, aus: Sequence[str], frames: FrameList) -> None:
    if set(aus) & set(frames.aus):
        return
    raise OptionError(
        f"{name} scores {', '.join(aus)} and {frames.data} has labels of "
        f"{', '.join(frames.aus)}: none in common"
    )


def _check_fold(name: str, config_name: str, frames: FrameList) -> None:
    """Refuse a model that was trained on the people of the test list."""
    trained = _fold_in(config_name) or _fold_in(name)
    if trained in (None, frames.fold) or f"-{frames.data}" not in config_name:
        return
    raise OptionError(
        f"{name} is of fold {trained} and was trained on the test people of fold {frames.fold}: "
        f"expected the weights of fold {frames.fold} (write {{fold}} in --model for the number)"
    )


def _fold_of_model(model: str, data: str) -> int | None:
    """The fold of a data set that a model was trained for; None if no name states it."""
    config = Path(model) / "config.json"
    name = model
    if is_folder(model) and config.is_file():
        name = read_network(config)[1].name
    if any(f"-{other}-" in name for other in DATA_SETS if other != data):
        return None
    return _fold_in(name) or _fold_in(model)


def _fold_in(name: str) -> int | None:
    """The fold that a name ends with, as in mdhr-resnet50-bp4d-fold1 or best_model_fold1.pth."""
    found = re.search(r"fold_?([123])(?:\.[a-z]+)?/?$", name)
    return int(found[1]) if found else None


def check_threshold(threshold: Any) -> None:
    """Refuse what is neither a number in [0, 1] nor "model".

    Raises:
        OptionError: It is something else.
    """
    if threshold == "model":
        return
    if not is_number(threshold) or not 0.0 <= threshold <= 1.0:
        raise OptionError(f'threshold must be a number in [0, 1] or "model", got {threshold!r}')
