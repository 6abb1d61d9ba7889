"""Networks for inference only: the same scores in less time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pyfau.checks import check_choice
from pyfau.choices import Precision
from pyfau.errors import OptionError
from pyfau.models.engines import EngineFunction, open_engine, resolve_engine
from pyfau.models.export import export_encode
from pyfau.models.frame_inference import accelerate_frames
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.half import BFLOAT16_BOUND, bfloat16_is_faster
from pyfau.models.int8 import open_int8, resolve_int8_engine
from pyfau.models.mdhr import KERNELS, MDHR, TOKENS, FrameFeatures, NoDynamics, PatchProjection
from pyfau.packed import can_pack, fold, pack

# What is compared with `BFLOAT16_BOUND`, for MDHR by backbone. The measured differences are rounded
# up: ResNet-50 and Swin-B with random weights, the larger of BP4D and DISFA
# (benchmarks/bfloat16.py, docs/performance-history.md), and the small network with the weights of
# mdhr-lite on real faces (tests/models/test_network_speed.py).
BFLOAT16_DIFFERENCES = {"resnet50": 3e-2, "swin_b": 3e-2, "small": 3e-3}

# Number of frames that a CPU encodes at a time. With fewer frames the matrix products are too small
# to be fast. With more, the features between the layers no longer fit the caches, and their memory
# is allocated again for each layer.
_CPU_FRAMES = 8


@torch.no_grad()
def prepare(model: MDHR, dtype: torch.dtype = torch.float32) -> MDHR:
    """Prepare a network for inference. It can no longer be trained or saved.

    Batch norms are folded into the layers before them and images are laid out channels_last; on a
    CPU, layers take oneDNN's form. Dynamics whose output is always 0 are left out. The encoder
    computes in `dtype`; the parts that depend on the window stay in float32.

    Args:
        model: A plain network in eval mode, changed in place.
        dtype: float32, bfloat16, or float16 on a GPU.

    Returns:
        The same network.
    """
    fold(model)
    if model.dynamics.is_zero:
        model.dynamics = NoDynamics(model.config.width)  # type: ignore[assignment]
    model.encode_dtype = dtype
    backbone = model.get_submodule("backbone")
    backbone.to(dtype)
    model.static.to(dtype)
    projections = [p for p in model.dynamics.projections if isinstance(p, PatchProjection)]
    for projection in projections:
        projection.weight.data = projection.weight.to(dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.device.type == "cpu" and can_pack(dtype):
        size = model.config.input_size
        pack(
            backbone,
            torch.zeros(1, 3, size, size, dtype=dtype).to(memory_format=torch.channels_last),
        )
        for part in (model.static, model.dynamics, model.regions, model.cross_region):
            pack(part)
        for projection in projections:
            projection.pack()
        model.encode_frames = _CPU_FRAMES
    return model


def accelerate(
    model: MDHR | FrameNetwork,
    precision: str = "auto",
    engine: str = "auto",
    folder: Path | None = None,
) -> tuple[str, str]:
    """Prepare a plain network for inference, in place, with the options of `AUDetector`.

    Args:
        model: A plain network in eval mode; see `prepare`.
        precision: "auto", "float32", "bfloat16", "float16" or "int8"; see `resolve_precision` and
            `pyfau.models.int8`.
        engine: "auto", "torch", "onnxruntime" or "openvino"; the last two are for a CPU.
        folder: The model directory, where "int8" looks for the file of `pyfau quantise`.

    Returns:
        The precision and the engine that were chosen.

    Raises:
        OptionError: Another value, or one that this device or engine does not take.
        DependencyError: The engine, or what it needs to export the network, is not installed.
        WeightsError: The int8 file in the model directory is damaged.
    """
    if isinstance(model, FrameNetwork):
        return accelerate_frames(model, precision, engine, folder)
    if precision == "int8":
        chosen = resolve_int8_engine(model.device, engine)
        use_engine(model, open_int8(model, folder, chosen))
        return "int8", chosen
    chosen = resolve_engine(engine)
    if chosen != "torch" and model.device.type != "cpu":
        raise OptionError(f"engine {engine!r} is for the CPU, and the device is {model.device}")
    if chosen == "onnxruntime":  # few of its CPU kernels support bfloat16
        if precision not in ("auto", "float32"):
            raise OptionError(
                f"engine 'onnxruntime' computes in float32 or int8, got precision {precision!r}"
            )
        precision = "float32"
    dtype = resolve_precision(precision, model.device, model.config.backbone)
    if chosen == "torch":
        prepare(model, dtype)
    else:
        run = open_engine(chosen, lambda path: export_encode(model, path), dtype)
        use_engine(model, run)
    return str(dtype).removeprefix("torch."), chosen


def use_engine(model: MDHR, run: EngineFunction) -> None:
    """Prepare a network whose encoder another engine computes, in place."""
    prepare(model)

    def encode(frames: Tensor) -> FrameFeatures:
        static, *dynamic = run(frames)
        if dynamic:
            return FrameFeatures(static, *dynamic)
        return FrameFeatures(static, static.new_zeros(len(static), len(KERNELS), TOKENS, 0))

    model.encoder = encode
    model.encode_dtype = torch.float32
    for name in ("backbone", "static"):  # the engine has its own copy
        delattr(model, name)
    for projection in model.dynamics.projections:
        projection.packed = None  # type: ignore[assignment]


def resolve_precision(precision: str, device: torch.device, backbone: str) -> torch.dtype:
    """The number type of the encoder for a precision option.

    "auto" is bfloat16 on a CPU that multiplies it faster than float32, for backbones whose scores
    stay within `BFLOAT16_BOUND` of float32's, and float32 everywhere else: no half precision has
    been measured on a GPU yet. It is never int8, whose scores differ more than `BFLOAT16_BOUND`.

    Raises:
        OptionError: Unknown, or float16 on a CPU.
    """
    check_choice(precision, "precision", Precision)
    if precision == "float16" and device.type == "cpu":
        raise OptionError("precision 'float16' is for a GPU; a CPU takes float32, bfloat16 or int8")
    if precision != "auto":
        return getattr(torch, precision)  # type: ignore[no-any-return]
    near = BFLOAT16_DIFFERENCES.get(backbone, 1.0) <= BFLOAT16_BOUND
    if near and device.type == "cpu" and can_pack() and bfloat16_is_faster():
        return torch.bfloat16
    return torch.float32
