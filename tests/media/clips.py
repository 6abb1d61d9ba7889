"""Clips for tests: every frame shows its own number, as a row of black and white squares."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

BITS = 8
WIDTH, HEIGHT = 256, 144
_SQUARE = WIDTH // BITS


def numbered(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """An image with its number in the upper third, a red left half and a ramp below it."""
    rgb = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(BITS):
        rgb[: HEIGHT // 3, bit * _SQUARE : (bit + 1) * _SQUARE] = 235 if number >> bit & 1 else 20
    rgb[HEIGHT // 3 : 2 * HEIGHT // 3, : WIDTH // 2] = (200, 40, 40)
    rgb[2 * HEIGHT // 3 :] = np.linspace(20, 235, WIDTH).astype(np.uint8)[None, :, None]
    # Something that moves, so that no frame is a copy of another.
    cv2.circle(rgb, (10 + 3 * number % (WIDTH - 20), 2 * HEIGHT // 3), 9, (40, 200, 60), -1)
    if size != (WIDTH, HEIGHT):
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return rgb


def number_of(rgb: np.ndarray) -> int | None:
    """The number that an upright image shows; None if it is not clear."""
    height, width = rgb.shape[:2]
    number = 0
    for bit in range(BITS):
        left, right = (bit + 0.25) * width / BITS, (bit + 0.75) * width / BITS
        value = rgb[height // 12 : height // 4, int(left) : int(right)].mean()
        if 80 < value < 175:
            return None
        number |= int(value > 128) << bit
    return number


def is_upright(rgb: np.ndarray) -> bool:
    """Whether the red part is on the left, in the middle."""
    red = rgb[..., 0].astype(int) - rgb[..., 1]
    height, width = red.shape
    middle = red[int(0.4 * height) : int(0.6 * height)]
    return bool(middle[:, : width // 3].mean() > 60 > 25 > middle[:, -width // 3 :].mean())


def write(
    path: Path,
    codec: str,
    *,
    count: int = 50,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    turn: dict[str, Any] | None = None,
    images: Sequence[np.ndarray] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Encode a clip of numbered frames.

    Args:
        path: Its suffix selects the container.
        codec: FFmpeg's name of an encoder.
        count: How many frames.
        rate: Frames per second.
        size: Width and height.
        pixels: The format of pixels.
        options: Of the encoder.
        stamps: A time stamp for each frame, in frames; None for a constant rate.
        aspect: Of a pixel.
        turn: Arguments of `set_display_rotation`.
        images: The frames; None for `numbered` ones.
        container: Options of the container.
    """
    with av.open(str(path), "w", container_options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(**turn)
        for number in range(count):
            rgb = numbered(number, size) if images is None else images[number]
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1) / Fraction(rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def damaged(path: Path, where: float, size: int = 700) -> Path:
    """A copy with a block of zeros at a share of its length."""
    raw = bytearray(path.read_bytes())
    start = int(where * len(raw))
    raw[start : start + size] = bytes(len(raw[start : start + size]))
    copy = path.with_name(f"damaged-{where:.3f}{path.suffix}")
    copy.write_bytes(raw)
    return copy
