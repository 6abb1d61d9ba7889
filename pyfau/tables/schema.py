"""The columns and values that a table can have. Tables can be damaged or hostile."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.limits import LIMITS, Limits
from pyfau.tables.cells import is_formula
from pyfau.types import BOX, COLUMNS, IRIS_COLUMNS, MEASURES, MESH, POINT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_Array = npt.NDArray[np.float64]
MOST_WHOLE = 2**53  # float64, in which tables are read, represents whole numbers up to here
MOST_PIXELS = 1e9
_ROUNDING = 1e-6  # tables have six decimals


@dataclass(frozen=True, slots=True)
class Rule:
    """What the values of a column must be.

    Attributes:
        text: For the error message.
        accepts: (R,) float64 values to (R,) bool.
    """

    text: str
    accepts: Callable[[_Array], npt.NDArray[np.bool_]]


def between(least: float, most: float, *, whole: bool = False, missing: bool = True) -> Rule:
    """A rule: numbers in a range, with the rounding of tables; NaN is a missing number."""

    def accepts(values: _Array) -> npt.NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            good = (values >= least - _ROUNDING) & (values <= most + _ROUNDING)
        if whole:
            good &= values == np.floor(values)
        return good | np.isnan(values) if missing else good

    noun = "a whole number" if whole else "a number"
    ending = " or missing" if missing else ""
    return Rule(f"{noun} from {least:.15g} to {most:.15g}{ending}", accepts)


# Other CSV files that pyfau writes, by the columns that only they have.
_OTHER_FILES = {
    "a list of events": (
        {"face_id", "au", "onset_frame", "offset_frame"},
        "pyfau.formats.events.read_events reads it",
    ),
    "a table of features": (
        {"table", "source", "face_id"},
        "pandas.read_csv reads it",
    ),
}
_FIXED = {
    "frame": between(0, MOST_WHOLE, whole=True, missing=False),
    "time_s": between(-1e12, 1e12),
    "face_id": between(0, MOST_WHOLE, whole=True),
    "success": between(0, 1, whole=True, missing=False),
    "confidence": between(0, 1, missing=False),
    **dict.fromkeys(BOX, between(-MOST_PIXELS, MOST_PIXELS)),
}
_MEASURES = {
    "pitch": between(-180, 180),
    "yaw": between(-180, 180),
    "roll": between(-180, 180),
    "eye_distance": between(0, MOST_PIXELS),
    "sharpness": between(0, 1e6),
    "inside": between(0, 1),
    "covered": between(0, 1),
    "quality": between(0, 1),
}
_MESH = dict.fromkeys(MESH, between(0, 1)) | dict.fromkeys(
    (*POINT_COLUMNS, *IRIS_COLUMNS), between(-MOST_PIXELS, MOST_PIXELS)
)
_BY_SUFFIX = {
    "": between(0, 1),
    "_c": between(0, 1, whole=True),
    "_r": between(0, 5),
    "_raw": between(0, 1),
}


def check_columns(columns: Sequence[Any], path: Path, limits: Limits = LIMITS) -> None:
    """Check that the columns are those of a table of pyfau.

    Raises:
        InputError: A column is missing or there twice, a name has control characters or begins
            like a formula, or the file is another one that pyfau wrote.
    """
    check_count(columns, path, limits)
    for kind, (names, hint) in _OTHER_FILES.items():
        if names <= set(columns):
            raise InputError(f"{path} is {kind}, not a table of rows: {hint}")
    missing = set(COLUMNS) - set(columns)
    if missing:
        raise InputError(
            f"{path} was not written by pyfau: there is no column {', '.join(sorted(missing))}"
        )
    check_names(columns, path)


def check_count(columns: Sequence[Any], path: object, limits: Limits = LIMITS) -> None:
    """Check the number of columns, before anything is done with each of them.

    Args:
        columns: The names, as they were read.
        path: What is read, for errors.
        limits: How many columns there may be.

    Raises:
        InputError: There are more.
    """
    if len(columns) > limits.table_columns:
        raise InputError(
            f"cannot read {path}: it has {len(columns)} columns: expected at most "
            f"{limits.table_columns}; raise the limits to read it"
        )


def check_header(data: bytes, separator: str, path: object, limits: Limits = LIMITS) -> None:
    """Check the number of columns in the first line of a table, before the table is parsed.

    Args:
        data: The table, in UTF-8.
        separator: One character.
        path: What is read, for errors.
        limits: How many columns there may be.

    Raises:
        InputError: There are more.
    """
    head = data.split(b"\n", 1)[0].decode(errors="replace")
    if head.count(separator) < limits.table_columns:
        return
    with suppress(csv.Error):  # the parser reports what is wrong
        lines = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        check_count(next(lines, []), path, limits)


def check_names(columns: Sequence[Any], path: object) -> None:
    """Check that the names of columns are visible text, and that none is there twice.

    Args:
        columns: The names.
        path: What is read, for errors.

    Raises:
        InputError: A name has control characters, begins like a formula, or is there twice.
    """
    seen: set[str] = set()
    for name in columns:
        if not isinstance(name, str) or not name.isprintable() or is_formula(name):
            raise InputError(f"cannot read {path}: {name!r:.80} is not a name of a column")
        if name in seen:
            raise InputError(f"cannot read {path}: there are two columns {name}")
        seen.add(name)


def check_values(table: pd.DataFrame, path: Path, limits: Limits = LIMITS) -> None:
    """Check that all numbers are in their range.

    Raises:
        InputError: A value is out of its range, or a row with a face lacks a value.
    """
    names = set(table.columns)
    aus = [name for name in table.columns if f"{name}_c" in names]
    rules = dict(_FIXED)
    if names.issuperset(MEASURES):
        rules |= _MEASURES
    if names.issuperset(MESH):
        rules |= _MESH
    for suffix, rule in _BY_SUFFIX.items():
        rules |= {f"{au}{suffix}": rule for au in aus if f"{au}{suffix}" in names}
    check_ranges(table, rules, path)
    faces = table["face_id"].nunique()
    if faces > limits.table_faces:
        raise InputError(
            f"cannot read {path}: it has {faces} faces: expected at most {limits.table_faces}; "
            "raise the limits to read it"
        )
    scored = table["success"].to_numpy(np.float64) == 1
    values = _numbers(table, "face_id", path)
    _refuse(scored & np.isnan(values), "face_id", "there in a row with a face", values, path)
    for au in aus:
        values = _numbers(table, f"{au}_c", path)
        missing = np.isnan(values) & ~np.isnan(_numbers(table, au, path))
        _refuse(scored & missing, f"{au}_c", "there in a row with a face", values, path)


def check_ranges(table: pd.DataFrame, rules: Mapping[str, Rule], path: object) -> None:
    """Check that the numbers of columns follow their rules.

    Args:
        table: The table.
        rules: By column; columns without a rule can have any value.
        path: What is read, for errors.

    Raises:
        InputError: A value does not follow the rule of its column.
    """
    for name, rule in rules.items():
        values = _numbers(table, name, path)
        _refuse(~rule.accepts(values), name, rule.text, values, path)


def _numbers(table: pd.DataFrame, name: str, path: object) -> _Array:
    try:
        return table[name].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {name} has values of another type: {error}"
        ) from None


def _refuse(bad: npt.NDArray[np.bool_], name: str, text: str, values: _Array, path: object) -> None:
    """Raise InputError for the first bad value."""
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"cannot read {path}: {name} must be {text}, got {values[row]:g} in row {row + 1}"
        )
