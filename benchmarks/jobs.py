"""Compares `pyfau detect FOLDER --jobs N` with one job, including the start of the processes.

    pip install imageio-ffmpeg
    python benchmarks/jobs.py --jobs 2 --clips 4

One job on one core, one job on all cores, and N jobs on all cores take turns. Each is the command
that a user runs, on H.264 clips at 720p with one face. Medians of the time on the clock are
printed. On a machine that does other work at the same time, they mean little.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from clips import loop_clip, make_clip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, help="of a clip, at most 472, which is the default")
    parser.add_argument("--minutes", type=float, help="of a clip that is looped")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[-args.jobs :]
    if len(cores) < args.jobs:
        raise SystemExit(f"{args.jobs} cores are requested, and there are {len(cores)}")
    ways = {"1 job, 1 core": (1, cores[-1:]), f"1 job, {args.jobs} cores": (1, cores)}
    ways[f"{args.jobs} jobs, {args.jobs} cores"] = (args.jobs, cores)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as name:
        folder = Path(name) / "clips"
        folder.mkdir()
        first = make_clip(Path(name) / "clip.mp4", frames=args.frames)
        if args.minutes:
            first = loop_clip(first, Path(name) / "long.mp4", args.minutes)
        for i in range(args.clips):
            shutil.copy(first, folder / f"{i}.mp4")
        for _ in range(args.rounds):
            for way, (jobs, allowed) in ways.items():
                os.sched_setaffinity(0, allowed)
                command = [
                    sys.executable,
                    "-m",
                    "pyfau",
                    "detect",
                    folder,
                    "-o",
                    Path(name) / "out",
                    "--quiet",
                ]
                started = time.perf_counter()
                threads = str(len(allowed) // jobs)
                subprocess.run(
                    [*command, "--jobs", str(jobs), "--threads", threads],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                taken[way].append(time.perf_counter() - started)
    base = median(taken["1 job, 1 core"])
    for way, times in taken.items():
        print(f"{way:18} {median(times):6.1f} s, {base / median(times):.2f} x one core")


if __name__ == "__main__":
    main()
