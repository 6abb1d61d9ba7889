from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH

from pyfau.errors import MediaError
from pyfau.media.colour import tone_map
from pyfau.video import read_video

PQ, HLG = 16, 18


def pq_signal(nits: np.ndarray) -> np.ndarray:
    """The inverse of SMPTE ST 2084, written here a second time."""
    y = np.power(np.clip(nits, 0, None) / 10_000, 0.1593017578125)
    return np.power((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y), 78.84375)


def hlg_signal(nits: np.ndarray) -> np.ndarray:
    """Grey of a 1,000 nit display in HLG."""
    scene = np.power(np.clip(nits, 0, None) / 1000, 1 / 1.2)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def write_hdr(path: Path, signal: np.ndarray, transfer: int) -> Path:
    """A 10-bit HEVC clip of a grey image, (H, W) of signals in [0, 1], marked as BT.2020."""
    with av.open(str(path), "w") as file:
        options = {"x265-params": "log-level=none:crf=10"}
        stream: Any = file.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9
        context.color_range = 1
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 512, np.uint16)
        planes[:HEIGHT] = np.rint(64 + 876 * signal).astype(np.uint16)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def sdr_image() -> np.ndarray:
    """(H, W) of ordinary display signals in [0, 1]: a ramp and a checkered part."""
    image = np.repeat(np.linspace(0.05, 0.95, WIDTH)[None], HEIGHT, axis=0)
    image[: HEIGHT // 2, ::16] = 0.5
    return image


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("white", [100, 203])
def test_ordinary_video_survives(tmp_path: Path, transfer: int, white: int) -> None:
    """Video that was converted to a high dynamic range comes back as it was, but for its whites."""
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV cannot encode HEVC")
    image = sdr_image()
    nits = white * image**2.4
    signal = pq_signal(nits) if transfer == PQ else hlg_signal(nits)
    rgb = next(read_video(write_hdr(tmp_path / "a.mp4", signal, transfer))).rgb.astype(float)
    columns = np.arange(4, WIDTH - 4)
    seen = rgb[-HEIGHT // 3 :, columns].mean(axis=(0, 2)) / 255
    wanted = image[-1, columns]
    middle = wanted < 0.8
    assert np.abs(seen - wanted)[middle].max() < 0.07
    assert (np.diff(seen) > -0.01).all()
    assert seen[-1] > 0.85


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_highlights_hold(tmp_path: Path, transfer: int) -> None:
    """Steps of light up to 1,000 nits stay apart, and nothing is blown out."""
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV cannot encode HEVC")
    steps = np.array([20, 60, 120, 203, 350, 500, 700, 950.0])
    signal = pq_signal(steps) if transfer == PQ else hlg_signal(steps)
    image = np.repeat(np.repeat(signal, WIDTH // 8)[None], HEIGHT, axis=0)
    rgb = next(read_video(write_hdr(tmp_path / "a.mp4", image, transfer))).rgb.astype(float)
    centres = np.arange(8) * (WIDTH // 8) + WIDTH // 16
    seen = rgb[HEIGHT // 2, centres].mean(axis=-1)
    assert (np.diff(seen) > 1.5).all()
    assert (rgb >= 254).mean() < 0.13  # the brightest step alone
    assert 60 < seen[0] < seen[1] < 190


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("white", [100.0, 203.0])
def test_the_tone_map_is_monotonic_and_keeps_grey(transfer: int, white: float) -> None:
    grey = np.repeat(np.linspace(0, 1, 200)[:, None], 3, axis=1)
    seen = tone_map(grey, transfer, white)
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert (np.diff(seen[:, 0]) >= -1e-9).all()
    assert np.ptp(seen, axis=1).max() < 1e-2
    red = tone_map(np.array([[0.5, 0.2, 0.2]]), transfer, white)[0]
    assert red[0] > 1.3 * red[1]


def test_full_range_and_matrices(tmp_path: Path) -> None:
    """A marked matrix and range are used: colours come back."""
    for name, matrix, span in (("709", 1, 1), ("601", 6, 1), ("full", 1, 2)):
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as file:
            stream: Any = file.add_stream("libx264", rate=25, options={"crf": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = span
            rgb = np.zeros((48, 64, 3), np.uint8)
            rgb[:, :20], rgb[:, 20:40], rgb[:, 40:] = (200, 30, 40), (30, 180, 60), (240, 240, 90)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format="yuv444p",
                dst_colorspace=1 if matrix == 1 else 5,
                dst_color_range=span,
            )
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        seen = next(read_video(path)).rgb
        for column in (10, 30, 52):
            assert np.abs(seen[24, column].astype(int) - rgb[24, column]).max() <= 6, name


def test_dolby_vision_without_a_base_layer_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tag of profile 5 on a stream without colour marks, as FFmpeg reports it."""
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV cannot encode HEVC")
    path = write_hdr(tmp_path / "a.mp4", sdr_image(), 2)
    assert len(list(read_video(path))) == 5
    raw = path.read_bytes()
    assert raw.count(b"hev1") >= 1
    path.write_bytes(raw.replace(b"hev1", b"dvhe"))
    with pytest.raises(MediaError, match="Dolby Vision of profile 5"):
        read_video(path)


def test_colours_that_ffmpeg_cannot_convert_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ycgco.mkv"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = 8
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.colorspace, frame.pts, frame.time_base = 8, 0, Fraction(1, 25)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"ycgco\.mkv: FFmpeg cannot convert .* matrix 8"):
        read_video(path)
