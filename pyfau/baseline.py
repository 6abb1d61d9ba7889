"""A person's baseline: what the face at rest is scored, and results that are adjusted to it. See docs/baseline.md.

A resting face with low brows or deep folds brings evidence for action units that are not there. Probabilities are
logistic in the evidence, so that a constant amount of it is a constant shift in log-odds, which `adjust` takes off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    from pyfau.result import AUResult

AT_REST = 0.05  # what an AU may be scored in a face at rest, or half its threshold if that is less
LEAST_FRAMES = 30  # scored frames for a quantile of them
MODES = ("subtract", "threshold")
_EDGE = 1e-6  # scores are stored to six decimals; nearer to 0 or 1 they say nothing

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """What a network scores in the resting face of one person; made by `AUDetector.calibrate`.

    Attributes:
        levels: AU name -> score in [0, 1] at rest.
        frames: How many frames that is taken from.
        model_sha256: Of the network, whose scores alone it is for; None if that is not known.
    """

    levels: Mapping[str, float]
    frames: int
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        for au, level in self.levels.items():
            if not isinstance(level, float | int | np.floating) or not 0.0 <= level <= 1.0:  # NaN is neither
                raise OptionError(f"the level of {au} must be a score in [0, 1], got {level!r}")


def measure(result: AUResult) -> Baseline:
    """The baseline of the one person in a result: for each AU the median score of the frames with a face.

    Raises:
        InputError: There is no face, or there are several in a frame.
    """
    rows = _rows_of_faces(result)
    if not rows:
        raise InputError("calibrate: no face was found in the neutral frames")
    _check_one_person(result, "calibrate on frames of one person")
    raw = result.raw_scores[np.concatenate(list(rows.values()))]
    levels = expit(np.median(_log_odds(raw), axis=0))
    named = dict(zip(result.aus, levels.tolist(), strict=True))
    return Baseline(named, len(raw), result.metadata.get("model_sha256"))


def adjust(
    result: AUResult,
    source: Baseline | Mapping[int, Baseline] | None = None,
    *,
    per_face: bool = True,
    quantile: float = 0.1,
    mode: str = "subtract",
) -> AUResult:
    """See `AUResult.baseline`."""
    if mode not in MODES:
        raise OptionError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    thresholds: Any = result.metadata.get("thresholds")
    try:
        limits = np.array([thresholds[au] for au in result.aus], np.float64)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"a baseline needs thresholds for all AUs in the metadata, got {thresholds!r}") from None
    record: dict[str, Any] = {"mode": mode, "at_rest": AT_REST}
    notes: list[str] = []
    if source is None:
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0.0 <= quantile <= 1.0:
            raise OptionError(f"quantile must be a number in [0, 1], got {quantile!r}")
        record |= {"source": "quantile", "quantile": quantile, "per_face": bool(per_face)}
        levels = _quantiles(result, quantile, per_face, notes)
    else:
        record["source"] = "calibration"
        levels = _calibrated(result, source)
    rows, raw = _rows_of_faces(result), result.raw_scores
    scores = raw.copy()
    # A face or AU without a shift is as it was before any baseline.
    active = raw >= limits.astype(np.float32) if "baseline" in result.metadata else result.active.copy()
    record["levels"], moved = {}, {}
    for face_id, level in levels.items():
        shift = own_part(level, limits)
        aus = np.flatnonzero(shift)
        own = np.ix_(rows[face_id], aus)
        scores[own] = np.minimum(raw[own], expit(_log_odds(raw[own]) - shift[aus]))
        active[own] = scores[own] >= limits[aus].astype(np.float32)
        higher = np.where(shift > 0, expit(_log_odds(limits) + shift).round(6), limits)
        record["levels"][str(face_id)] = dict(zip(result.aus, level.tolist(), strict=True))
        moved[str(face_id)] = dict(zip(result.aus, higher.tolist(), strict=True))
    if mode == "threshold":
        scores, record["thresholds"] = raw, moved
    adjusted = result._adjusted(scores, active, raw=mode == "subtract")
    adjusted.metadata["baseline"] = record
    adjusted.warnings += [note for note in notes if note not in adjusted.warnings]
    return adjusted


def own_part(level: npt.ArrayLike, thresholds: npt.ArrayLike) -> _Array:
    """By how many log-odds scores at rest, in [0, 1], exceed what may be scored at rest: 0 or more for each AU."""
    at_rest = np.minimum(AT_REST, np.asarray(thresholds) / 2)
    return np.maximum(0.0, _log_odds(level) - _log_odds(at_rest))


def _quantiles(result: AUResult, quantile: float, per_face: bool, notes: list[str]) -> dict[int, _Array]:
    rows = _rows_of_faces(result)
    raw = result.raw_scores
    levels = {}
    brief = []
    for face_id, own in rows.items():
        counted = own if per_face else np.concatenate(list(rows.values()))
        if len(counted) < LEAST_FRAMES:
            brief.append(str(face_id))
            continue
        # A score that was there, and none between two: so a result that is adjusted once more stays as it is.
        levels[face_id] = expit(np.quantile(_log_odds(raw[counted]), quantile, axis=0, method="lower"))
    if brief:
        named = ", ".join(brief[:10] + ["..."] * (len(brief) > 10))
        notes.append(
            f"no baseline, for want of {LEAST_FRAMES} scored frames: {len(brief)} of {len(rows)} faces ({named})"
        )
    return levels


def _calibrated(result: AUResult, source: Baseline | Mapping[int, Baseline]) -> dict[int, _Array]:
    faces = list(_rows_of_faces(result))
    if isinstance(source, Baseline):
        _check_one_person(result, "give {face_id: Baseline, ...}")
        source = dict.fromkeys(faces, source)
    elif not isinstance(source, Mapping) or not all(isinstance(own, Baseline) for own in source.values()):
        raise OptionError(f"expected a Baseline or {{face_id: Baseline}}, got {source!r}")
    if unknown := [face_id for face_id in source if face_id not in faces]:
        raise OptionError(f"a baseline for face {unknown[0]!r}: the result has faces {faces}")
    levels = {}
    model = result.metadata.get("model_sha256")
    for face_id, own in source.items():
        if own.model_sha256 is not None and model is not None and own.model_sha256 != model:
            raise InputError(
                f"the baseline is of the model with sha256 {own.model_sha256[:12]}, and the result of {model[:12]}"
            )
        if missing := [au for au in result.aus if au not in own.levels]:
            raise InputError(f"the baseline has no level for {', '.join(missing)}")
        levels[int(face_id)] = np.array([own.levels[au] for au in result.aus], np.float64)
    return levels


def _rows_of_faces(result: AUResult) -> dict[int, npt.NDArray[np.int64]]:
    """The rows with scores of each face."""
    ids = np.array([-1 if i is None else i for i in result.face_ids], np.int64)
    known = (ids >= 0) & ~np.isnan(result.raw_scores).any(axis=1)
    return {int(i): np.flatnonzero(known & (ids == i)) for i in np.unique(ids[known])}


def _check_one_person(result: AUResult, advice: str) -> None:
    """One person may have several face ids, one after the other; two faces in a frame are two people."""
    frames = result.frames[[i is not None for i in result.face_ids]]
    if len(np.unique(frames)) < len(frames):
        raise InputError(f"a baseline is of one person, and a frame shows several faces: {advice}")


def _log_odds(scores: npt.ArrayLike) -> _Array:
    return np.asarray(logit(np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)))
