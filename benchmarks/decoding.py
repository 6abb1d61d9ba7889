"""Compares the reading of a video file with pyfau and with plain OpenCV, in turns on the same clip.

    python benchmarks/decoding.py [CLIP] [--threads N] [--rounds N]

Without CLIP, a 720p H.264 clip is made from the portrait of `pyfau demo`. For each program the best
wall time and processor time a frame of all rounds are printed. OpenCV's frames are turned to RGB,
as pyfau's are.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pyfau.demo import demo_frames
from pyfau.media.encoding import open_encoder
from pyfau.media.readers import read_video

SIZE = (1280, 720)
FRAMES = 300


def make_clip(path: Path) -> Path:
    frames = [cv2.resize(frame, SIZE, interpolation=cv2.INTER_CUBIC) for frame in demo_frames()]
    encoder = open_encoder(path, 25.0, SIZE)
    noise = np.random.default_rng(0).integers(0, 8, (8, SIZE[1], SIZE[0], 3), np.uint8)
    for k in range(FRAMES):
        rgb = cv2.add(frames[k % len(frames)], noise[k % len(noise)])
        encoder.write(np.asarray(rgb, np.uint8), k / 25)
    encoder.close(True)
    return path


def with_opencv(clip: Path, threads: int) -> int:
    options = [cv2.CAP_PROP_N_THREADS, threads]
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, options)
    count = 0
    while capture.grab():
        _, bgr = capture.retrieve()
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        count += 1
    capture.release()
    return count


def with_pyfau(clip: Path, threads: int) -> int:
    with read_video(clip, ahead=0) as reader:
        return sum(1 for _ in reader)


def ahead(clip: Path, threads: int) -> int:
    with read_video(clip) as reader:
        return sum(1 for _ in reader)


PROGRAMS: dict[str, Callable[[Path, int], int]] = {
    "OpenCV": with_opencv,
    "pyfau": with_pyfau,
    "pyfau, decoding ahead in a thread": ahead,
}


def measure(clip: Path, threads: int, rounds: int) -> None:
    cv2.setNumThreads(threads)
    best: dict[str, tuple[float, float]] = {}
    counts = set()
    for _ in range(rounds):
        for name, read in PROGRAMS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = read(clip, threads)
            counts.add(count)
            wall_ms = 1000 * (time.perf_counter() - wall) / count
            cpu_ms = 1000 * (time.process_time() - cpu) / count
            known = best.get(name, (wall_ms, cpu_ms))
            best[name] = min(known[0], wall_ms), min(known[1], cpu_ms)
    print(f"{clip.name}: {sorted(counts)} frames, {threads} threads, best of {rounds} rounds")
    for name, (wall_ms, cpu_ms) in best.items():
        print(f"  {name:34} {wall_ms:6.2f} ms a frame, {cpu_ms:6.2f} ms of processor time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.clip is not None:
        measure(args.clip, args.threads, args.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as folder:
        measure(make_clip(Path(folder) / "720p.mp4"), args.threads, args.rounds)


if __name__ == "__main__":
    main()
