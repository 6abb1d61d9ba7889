"""Inference copies of networks that score single frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyfau.checks import check_choice
from pyfau.choices import Precision
from pyfau.errors import OptionError
from pyfau.models.engines import EngineFunction, open_engine, resolve_engine
from pyfau.models.frame_export import export_scores
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.half import choose_precision
from pyfau.models.int8 import open_int8, resolve_int8_engine
from pyfau.models.quantise import check_quantisable
from pyfau.packed import can_pack, fold, pack

_CPU_FRAMES = 8  # frames that a CPU scores at a time


class InHalf(nn.Module):
    """A module that computes in half precision, between parts that compute in float32.

    Args:
        module: Changed in place.
        dtype: bfloat16 or float16.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Any:
        """float32 -> what the module gives, in float32."""
        return _to_float(self.module(x.to(self.dtype)))


class InEngine(nn.Module):
    """A heavy part that another engine computes.

    Args:
        run: From its input to its last output.
        is_pair: Whether the rest of the network reads the output as the second of two.
    """

    def __init__(self, run: EngineFunction, is_pair: bool) -> None:
        super().__init__()
        self.run, self.is_pair = run, is_pair

    def forward(self, x: Tensor) -> Any:
        """float32 -> what the heavy part gives, in float32."""
        output = self.run(x)[0]
        return (None, output) if self.is_pair else output


def _to_float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    return type(value)(_to_float(part) for part in value)


@torch.no_grad()
def accelerate_frames(
    model: FrameNetwork,
    precision: str = "auto",
    engine: str = "auto",
    folder: Path | None = None,
) -> tuple[str, str]:
    """Prepare a network for inference only, in place.

    Batch norms are folded into the layers before them, and images are laid out channels_last. On a
    CPU, layers take oneDNN's form. In half precision, `model.heavy_part` computes in that type and
    the rest, such as a graph of nearest neighbours, in float32.

    Args:
        model: A plain network in eval mode.
        precision: "auto", "float32", "bfloat16", "float16" on a GPU, or "int8" on a CPU. "auto" is
            bfloat16 if this CPU multiplies it faster than float32, and `choose_precision` measures
            that the scores stay close to float32 with these weights.
        engine: "auto", "torch", "onnxruntime" or "openvino"; the last two are for a CPU.
        folder: The model directory, where "int8" looks for the file of `pyfau quantise`.

    Returns:
        The precision and the engine.

    Raises:
        OptionError: Another value, or one that this device or engine does not take.
        DependencyError: The engine, or what it needs to export the network, is not installed.
        WeightsError: The int8 file in the model directory is damaged.
    """
    if precision == "int8":
        return "int8", _use_int8(model, engine, folder)
    dtype, chosen = _resolve(model, precision, engine)
    if chosen != "torch":
        _use_engine(model, chosen, dtype)
    else:
        _prepare(model, dtype)
    return str(dtype).removeprefix("torch."), chosen


def _resolve(model: FrameNetwork, precision: str, engine: str) -> tuple[torch.dtype, str]:
    check_choice(precision, "precision", Precision)
    chosen = resolve_engine(engine)
    on_cpu = model.device.type == "cpu"
    if chosen != "torch" and not on_cpu:
        raise OptionError(f"engine {engine!r} is for the CPU, and the device is {model.device}")
    if precision == "float16" and on_cpu:
        raise OptionError("precision 'float16' is for a GPU; a CPU takes float32, bfloat16 or int8")
    if precision == "auto":
        precision = choose_precision(model, _prepare) if chosen == "torch" else "float32"
    if precision != "float32" and chosen == "torch" and not model.heavy_part:
        name = model.config.network
        raise OptionError(f"{name} computes in float32 only, got precision {precision!r}")
    if chosen == "onnxruntime" and precision != "float32":
        raise OptionError(
            f"engine 'onnxruntime' computes in float32 only, got precision {precision!r}"
        )
    return getattr(torch, precision), chosen


def _use_int8(model: FrameNetwork, engine: str, folder: Path | None) -> str:
    """Let an engine compute the heavy part in 8-bit integers; the rest stays in float32."""
    chosen = resolve_int8_engine(model.device, engine)
    check_quantisable(model)
    use_heavy_engine(model, open_int8(model, folder, chosen))
    return chosen


def use_heavy_engine(model: FrameNetwork, run: EngineFunction) -> None:
    """Prepare a network whose heavy part an engine computes, in place.

    Args:
        model: A plain network in eval mode on the CPU.
        run: From the input of the heavy part to its last output, as `quantise_encode` exports it.
    """
    size = model.config.input_size
    with _recorded_output(model.get_submodule(model.heavy_part)) as outputs:
        model.score_frames(torch.zeros(1, 3, size, size))
    _prepare(model, torch.float32)
    setattr(model, model.heavy_part, InEngine(run, not isinstance(outputs[0], Tensor)))


@contextmanager
def _recorded_output(part: nn.Module) -> Iterator[list[Any]]:
    """What a module returns while this is open."""
    outputs: list[Any] = []
    hook = part.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def _use_engine(model: FrameNetwork, engine: str, dtype: torch.dtype) -> None:
    run = open_engine(engine, lambda path: export_scores(model, path), dtype, ["scores"])
    model.engine = lambda frames: run(frames)[0]
    for name, _ in list(model.named_children()):  # the engine has its own copy
        delattr(model, name)
    model.batch_frames = _CPU_FRAMES


def _prepare(model: FrameNetwork, dtype: torch.dtype) -> None:
    fold(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, others = model.packable()
    is_half = dtype != torch.float32
    heavy = model.get_submodule(model.heavy_part)
    if is_half:
        heavy.to(dtype)
    if model.device.type == "cpu" and can_pack(dtype):
        size = model.config.input_size
        number = next((value.dtype for value in images.parameters()), torch.float32)
        example = torch.zeros(1, 3, size, size, dtype=number)
        pack(images, example.to(memory_format=torch.channels_last))
        for part in others:
            pack(part)
        model.batch_frames = _CPU_FRAMES
    if is_half:
        setattr(model, model.heavy_part, InHalf(heavy, dtype))
