"""pyfau: facial action units from pictures and video.

    from pyfau import AUDetector
    result = AUDetector().detect_video("clip.mp4")

The public names are loaded when they are first used: importing pyfau imports neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from pyfau.errors import (
    ConfigError,
    DependencyError,
    DeviceError,
    InputError,
    MediaError,
    OptionError,
    PyfauError,
    WeightsError,
)

if TYPE_CHECKING:
    from pyfau.aus import AU_NAMES
    from pyfau.baseline import Baseline
    from pyfau.detector import AUDetector, AUStream
    from pyfau.overlay import draw_overlay
    from pyfau.result import AUResult, read_result
    from pyfau.types import AURow, Face, Frame
    from pyfau.weights.store import load_model

_LAZY = {
    "AUDetector": "pyfau.detector",
    "AUStream": "pyfau.detector",
    "AUResult": "pyfau.result",
    "read_result": "pyfau.result",
    "Baseline": "pyfau.baseline",
    "AURow": "pyfau.types",
    "Face": "pyfau.types",
    "Frame": "pyfau.types",
    "AU_NAMES": "pyfau.aus",
    "draw_overlay": "pyfau.overlay",
    "load_model": "pyfau.weights.store",
}

__all__ = [
    "AUDetector",
    "AUStream",
    "AUResult",
    "read_result",
    "Baseline",
    "AURow",
    "Face",
    "Frame",
    "AU_NAMES",
    "draw_overlay",
    "load_model",
    "PyfauError",
    "InputError",
    "MediaError",
    "OptionError",
    "DeviceError",
    "WeightsError",
    "ConfigError",
    "DependencyError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module 'pyfau' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
