"""Inference backends for the encoder: torch, ONNX Runtime or OpenVINO.

The other two run the network that `pyfau.models.export` writes. `relate` always runs in torch: it
is a few percent of the work, and torch keeps the state of earlier frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyfau.checks import check_choice
from pyfau.choices import Engine
from pyfau.errors import DependencyError

# Frames (F, 3, S, S) -> the outputs of the file, in the order of the names that were given.
EngineFunction = Callable[[Tensor], list[Tensor]]

ENCODE_OUTPUTS = ("static", "dynamic")  # of an `encode.onnx`


def resolve_engine(engine: str) -> str:
    """The engine for an option.

    "auto" is torch: on every CPU measured so far (docs/performance.md) it was as fast as the others
    or faster once its layers are packed, and it needs no export when a model is loaded.

    Raises:
        OptionError: Unknown.
    """
    check_choice(engine, "engine", Engine)
    return "torch" if engine == "auto" else engine


def open_onnxruntime(path: Path, dtype: torch.dtype, outputs: Sequence[str]) -> EngineFunction:
    """Run an ONNX file with ONNX Runtime on the CPU, in float32, with torch's number of threads.

    Raises:
        DependencyError: onnxruntime is not installed.
    """
    return open_onnx(path.read_bytes(), outputs)


def open_onnx(data: bytes, outputs: Sequence[str] = ENCODE_OUTPUTS) -> EngineFunction:
    """Run the contents of an ONNX file, in float32 or int8, as `open_onnxruntime` does.

    Raises:
        DependencyError: onnxruntime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Without this option, sums of products of 8-bit numbers overflow on an x86 CPU without VNNI,
    # and the scores are wrong. CPUs with VNNI ignore the option. With it, all CPUs compute the same
    # integers.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    # A quantised network without dynamics has no output "dynamic".
    own = {output.name for output in session.get_outputs()}
    names = [name for name in outputs if name in own]

    def run(x: Tensor) -> list[Tensor]:
        arrays = session.run(names, {"frames": x.contiguous().numpy()})
        return [torch.from_numpy(array) for array in arrays]

    return run


def open_openvino(path: Path, dtype: torch.dtype, outputs: Sequence[str]) -> EngineFunction:
    """Run an ONNX file with OpenVINO on the CPU, in float32 or bfloat16.

    It gets torch's number of threads.

    Raises:
        DependencyError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise _missing("openvino", error) from error
    core = openvino.Core()
    hint = "bf16" if dtype == torch.bfloat16 else "f32"
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": hint,
    }
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = compiled.create_infer_request()
    own = {output.any_name for output in compiled.outputs}
    names = [name for name in outputs if name in own]

    def run(x: Tensor) -> list[Tensor]:
        request.infer({"frames": x.contiguous().numpy()})
        arrays = [request.get_tensor(name).data.copy() for name in names]
        return [torch.from_numpy(array) for array in arrays]

    return run


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, which is optional.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", error) from error
    return onnxruntime


def open_quantised(data: bytes, engine: str) -> EngineFunction:
    """Run the contents of a quantised `encode.onnx` with "onnxruntime" or "openvino".

    Raises:
        DependencyError: The engine is not installed.
    """
    if engine == "onnxruntime":
        return open_onnx(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encode.onnx"
        path.write_bytes(data)
        return open_openvino(path, torch.float32, ENCODE_OUTPUTS)


_OPENERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def open_engine(
    engine: str,
    export: Callable[[Path], None],
    dtype: torch.dtype,
    outputs: Sequence[str] = ENCODE_OUTPUTS,
) -> EngineFunction:
    """Write a network, or its `encode`, to a temporary file and open it.

    Args:
        engine: "onnxruntime" or "openvino".
        export: Writes the ONNX file to a path; its input is "frames".
        dtype: In which the engine may compute.
        outputs: Names of the outputs.

    Raises:
        DependencyError: A package is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export(path)
        return _OPENERS[engine](path, dtype, outputs)


def _missing(package: str, error: ImportError) -> DependencyError:
    return DependencyError(
        f'this needs the package {package}: pip install "pyfau[{package}]" ({error})'
    )
