"""A network as ONNX: `encode.onnx` for single frames, `relate.onnx` for clips."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pyfau.errors import WeightsError
from pyfau.models.engines import import_onnxruntime
from pyfau.models.frame_export import export_frame_network
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import MDHR, FrameFeatures
from pyfau.models.onnx_files import OPSET, make_folder, write_onnx
from pyfau.packed import fold
from pyfau.version import __version__

TOLERANCE = 1e-4  # of scores and, relative to the largest, features
_README = """# {name} as ONNX

Written by pyfau {version}; opset {opset}, float32, batch norms folded. pyfau compared the files
with torch: features differ by {encode:.1e} of the largest feature, and scores by {relate:.1e}.

`encode.onnx`: everything that depends on one frame.

| | name | shape | what |
|---|---|---|---|
| in | frames | (F, 3, {size}, {size}) float32 | aligned RGB crops, normalised (see below) |
| out | static | (F, 49, {width}) float32 | tokens of the frame |
| out | dynamic | (F, 4, 49, {channels}) float32 | projections, for `relate` |

Pixels are normalised as (value / 255 - mean) / std, with mean and std of config.json.

`relate.onnx`: everything that depends on the window. Here, it takes whole clips of T frames, at
least 2.

| | name | shape | what |
|---|---|---|---|
| in | static | (B, T, 49, {width}) float32 | of consecutive frames |
| in | dynamic | (B, T, 4, 49, {channels}) float32 | |
| out | scores | (B, T, {count}) float32 | in [0, 1], one per action unit |

The action units are, in this order: {aus}.

The ends of a clip are padded with zeros, as in the paper. For scores that do not depend on where a
video is cut, repeat its first and last frame 7 times, and ignore the scores of the repeats. Divide
a long video into clips that overlap by 14 frames.

A crop is cut with the similarity transform that moves the five landmarks (eyes, nose, corners of
the mouth) closest to `template` of config.json, in fractions of the crop.
"""


class _Encode(nn.Module):
    def __init__(self, model: MDHR) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.encode_batch(frames)
        return features.static, features.dynamic


class _Relate(nn.Module):
    def __init__(self, model: MDHR) -> None:
        super().__init__()
        self.model = model

    def forward(self, static: Tensor, dynamic: Tensor) -> Tensor:
        return self.model.relate(FrameFeatures(static, dynamic))


def export_encode(model: MDHR, path: Path) -> None:
    """Write `encode` as ONNX: frames (F, 3, S, S) -> static (F, 49, D), dynamic (F, 4, 49, C), all
    float32.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        path: File to write.

    Raises:
        DependencyError: onnx or onnxscript is not installed.
    """
    size = model.config.input_size
    frames = torch.zeros(2, 3, size, size)
    _export(
        _Encode,
        model,
        (frames,),
        path,
        ["frames"],
        ["static", "dynamic"],
        ({0: torch.export.Dim("F", min=1)},),
    )


def export_relate(model: MDHR, path: Path) -> None:
    """Write `relate` of whole clips as ONNX: static (B, T, 49, D), dynamic (B, T, 4, 49, C) ->
    scores (B, T, N).

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        path: File to write. It takes clips of at least 2 frames.

    Raises:
        DependencyError: onnx or onnxscript is not installed.
    """
    config = model.config
    static, dynamic = (
        torch.rand(2, 16, 49, config.width),
        torch.rand(2, 16, 4, 49, config.dynamic_channels),
    )
    axes = {0: torch.export.Dim("B", min=1), 1: torch.export.Dim("T", min=2)}
    _export(
        _Relate, model, (static, dynamic), path, ["static", "dynamic"], ["scores"], (axes, axes)
    )


@torch.no_grad()
def export_model(model: MDHR | FrameNetwork, folder: Path) -> dict[str, float]:
    """Write a network as ONNX, with config.json and README.md, and check it with ONNX Runtime.

    MDHR becomes encode.onnx and relate.onnx, a network that scores single frames becomes
    scores.onnx.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        folder: Folder for the files; it is created if it does not exist.

    Returns:
        For each ONNX file the largest difference from torch: of features relative to the largest,
        of scores.

    Raises:
        DependencyError: onnx, onnxscript or onnxruntime is not installed.
        WeightsError: A file gives other results than the network.
        OptionError: The folder cannot be made.
    """
    if isinstance(model, FrameNetwork):
        return export_frame_network(model, folder)
    import_onnxruntime()  # fails before any work is done
    make_folder(folder)
    paths = {name: folder / f"{name}.onnx" for name in ("encode", "relate")}
    export_encode(model, paths["encode"])
    export_relate(model, paths["relate"])
    config = model.config
    differences = _compare(model, paths)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{paths[name]} differs from torch by {difference:.1e}, "
                f"expected at most {TOLERANCE}"
            )
    facts = {
        "name": config.name,
        "version": __version__,
        "opset": OPSET,
        "size": config.input_size,
        "width": config.width,
    }
    facts |= {
        "channels": config.dynamic_channels,
        "count": len(config.aus),
        "aus": ", ".join(config.au_names),
    }
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(_README.format(**facts, **differences), encoding="utf-8")
    return {f"{name}.onnx": difference for name, difference in differences.items()}


@torch.no_grad()
def _compare(model: MDHR, paths: Mapping[str, Path]) -> dict[str, float]:
    """The largest difference of each ONNX file from torch; see `export_model`."""
    runtime = import_onnxruntime()
    size = model.config.input_size
    # The number of frames and clips differs from the exporter's example.
    frames = torch.randn(3 * 12, 3, size, size, generator=torch.Generator().manual_seed(0))
    folded = copy.deepcopy(model)
    # Folding changes the scale of the features, but not the scores.
    fold(folded)
    features = FrameFeatures.cat([folded.encode(part) for part in frames.split(12)])
    clips = features.unflatten(3, 12)
    scores = model(frames[:12][None])

    def run(name: str, **inputs: Tensor) -> list[Tensor]:
        session = runtime.InferenceSession(str(paths[name]), providers=["CPUExecutionProvider"])
        outputs = session.run(
            None, {key: value.contiguous().numpy() for key, value in inputs.items()}
        )
        return [torch.from_numpy(output) for output in outputs]

    differences = {}
    static, dynamic = run("encode", frames=frames[:5])
    pairs = ((static, features.static[:5]), (dynamic, features.dynamic[:5]))
    differences["encode"] = max(
        float((got - want).abs().max() / want.abs().max()) for got, want in pairs
    )
    got = run("relate", static=clips.static, dynamic=clips.dynamic)[0]
    differences["relate"] = max(
        float((got - folded.relate(clips)).abs().max()), float((got[:1] - scores).abs().max())
    )
    return differences


def _export(
    stage: type[_Encode | _Relate],
    model: MDHR,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    axes: tuple[dict[int, torch.export.Dim], ...],
) -> None:
    folded = copy.deepcopy(model)
    fold(folded)
    write_onnx(stage(folded), inputs, path, names, outputs, axes)
