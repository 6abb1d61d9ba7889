"""pyfau: facial action units from images and video.

    from pyfau import AUDetector
    result = AUDetector().detect_video("clip.mp4")

The public names are loaded when they are first used: `import pyfau` loads neither torch nor
OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from pyfau.startup import collection_paused
from pyfau.version import __version__

if TYPE_CHECKING:
    from pyfau.analysis.baseline import Baseline
    from pyfau.aus import AU_NAMES
    from pyfau.detector import AUDetector
    from pyfau.overlay.drawing import draw_overlay
    from pyfau.pipeline import AUStream
    from pyfau.result import AUResult, read_result
    from pyfau.types import AURow, Face, Frame
    from pyfau.weights.store import load_model

_LAZY = {
    "AUDetector": "pyfau.detector",
    "AUStream": "pyfau.pipeline",
    "AUResult": "pyfau.result",
    "read_result": "pyfau.result",
    "Baseline": "pyfau.analysis.baseline",
    "AURow": "pyfau.types",
    "Face": "pyfau.types",
    "Frame": "pyfau.types",
    "AU_NAMES": "pyfau.aus",
    "draw_overlay": "pyfau.overlay.drawing",
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
        with collection_paused():
            value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module 'pyfau' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
