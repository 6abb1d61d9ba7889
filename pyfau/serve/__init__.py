"""`pyfau serve`: a page on this machine where a camera or a clip is scored.

Needs `pyfau[serve]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.serve.run import listen, serve
    from pyfau.serve.server import AUServer, ServeLimits

__all__ = [
    "AUServer",
    "ServeLimits",
    "listen",
    "serve",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AUServer": "server",
        "ServeLimits": "server",
        "listen": "run",
        "serve": "run",
    },
)
