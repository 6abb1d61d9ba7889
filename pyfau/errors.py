"""Errors raised by pyfau. Catching `PyfauError` catches every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyfau.types import RowSequence


class PyfauError(Exception):
    """Base class of all errors that pyfau raises on purpose.

    Attributes:
        partial_result: The rows that were computed before an input failed, an `AUResult`; None if
            there were no rows.
    """

    partial_result: RowSequence | None = None


class InputError(PyfauError, ValueError):
    """An image, frame or array is not what was expected (dtype, shape, range, contents)."""


class MediaError(InputError):
    """A media file or camera is missing, empty or unreadable, or contains no images."""


class OptionError(PyfauError, ValueError):
    """The value of an option is not allowed."""


class DeviceError(OptionError):
    """The requested compute device is unknown or not available on this machine."""


class WeightsError(PyfauError):
    """A model or checkpoint could not be found, fetched, verified or loaded."""


class ConfigError(WeightsError, ValueError):
    """A model configuration is incomplete, contradictory or out of bounds."""


class DependencyError(PyfauError, ImportError):
    """An optional package that this call needs is not installed."""
