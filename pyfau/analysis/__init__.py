"""Analysis of results: events, summaries, and adjustment to a person's resting face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.analysis.baseline import Baseline
    from pyfau.analysis.events import find_blinks, find_events
    from pyfau.analysis.groups import compare_groups
    from pyfau.analysis.markers import average_epochs, find_epochs, join_markers
    from pyfau.analysis.pairs import find_co_occurrence
    from pyfau.analysis.summary import summarize
    from pyfau.analysis.synchrony import intersubject_correlation

__all__ = [
    "find_events",
    "find_blinks",
    "summarize",
    "compare_groups",
    "intersubject_correlation",
    "join_markers",
    "find_epochs",
    "average_epochs",
    "find_co_occurrence",
    "Baseline",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "find_events": "events",
        "find_blinks": "events",
        "summarize": "summary",
        "compare_groups": "groups",
        "intersubject_correlation": "synchrony",
        "join_markers": "markers",
        "find_epochs": "markers",
        "average_epochs": "markers",
        "find_co_occurrence": "pairs",
        "Baseline": "baseline",
    },
)
