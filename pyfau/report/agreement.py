"""Agreement of several models on one clip."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pyfau.aus import SIDE_LETTERS
from pyfau.errors import InputError
from pyfau.tables.rows import AURows

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["occurrence", "intensity"]

MIN_OVERLAP = 0.5  # intersection over union of the boxes of one face
MIN_FRAMES = 3  # for a correlation
_SIDES = tuple(letter for letter in SIDE_LETTERS.values() if letter)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One action unit of one model, for one face.

    Attributes:
        model: Name of the model.
        au: Such as "AU12" or "AU12L".
        kind: "occurrence" in [0, 1], or "intensity" in [0, 5].
        values: (F,) float64 for the frames of the face; NaN where the model has no value.
        active: (F,) bool; None for intensities and for means of two sides.
        from_sides: Whether this is the mean of the left and the right side.
    """

    model: str
    au: str
    kind: Kind
    values: npt.NDArray[np.float64]
    active: npt.NDArray[np.bool_] | None
    from_sides: bool = False

    @property
    def label(self) -> str:
        """Model and kind, for people."""
        sides = ", mean of both sides" if self.from_sides else ""
        return f"{self.model} ({self.kind}{sides})"


@dataclass(frozen=True, slots=True)
class FaceSeries:
    """The series of one face.

    Attributes:
        face_id: Id of the face in the rows of the first model.
        frames: (F,) int64, the frames in which the first model has the face.
        times_s: (F,) float64; NaN where the source has no clock.
        series: Of all models, by action unit in the order of the numbers.
    """

    face_id: int
    frames: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]
    series: dict[str, list[Series]]


def align_models(results: Mapping[str, AURows]) -> list[FaceSeries]:
    """The series of all models, face by face, the face with the most frames first.

    Rows of different models belong to one face if their boxes in a frame overlap: the ids of faces
    can differ between models.

    Args:
        results: For each model its rows for the same clip.

    Returns:
        The faces that the first model found.

    Raises:
        InputError: Fewer than two models.
    """
    if len(results) < 2:
        raise InputError(f"a comparison needs at least 2 models, got {len(results)}")
    first = next(iter(results.values())).to_dataframe()
    first = first[first["success"] == 1]
    faces = []
    for face_id, rows in first.groupby("face_id"):
        series: dict[str, list[Series]] = {}
        for model, result in results.items():
            for one in _series(model, result, _matching(rows, result)):
                series.setdefault(one.au, []).append(one)
        faces.append(
            FaceSeries(
                int(face_id),
                rows["frame"].to_numpy(np.int64),
                rows["time_s"].to_numpy(np.float64),
                {au: series[au] for au in sorted(series)},
            )
        )
    return sorted(faces, key=lambda face: -len(face.frames))


