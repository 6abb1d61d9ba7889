"""Static quantisation of an encoder to 8-bit integers, as an ONNX file for ONNX Runtime.

The encoder is `encode` of MDHR, or the heavy part of a network that scores single frames.

Weights get one scale for each output channel, activations one for each tensor (QDQ format). The
range of each activation is the one with the least mean square error of rounding on calibration
crops.

The first convolution and small layers at the end stay in float32. The first convolution stays,
because pixels have 8 bits themselves, so rounding would add an error of the same size. The last
layers stay, because they determine the scores and take little time.

Rounding the summands and the result of each sum with a shortcut to 8 bits causes most of the error.
OpenVINO adds such a sum in float32 inside the convolution before it. ONNX Runtime cannot: there,
the convolution itself would become float32. `float_sums` selects the form.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyfau.errors import OptionError
from pyfau.models.engines import import_onnxruntime
from pyfau.models.export import export_encode
from pyfau.models.frame_export import export_heavy_part
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import MDHR
from pyfau.packed import fold

QUANTISER = 3  # part of the key of cached files; raise it whenever the files change
SMALL_SHARE = 0.02  # of the weights: a last layer up to this size stays in float32
_BATCH = 8
_SAMPLE = 20_000  # values of an activation in each batch, from which its range is computed
_RANGE_SHARES = np.linspace(1, 0.4, 31)  # of the extremes; ranges to choose from
_LEAST_RANGE = 1e-6  # of an activation that is the same everywhere

Ranges = dict[str, list[dict[str, Any]]]  # as ONNX Runtime's TensorQuantOverrides


@torch.no_grad()
def quantise_encode(model: MDHR | FrameNetwork, frames: Tensor, float_sums: bool = False) -> bytes:
    """Export the encoder, and quantise it with the ranges that some frames show.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        frames: (F, 3, S, S) float32, normalised as by `preprocess`. A few dozen faces of different
            people, light and expressions.
        float_sums: Leave sums with a shortcut in float32, for OpenVINO.

    Returns:
        For MDHR, an ONNX file with the inputs and outputs of `encode.onnx`; see
        `pyfau.models.export`. For other networks, one from the input "frames" of the heavy part to
        its (last) output "static".

    Raises:
        DependencyError: onnx, onnxscript or onnxruntime is not installed.
        OptionError: The network has no heavy part, or cannot be exported.
    """
    check_quantisable(model)
    import_onnxruntime()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            inputs, outputs = _export_encoder(model, frames, folder / "encode.onnx")
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise OptionError(
                f"precision 'int8' needs an ONNX file of {model.config.name}, and its export "
                f"failed: {reason:.200}"
            ) from error
        return _quantise_file(folder, inputs, outputs, float_sums)


def _export_encoder(
    model: MDHR | FrameNetwork, frames: Tensor, path: Path
) -> tuple[Tensor, list[str]]:
    """Write the encoder; its inputs for some frames, and the names of the outputs to keep."""
    if isinstance(model, FrameNetwork):
        return export_heavy_part(model, frames, path), ["static"]
    export_encode(model, path)
    return frames, ["static"] if _has_no_dynamics(model) else ["static", "dynamic"]


def _has_no_dynamics(model: MDHR) -> bool:
    """Whether an inference copy leaves the dynamics out; see `pyfau.models.inference.prepare`."""
    dynamics = copy.deepcopy(model.dynamics)
    fold(dynamics)
    return dynamics.is_zero


def _quantise_file(folder: Path, frames: Tensor, outputs: list[str], float_sums: bool) -> bytes:
    """Quantise the parts of encode.onnx that some outputs need, in a folder of temporary files."""
    import onnx.utils
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # The quantiser writes advice about itself to the root logger; callers cannot act on it.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        needed, folded = folder / "needed.onnx", folder / "folded.onnx"
        onnx.utils.extract_model(str(folder / "encode.onnx"), str(needed), ["frames"], outputs)
        quant_pre_process(str(needed), str(folded), skip_symbolic_shape=True)
        graph = onnx.load(str(folded)).graph
        excluded = float_nodes(graph)
        if float_sums:
            excluded |= {node.name for node in graph.node if node.op_type == "Add"}
        quantization.quantize_static(
            str(folded),
            str(folder / "int8.onnx"),
            _reader(frames),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Add", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=sorted(excluded),
            extra_options={
                "TensorQuantOverrides": _ranges(folded, graph, frames),
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )
        if not float_sums:
            return (folder / "int8.onnx").read_bytes()
        model = onnx.load(str(folder / "int8.onnx"))
        _read_float(model.graph)
        return model.SerializeToString()  # type: ignore[no-any-return]
    finally:
        logging.disable(before)


def _read_float(graph: Any) -> None:
    """Let sums read float32 tensors instead of their 8-bit copies."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        for i, name in enumerate(node.input if node.op_type == "Add" else ()):
            copied = producers.get(name)
            if copied is None or copied.op_type != "DequantizeLinear":
                continue
            rounded = producers.get(copied.input[0])
            if rounded is not None:
                node.input[i] = rounded.input[0]


