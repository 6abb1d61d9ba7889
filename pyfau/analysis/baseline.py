"""A person's baseline: the scores of the face at rest, and results that are adjusted to it. See
docs/baseline.md.

A resting face with low brows or deep folds looks like action units that are not there. This adds a
constant amount to the log-odds of every frame, because scores are logistic. `adjust` subtracts this
amount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from pyfau.analysis.resting import LEAST_S, resting_rows
from pyfau.checks import check_choice, is_number
from pyfau.choices import BaselineMode, BaselineSource
from pyfau.errors import InputError, OptionError
from pyfau.intensity import FROM_NETWORK, expected_intensity

if TYPE_CHECKING:
    from pyfau.tables.rows import AURows


AT_REST = 0.05  # allowed score of an AU in a face at rest; half the AU's threshold if that is less
LEAST_FRAMES = 30  # least number of scored frames from which a quantile is computed
_EDGE = 1e-6  # scores have six decimals, so values nearer to 0 or 1 carry no information
_Array = npt.NDArray[np.float64]
Rows = TypeVar("Rows", bound="AURows")


@dataclass(frozen=True)
class Baseline:
    """What a network scores in the resting face of one person; made by `AUDetector.calibrate`.

    Attributes:
        levels: AU name -> score in [0, 1] at rest.
        frames: Number of frames from which the levels were computed.
        model_sha256: sha256 of the network; the baseline is only for its scores. None if unknown.
    """

    levels: Mapping[str, float]
    frames: int
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        for au, level in self.levels.items():
            # NaN is neither.
            if not isinstance(level, float | int | np.floating) or not 0.0 <= level <= 1.0:
                raise OptionError(f"the level of {au} must be a score in [0, 1], got {level!r}")


def measure(result: AURows) -> Baseline:
    """The baseline of the one person in a result: for each AU the median score of the frames with a
    face.

    Raises:
        InputError: There is no face, or there are several in a frame.
    """
    rows = _rows_of_faces(result)
    if not rows:
        raise InputError("calibrate: no face was found in the neutral frames")
    _check_one_person(result, "calibrate on frames of one person")
    raw = result.raw_scores[np.concatenate(list(rows.values()))]
    levels = _to_scores(np.median(_log_odds(raw), axis=0))
    named = _named(result.aus, levels)
    return Baseline(named, len(raw), result.metadata.get("model_sha256"))


def adjust(
    result: Rows,
    source: Baseline | Mapping[int, Baseline] | BaselineSource | None = None,
    *,
    per_face: bool = True,
    quantile: float = 0.1,
    mode: str = "subtract",
) -> Rows:
    """See `pyfau.AUResult.baseline`."""
    check_choice(mode, "mode", BaselineMode)
    thresholds: Any = result.metadata.get("thresholds")
    try:
        limits = np.array([thresholds[au] for au in result.aus], np.float64)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"a baseline needs thresholds for all AUs in the metadata, got {thresholds!r}"
        ) from None
    offsets = _grade_offsets(result)
    record: dict[str, Any] = {"mode": mode, "at_rest": AT_REST}
    notes: list[str] = []
    if source is None:
        levels = _quantiles(result, quantile, per_face, notes)
        record |= {"source": "quantile", "quantile": quantile, "per_face": bool(per_face)}
    elif isinstance(source, str):
        check_choice(source, "baseline", BaselineSource)
        levels, frames = _resting(result, per_face, notes)
        record |= {"source": source, "resting_frames": frames, "per_face": bool(per_face)}
    else:
        levels = _calibrated(result, source)
        record["source"] = "calibration"
    rows, raw = _rows_of_faces(result), result.raw_scores
    scores = raw.copy()
    # A face or AU without a shift is as it was before any baseline.
    active = (
        raw >= limits.astype(np.float32) if "baseline" in result.metadata else result.active.copy()
    )
    record["levels"], moved = {}, {}
    for face_id, level in levels.items():
        shift = np.nan_to_num(own_part(level, limits))  # an AU without scores is not moved
        aus = np.flatnonzero(shift)
        own = np.ix_(rows[face_id], aus)
        scores[own] = np.minimum(raw[own], _to_scores(_log_odds(raw[own]) - shift[aus]))
        active[own] = scores[own] >= limits[aus].astype(np.float32)
        higher = np.where(shift > 0, _to_scores(_log_odds(limits) + shift).round(6), limits)
        record["levels"][str(face_id)] = _named(result.aus, level)
        moved[str(face_id)] = dict(zip(result.aus, higher.tolist(), strict=True))
    if mode == "threshold":
        scores, record["thresholds"] = raw, moved
    # Intensities that the network outputs are not computed from scores.
    intensities = result.intensities if offsets is None else expected_intensity(scores, offsets)
    adjusted = result.adjusted(scores, active, mode == "subtract", intensities)
    adjusted.metadata["baseline"] = record
    adjusted.warnings += [note for note in notes if note not in adjusted.warnings]
    return adjusted


def _named(aus: tuple[str, ...], levels: _Array) -> dict[str, float]:
    """The levels by AU, without AUs that have no scores."""
    pairs = zip(aus, levels.tolist(), strict=True)
    return {au: level for au, level in pairs if not np.isnan(level)}


def own_part(level: npt.ArrayLike, thresholds: npt.ArrayLike) -> _Array:
    """Log-odds by which the resting score of each AU exceeds the allowed one; 0 or more."""
    at_rest = np.minimum(AT_REST, np.asarray(thresholds) / 2)
    return np.maximum(0.0, _log_odds(level) - _log_odds(at_rest))


def _grade_offsets(result: AURows) -> list[tuple[float, float]] | None:
    """Grade offsets for adjusted scores; None if intensities are not computed from scores."""
    if not result.has_intensity or result.metadata.get("intensity") == FROM_NETWORK:
        return None
    named: Any = result.metadata.get("grade_offsets")
    try:
        pairs = np.array([named[au] for au in result.aus], np.float64).reshape(len(result.aus), 2)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"a baseline needs grade_offsets for all AUs in the metadata, got {named!r}"
        ) from None
    return [(trace, strong) for trace, strong in pairs.tolist()]


def _quantiles(
    result: AURows, quantile: float, per_face: bool, notes: list[str]
) -> dict[int, _Array]:
    if not is_number(quantile) or not 0.0 <= quantile <= 1.0:
        raise OptionError(f"quantile must be a number in [0, 1], got {quantile!r}")
    rows = _rows_of_faces(result)
    raw = result.raw_scores

    def level(counted: npt.NDArray[np.int64]) -> _Array | None:
        """The quantile of the scores in the counted rows; None if there are too few."""
        if len(counted) < LEAST_FRAMES:
            return None
        # "lower" takes a score that occurs: a result that is adjusted again stays the same.
        log_odds = np.quantile(_log_odds(raw[counted]), quantile, axis=0, method="lower")
        return _to_scores(log_odds)

    if per_face:
        found = {face_id: level(own) for face_id, own in rows.items()}
    else:
        shared = level(np.concatenate([np.empty(0, np.int64), *rows.values()]))
        found = dict.fromkeys(rows, shared)
    levels = {face_id: own for face_id, own in found.items() if own is not None}
    brief = [face_id for face_id, own in found.items() if own is None]
    if brief:
        notes.append(
            f"no baseline: fewer than {LEAST_FRAMES} scored frames for "
            f"{len(brief)} of {len(rows)} faces ({_listed(brief)})"
        )
    return levels


def _resting(
    result: AURows, per_face: bool, notes: list[str]
) -> tuple[dict[int, _Array], dict[str, int]]:
    """The levels of the faces that are at rest in the recording, and their frames at rest."""
    rows = _rows_of_faces(result)
    found = {face_id: resting_rows(result, own) for face_id, own in rows.items()}
    if not per_face:
        shared = np.concatenate([np.empty(0, np.int64), *found.values()])
        found = dict.fromkeys(rows, shared)
    levels = {
        face_id: _to_scores(np.median(_log_odds(result.raw_scores[at_rest]), axis=0))
        for face_id, at_rest in found.items()
        if len(at_rest)
    }
    moving = [face_id for face_id in found if face_id not in levels]
    if moving:
        notes.append(
            f"no baseline: less than {LEAST_S:g} s at rest for "
            f"{len(moving)} of {len(rows)} faces ({_listed(moving)}), which stay as they are"
        )
    return levels, {str(face_id): len(at_rest) for face_id, at_rest in found.items()}


def _listed(face_ids: list[int]) -> str:
    """The first ten faces in words."""
    names = [str(face_id) for face_id in face_ids[:10]]
    if len(face_ids) > 10:
        names.append("...")
    return ", ".join(names)


def _calibrated(result: AURows, source: Baseline | Mapping[int, Baseline]) -> dict[int, _Array]:
    faces = _rows_of_faces(result).keys()
    if isinstance(source, Baseline):
        _check_one_person(result, "give {face_id: Baseline, ...}")
        source = dict.fromkeys(faces, source)
    elif not isinstance(source, Mapping) or not all(
        isinstance(own, Baseline) for own in source.values()
    ):
        raise OptionError(f"expected a Baseline or {{face_id: Baseline}}, got {source!r}")
    if unknown := [face_id for face_id in source if face_id not in faces]:
        raise OptionError(f"a baseline for face {unknown[0]!r}: the result has faces {list(faces)}")
    levels = {}
    model = result.metadata.get("model_sha256")
    for face_id, own in source.items():
        if own.model_sha256 is not None and model is not None and own.model_sha256 != model:
            raise InputError(
                f"the baseline is of the model with sha256 {own.model_sha256[:12]}, and the result "
                f"of {model[:12]}"
            )
        scored: list[bool] = np.logical_not(np.isnan(result.raw_scores).all(axis=0)).tolist()
        missing = [
            au
            for au, has_scores in zip(result.aus, scored, strict=True)
            if has_scores and au not in own.levels
        ]
        if missing:
            raise InputError(f"the baseline has no level for {', '.join(missing)}")
        levels[int(face_id)] = np.array(
            [own.levels.get(au, np.nan) for au in result.aus], np.float64
        )
    return levels


def _rows_of_faces(result: AURows) -> dict[int, npt.NDArray[np.int64]]:
    """The rows with scores of each face."""
    ids = np.array([-1 if i is None else i for i in result.face_id_column], np.int64)
    known = (ids >= 0) & ~np.isnan(result.raw_scores).all(axis=1)
    order = np.flatnonzero(known)
    order = order[np.argsort(ids[order], kind="stable")]
    faces, starts = np.unique(ids[order], return_index=True)
    parts = np.split(order, starts[1:])
    return dict(zip(faces.tolist(), parts, strict=False))


def _check_one_person(result: AURows, advice: str) -> None:
    """One person may have several face ids, one after the other; two faces in a frame are two
    people.
    """
    frames = result.frames[[i is not None for i in result.face_id_column]]
    if len(np.unique(frames)) < len(frames):
        raise InputError(f"a baseline is of one person, and a frame shows several faces: {advice}")


def _log_odds(scores: npt.ArrayLike) -> _Array:
    # Imported here, because it takes 0.2 s: a detector without a baseline does not need it.
    from scipy.special import logit

    return np.asarray(logit(np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)))


def _to_scores(log_odds: npt.ArrayLike) -> _Array:
    from scipy.special import expit  # see `_log_odds`

    return np.asarray(expit(log_odds))