def _matching(rows: pd.DataFrame, result: AURows) -> npt.NDArray[np.intp]:
    """For each row of a face the row of another result, by overlap of the boxes; -1 for none."""
    table = result.to_dataframe()
    boxes = table[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    of_frame: dict[int, list[int]] = {}
    for position, (frame, success) in enumerate(zip(table["frame"], table["success"], strict=True)):
        if success:
            of_frame.setdefault(int(frame), []).append(position)
    found = np.full(len(rows), -1, np.intp)
    own = rows[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    for i, (frame, box) in enumerate(zip(rows["frame"], own, strict=True)):
        others = of_frame.get(int(frame), [])
        overlaps = [_overlap(box, boxes[position]) for position in others]
        if overlaps and max(overlaps) >= MIN_OVERLAP:
            found[i] = others[int(np.argmax(overlaps))]
    return found


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    whole = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common
    return common / whole if whole > 0 else 0.0


def _series(model: str, result: AURows, rows: npt.NDArray[np.intp]) -> list[Series]:
    """The series of one model; action units without a value of a kind have none of that kind."""
    missing = rows < 0
    kinds: list[tuple[Kind, npt.NDArray[Any] | None]] = [
        ("occurrence", result.scores),
        ("intensity", result.intensities),
    ]
    made = []
    for kind, values in kinds:
        if values is None or not len(values):
            continue
        for i, au in enumerate(result.aus):
            column = np.where(missing, np.nan, values[rows, i].astype(np.float64))
            if np.isnan(column).all():
                continue
            active = None
            if kind == "occurrence":
                active = ~missing & result.active[rows, i]
            made.append(Series(model, au, kind, column, active))
    return made + _means_of_sides(made)


def _means_of_sides(series: Sequence[Series]) -> list[Series]:
    """For action units that a model has on each side only: the mean of both sides."""
    by_name = {(one.au, one.kind): one for one in series}
    means = []
    for (name, kind), one in by_name.items():
        au = name.removesuffix(_SIDES[0])
        other = by_name.get((au + _SIDES[1], kind))
        if au == name or other is None or (au, kind) in by_name:
            continue
        mean = (one.values + other.values) / 2
        means.append(Series(one.model, au, kind, mean, None, from_sides=True))
    return means


def agreement(faces: Sequence[FaceSeries]) -> list[dict[str, Any]]:
    """How far two models agree, for each action unit and each pair of models.

    An occurrence is compared with an intensity only if the two models have no kind in common.

    Args:
        faces: From `align_models`. The frames of all faces count together.

    Returns:
        One dict for each pair of series with au, first, second (labels), models, kinds
        ("occurrence", "intensity" or "occurrence and intensity"), frames (with both values),
        pearson (None for fewer than 3 frames, or values that do not vary), difference (the mean
        absolute difference; None for different kinds) and same_active (the share of frames in which
        both are active, or both are not; None if one of them has no activity).
    """
    pairs: dict[tuple[str, str, str], list[tuple[Series, Series]]] = {}
    for face in faces:
        for au, series in face.series.items():
            for first, second in itertools.combinations(series, 2):
                if first.model != second.model and _are_comparable(first, second, series):
                    key = (au, first.label, second.label)
                    pairs.setdefault(key, []).append((first, second))
    rows = [_pair(au, both) for (au, _, _), both in pairs.items()]
    return sorted(rows, key=lambda row: (row["au"], row["first"], row["second"]))


def summarize_agreement(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The means over action units, for each pair of models and kinds.

    Args:
        rows: From `agreement`.

    Returns:
        One dict for each pair with first, second (models), kinds, aus (their number), pearson,
        difference and same_active (means; None where no action unit has a value).
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((*row["models"], row["kinds"]), []).append(row)
    summary = []
    for (first, second, kinds), group in groups.items():
        means = {
            name: _mean_of_known([row[name] for row in group])
            for name in ("pearson", "difference", "same_active")
        }
        names = {"first": first, "second": second, "kinds": kinds, "aus": len(group)}
        summary.append(names | means)
    return summary


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _are_comparable(first: Series, second: Series, series: Sequence[Series]) -> bool:
    """Whether two series have one kind, or their models have none in common."""
    if first.kind == second.kind:
        return True
    kinds = [{one.kind for one in series if one.model == both.model} for both in (first, second)]
    return not kinds[0] & kinds[1]


def _pair(au: str, both: Sequence[tuple[Series, Series]]) -> dict[str, Any]:
    """The figures of one pair of series, over all faces."""
    first, second = both[0]
    a = np.concatenate([one.values for one, _ in both])
    b = np.concatenate([other.values for _, other in both])
    known = np.isfinite(a) & np.isfinite(b)
    same_kind = first.kind == second.kind
    row: dict[str, Any] = {
        "au": au,
        "first": first.label,
        "second": second.label,
        "models": (first.model, second.model),
        "kinds": first.kind if same_kind else "occurrence and intensity",
        "frames": int(known.sum()),
        "pearson": _pearson(a[known], b[known]),
        "difference": None,
        "same_active": None,
    }
    if same_kind and known.any():
        row["difference"] = float(np.abs(a[known] - b[known]).mean())
    if first.active is not None and second.active is not None and known.any():
        one = np.concatenate([pair[0].active for pair in both if pair[0].active is not None])
        other = np.concatenate([pair[1].active for pair in both if pair[1].active is not None])
        row["same_active"] = float((one == other)[known].mean())
    return row


def _pearson(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    if len(a) < MIN_FRAMES or min(a.std(), b.std()) < 1e-9:
        return None
    r = float(np.corrcoef(a, b)[0, 1])
    return r if math.isfinite(r) else None
