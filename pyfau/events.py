"""The older path of `pyfau.analysis.find_events`, which stays valid."""

from pyfau.analysis.events import find_blinks, find_events

events = find_events

__all__ = ["events", "find_blinks", "find_events"]
