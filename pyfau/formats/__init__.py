"""Files for other programs, one module for each format; see docs/formats.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.formats.bids import read_bids_events
    from pyfau.formats.elan import read_elan
    from pyfau.formats.events import read_events
    from pyfau.formats.openface import read_openface
    from pyfau.formats.pyfeat import read_pyfeat

__all__ = [
    "read_openface",
    "read_pyfeat",
    "read_events",
    "read_elan",
    "read_bids_events",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "read_openface": "openface",
        "read_pyfeat": "pyfeat",
        "read_events": "events",
        "read_elan": "elan",
        "read_bids_events": "bids",
    },
)
