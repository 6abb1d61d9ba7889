"""Networks: configuration, layers, inference, windows over time, and export.

The public names are loaded when they are first used, so that a configuration needs no torch.
"""

from __future__ import annotations

from pyfau.lazy import lazy_names

_LAZY = {
    "MDHRConfig": "config",
    "Region": "config",
    "read_config": "config",
    "Output": "protocol",
    "Crop": "protocol",
    "Licence": "protocol",
    "AUNetwork": "protocol",
    "FrameConfig": "frame_config",
    "FrameNetwork": "frame_network",
    "paper_config": "paper",
    "DATA_SETS": "paper",
    "MDHR": "mdhr",
    "FrameFeatures": "mdhr",
    "RelateStream": "stream",
    "make_window": "windows",
    "accelerate": "inference",
    "export_model": "export",
    "resolve_device": "devices",
}

__all__ = [*_LAZY]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
