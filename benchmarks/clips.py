"""Clips for the benchmarks: H.264 at 720p, made from the shared media with FFmpeg.

OpenCV's wheels cannot encode H.264. `ffmpeg` is taken from the path or from `pip install
imageio-ffmpeg`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


def ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
        except ImportError:
            raise SystemExit("this benchmark needs ffmpeg: pip install imageio-ffmpeg") from None
        found = get_ffmpeg_exe()
    return found


def make_clip(path: Path, faces: int = 1, frames: int | None = None, height: int = 720) -> Path:
    """A woman's face of about 560 pixels at 720p, or up to six of her in tiles, each begun a second
    later. `height` is for one face; the clip is 16:9.
    """
    source = MEDIA / "WolfgangLanger_Pexels.mp4"
    columns, rows = (1, 1) if faces == 1 else (2, 1) if faces == 2 else (3, 2)
    inputs = [f"-ss {i} -i" for i in range(faces)]
    wide, high = 1280 // columns // 2 * 2, 720 // rows // 2 * 2  # of a tile
    chains = [
        f"[{i}:v]scale={wide}:-2:flags=lanczos,crop={wide}:min({high}\\,ih)[t{i}]"
        for i in range(faces)
    ]
    if faces == 1:
        graph = f"[0:v]scale={height * 16 // 9}:{height}:flags=lanczos[out]"
    else:
        tiles = "".join(f"[t{i}]" for i in range(faces))
        layout = "|".join(f"{i % columns * wide}_{i // columns * high}" for i in range(faces))
        graph = (
            ";".join(chains)
            + f";{tiles}xstack=inputs={faces}:layout={layout}:fill=gray,pad=1280:720[out]"
        )
    command = [ffmpeg(), "-loglevel", "error", "-y"]
    for text in inputs:
        command += [*text.split(), str(source)]
    command += [
        "-filter_complex",
        graph,
        "-map",
        "[out]",
        "-an",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
    ]
    command += [
        "-crf",
        "23",
        "-pix_fmt",
        "yuv420p",
        *(["-frames:v", str(frames)] if frames else []),
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


def loop_clip(clip: Path, path: Path, minutes: float) -> Path:
    """The clip over and over, without encoding it again."""
    command = [
        ffmpeg(),
        "-loglevel",
        "error",
        "-y",
        "-stream_loop",
        "-1",
        "-i",
        str(clip),
        "-t",
        str(60 * minutes),
    ]
    subprocess.run([*command, "-c", "copy", str(path)], check=True)
    return path


def use_cores(count: int) -> None:
    """Limit this process and its children to a number of cores.

    Call it before any library counts the cores.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < count:
            raise SystemExit(f"{count} cores are requested, and there are {len(allowed)}")
        os.sched_setaffinity(0, allowed[-count:])
    os.environ["OMP_NUM_THREADS"] = str(count)
