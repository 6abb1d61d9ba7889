"""Frames of a decoder to 8-bit RGB.

Ordinary video is converted by FFmpeg's scaler with the colour matrix and range that the file
names; BT.601 and limited range where it names none, as FFmpeg itself does.

Video with a high dynamic range (PQ and HLG) is tone-mapped: an ordinary conversion makes it flat
and pale, and faces in it then look different from what the networks were trained on. The map
depends on one pixel alone, so it is computed once for a lattice of colours (a 3D table), and the
filter `lut3d` of FFmpeg interpolates in it.
"""

from __future__ import annotations

import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.reformatter import VideoReformatter

from pyfau.errors import MediaError
from pyfau.planes import Planes
from pyfau.types import UInt8Array

Array = npt.NDArray[np.float64]

# Numbers of ITU-T H.273, as in FFmpeg.
_PQ, _HLG = 16, 18
_UNSPECIFIED, _RGB_MATRIX = 2, 0
_BT601 = 5  # the scaler's name for it
_FULL_RANGE = 2

# Formats whose frames can stay in planes, and whether their range is full in every case.
_PLANAR = {"yuv420p": False, "yuvj420p": True}
# Shares of red and blue in the brightness, for the colour matrices of ordinary video.
_LUMA_SHARES = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601
    6: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
_LATTICE = 33  # points on each axis of the 3D table; its file has 36,000 lines
_PEAK_NITS = 1000.0  # brighter than nearly all that such files hold
# Diffuse white: that of ordinary displays, which converted video keeps, and that of ITU-R BT.2408.
# Between them, the brightest part of the first frame decides.
_LEAST_WHITE_NITS, _MOST_WHITE_NITS = 100.0, 203.0
_BRIGHT_PERCENT = 99.5
# Linear light up to which brightness stays in proportion, in video without and with highlights
# over diffuse white; the rest is for highlights.
_KNEE, _LOW_KNEE = 0.7, 0.5
_DISPLAY_GAMMA = 2.4  # ITU-R BT.1886

# Linear RGB of BT.2020 to that of BT.709: ITU-R BT.2087.
_TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ]
)
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])  # ITU-R BT.2020


class _Levels(NamedTuple):
    """How Y'CbCr is stored in 8 bits.

    Attributes:
        black: Y' of black.
        luma: Y' of white, less that of black.
        chroma: Largest Cb or Cr, less the smallest.
        lost: Red, green and blue that FFmpeg's scaler loses on average, because it rounds down in
            several steps.
    """

    black: int
    luma: int
    chroma: int
    lost: tuple[float, float, float]


_FULL_LEVELS = _Levels(0, 255, 255, (0.5, 1.0, 0.5))
_LIMITED_LEVELS = _Levels(16, 219, 224, (1.0, 1.5, 1.0))


class _Exposure(NamedTuple):
    """What the tone map adapts to: diffuse white in nits, and where its shoulder begins."""

    white: float
    knee: float


