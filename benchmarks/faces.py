"""The cost of each further face, on 720p H.264 clips with one, two and five faces in tiles.

    pip install imageio-ffmpeg
    python benchmarks/faces.py

The clips take turns. Medians of the processor time of all threads, and of the time on the clock,
are printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from clips import make_clip, use_cores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 2, 5], help="each from 1 to 6")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--aligner", default="mtcnn", help="mtcnn or mesh")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    use_cores(1)

    import cv2
    import torch

    from pyfau import AUDetector

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = AUDetector(
        device="cpu", aligner=args.aligner, precision=args.precision, engine=args.engine
    )
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as name:
        clips = {
            faces: make_clip(Path(name) / f"{faces}.mp4", faces, args.frames)
            for faces in args.faces
        }
        taken: dict[int, list[tuple[float, float, float]]] = {faces: [] for faces in clips}
        for _ in range(args.rounds):
            for faces, clip in clips.items():
                clock, cpu = time.perf_counter(), time.process_time()
                result = detector.detect_video(clip)
                spent = time.process_time() - cpu, time.perf_counter() - clock
                taken[faces].append(
                    (1e3 * spent[0] / args.frames, 1e3 * spent[1] / args.frames, len(result))
                )
    first = min(clips)
    base = median(cpu for cpu, _, _ in taken[first])
    print(
        "| faces | faces scored a frame | processor, ms a frame | a face more costs | clock, ms a "
        "frame |"
    )
    print("|---|---|---|---|---|")
    for faces, measured in taken.items():
        cpu, clock, rows = (median(values) for values in zip(*measured, strict=True))
        more = f"{(cpu - base) / (faces - first):.1f}" if faces > first else ""
        print(f"| {faces} | {rows / args.frames:.2f} | {cpu:.1f} | {more} | {clock:.1f} |")


if __name__ == "__main__":
    main()
