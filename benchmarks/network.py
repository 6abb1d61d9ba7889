"""Compares the network as pyfau runs it with the way in which the paper's code computes it.

    python benchmarks/network.py [--network bp4d_resnet] [--threads 1] [--rounds 5] [--engines]
    python benchmarks/network.py --network mdhr-lite --int8

One clip of 16 frames with the weights of the parity rule (../shared/reference/mdhr); contenders
take turns. For mdhr-lite the clip is from tests/data/media. Prints the machine, and milliseconds a
frame on the clock and of processor time (of all threads), as medians of the rounds. Ratios are
medians of each round's ratio. With one thread, they are ratios of processor time, which other work
on the machine disturbs least; with more threads, of time on the clock. Also prints the arithmetic
bound: the multiply-adds of the network at the speed of a large matrix product.

--int8 adds 8-bit integers; the paper's networks are calibrated on another made-up clip. The scores
of each contender are compared with float32: the largest difference, the share within .01 and .03,
and the lowest correlation of an AU.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle

from pyfau import load_model
from pyfau.crop import crop_face
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.models.engines import open_quantised
from pyfau.models.half import has_bfloat16
from pyfau.models.inference import accelerate, use_engine
from pyfau.models.mdhr import MDHR
from pyfau.models.quantise import quantise_encode
from pyfau.video import read_video

NETWORKS = ("bp4d_resnet", "disfa_resnet", "bp4d_swin", "disfa_swin", "mdhr-lite")
FRAMES = 16
CLIP = Path(__file__).resolve().parents[1] / "tests" / "data" / "media" / "single_face.mp4"
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
PAPER = "the paper's way"
Times = dict[str, list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="bp4d_resnet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", action="store_true", help="ONNX Runtime and OpenVINO too")
    parser.add_argument("--int8", action="store_true", help="8-bit integers too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    small = args.network == "mdhr-lite"
    plain = load_model() if small else oracle.random_model(args.network)
    clip = real_clip(plain) if small else oracle.frames(0, 1, FRAMES)
    frames = clip[0].contiguous(memory_format=torch.channels_last)
    paper = oracle.PaperNetwork(plain)
    contenders: dict[str, Callable[[], torch.Tensor]] = {PAPER: lambda: paper(clip)[0]}
    options = [("float32", "torch"), ("auto", "auto")]
    if has_bfloat16():  # without it, bfloat16 is many times slower
        options.insert(1, ("bfloat16", "torch"))
    if args.engines:
        options += [("float32", "onnxruntime"), ("float32", "openvino"), ("bfloat16", "openvino")]
    if args.int8:
        options += [("int8", "onnxruntime"), ("int8", "openvino")]
    for precision, engine in options:
        network = copy.deepcopy(plain)
        chosen = (precision, engine)
        if precision == "int8" and not small:
            calibration = oracle.frames(1, 1, 2 * FRAMES)[0]
            data = quantise_encode(network, calibration, float_sums=engine == "openvino")
            use_engine(network, open_quantised(data, engine))
        else:
            chosen = accelerate(network, precision, engine)
        label = f"{precision} {'/'.join(chosen)}" if precision == "auto" else " ".join(chosen)
        contenders[label] = lambda network=network: score(network, frames)
    with torch.inference_mode():
        answers = {label: call() for label, call in contenders.items()}
        times = measure(contenders, args.rounds)
        dtypes = (torch.float32, torch.bfloat16) if has_bfloat16() else (torch.float32,)
        rate = {dtype: product_speed(dtype) for dtype in dtypes}
    print(
        f"{args.network}, {args.threads} threads, {FRAMES} frames, {args.rounds} rounds, torch "
        f"{torch.__version__}, {machine()}"
    )
    column = 1 if args.threads == 1 else 0
    for label, taken in times.items():
        wall, processor = (
            statistics.median(values) * 1e3 / FRAMES for values in zip(*taken, strict=True)
        )
        ratio = statistics.median(
            theirs[column] / own[column] for theirs, own in zip(times[PAPER], taken, strict=True)
        )
        print(
            f"  {label:22} {wall:7.2f} ms wall {processor:7.2f} ms cpu {ratio:5.2f} x  "
            f"{compare(answers[label], answers['float32 torch'])}"
        )
    for dtype, speed in rate.items():
        print(
            f"  a large matrix product in {str(dtype).removeprefix('torch.')}: {speed:.0f} GFLOP a "
            "second"
        )


def measure(contenders: dict[str, Callable[[], torch.Tensor]], rounds: int) -> Times:
    """Wall clock and processor time in seconds of each round, the contenders in turn."""
    times: Times = {label: [] for label in contenders}
    for _ in range(rounds):
        for label, call in contenders.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            times[label].append((time.perf_counter() - wall, time.process_time() - processor))
    return times


def compare(got: torch.Tensor, want: torch.Tensor) -> str:
    difference = (got - want).abs()
    near = [100 * float((difference <= bound).float().mean()) for bound in (0.01, 0.03)]
    got_by_au, want_by_au = got.flatten(0, -2).T.numpy(), want.flatten(0, -2).T.numpy()
    moving = want_by_au.std(axis=1) > 1e-3  # the correlation of a constant is noise
    pairs = zip(got_by_au[moving], want_by_au[moving], strict=True)
    lowest = min((np.corrcoef(a, b)[0, 1] for a, b in pairs), default=float("nan"))
    return (
        f"differs by {float(difference.max()):.1e}; {near[0]:.1f} % within .01, {near[1]:.1f} % "
        f"within .03, lowest r {lowest:.4f}"
    )


def real_clip(model: MDHR) -> torch.Tensor:
    """(1, FRAMES, 3, S, S): every fourth frame of a man who begins to smile."""
    aligner, crops = MTCNNAligner(), []
    with read_video(CLIP) as reader:
        for frame in reader:
            if frame.index % 4 == 1 and len(crops) < FRAMES:
                (face, *_) = aligner.detect(frame.rgb)
                size, template = model.config.input_size, np.array(model.config.template)
                crops.append(crop_face(frame.rgb, face.landmarks, template, size))
    return model.preprocess(np.stack(crops))[None]


def machine() -> str:
    """Model and relevant flags of the CPU, where Linux states them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = [flag for flag in FLAGS if flag in facts.get("flags", "").split()]
    names = [facts.get(key, "") for key in ("model name", "cpu family", "model")]
    return f"{names[0]} (family {names[1]}, model {names[2]}; {' '.join(flags)})"


def score(network: MDHR, frames: torch.Tensor) -> torch.Tensor:
    return network.relate(network.encode(frames).unflatten(1, len(frames)))


def product_speed(dtype: torch.dtype) -> float:
    """GFLOP a second of processor time, the best of a few."""
    a, b = torch.randn(784, 4096).to(dtype), torch.nn.Linear(4096, 2048, bias=False).to(dtype)
    from pyfau.packed import PackedLinear, can_pack

    product = PackedLinear(b.weight, None) if can_pack(dtype) else b
    best = 1e9
    for _ in range(6):
        started = time.process_time()
        product(a)
        best = min(best, time.process_time() - started)
    return 2 * 784 * 4096 * 2048 / best / 1e9


if __name__ == "__main__":
    main()
