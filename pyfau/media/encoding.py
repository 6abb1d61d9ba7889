"""Frames to a video file.

PyAV writes H.264 and VP9 with exact times and sound. OpenCV writes .avi, and every video whose
codec is named by four letters, at a constant rate and without sound.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np

from pyfau.errors import MediaError, OptionError
from pyfau.media.formats import is_image, open_container
from pyfau.media.whole import count_packets, is_whole
from pyfau.types import StrPath, UInt8Array

# What PyAV writes, the first of these that it has. Browsers play all of it.
_PYAV_CODECS = {
    ".mp4": ("libx264", "libopenh264", "h264_videotoolbox"),
    ".mkv": ("libx264", "libopenh264", "h264_videotoolbox"),
    ".webm": ("libvpx-vp9",),
}
_PYAV_OPTIONS = {
    # No look-ahead: the encoder would keep its images in memory, and ten of them take 400 MB in 4K.
    "libx264": {"preset": "superfast", "crf": "20", "tune": "zerolatency"},
    "libvpx-vp9": {
        "deadline": "realtime",
        "cpu-used": "8",
        "row-mt": "1",
        "crf": "30",
        "b": "0",
        "lag-in-frames": "0",
    },
}
# Sound that the container supports and browsers play is copied; other sound is encoded again.
_SOUND = {
    ".mp4": (frozenset({"aac", "mp3", "opus", "flac"}), "aac"),
    ".mkv": (None, ""),  # can contain every kind of sound
    ".webm": (frozenset({"opus", "vorbis"}), "libopus"),
}
# In order of preference. The pip wheels of OpenCV for Linux have no H.264 encoder. VP9 also works
# in .mp4, but OpenCV cannot pass settings to it: a 720p frame takes 235 ms on one core. It takes 4
# ms with mp4v, and 50 ms with VP8, which only .webm and .mkv can contain. Of these, browsers play
# H.264, VP8 and VP9.
OPENCV_CODECS = {
    ".mp4": ("avc1", "mp4v"),
    ".mkv": ("avc1", "mp4v"),
    ".avi": ("XVID", "MJPG"),
    ".webm": ("VP80", "VP90"),
}
_PROBE_BYTES = 2_000_000  # more than a short black video has
_STDERR = threading.Lock()


class VideoEncoder(Protocol):
    """A video file that is being written.

    Attributes:
        codec: What encodes the images, such as "libx264".
        sound: How the sound of the source is written, as text; empty without sound.
        warnings: What went wrong without stopping the work, in words.
    """

    codec: str
    sound: str
    warnings: list[str]

    def write(self, rgb: UInt8Array, time_s: float) -> None:
        """Add an image.

        Args:
            rgb: (H, W, 3) uint8 RGB of the video's size.
            time_s: Its time in seconds; NaN for one step after the last.
        """
        ...

    def close(self, complete: bool) -> None:
        """Finish the file; if not `complete`, sound ends where the images do."""
        ...


def open_encoder(
    path: Path,
    fps: float,
    size: tuple[int, int],
    codec: str | None = None,
    source: StrPath | None = None,
    name: Path | None = None,
) -> VideoEncoder:
    """Begin a video.

    Args:
        path: The file, with a suffix of `OPENCV_CODECS`.
        fps: Frames per second, which the times of the images may depart from.
        size: Width and height, both even.
        codec: Four letters that select a codec of OpenCV; None for H.264 or VP9 by PyAV where the
            suffix allows it.
        source: The video whose sound is kept, which PyAV can do; None for a silent one.
        name: The file as errors name it; None for `path`.

    Raises:
        OptionError: No codec makes such a video, or the file cannot be written.
    """
    encoder = _pyav_encoder(path) if codec is None else None
    shown = path if name is None else name
    if encoder is not None:
        return _PyAVEncoder(path, fps, size, encoder, source, shown)
    return _OpenCVEncoder(path, fps, size, codec, shown)


def _pyav_encoder(path: Path) -> str | None:
    """The encoder that PyAV has for a suffix; builds from other distributors may not have it."""
    for name in _PYAV_CODECS.get(path.suffix.lower(), ()):
        if name in av.codecs_available:
            return name
    return None


class _PyAVEncoder:
    """Writes with PyAV: images at their own times, and the sound of the source with them."""

    def __init__(
        self,
        path: Path,
        fps: float,
        size: tuple[int, int],
        codec: str,
        source: StrPath | None,
        shown: Path,
    ) -> None:
        self._path = path
        self._shown = shown
        self.codec = codec
        self.warnings: list[str] = []
        suffix = path.suffix.lower()
        # 23.976... becomes 24000/1001.
        rate = Fraction(fps).limit_denominator(1001) or Fraction(1, round(1 / fps))
        # A time base in which the steps of the rate are whole numbers, and other times are exact to
        # 0.1 ms.
        self._step = rate.denominator * math.ceil(10_000 / rate.numerator)
        self._base = Fraction(rate.denominator, rate.numerator * self._step)
        self._tick = -self._step
        with self._writing():
            # "faststart" moves the index to the front, so that browsers can play at once.
            options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
            self._file = av.open(
                str(path.absolute()),
                "w",
                format=suffix[1:].replace("mkv", "matroska"),
                options=options,
            )
            stream: Any = self._file.add_stream(
                self.codec, rate=rate, options=_PYAV_OPTIONS.get(self.codec, {})
            )
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = self._base
            # The number of threads is that of OpenCV, because every thread keeps its own images in
            # memory.
            stream.codec_context.thread_count = max(1, cv2.getNumThreads())
            # `write` converts as BT.601 does; without these marks, players guess BT.709 for large
            # images.
            stream.codec_context.colorspace = stream.codec_context.color_primaries = 6
            stream.codec_context.color_trc, stream.codec_context.color_range = 6, 1
            self._stream = stream
            self._sound = (
                None if source is None else _Sound(source, self._file, suffix, self.warnings)
            )
        self.sound = self._sound.kind if self._sound else ""

    def write(self, rgb: UInt8Array, time_s: float) -> None:
        """See `VideoEncoder`."""
        offset = self._sound.video_start if self._sound else Fraction(0)
        aim = self._tick + self._step if math.isnan(time_s) else round(time_s / self._base)
        self._tick = max(aim, self._tick + 1, 0)
        planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self._tick + round(offset / self._base), self._base
        with self._writing():
            self._file.mux(self._stream.encode(frame))
            if self._sound:
                self._sound.write_until(float((self._tick + self._step) * self._base + offset))

    def close(self, complete: bool) -> None:
        """See `VideoEncoder`."""
        try:
            with self._writing():
                self._file.mux(self._stream.encode(None))
                if self._sound:
                    self._sound.write_until(math.inf if complete else 0.0)
                    self._sound.finish()
                self._file.close()
                if self._path.is_file() and not is_whole(self._path):
                    raise OSError("its end is missing; is the disk full?")
        finally:
            if self._sound:
                self._sound.close()
            with suppress(av.FFmpegError, OSError):
                self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise OptionError(
                f"cannot write {self._shown}: {getattr(error, 'strerror', None) or error}"
            ) from error


class _Sound:
    """The first sound track of a video, written together with the images that are drawn from it."""

    def __init__(self, source: StrPath, file: Any, suffix: str, warnings: list[str]) -> None:
        self._file = file
        self._warnings = warnings
        self.kind = ""
        self.video_start = Fraction(0)  # in the file that is written
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._encoded = False
        self._input: Any = None
        try:
            if is_image(source):  # an animation, which has no sound
                return
            self._input = open_container(Path(source))
            sound = self._input.streams.best("audio")
            if sound is not None and sound.codec_context is None:
                self._lose("its codec is unknown")
            elif sound is not None:
                self._begin(sound, suffix)
        except (av.FFmpegError, OSError, ValueError, MediaError) as error:
            self._lose(error)

    def _begin(self, sound: Any, suffix: str) -> None:
        video = self._input.streams.best("video") or sound
        starts: list[Fraction] = [
            (s.start_time or 0) * (s.time_base or Fraction(0)) for s in (video, sound)
        ]
        self.video_start = starts[0] - min(starts)
        self._shift = round(min(starts) / sound.time_base)
        copied, encoder = _SOUND[suffix]
        name = sound.codec_context.codec.canonical_name
        self._encoded = copied is not None and name not in copied
        if self._encoded:
            self._stream = self._file.add_stream(encoder, rate=48_000)
            self._stream.layout = (
                "mono" if sound.codec_context.layout.nb_channels == 1 else "stereo"
            )
        else:
            self._stream = self._file.add_stream_from_template(sound)
        self.kind = f"{name}, encoded as {encoder}" if self._encoded else f"{name}, copied"
        self._packets = self._input.demux(sound)
        self._advance()

    def write_until(self, time_s: float) -> None:
        """Add the sound before a time of the file that is written; infinity for all of it."""
        while self._next is not None and float(self._next.pts * self._next.time_base) < time_s:
            packet = self._next
            if not self._encoded:
                packet.stream = self._stream
                self._file.mux(packet)
            else:
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:  # the next packet may be good again
                    frames = []
                    self._lose(error)
                for frame in frames:
                    self._file.mux(self._stream.encode(frame))
            self._advance()

    def finish(self) -> None:
        """Add the sound that is still in the encoder."""
        if self._encoded:
            self._file.mux(self._stream.encode(None))

    def close(self) -> None:
        """Let go of the source."""
        if self._input is not None:
            self._input.close()

    def _advance(self) -> None:
        """Fetch the next packet that has a time."""
        self._next = None
        try:
            for packet in self._packets:
                if packet.pts is not None:
                    packet.pts -= self._shift
                    packet.dts = packet.pts if packet.dts is None else packet.dts - self._shift
                    self._next = packet
                    return
        except av.FFmpegError as error:
            self._lose(error)

    def _lose(self, reason: object) -> None:
        if not self._warnings:
            self._warnings.append(f"sound is missing in the overlay, at least in part: {reason}")


class _OpenCVEncoder:
    """Writes with OpenCV: images one step apart, whatever their times, and no sound."""

    def __init__(
        self, path: Path, fps: float, size: tuple[int, int], codec: str | None, shown: Path
    ) -> None:
        self._path = path
        self._shown = shown
        self._count = 0
        self.sound = ""
        self.warnings: list[str] = []
        suffix, (width, height) = path.suffix.lower(), size
        tried = OPENCV_CODECS[suffix] if codec is None else (codec,)
        for name in tried:
            if self._can_make(suffix, name, fps, width, height):
                writer = _video_writer(path, name, fps, width, height)
                if writer.isOpened():
                    self._writer, self.codec = writer, name
                    if name == "mp4v" and codec is None:
                        self.warnings.append(
                            "the overlay is MPEG-4 (mp4v) without sound, which browsers do not "
                            "play: this PyAV has no encoder for H.264; the wheels of PyPI have one"
                        )
                    return
        raise OptionError(
            f"cannot write {shown}: this OpenCV makes no {suffix} video of {width}x{height} at "
            f"{fps:g} frames per second with {' or '.join(tried)}"
        )

    def _can_make(self, suffix: str, codec: str, fps: float, width: int, height: int) -> bool:
        try:
            return _makes_video(suffix, codec, fps, width, height)
        except OSError as error:
            raise OptionError(
                f"cannot write {self._shown}: pyfau tries the codec in the temporary folder, which "
                f"cannot be written: {error.strerror or error}"
            ) from error

    def write(self, rgb: UInt8Array, time_s: float) -> None:
        """See `VideoEncoder`."""
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self, complete: bool) -> None:
        """See `VideoEncoder`. OpenCV reports no errors while it writes: the file is read back."""
        self._writer.release()
        if not self._is_written():
            raise OptionError(
                f"cannot write {self._shown}: what was written is cut off or does not play; is the "
                "disk full?"
            )

    def _is_written(self) -> bool:
        if not self._path.is_file() or not is_whole(self._path):
            return False
        return count_packets(self._path) >= self._count and bool(_first_frames(self._path, 1))


@lru_cache(maxsize=64)
def _makes_video(suffix: str, codec: str, fps: float, width: int, height: int) -> bool:
    """Whether a short video can be written, and read back as it was.

    Raises:
        OSError: The temporary folder cannot be written, or has no room.
    """
    with tempfile.TemporaryDirectory(prefix="pyfau-", ignore_cleanup_errors=True) as folder:
        # A full disk must not look like a missing codec, least of all in the cache.
        (Path(folder) / "room").write_bytes(bytes(_PROBE_BYTES))
        path = Path(folder) / f"probe{suffix}"
        writer = _video_writer(path, codec, fps, width, height)
        if not writer.isOpened():
            return False
        for _ in range(3):
            writer.write(np.zeros((height, width, 3), np.uint8))
        writer.release()
        return [frame.shape for frame in _first_frames(path, 4)] == [(height, width, 3)] * 3


def _first_frames(path: Path, count: int) -> list[Any]:
    with _quiet():
        video = cv2.VideoCapture(str(path))
        frames = [video.read()[1] for _ in range(count)]
        video.release()
    return [frame for frame in frames if frame is not None]


def _video_writer(path: Path, codec: str, fps: float, width: int, height: int) -> Any:
    with _quiet():
        return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of C code from the terminal: it prints several for each missing codec."""
    with _STDERR:  # without a lock, two threads would restore each other's file
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        try:
            with Path(os.devnull).open("wb") as null:
                os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
