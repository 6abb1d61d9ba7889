"""What `landmarks=True` costs, from a clip to a CSV file, for the aligners "mtcnn" and "mesh".

    python benchmarks/landmark_columns.py tests/data/media/single_face.mp4 [--rounds 7]

Each detector scores the clip once in each round, in turn. The program prints medians of the
processor time of one thread, in milliseconds per row, and the size of the table per row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import torch

from pyfau import AUDetector


def main() -> None:
    """Print the time with and without landmarks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detectors = {
        (aligner, landmarks): AUDetector(device="cpu", aligner=aligner, landmarks=landmarks)
        for aligner in ("mtcnn", "mesh")
        for landmarks in (False, True)
    }
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in detectors}
    sizes = {}
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as name:
        table = Path(name) / "clip.csv"
        for turn in range(args.rounds + 1):
            for key, detector in detectors.items():
                started = time.process_time()
                rows = len(detector.detect_video(args.clip, save=table))
                spent = 1e3 * (time.process_time() - started) / rows
                sizes[key] = table.stat().st_size / rows
                if turn:  # the first round warms up
                    times[key].append(spent)
    for aligner in ("mtcnn", "mesh"):
        without, with_them = (median(times[aligner, landmarks]) for landmarks in (False, True))
        each = [b - a for a, b in zip(times[aligner, False], times[aligner, True], strict=True)]
        print(
            f"{aligner:6} without {without:6.2f} ms a row, {sizes[aligner, False]:5.0f} bytes; "
            f"with landmarks {with_them:6.2f} ms, {sizes[aligner, True]:5.0f} bytes; "
            f"median difference {median(each):+.2f} ms"
        )


if __name__ == "__main__":
    main()
