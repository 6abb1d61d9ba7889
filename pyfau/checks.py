"""Checks of option values."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, get_args

from pyfau.choices import ColorOrder
from pyfau.errors import OptionError


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are not."""
    # NumPy registers its numbers as Real; this module does not import it, so that commands start
    # without it.
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(value: Any, name: str, least: int) -> int:
    """The option `name` as a whole number.

    Raises:
        OptionError: It is not a whole number, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def check_threads(threads: int | None) -> None:
    """Check a number of CPU threads; None stands for torch's own number.

    Raises:
        OptionError: It is less than 1.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"--threads must be at least 1, got {threads}")


def check_fps(fps: float | None) -> float | None:
    """`fps` as a float above 0; None stays None."""
    if fps is None:
        return None
    try:
        value = float(fps)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise OptionError(f"fps: expected a finite number above 0, got {fps!r}")
    return value


def check_color(color: str) -> None:
    """Check the order of the channels."""
    check_choice(color, "color", ColorOrder)


def check_rules(*rules: tuple[bool, str]) -> None:
    """Check rules for options.

    Args:
        rules: Whether a rule is broken, and the message for it. The first broken rule counts.

    Raises:
        OptionError: A rule is broken.
    """
    for broken, message in rules:
        if broken:
            raise OptionError(message)


def check_choice(value: object, name: str, kind: Any) -> None:
    """Check an option with a fixed set of values.

    Args:
        value: The value of the option.
        name: The option, as in the message.
        kind: The Literal type of the option, one of `pyfau.choices`.

    Raises:
        OptionError: The value is not one of the type.
    """
    choices = get_args(kind)
    if isinstance(value, str) and value in choices:
        return
    nearest = nearest_word(str(value), choices)
    suggestion = "" if nearest is None else f". Did you mean {nearest!r}?"
    raise OptionError(f"unknown {name} {value!r}: expected one of {', '.join(choices)}{suggestion}")


def nearest_word(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most similar to this one, or None if no word is similar."""
    from difflib import get_close_matches  # loaded for an error only, so that starting stays fast

    found = get_close_matches(word, known, n=1)
    return found[0] if found else None
