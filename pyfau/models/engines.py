"""Who computes `encode`: torch, or ONNX Runtime or OpenVINO on the network that `pyfau.models.export` writes.

`relate` is a few percent of the work and stays torch's, which keeps what earlier frames leave to later ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyfau.errors import DependencyError, OptionError
from pyfau.models.mdhr import FrameFeatures

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
Encoder = Callable[[Tensor], FrameFeatures]


def resolve_engine(engine: str) -> str:
    """The engine that an option means.

    "auto" is torch: on every CPU measured so far (docs/performance.md) it was as fast as the others or faster once
    its layers are packed, and it needs no export when a model is loaded.

    Raises:
        OptionError: Unknown.
    """
    if engine not in ENGINES:
        raise OptionError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")
    return "torch" if engine == "auto" else engine


def open_onnxruntime(path: Path, dtype: torch.dtype) -> Encoder:
    """Run `encode.onnx` with ONNX Runtime on the CPU, in float32, with as many threads as torch has now.

    Raises:
        DependencyError: onnxruntime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def encode(x: Tensor) -> FrameFeatures:
        return _features(session.run(["static", "dynamic"], {"frames": x.contiguous().numpy()}))

    return encode


def open_openvino(path: Path, dtype: torch.dtype) -> Encoder:
    """Run `encode.onnx` with OpenVINO on the CPU, in float32 or bfloat16, with as many threads as torch has now.

    Raises:
        DependencyError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise _missing("openvino", error) from error
    core = openvino.Core()
    hint = "bf16" if dtype == torch.bfloat16 else "f32"
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()

    def encode(x: Tensor) -> FrameFeatures:
        request.infer({"frames": x.contiguous().numpy()})
        return _features([request.get_tensor(name).data.copy() for name in ("static", "dynamic")])

    return encode


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", error) from error
    return onnxruntime


_OPENERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def open_engine(engine: str, export: Callable[[Path], None], dtype: torch.dtype) -> Encoder:
    """Write a network's `encode` to a temporary file and open it.

    Args:
        engine: "onnxruntime" or "openvino".
        export: Writes encode.onnx to a path.
        dtype: In which the engine may compute.

    Raises:
        DependencyError: A package is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encode.onnx"
        export(path)
        return _OPENERS[engine](path, dtype)


def _features(arrays: list[Any]) -> FrameFeatures:
    static, dynamic = (torch.from_numpy(array) for array in arrays)
    return FrameFeatures(static, dynamic)


def _missing(package: str, error: ImportError) -> DependencyError:
    return DependencyError(f'this needs the package {package}: pip install "pyfau[{package}]" ({error})')
