"""What several tests make: clips from frames, and modules from scripts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np

from pyfau.types import UInt8Array

CODECS = {".avi": "MJPG", ".webm": "VP80"}  # other files have MPEG-4
TICK = Fraction(1, 12_000)  # s
RATE = 48_000  # of the sound, in Hz


def write_clip(
    path: Path, frames: Iterable[UInt8Array], fps: float = 25.0, codec: str | None = None
) -> Path:
    """Write a clip of constant frame rate, without sound.

    Args:
        path: The ending decides on the container. Its folder is made where it does not exist.
        frames: (H, W, 3) uint8 RGB, at least one.
        fps: Frames per second.
        codec: Four characters, such as "mp4v"; by default the codec that suits the ending.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*(codec or CODECS.get(path.suffix, "mp4v")))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
    assert writer.isOpened()
    writer.write(cv2.cvtColor(first, cv2.COLOR_RGB2BGR))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_timed_clip(
    path: Path,
    frames: Sequence[UInt8Array],
    times: Sequence[float],
    sound: str | None = None,
    sound_from: float = 0.0,
) -> Path:
    """Write a clip with a time for each frame, in H.264 (.webm: VP9), and perhaps with a tone.

    Args:
        path: The ending decides on the container.
        frames: (H, W, 3) uint8 RGB, as many as times.
        times: In seconds.
        sound: The encoder of a tone of 440 Hz that lasts to the last time, such as "aac".
        sound_from: When the tone begins, in seconds.
    """
    webm = path.suffix == ".webm"
    with av.open(str(path), "w") as file:
        video = file.add_stream("libvpx-vp9" if webm else "libx264", rate=30)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = TICK
        video.options = {"deadline": "realtime"} if webm else {"tune": "zerolatency"}
        tone = file.add_stream(sound, rate=RATE, layout="mono") if sound else None
        for rgb, time_s in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = round(time_s / TICK), TICK
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if tone is not None:
            for part in _tone(sound_from, times[-1]):
                file.mux(tone.encode(part))
            file.mux(tone.encode(None))
    return path


def _tone(start_s: float, end_s: float) -> Iterator[av.AudioFrame]:
    for start in range(round(start_s * RATE), round(end_s * RATE), 960):
        wave = 20_000 * np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / RATE)
        part = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
        yield part


def load(script: Path) -> ModuleType:
    """A script outside all packages, as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
