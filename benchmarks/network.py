"""The network alone, as pyfau runs it against the way the paper's code computes it, in one process.

    python benchmarks/network.py [--network bp4d_resnet] [--threads 1] [--rounds 5] [--engines]

One clip of 16 frames with the weights of the parity rule (../shared/reference/mdhr); contenders take turns. Prints
milliseconds a frame by the wall clock and by the processor's (of all threads), medians of the rounds; ratios are of the
processor's time with one thread, which other work on the machine disturbs least, and of the wall clock with more.
Also the arithmetic bound: the multiply-adds of the network at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle

from pyfau import load_model
from pyfau.models.inference import accelerate
from pyfau.models.mdhr import MDHR

NETWORKS = ("bp4d_resnet", "disfa_resnet", "bp4d_swin", "disfa_swin", "mdhr-lite")
FRAMES = 16
Times = dict[str, list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="bp4d_resnet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", action="store_true", help="ONNX Runtime and OpenVINO too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plain = load_model() if args.network == "mdhr-lite" else oracle.random_model(args.network)
    clip = oracle.frames(0, 1, FRAMES)
    if args.network == "mdhr-lite":
        clip = clip[..., ::2, ::2].contiguous()
    frames = clip[0].contiguous(memory_format=torch.channels_last)
    paper = oracle.PaperNetwork(plain)
    contenders: dict[str, Callable[[], torch.Tensor]] = {"the paper's way": lambda: paper(clip)[0]}
    options = [("float32", "torch"), ("bfloat16", "torch"), ("auto", "auto")]
    if args.engines:
        options += [("float32", "onnxruntime"), ("float32", "openvino"), ("bfloat16", "openvino")]
    for precision, engine in options:
        network = copy.deepcopy(plain)
        chosen = accelerate(network, precision, engine)
        label = f"{precision} {'/'.join(chosen)}" if precision == "auto" else " ".join(chosen)
        contenders[label] = lambda network=network: score(network, frames)
    times: Times = {label: [] for label in contenders}
    with torch.inference_mode():
        answers = {label: call() for label, call in contenders.items()}
        for _ in range(args.rounds):
            for label, call in contenders.items():
                wall, processor = time.perf_counter(), time.process_time()
                call()
                times[label].append((time.perf_counter() - wall, time.process_time() - processor))
        rate = {dtype: product_speed(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{args.network}, {args.threads} threads, {FRAMES} frames, {args.rounds} rounds, torch {torch.__version__}")
    want = answers["the paper's way"]
    medians = {
        label: [statistics.median(column) * 1e3 / FRAMES for column in zip(*taken, strict=True)]
        for label, taken in times.items()
    }
    column = 1 if args.threads == 1 else 0
    for label, (wall, processor) in medians.items():
        ratio = medians["the paper's way"][column] / medians[label][column]
        difference = float((answers[label] - want).abs().max())
        print(f"  {label:22} {wall:7.1f} ms wall {processor:7.1f} ms cpu {ratio:5.2f} x  differs by {difference:.1e}")
    for dtype, speed in rate.items():
        print(f"  a large matrix product in {str(dtype).removeprefix('torch.')}: {speed:.0f} GFLOP a second")


def score(network: MDHR, frames: torch.Tensor) -> torch.Tensor:
    return network.relate(network.encode(frames).unflatten(1, len(frames)))


def product_speed(dtype: torch.dtype) -> float:
    """GFLOP a second of processor time, the best of a few."""
    a, b = torch.randn(784, 4096).to(dtype), torch.nn.Linear(4096, 2048, bias=False).to(dtype)
    from pyfau.models.packed import PackedLinear, can_pack

    product = PackedLinear(b.weight, None) if can_pack() else b
    best = 1e9
    for _ in range(6):
        started = time.process_time()
        product(a)
        best = min(best, time.process_time() - started)
    return 2 * 784 * 4096 * 2048 / best / 1e9


if __name__ == "__main__":
    main()
