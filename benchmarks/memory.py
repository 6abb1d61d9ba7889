"""Compares the peak memory of long and short videos, for each way of scoring them.

    pip install imageio-ffmpeg
    python benchmarks/memory.py --minutes 1 30
    python benchmarks/memory.py --minutes 1 30 --ways iter_video "detect_video(save=...)" --nobody

A 720p H.264 clip with one face is looped without encoding it again; every measurement is a process
of its own. The peak is that of the resident set, as the system counts it. With `--nobody`, no face
is searched, so that a long video takes minutes instead of an hour. Then everything except tracking
and network is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clips import loop_clip, make_clip, use_cores

WAYS = {
    "iter_video": "for row in make().iter_video(clip): rows += 1",
    "detect_video(save=...)": "rows = len(make().detect_video(clip, save=folder + '/a.csv'))",
    "detect_video(overlay=...)": "rows = len(make().detect_video(clip, overlay=folder + '/a.mp4'))",
    "pyfau detect": "from pyfau.cli import main; main(['detect', clip, '-o', folder + '/b.csv', "
    "'--quiet'])",
}
PROGRAM = """
import resource, sys
import cv2, torch
torch.set_num_threads(1); cv2.setNumThreads(1)
from pyfau import AUDetector
class Nobody:
    def detect(self, rgb): return []
    def refine(self, rgb, boxes): return []
clip, folder, rows = sys.argv[1], sys.argv[2], 0
make = lambda: AUDetector(device="cpu", aligner={aligner})
{way}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(way: str, clip: Path, folder: Path, nobody: bool) -> float:
    """In MiB."""
    program = PROGRAM.format(way=WAYS[way], aligner="Nobody()" if nobody else "'mtcnn'")
    command = [sys.executable, "-c", program, str(clip), str(folder)]
    return float(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs=2, default=(1.0, 30.0))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--nobody", action="store_true", help="look for no faces; not with `pyfau detect`"
    )
    args = parser.parse_args()
    use_cores(1)
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4")
        clips = [loop_clip(clip, folder / f"{minutes:g}.mp4", minutes) for minutes in args.minutes]
        for way in args.ways:
            started = time.monotonic()
            short, long = (peak(way, looped, folder, args.nobody) for looped in clips)
            minutes = " and ".join(f"{m:g}" for m in args.minutes)
            print(
                f"{way}: {minutes} minutes: {short:.0f} and {long:.0f}, {long - short:+.0f}",
                flush=True,
            )
            print(f"  ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