class RGBConverter:
    """Converts frames of one video, whatever their size, format and colours."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._toned: tuple[Any, Graph] | None = None
        self._exposure: _Exposure | None = None
        self._lock = threading.Lock()  # frames in planes are converted later, in other threads

    def planes(self, frame: Any) -> Planes | None:
        """The planes of a frame, without a copy.

        Args:
            frame: An `av.VideoFrame`.

        Returns:
            None if the frame has another format than 4:2:0 with 8 bits, a high dynamic range, an
            unusual colour matrix, or an odd width or height.
        """
        if frame.format.name not in _PLANAR or is_hdr(frame):
            return None
        if frame.width % 2 or frame.height % 2:
            return None
        # The lines of an image that was flipped without a copy have a negative size.
        if any(plane.line_size <= 0 for plane in frame.planes):
            return None
        to_rgb = _matrix_to_rgb(_matrix_of(frame), _is_full_range(frame))
        if to_rgb is None:
            return None
        luma, blue, red = (_plane(plane) for plane in frame.planes)
        return Planes(luma, blue, red, to_rgb, lambda: self.convert(frame))

    def convert(self, frame: Any) -> UInt8Array:
        """Convert a frame.

        Args:
            frame: An `av.VideoFrame`.

        Returns:
            (H, W, 3) uint8 RGB, contiguous.

        Raises:
            MediaError: FFmpeg cannot convert these colours, such as those of the matrix YCgCo.
        """
        try:
            with self._lock:
                return self._convert(frame)
        except av.FFmpegError as error:
            raise MediaError(
                f"FFmpeg cannot convert its colours: pixel format {frame.format.name}, matrix "
                f"{int(frame.colorspace)} of ITU-T H.273 ({error.strerror})"
            ) from error

    def _convert(self, frame: Any) -> UInt8Array:
        transfer = int(frame.color_trc)
        if transfer in (_PQ, _HLG):
            return _pixels(self._tone(frame, transfer))
        # Conversion of one frame is too short for threads to be worth their start.
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=_matrix_of(frame),
            interpolation="BILINEAR",
            threads=1,
        )
        return _pixels(rgb)

    def _tone(self, frame: Any, transfer: int) -> Any:
        key = (frame.width, frame.height, frame.format.name, transfer)
        if self._toned is None or self._toned[0] != key:
            if self._exposure is None:
                self._exposure = self._measure(frame, transfer)
            self._toned = key, _tone_graph(frame, transfer, self._exposure)
        graph = self._toned[1]
        graph.vpush(frame)
        return graph.vpull()

    def _measure(self, frame: Any, transfer: int) -> _Exposure:
        """How bright a video is, from its first frame."""
        rgb = _pixels(self._reformatter.reformat(frame, format="rgb24", threads=1))
        signal = np.percentile(rgb.max(axis=2), _BRIGHT_PERCENT) / 255
        nits = float(_nits(np.full((1, 3), signal), transfer)[0, 0])
        # In steps, so that few different tables are made.
        white = min(max(5.0 * round(nits / 5.0), _LEAST_WHITE_NITS), _MOST_WHITE_NITS)
        return _Exposure(white, _LOW_KNEE if nits > 1.1 * white else _KNEE)


def is_hdr(frame: Any) -> bool:
    """Whether a frame has a high dynamic range."""
    return int(frame.color_trc) in (_PQ, _HLG)


def _matrix_of(frame: Any) -> int:
    """The number of the colour matrix; BT.601 where the file names none."""
    matrix = int(frame.colorspace)
    return _BT601 if matrix == _UNSPECIFIED else matrix


def _is_full_range(frame: Any) -> bool:
    """Whether the levels of a frame in one of the formats of `_PLANAR` go from 0 to 255."""
    return _PLANAR[frame.format.name] or int(frame.color_range) == _FULL_RANGE


@lru_cache(maxsize=16)
def _matrix_to_rgb(matrix: int, is_full: bool) -> Array | None:
    """RGB from Y', Cb, Cr and 1 with the mean levels of FFmpeg's scaler: (3, 4), ITU-T H.273."""
    if matrix not in _LUMA_SHARES:
        return None
    red, blue = _LUMA_SHARES[matrix]
    green = 1 - red - blue
    levels = _FULL_LEVELS if is_full else _LIMITED_LEVELS
    luma, chroma = 255 / levels.luma, 255 / levels.chroma
    to_red, to_blue = 2 * chroma * (1 - red), 2 * chroma * (1 - blue)
    linear = np.array(
        [
            [luma, 0, to_red],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, to_blue, 0],
        ]
    )
    shift = -linear @ np.array([levels.black, 128, 128]) - np.array(levels.lost)
    return np.concatenate([linear, shift[:, None]], axis=1)


def _plane(plane: Any) -> UInt8Array:
    """A plane of a frame without a copy and without the padding of its lines."""
    lines = np.frombuffer(plane, np.uint8, plane.line_size * plane.height)
    return lines.reshape(plane.height, plane.line_size)[:, : plane.width]


def _pixels(rgb: Any) -> UInt8Array:
    """The pixels of a packed RGB frame, without a copy where its lines have no padding."""
    plane = rgb.planes[0]
    width, height = rgb.width, rgb.height
    if plane.line_size != 3 * width:
        return np.asarray(rgb.to_ndarray(), np.uint8)
    return np.frombuffer(plane, np.uint8, 3 * width * height).reshape(height, width, 3)


def _tone_graph(frame: Any, transfer: int, exposure: _Exposure) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=frame.time_base,
    )
    span = "full" if int(frame.color_range) == _FULL_RANGE else "limited"
    matrix = "bt2020nc"
    scale = graph.add("scale", f"in_color_matrix={matrix}:in_range={span}:out_range=full")
    planar = graph.add("format", "gbrp16le")
    with tempfile.TemporaryDirectory(prefix="pyfau-") as folder:
        path = Path(folder) / "tone.cube"
        path.write_text(_cube(transfer, exposure), encoding="ascii")
        table = graph.add("lut3d", f"file={_escaped(path)}:interp=tetrahedral")
    packed = graph.add("format", "rgb24")
    sink = graph.add("buffersink")
    graph.link_nodes(source, scale, planar, table, packed, sink)
    graph.configure()
    return graph


def _escaped(path: Path) -> str:
    """A path as an argument of a filter."""
    text = path.as_posix()
    for character in "\\':[],;":
        text = text.replace(character, "\\" + character)
    return text.replace("\\", "\\\\")


@lru_cache(maxsize=8)
def _cube(transfer: int, exposure: _Exposure) -> str:
    """The tone map as a 3D table in the .cube format of Adobe: red changes fastest."""
    axis = np.linspace(0.0, 1.0, _LATTICE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    lines = [f"LUT_3D_SIZE {_LATTICE}"]
    lines += [f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in tone_map(colours, transfer, *exposure)]
    return "\n".join(lines) + "\n"


def tone_map(signal: Array, transfer: int, white: float, knee: float = _KNEE) -> Array:
    """What colours with a high dynamic range look like on an ordinary display.

    Args:
        signal: (N, 3) float, non-linear RGB of BT.2020 in [0, 1].
        transfer: 16 for PQ, 18 for HLG.
        white: Diffuse white in nits.
        knee: Linear light up to which brightness stays in proportion.

    Returns:
        (N, 3) float, non-linear RGB of BT.709 in [0, 1].
    """
    nits = _nits(signal, transfer)
    # The brightest channel is compressed and the others follow, which keeps hue and saturation.
    brightest = np.max(nits, axis=-1, keepdims=True)
    factor = _compress(brightest, white, knee) / np.maximum(brightest, 1e-6)
    linear = (nits * factor) @ _TO_BT709.T
    return np.asarray(np.power(np.clip(linear, 0.0, 1.0), 1 / _DISPLAY_GAMMA))


def _nits(signal: Array, transfer: int) -> Array:
    return _pq_nits(signal) if transfer == _PQ else _hlg_nits(signal)


def _pq_nits(signal: Array) -> Array:
    """SMPTE ST 2084."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(signal, 1 / m2)
    light: Array = np.power(np.maximum(power - c1, 0.0) / (c2 - c3 * power), 1 / m1)
    return 10_000.0 * light


def _hlg_nits(signal: Array) -> Array:
    """ITU-R BT.2100, for a display with a peak of 1,000 nits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ _LUMA_2020
    light: Array = scene * np.power(luminance, 0.2)[:, None]
    return 1000.0 * light


def _compress(nits: Array, white: float, knee: float) -> Array:
    """Display light in [0, 1]: in proportion up to a knee, then a shoulder that never clips.

    The shoulder is a logarithm. It has the slope of the straight part where it begins, and ends at
    1 with the peak.
    """
    light = nits / white
    room = 1.0 - knee
    longest = _PEAK_NITS / white - knee
    # The slope at the knee is 1 for strength = log(1 + strength * longest) / room.
    strength = 1.0 / room**2
    for _ in range(50):
        strength = np.log1p(strength * longest) / room
    over = np.clip(light - knee, 0.0, longest)
    shoulder = knee + room * np.log1p(strength * over) / np.log1p(strength * longest)
    compressed: Array = np.where(light <= knee, light, shoulder)
    return compressed
