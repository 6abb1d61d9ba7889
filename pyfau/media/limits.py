"""The limits of media; all limits are in `pyfau.limits`."""

from __future__ import annotations

from pyfau.limits import LIMITS, Limits

__all__ = ["LIMITS", "Limits"]
