"""An H.264 clip with one face from file to CSV, compared with MediaPipe and with FFmpeg's decoding.

    pip install imageio-ffmpeg
    python -m venv mp && mp/bin/pip install mediapipe==1.2.2
    python benchmarks/end_to_end.py --cores 1 --mediapipe mp/bin/python
    python benchmarks/end_to_end.py --cores 1 --profile

MediaPipe needs the system's libEGL and libGLESv2.

pyfau's time includes decoding, tracking, alignment, network and CSV. MediaPipe's time includes
decoding, and landmarks with blendshapes in video mode, in its own environment. FFmpeg only decodes.
They take turns, and the medians are printed: time on the clock, and processor time of all threads,
which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from clips import MEDIA, ffmpeg, make_clip, use_cores

LANDMARKER = """
import json, sys, time
import cv2, mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision
clip, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
cv2.setNumThreads(threads)
options = vision.FaceLandmarkerOptions(base_options=python.BaseOptions(model_asset_path=model),
    running_mode=vision.RunningMode.VIDEO, output_face_blendshapes=True, num_faces=1)
with vision.FaceLandmarker.create_from_options(options) as landmarker:
    capture, index, faces, inner = cv2.VideoCapture(clip, cv2.CAP_FFMPEG), 0, 0, 0.0
    clock, cpu = time.perf_counter(), time.process_time()
    while True:
        ok, bgr = capture.read()
        if not ok:
            break
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)
        started = time.perf_counter()
        faces += len(landmarker.detect_for_video(image, index * 40).face_blendshapes)
        inner += time.perf_counter() - started
        index += 1
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
print(json.dumps({"frames": index, "faces": faces, "clock": clock, "cpu": cpu, "inner": inner}))
"""

# What `--profile` measures: (where, name, label). Indented ones are part of the one above.
STAGES = [
    ("pyfau.faces.tracker:FaceTracker", "update", "tracker"),
    ("pyfau.faces.mtcnn:MTCNNAligner", "detect", "  search (every 30 frames)"),
    ("pyfau.faces.mtcnn:MTCNNAligner", "refine", "  refine"),
    ("pyfau.faces.mtcnn:MTCNNAligner", "_crops", "    windows"),
    ("pyfau.faces.mtcnn:_ONet", "forward", "    O-Net"),
    ("pyfau.faces.mesh:MeshAligner", "follow", "  follow (aligner mesh)"),
    ("pyfau.faces.mesh_network:MeshNetwork", "forward", "    landmark network"),
    ("pyfau.pipeline", "cut_face", "aligned crop"),
    ("pyfau.models.mdhr:MDHR", "preprocess", "network: preprocess"),
    ("pyfau.models.mdhr:MDHR", "encode", "network: encode"),
    ("pyfau.models.mdhr:MDHR", "relate", "network: relate"),
    ("pyfau.pipeline:Pipeline", "_make_rows", "rows"),
    ("pyfau.tables.writers:CSVWriter", "write", "CSV"),
]


def children_time() -> float:
    """Processor time of the child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of each step, as `pyfau detect --threads`; the three steps of pyfau run in parallel",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, help="of the clip, 472 by default")
    parser.add_argument("--height", type=int, default=720, help="of the clip in pixels; 16:9")
    parser.add_argument(
        "--mediapipe", metavar="PYTHON", help="interpreter of the environment that has MediaPipe"
    )
    parser.add_argument("--aligner", default="auto", help="mtcnn or mesh")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    use_cores(args.cores)

    import cv2
    import torch

    from pyfau import AUDetector

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    detector = AUDetector(
        device="cpu", aligner=args.aligner, precision=args.precision, engine=args.engine
    )
    with tempfile.TemporaryDirectory(prefix="pyfau-bench-") as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", frames=args.frames, height=args.height)

        def ours() -> dict[str, float]:
            clock, cpu = time.perf_counter(), time.process_time()
            frames = len(detector.detect_video(clip, save=folder / "clip.csv"))
            return {
                "frames": frames,
                "clock": time.perf_counter() - clock,
                "cpu": time.process_time() - cpu,
            }

        def theirs() -> dict[str, float]:
            model = MEDIA.parent / "models" / "face_landmarker.task"
            command = [args.mediapipe, "-c", LANDMARKER, str(clip), str(model), str(args.cores)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured: dict[str, float] = json.loads(output.splitlines()[-1])
            if measured["faces"] < 0.9 * measured["frames"]:
                raise SystemExit(f"MediaPipe followed no face: {measured}")
            return measured

        def decode() -> dict[str, float]:
            command = [ffmpeg(), "-loglevel", "error", "-threads", str(args.threads)]
            clock, cpu = time.perf_counter(), children_time()
            subprocess.run([*command, "-i", str(clip), "-f", "null", "-"], check=True)
            return {
                "frames": frames,
                "clock": time.perf_counter() - clock,
                "cpu": children_time() - cpu,
            }

        frames = int(ours()["frames"])  # warm
        if args.profile:
            profile(clip, ours)
            return
        sides: dict[str, Callable[[], dict[str, float]]] = {"pyfau": ours, "ffmpeg": decode}
        if args.mediapipe:
            sides["mediapipe"] = theirs
        rounds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, run in sides.items():
                rounds[side].append(run())
    cores = f"{args.cores} core{'s' if args.cores > 1 else ''}"
    result: dict[str, dict[str, float]] = {}
    for side, taken in rounds.items():
        result[side] = {
            key: median(1e3 * r[key] / r["frames"] for r in taken)
            for key in taken[0]
            if key != "frames"
        }
        clock, cpu = result[side]["clock"], result[side]["cpu"]
        print(
            f"{side:10} {cores}: {clock:6.2f} ms a frame, {1e3 / clock:.1f} frames/s; processor "
            f"{cpu:6.2f} ms a frame"
        )
    if "mediapipe" in result:
        print(
            f"           of which its landmarker {result['mediapipe']['inner']:.2f} ms a frame on "
            "the clock"
        )
        for key, label in (("clock", "on the clock"), ("cpu", "of the processor")):
            print(
                f"pyfau takes {result['pyfau'][key] / result['mediapipe'][key]:.2f} x MediaPipe's "
                f"time {label}"
            )


def profile(clip: Path, run: Callable[[], dict[str, float]]) -> None:
    """Processor time of each stage. For stages in threads, it is the time of the thread alone."""
    import importlib

    from pyfau.media.readers import read_video

    spent: dict[str, float] = defaultdict(float)
    clock = time.thread_time

    def timed(
        label: str, call: Callable[..., Any], clock: Callable[[], float] = clock
    ) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = clock()
            try:
                return call(*arguments, **options)
            finally:
                spent[label] += clock() - started

        return wrapped

    def decode() -> int:
        with read_video(clip, ahead=0, planar=True) as reader:
            return sum(1 for _ in reader)

    # FFmpeg has its own threads, so decoding is measured alone, over all threads.
    timed("decode", decode, time.process_time)()
    for place, name, label in STAGES:
        module, _, cls = place.partition(":")
        owner: Any = importlib.import_module(module)
        owner = getattr(owner, cls) if cls else owner
        setattr(owner, name, timed(label, getattr(owner, name)))
    total = run()
    labels = ["decode", *(label for _, _, label in STAGES)]
    print("| step | ms a frame |\n|---|---|")
    for label in labels:
        print(f"| {label.replace('  ', '&emsp;')} | {1e3 * spent[label] / total['frames']:.2f} |")
    outer = sum(spent[label] for label in labels if not label.startswith(" "))
    print(f"| all else | {1e3 * (total['cpu'] - outer) / total['frames']:.2f} |")
    print(f"| **sum** | **{1e3 * total['cpu'] / total['frames']:.2f}** |")


if __name__ == "__main__":
    main()
