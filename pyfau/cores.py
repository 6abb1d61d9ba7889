"""CPU cores of this process."""

from __future__ import annotations

import os
from collections.abc import Callable


def usable_cores() -> int:
    """The number of CPU cores that this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _alone() -> int:
    return 1


_count_sharers: Callable[[], int] = _alone


def share_cores(count_sharers: Callable[[], int]) -> None:
    """Set how to count the busy processes that share the cores, this one included."""
    global _count_sharers
    _count_sharers = count_sharers


def own_cores() -> int:
    """The share of this process in the usable cores now; at least 1."""
    return max(1, usable_cores() // max(1, _count_sharers()))
