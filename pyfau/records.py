"""Records from files: JSON whose types and values are checked before use."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pyfau.errors import InputError, PyfauError

_MOST_DIGITS = 19  # of a whole number; more do not fit into 64 bits


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value of a record must be.

    Attributes:
        name: For error messages, such as "a number".
        accepts: Whether a value is of this kind.
    """

    name: str
    accepts: Callable[[Any], bool]


def parse_json(
    data: bytes | str,
    what: str,
    kind: type[PyfauError] = InputError,
    *,
    strict_numbers: bool = True,
) -> Any:
    """Parse JSON strictly.

    NaN, infinity, numbers of more than 64 bits, repeated names and text that is nested too deeply
    are errors. All JSON from files goes through here; a test looks for other parsers.

    Args:
        data: The JSON, in UTF-8.
        what: The origin of the data, for the error message.
        kind: The class of the error.
        strict_numbers: If False, NaN, infinity and large numbers are accepted, because the caller
            checks the number in each field and names the field.

    Raises:
        InputError: The data are not JSON. Or the error is of `kind`.
    """
    strict: dict[str, Any] = {
        "parse_constant": _refuse_constant,
        "parse_int": _parse_whole,
        "parse_float": _parse_number,
    }
    options = strict if strict_numbers else {}
    try:
        return json.loads(data, object_pairs_hook=_without_repeats, **options)
    except RecursionError:
        raise kind(f"cannot read {what}: it is nested too deeply") from None
    except ValueError as error:
        raise kind(f"cannot read {what}: {error}") from None


def check_record(record: Any, fields: Mapping[str, Kind], what: str) -> dict[str, Any]:
    """Check the fields of a record that are there; other fields can have any value.

    Raises:
        InputError: The record is not an object, or a field is not of its kind.
    """
    if not isinstance(record, dict):
        raise InputError(f"cannot read {what}: expected an object, got {_shown(record)}")
    for name, kind in fields.items():
        if name in record and not kind.accepts(record[name]):
            raise InputError(
                f"cannot read {what}: {name} must be {kind.name}, got {_shown(record[name])}"
            )
    return record


def one_of(*kinds: Kind) -> Kind:
    """A value of any of these kinds."""
    name = " or ".join(kind.name for kind in kinds)
    return Kind(name, lambda value: any(kind.accepts(value) for kind in kinds))


def list_of(kind: Kind, count: int | None = None) -> Kind:
    """A list of values of one kind, of any length or of a fixed one."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, list) or count not in (None, len(value)):
            return False
        return all(kind.accepts(item) for item in value)

    return Kind(f"a list in which each item is {kind.name}", accepts)


def mapping_of(kind: Kind) -> Kind:
    """An object whose values are of one kind."""

    def accepts(value: Any) -> bool:
        return isinstance(value, dict) and all(kind.accepts(item) for item in value.values())

    return Kind(f"an object in which each value is {kind.name}", accepts)


def object_with(required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> Kind:
    """An object with these fields; other fields can have any value."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, dict) or not required.keys() <= value.keys():
            return False
        kinds = {**required, **optional}
        return all(kinds[name].accepts(item) for name, item in value.items() if name in kinds)

    return Kind(f"an object with {_listed(tuple(required))}", accepts)


def number_in(least: float, most: float) -> Kind:
    """A number in a range; NaN is in no range."""
    name = f"a number from {least:g} to {most:g}"
    return Kind(name, lambda value: _is_number(value) and least <= value <= most)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


NOTHING = Kind("null", lambda value: value is None)
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str))
NUMBER = Kind("a number", lambda value: _is_number(value) and math.isfinite(value))
WHOLE = Kind("a whole number from 0 up", _is_whole)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the name {counts.most_common(1)[0][0]!r} is repeated")
    return record


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _parse_whole(text: str) -> int:
    if len(text.removeprefix("-")) > _MOST_DIGITS:
        raise ValueError(f"the number {text[:24]}... is too large")
    return int(text)


def _parse_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:24]} is too large")
    return value


def _shown(value: Any) -> str:
    """The value for an error message: short, also for a large one."""
    if isinstance(value, dict | list):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
