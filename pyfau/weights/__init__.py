"""Checkpoints: finding them, checking them, and turning them into networks.

The public names are loaded when they are first used, so that a list of models needs no torch.
"""

from __future__ import annotations

from pyfau.lazy import lazy_names

_LAZY = {
    "DEFAULT_MODEL": "find",
    "FoundModel": "find",
    "find_model": "find",
    "LoadedModel": "store",
    "load_model": "store",
    "open_model": "store",
    "save_model": "store",
    "ManifestEntry": "manifest",
    "parse_manifest": "manifest",
    "read_manifest": "manifest",
    "NETWORKS": "networks",
    "Network": "networks",
    "convert_checkpoint": "convert_official",
    "Publication": "publish",
    "prepare_publication": "publish",
    "FileCheck": "verify",
    "check_files": "verify",
    "model_card": "card",
}

__all__ = [*_LAZY]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
