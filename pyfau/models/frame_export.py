"""A network that scores single frames as ONNX: `scores.onnx`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyfau.errors import WeightsError
from pyfau.models.engines import import_onnxruntime
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.onnx_files import OPSET, make_folder, write_onnx
from pyfau.packed import fold
from pyfau.version import __version__

_FRAMES = 8  # scored at a time
TOLERANCE = 1e-4  # of the values, for a range of 1
_README = """# {name} as ONNX

Written by pyfau {version}; opset {opset}, float32, batch norms folded. When it was written, it was
compared with torch: values differ by at most {difference:.1e}.

`scores.onnx`:

| | name | shape | what |
|---|---|---|---|
| in | frames | (F, 3, {size}, {size}) float32 | face crops, RGB, normalised (see below) |
| out | scores | (F, {count}) float32 | one value for each output |

Pixels are normalised as (value / 255 - mean) / std, with mean and std of config.json. The field
`crop` of config.json states how a face is cut out.

The outputs are, in this order:

| output | kind | range |
|---|---|---|
{outputs}

Licence of the weights: {licence}
"""


class _Scores(nn.Module):
    def __init__(self, model: FrameNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.score_frames(frames)


def export_scores(model: FrameNetwork, path: Path) -> None:
    """Write a network as ONNX: frames (F, 3, S, S) -> scores (F, N), both float32.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        path: File to write.

    Raises:
        DependencyError: onnx or onnxscript is not installed.
    """
    size = model.config.input_size
    folded = copy.deepcopy(model)
    fold(folded)
    axes = ({0: torch.export.Dim("F", min=1)},)
    frames = torch.zeros(2, 3, size, size)
    write_onnx(_Scores(folded), (frames,), path, ["frames"], ["scores"], axes)


def _last_output(value: Any) -> Tensor:
    """The output of a heavy part that the rest of its network reads: the last one."""
    last: Tensor = value if isinstance(value, Tensor) else value[-1]
    return last


class _HeavyPart(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, frames: Tensor) -> Tensor:
        return _last_output(self.part(frames))


def export_heavy_part(model: FrameNetwork, frames: Tensor, path: Path) -> Tensor:
    """Write the heavy part of a network as ONNX: "frames" -> "static", both float32.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        frames: (F, 3, S, S) float32, normalised; at least 2.
        path: File to write.

    Returns:
        The inputs (F, ...) of the heavy part for these frames.

    Raises:
        DependencyError: onnx or onnxscript is not installed.
    """
    folded = copy.deepcopy(model)
    fold(folded)
    part = folded.get_submodule(model.heavy_part)
    seen: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for few in frames.split(_FRAMES):
        folded.score_frames(few)
    hook.remove()
    inputs = torch.cat(seen)
    axes = ({0: torch.export.Dim("F", min=1)},)
    write_onnx(_HeavyPart(part), (inputs[:2],), path, ["frames"], ["static"], axes)
    return inputs


@torch.no_grad()
def export_frame_network(model: FrameNetwork, folder: Path) -> dict[str, float]:
    """Write scores.onnx, config.json and README.md, and check the network with ONNX Runtime.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        folder: Folder for the files; it is created if it does not exist.

    Returns:
        For scores.onnx the largest difference from torch.

    Raises:
        DependencyError: onnx, onnxscript or onnxruntime is not installed.
        WeightsError: The file gives other results than the network.
        OptionError: The folder cannot be made.
    """
    runtime = import_onnxruntime()
    make_folder(folder)
    path = folder / "scores.onnx"
    export_scores(model, path)
    config = model.config
    size = config.input_size
    # The number of frames differs from the exporter's example.
    frames = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"frames": frames.numpy()})
    widths = torch.tensor([output.range[1] - output.range[0] for output in config.outputs])
    gaps = (torch.from_numpy(got) - model.score_frames(frames)).abs() / widths
    difference = float(gaps.max())
    if not difference <= TOLERANCE:
        raise WeightsError(
            f"{path} differs from torch by {difference:.1e}, expected at most {TOLERANCE}"
        )
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    rows = [
        f"| {output.column} | {output.kind} | {output.range[0]:g} to {output.range[1]:g} |"
        for output in config.outputs
    ]
    text = _README.format(
        name=config.name,
        version=__version__,
        opset=OPSET,
        difference=difference,
        size=size,
        count=len(config.outputs),
        outputs="\n".join(rows),
        licence=config.licence.weights,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {path.name: difference}
