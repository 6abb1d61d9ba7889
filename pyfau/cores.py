"""CPU cores of this process."""

from __future__ import annotations

import os
from collections.abc import Callable


def usable_cores() -> int:
    """The number of CPU cores that this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_this_process() -> int:
    return 1


_count_busy: Callable[[], int] = _count_this_process


def share_cores(count_busy: Callable[[], int]) -> None:
    """Divide the cores by the number of busy processes.

    Args:
        count_busy: Returns how many processes use the cores now, this one included.
    """
    global _count_busy
    _count_busy = count_busy


def own_cores() -> int:
    """The number of cores for this process now; at least 1."""
    busy = max(1, _count_busy())
    return max(1, usable_cores() // busy)
