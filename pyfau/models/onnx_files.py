"""Writes modules as ONNX files."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pyfau.errors import DependencyError, OptionError

OPSET = 18


def make_folder(folder: Path) -> None:
    """Make a folder for the files.

    Raises:
        OptionError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder} cannot be created as a folder: {error}") from error


@torch.no_grad()
def write_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    axes: tuple[dict[int, torch.export.Dim], ...],
) -> None:
    """Write a module as one ONNX file.

    Args:
        module: On the CPU, with its norms folded.
        inputs: Example inputs, float32.
        path: File to write.
        names: Names of the inputs.
        outputs: Names of the outputs.
        axes: For each input the axes whose length can change.

    Raises:
        DependencyError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f'ONNX files need the packages onnx and onnxscript: pip install "pyfau[onnx]" ({error})'
        ) from error
    # The exporter's messages are about itself and torchvision; callers cannot act on them.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=axes,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )
