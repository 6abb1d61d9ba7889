"""Whether a network may compute in bfloat16 without being asked to.

Networks for single frames come from other projects, with weights that pyfau has never seen. So
their difference between bfloat16 and float32 is measured with the weights that are loaded, on faces
that pyfau includes. The result is stored in the cache folder.
"""

from __future__ import annotations

import copy
import json
import math
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from pyfau.errors import InputError
from pyfau.files import cache_path, read_file, replace_file
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.int8 import included_faces, network_hash
from pyfau.packed import can_pack
from pyfau.records import parse_json
from pyfau.types import UInt8Array

# "auto" selects bfloat16 if 99 of 100 scores differ from float32 by at most this bound.
BFLOAT16_BOUND = 5e-3
_EVERY = 7  # takes 8 of the 56 included faces: a large network scores them in some seconds
_MEASURE = 1  # part of the key of stored results; raise it whenever the measurement changes
_FILE_BYTES = 10_000
_CPU_FACTS = Path("/proc/cpuinfo")  # Linux

Prepare = Callable[[FrameNetwork, torch.dtype], None]


def has_bfloat16() -> bool:
    """Whether torch reports that this CPU multiplies bfloat16: AVX-512 BF16 or AMX."""
    return _reports("_is_avx512_bf16_supported") or _reports("_is_amx_tile_supported")


def bfloat16_is_faster() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    This is the case with AMX, and with AVX-512 BF16 on CPUs of other makers than Intel. On an Intel
    Xeon with AVX-512 BF16 and without AMX, the encoder took 1.6 times as long as in float32
    (docs/performance-history.md). Hypervisors can hide AMX from a virtual machine.
    """
    if _reports("_is_amx_tile_supported"):
        return True
    return has_bfloat16() and not _is_from_intel()


def _reports(test: str) -> bool:
    """The result of a test of torch for a CPU feature; False if this torch does not have it."""
    return bool(getattr(torch.cpu, test, bool)())


def _is_from_intel() -> bool:
    vendor = platform.processor()  # contains the vendor on Windows, but not on Linux
    with suppress(OSError), _CPU_FACTS.open(encoding="utf-8", errors="replace") as facts:
        vendor += facts.read(1000)
    return "GenuineIntel" in vendor


def choose_precision(model: FrameNetwork, prepare: Prepare) -> str:
    """What "auto" means for a network that scores single frames.

    Args:
        model: A plain network in eval mode; not changed.
        prepare: Makes an inference copy that computes in a type, in place.

    Returns:
        "bfloat16" if this CPU multiplies it faster than float32 and 99 of 100 scores are within
        `BFLOAT16_BOUND` of float32, otherwise "float32".
    """
    is_possible = model.heavy_part and model.device.type == "cpu"
    if not is_possible or not bfloat16_is_faster() or not can_pack(torch.bfloat16):
        return "float32"
    path = _result_path(model)
    difference = None if path is None else _read_result(path)
    if difference is None:
        difference = measure_bfloat16(model, prepare)
        _write_result(path, difference)
    return "bfloat16" if difference <= BFLOAT16_BOUND else "float32"


@torch.no_grad()
def measure_bfloat16(model: FrameNetwork, prepare: Prepare) -> float:
    """How far 99 of 100 scores in bfloat16 are from those in float32, for a range of 1.

    Args:
        model: A plain network in eval mode; not changed.
        prepare: Makes an inference copy that computes in a type, in place.
    """
    frames = model.preprocess(_faces(model.config.input_size))
    want = model.encode(frames)
    half = copy.deepcopy(model)
    prepare(half, torch.bfloat16)
    ranges = torch.tensor([output.range[1] - output.range[0] for output in model.config.outputs])
    differences = (half.encode(frames) - want).abs() / ranges
    return float(differences.double().flatten().quantile(0.99))


def _faces(size: int) -> UInt8Array:
    """Included faces (F, S, S, 3). Networks that cut faces differently also score them."""
    faces = included_faces()[::_EVERY]
    return np.stack([cv2.resize(face, (size, size)) for face in faces]).astype(np.uint8)


def _result_path(model: FrameNetwork) -> Path | None:
    """The place of the stored result; None where the folder cannot be found or made."""
    parts = (network_hash(model), _MEASURE, torch.__version__)
    return cache_path("bfloat16", parts, "", ".json")


def _read_result(path: Path) -> float | None:
    """The stored difference; None if there is none or the file is damaged."""
    with suppress(OSError, InputError, KeyError, TypeError):
        value = parse_json(read_file(path, _FILE_BYTES), path.name)["difference"]
        if isinstance(value, float) and math.isfinite(value):
            return value
    return None


def _write_result(path: Path | None, difference: float) -> None:
    if path is None or not math.isfinite(difference):
        return
    with suppress(OSError):  # such as a full disk: the network is then measured at every start
        replace_file(path, json.dumps({"difference": difference}).encode())
