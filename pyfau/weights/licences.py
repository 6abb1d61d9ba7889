"""Says once per process that the licence of a network forbids commercial use."""

from __future__ import annotations

import sys
from typing import Any

from pyfau.messages import say

_printed: set[str] = set()


def print_licence(config: Any) -> None:
    """Print the licence of a network on standard error if it forbids commercial use.

    Args:
        config: Configuration of a network; `licence` is a `pyfau.models.protocol.Licence`. Nothing
            is printed for a configuration without a licence, or a second time for one name.
    """
    licence = getattr(config, "licence", None)
    if licence is None or licence.commercial or config.name in _printed:
        return
    _printed.add(config.name)
    say(
        f"pyfau: {config.name} is not for commercial use: licence of the weights: "
        f"{licence.weights}; of the authors' code: {licence.code}",
        sys.stderr,
    )
