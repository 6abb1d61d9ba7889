"""Compares the whole network on a GPU with its backbone alone, at the same batch size and
precision.

    python benchmarks/gpu.py [--device cuda] [--batch 64] [--rounds 20] [--compile]

For ResNet-50 and Swin-B (random weights by the parity rule) in float32, bfloat16 and float16:
frames a second of uint8 crops copied to the card, preprocessed, encoded and related, and of the
backbone alone on tensors that are there already; and the largest difference of the scores from the
CPU's. States the card.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle

from pyfau.models.inference import prepare


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64, help="frames, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="torch.compile the backbone")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: nothing was measured")
    card = (
        torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    )
    print(f"{card}, batch {args.batch}, torch {torch.__version__}, compile {args.compile}")
    for network in ("bp4d_resnet", "bp4d_swin"):
        plain = oracle.random_model(network)
        crops = np.random.default_rng(0).integers(
            0, 256, (args.batch // 16, 16, 14, 14, 3), dtype=np.uint8
        )
        crops = crops.repeat(16, axis=2).repeat(16, axis=3)
        with torch.inference_mode():
            want = plain(plain.preprocess(crops[:1]))
        for dtype in (torch.float32, torch.bfloat16, torch.float16)[
            : 2 if args.device == "cpu" else 3
        ]:
            fast = prepare(copy.deepcopy(plain).to(args.device), dtype)
            if args.compile:
                fast.get_submodule("backbone").compile()
            ready = (
                fast.preprocess(crops)
                .flatten(0, 1)
                .to(dtype)
                .contiguous(memory_format=torch.channels_last)
            )

            def score(fast=fast, crops=crops) -> torch.Tensor:
                return fast(fast.preprocess(crops)).cpu()

            with torch.inference_mode():
                speed = frames_a_second(score, args)
                bare = frames_a_second(lambda fast=fast, ready=ready: fast.backbone(ready), args)
                difference = float((score()[:1] - want).abs().max())
            name = str(dtype).removeprefix("torch.")
            print(
                f"  {network:12} {name:9} {speed:8.0f} frames/s  bare backbone {bare:8.0f}  ratio "
                f"{speed / bare:.2f}  "
                f"largest difference from the CPU {difference:.1e}"
            )


def frames_a_second(call: Callable[[], object], args: argparse.Namespace) -> float:
    def wait() -> None:
        if args.device.startswith("cuda"):
            torch.cuda.synchronize(args.device)

    times = []
    for _ in range(args.rounds + 3):
        wait()
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return args.batch / statistics.median(times[3:])


if __name__ == "__main__":
    main()
