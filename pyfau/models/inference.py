"""A network that only infers: the same answers in less time."""

from __future__ import annotations

import torch

from pyfau.errors import OptionError
from pyfau.models.engines import open_engine, resolve_engine
from pyfau.models.export import export_encode
from pyfau.models.mdhr import MDHR, PatchProjection
from pyfau.models.packed import can_pack, fold, pack

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# How far a score of a bfloat16 encoder may be from the float32 one, 99 scores in 100, for "auto" to choose it; and what
# was measured, rounded up (docs/performance.md; tests/test_network_speed.py holds it): ResNet-50 and Swin-B with random
# weights, the worse of BP4D and DISFA, and the small network with those of mdhr-lite on real faces.
BFLOAT16_BOUND = 5e-3
BFLOAT16_DIFFERENCES = {"resnet50": 3e-2, "swin_b": 5e-3, "small": 3e-3}

# Frames that a CPU encodes at a time: fewer, and small pictures make poor matrix products; more, and what lies between
# the layers outgrows the caches and is asked of the operating system anew each time.
_CPU_FRAMES = 8


@torch.no_grad()
def prepare(model: MDHR, dtype: torch.dtype = torch.float32) -> MDHR:
    """Make a network fit for inference and nothing else: it can no longer be trained or saved.

    Batch norms are folded into the layers before them and pictures are laid out channels_last; on a CPU, layers take
    oneDNN's form. The encoder computes in `dtype`; what sees the window stays float32.

    Args:
        model: A plain network in eval mode, changed in place.
        dtype: float32, bfloat16, or float16 on a GPU.

    Returns:
        The same network.
    """
    fold(model)
    model.encode_dtype = dtype
    backbone = model.get_submodule("backbone")
    backbone.to(dtype)
    model.static.to(dtype)
    projections = [p for p in model.dynamics.projections if isinstance(p, PatchProjection)]
    for projection in projections:
        projection.weight.data = projection.weight.to(dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.device.type == "cpu" and can_pack():
        size = model.config.input_size
        pack(backbone, torch.zeros(1, 3, size, size, dtype=dtype).to(memory_format=torch.channels_last))
        for part in (model.static, model.dynamics, model.regions, model.cross_region):
            pack(part)
        for projection in projections:
            projection.pack()
        model.encode_frames = _CPU_FRAMES
    return model


def accelerate(model: MDHR, precision: str = "auto", engine: str = "auto") -> tuple[str, str]:
    """Make a plain network fit for inference alone, in place, as two options say.

    Args:
        model: A plain network in eval mode; see `prepare`.
        precision: "auto", "float32", "bfloat16" or "float16"; see `resolve_precision`.
        engine: "auto", "torch", "onnxruntime" or "openvino"; the last two are for a CPU.

    Returns:
        The precision and the engine that were chosen.

    Raises:
        OptionError: Another value, or one that this device or engine does not take.
        DependencyError: The engine, or what it needs to export the network, is not installed.
    """
    chosen = resolve_engine(engine)
    if chosen != "torch" and model.device.type != "cpu":
        raise OptionError(f"engine {engine!r} is for the CPU, and the device is {model.device}")
    if chosen == "onnxruntime":  # whose CPU kernels have no bfloat16 to speak of
        if precision not in ("auto", "float32"):
            raise OptionError(f"engine 'onnxruntime' computes in float32, and precision {precision!r} was asked for")
        precision = "float32"
    dtype = resolve_precision(precision, model.device, model.config.backbone)
    encoder = None
    if chosen != "torch":
        encoder = open_engine(chosen, lambda path: export_encode(model, path), dtype)
    prepare(model, dtype)
    if encoder is not None:
        model.encoder, model.encode_dtype = encoder, torch.float32
        for name in ("backbone", "static"):  # held by the engine now
            delattr(model, name)
        for projection in model.dynamics.projections:
            projection.packed = None  # type: ignore[assignment]
    return str(dtype).removeprefix("torch."), chosen


def resolve_precision(precision: str, device: torch.device, backbone: str) -> torch.dtype:
    """The type that a precision option means for the encoder.

    "auto" is bfloat16 on a CPU that multiplies it, for backbones whose scores stay within `BFLOAT16_BOUND` of
    float32's, and float32 everywhere else: no half precision has been measured on a GPU yet.

    Raises:
        OptionError: Unknown, or float16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise OptionError("precision 'float16' is for a GPU; a CPU takes float32 or bfloat16")
    if precision != "auto":
        return getattr(torch, precision)  # type: ignore[no-any-return]
    near = BFLOAT16_DIFFERENCES.get(backbone, 1.0) <= BFLOAT16_BOUND
    return torch.bfloat16 if near and device.type == "cpu" and can_pack() and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself, as far as torch tells: AVX-512 BF16 or AMX."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in tests)