def float_nodes(graph: Any) -> set[str]:
    """Names of the nodes that stay in float32; see the head of this module.

    Args:
        graph: An onnx.GraphProto without constants that are computed at run time.
    """
    sizes = {tensor.name: _size(tensor.dims) for tensor in graph.initializer}
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    total = sum(sizes.get(node.input[1], 0) for node in layers)
    chosen = set()
    for node in layers:
        weight = node.input[1]
        reads_pixels = node.input[0] == graph.input[0].name
        # Weights of their own for each token have three axes: they have no channels to scale.
        is_local = ranks.get(weight, 0) > 2 and node.op_type == "MatMul"
        is_small = sizes.get(weight, total) <= SMALL_SHARE * total
        if reads_pixels or is_local or (is_small and _is_last(graph, node)):
            chosen |= {node.name, *_following(graph, node)}
    return chosen


def _size(dims: Any) -> int:
    size = 1
    for count in dims:
        size *= count
    return size


def _following(graph: Any, node: Any) -> Iterator[str]:
    """Names of the sum and the ReLU that belong to a layer."""
    for other in graph.node:
        if other.op_type in ("Add", "Relu") and node.output[0] in other.input:
            yield other.name
            yield from _following(graph, other)
            return


def _is_last(graph: Any, node: Any) -> bool:
    """Whether no other layer reads what a layer computes."""
    reached = {node.output[0]}
    for other in graph.node:  # in the order in which they are computed
        if not reached.isdisjoint(other.input):
            if other.op_type in ("Conv", "MatMul", "Gemm"):
                return False
            reached.update(other.output)
    return True


def _ranges(path: Path, graph: Any, frames: Tensor) -> Ranges:
    """The range of each activation, with the least error of rounding among some frames."""
    import onnx

    model = onnx.load(str(path))
    operators = ("Conv", "MatMul", "Add", "Relu")
    names = [node.output[0] for node in graph.node if node.op_type in operators]
    there = {value.name for value in model.graph.output}
    float32 = onnx.TensorProto.FLOAT
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, float32, None)
        for name in names
        if name not in there
    )
    runtime = import_onnxruntime()
    session = runtime.InferenceSession(
        model.SerializeToString(), _options(runtime), providers=["CPUExecutionProvider"]
    )
    seen = [ActivationValues() for _ in names]
    for part in frames.split(_BATCH):
        outputs = session.run(names, {graph.input[0].name: part.numpy()})
        for values, output in zip(seen, outputs, strict=True):
            values.add(output)
    ranges = {}
    for name, values in zip(names, seen, strict=True):
        low, high = values.best_range()
        ranges[name] = [{"rmin": np.float32(low), "rmax": np.float32(high)}]
    return ranges


class ActivationValues:
    """The values of one activation: the extremes, and a sample of the others."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._sample: list[npt.NDArray[np.float32]] = []
        self._random = np.random.default_rng(0)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Add the values of some frames, an array of any shape."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        chosen = self._random.integers(values.size, size=min(values.size, _SAMPLE))
        self._sample.append(values.reshape(-1)[chosen])

    def best_range(self) -> tuple[float, float]:
        """The range in which 256 steps have the least mean square error.

        It is narrower than the extremes, because a few large values would make all steps large.
        """
        sample = np.concatenate(self._sample)
        ranges = [(share * self._low, share * self._high) for share in _RANGE_SHARES]
        return min(ranges, key=lambda bounds: _rounding_error(sample, *bounds))


def _rounding_error(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    """Mean square error of rounding to 256 steps from `low` to `high`."""
    step = max(high - low, _LEAST_RANGE) / 255
    rounded = np.clip(np.round((values - low) / step), 0, 255) * step + low
    return float(np.mean((rounded - values) ** 2))


def _options(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def _reader(frames: Tensor) -> Any:
    """One batch for ONNX Runtime's own calibration, whose ranges are replaced by `_ranges`."""
    from onnxruntime.quantization import CalibrationDataReader

    batches = iter([{"frames": frames[:_BATCH].numpy()}])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(batches, None)

    return Reader()


def check_quantisable(network: MDHR | FrameNetwork) -> None:
    """Refuse a network of which no part can compute in another type than float32.

    Raises:
        OptionError: It has no heavy part.
    """
    if isinstance(network, FrameNetwork) and not network.heavy_part:
        name = network.config.network
        raise OptionError(f"{name} computes in float32 only, got precision 'int8'")
