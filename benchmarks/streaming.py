"""Compares a new frame of a running stream with a frame of a batch, and with a 16-frame window that
is computed again for each frame.

    python benchmarks/streaming.py [--network bp4d_resnet] [--precision float32] [--frames 12]

The three take turns. Medians of the processor time of one thread are printed, because other work on
the machine disturbs it least. The largest difference between the scores of the stream and of the
batch is printed too.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle

from pyfau import load_model
from pyfau.models.inference import accelerate
from pyfau.models.windows import make_window

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="bp4d_resnet", help="as in network.py")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--frames", type=int, default=12, help="new frames that are timed")
    parser.add_argument(
        "--rerun", type=int, default=2, help="windows that are rerun the research way"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    lite = args.network == "mdhr-lite"
    model = load_model() if lite else oracle.random_model(args.network)
    paper = oracle.PaperNetwork(model)
    fast = copy.deepcopy(model)
    precision, _ = accelerate(fast, args.precision)
    frames = oracle.frames(0, 1, BATCH + args.frames)[0]
    if lite:
        frames = frames[..., ::2, ::2]
    frames = frames.contiguous(memory_format=torch.channels_last)
    spent: dict[str, list[float]] = {"batch": [], "latency 7": [], "latency 0": [], "rerun": []}
    with torch.inference_mode():
        streams = {
            "latency 7": make_window("continuous", fast),
            "latency 0": make_window("prompt", fast),
        }
        rows = {
            label: list(w.push(fast.encode(frames[:BATCH]), range(BATCH)))
            for label, w in streams.items()
        }
        for t in range(BATCH, len(frames)):
            for label, window in streams.items():
                started = time.process_time()
                rows[label] += window.push(fast.encode(frames[t : t + 1]), [t])
                spent[label].append(time.process_time() - started)
            if t % 3 == 0:
                # As in a long video: warm, 16 frames at a time.
                window = make_window("continuous", fast)
                window.push(fast.encode(frames[:BATCH]), range(BATCH))
                started = time.process_time()
                window.push(fast.encode(frames[t - BATCH : t]), range(BATCH))
                spent["batch"].append((time.process_time() - started) / BATCH)
        for t in range(args.rerun):
            started = time.process_time()
            paper(frames[None, t : t + BATCH].contiguous())
            spent["rerun"].append(time.process_time() - started)
        rows["latency 7"] += streams["latency 7"].finish()
        whole = make_window("continuous", fast)
        batch = whole.push(fast.encode(frames), range(len(frames))) + whole.finish()
    difference = max(abs(a[1] - b[1]).max() for a, b in zip(rows["latency 7"], batch, strict=True))
    base = statistics.median(spent["batch"])
    print(
        f"{args.network}, {precision}, one thread, processor time a frame; torch "
        f"{torch.__version__}"
    )
    names = {"batch": f"batch of {BATCH}", "rerun": "rerun a window, the paper's way"}
    for label, taken in spent.items():
        median = statistics.median(taken)
        print(
            f"  {names.get(label, f'stream, {label}'):32} {median * 1e3:8.1f} ms  "
            f"{median / base:6.2f} x batch"
        )
    print(f"  largest difference of the stream from the batch: {difference:.1e}")


if __name__ == "__main__":
    main()
