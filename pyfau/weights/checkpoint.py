"""Reads the tensors of an authors' checkpoint, in all forms in which projects save them."""

from __future__ import annotations

import argparse
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyfau.errors import WeightsError
from pyfau.weights.pickles import check_pickle

# Where the projects put the state dict; a file can also be a state dict itself.
_CONTAINERS = ("state_dict", "model")
_MAX_HEADER = 10_000_000  # bytes
# Classes that the unpickler may make besides tensors. FMAE-IAT saves the options of its training
# script. A Namespace only stores attributes.
_ALLOWED_CLASSES: list[Any] = [argparse.Namespace]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of an authors' checkpoint.

    Attributes:
        state: The state dict, without `module.` prefixes.
        metadata: Of a safetensors file; None for other files.
    """

    state: dict[str, Tensor]
    metadata: Mapping[str, str] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Args:
        path: A PyTorch file with `{'epoch', 'state_dict', 'optimizer'}`, `{'model': ...}` or a
            bare state dict, of a DataParallel model or not, or a safetensors file.

    Raises:
        WeightsError: Another file, or one that does not load without running code.
    """
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        return Checkpoint(_without_prefix(tensors), metadata)
    return Checkpoint(_without_prefix(_read_pickle(path)))


def _without_prefix(state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """The tensors with the names that they have outside a DataParallel model."""
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _read_pickle(path: Path) -> Mapping[Any, Tensor]:
    check_pickle(path)
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    is_zip = zipfile.is_zipfile(path)
    try:
        with _allowed_classes():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # with damaged files, the unpickler can raise almost any exception
        reason = "it is no PyTorch file"
        if is_zip:
            reason = "it is damaged, or holds objects that only running code could make"
        raise WeightsError(
            f"{path} is not a checkpoint that loads with weights_only=True: {reason}"
        ) from error
    state = content
    if isinstance(content, Mapping):
        for name in _CONTAINERS:
            if isinstance(content.get(name), Mapping):
                state = content[name]
                break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{path} holds no state dict: expected {{'epoch', 'state_dict', 'optimizer'}}, "
            f"{{'model'}} or a state dict itself"
        )
    return state


@contextmanager
def _allowed_classes() -> Iterator[None]:
    if not hasattr(torch.serialization, "safe_globals"):  # torch 2.4
        torch.serialization.add_safe_globals(_ALLOWED_CLASSES)
        yield
        return
    with torch.serialization.safe_globals(_ALLOWED_CLASSES):
        yield


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with path.open("rb") as stream:
            (header,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if header > min(_MAX_HEADER, path.stat().st_size - 8):
            raise WeightsError(
                f"{path} is not a safetensors file: it claims a header of {header} bytes"
            )
        with safe_open(str(path), framework="pt") as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
