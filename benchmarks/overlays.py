"""The cost of an overlay: processor time to draw and encode a frame, bytes in the file, and memory.

    pip install -e ".[video]"
    python benchmarks/overlays.py

The frames are those of `pyfau demo`, scaled. Every measurement is a separate process, on one
core.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clips import use_cores

SIZES = {"720p": (1280, 720), "2160p": (3840, 2160)}


def measure(size: str, suffix: str, engine: str, count: int) -> None:
    import cv2
    import numpy as np

    from pyfau.demo import demo_frames
    from pyfau.media import encoding
    from pyfau.overlay.drawing import draw_overlay
    from pyfau.types import AURow

    cv2.setNumThreads(1)
    if engine == "opencv":
        encoding._PYAV_CODECS = {}
    width, height = SIZES[size]
    frames = [cv2.resize(frame, (width, height)) for frame in demo_frames()[:16]]
    aus = ("AU06", "AU12", "AU25")
    boxes = [
        np.array([(0.05 + 0.19 * i) * width, 0.3 * height, (0.15 + 0.19 * i) * width, 0.6 * height])
        for i in range(5)
    ]
    marks, scores = np.full((5, 2), np.nan, np.float32), np.array([0.7, 0.9, 0.8], np.float32)
    rows = [
        AURow(0, 0.0, i, True, 1.0, box, marks, scores, scores > 0.5, aus)
        for i, box in enumerate(boxes)
    ]

    def cost(rows: list[AURow]) -> float:
        start = time.process_time()
        for frame in frames:
            draw_overlay(frame, rows)
        return 1000 * (time.process_time() - start) / len(frames)

    cost(rows)
    drawn = f"drawing one face {cost(rows[:1]):4.1f} ms, five {cost(rows):4.1f} ms"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as folder:
        path = Path(folder) / f"overlay{suffix}"
        encoder = encoding.open_encoder(path, 25.0, (width, height))
        start = time.process_time()
        for i in range(count):
            encoder.write(frames[i % len(frames)], float("nan"))
        encoder.close(True)
        spent = 1000 * (time.process_time() - start) / count
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        kilobytes = path.stat().st_size / count / 1000
    print(
        f"{size:5} {suffix:5} {encoder.codec:10} {spent:5.1f} ms {kilobytes:5.1f} kB a frame, "
        f"+{grown} MiB; {drawn}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=64)
    args = parser.parse_args()
    if args.one:
        measure(*args.one, args.frames)
        return
    use_cores(1)
    for size in SIZES:
        for suffix, engine in (
            (".mp4", "pyav"),
            (".webm", "pyav"),
            (".mp4", "opencv"),
            (".webm", "opencv"),
        ):
            command = [
                sys.executable,
                __file__,
                "--one",
                size,
                suffix,
                engine,
                "--frames",
                str(args.frames),
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
