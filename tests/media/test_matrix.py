"""Containers and codecs in all states that recordings come in, made here and read back.

Each frame shows its number, so that index, order and orientation are checked in the image itself.
Where ffprobe is installed, counts and times are compared with it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, damaged, is_upright, number_of, numbered, write

from pyfau.errors import MediaError
from pyfau.types import Frame
from pyfau.video import read_video

COUNT, RATE = 50, 25

# File name, encoder, format of pixels, options of the encoder.
FILES: list[tuple[str, str, str, dict[str, str]]] = [
    ("a.mp4", "libx264", "yuv420p", {"g": "10"}),
    ("high.mp4", "libx264", "yuv422p10le", {"g": "10"}),
    ("a.mov", "libx264", "yuv420p", {"g": "10"}),
    ("a.mkv", "libx264", "yuv420p", {"g": "10"}),
    ("a.ts", "libx264", "yuv420p", {"g": "10"}),
    ("a.flv", "libx264", "yuv420p", {"g": "10"}),
    ("a.avi", "libx264", "yuv420p", {"g": "10"}),
    ("b.avi", "mpeg4", "yuv420p", {"g": "10"}),
    ("hevc.mp4", "libx265", "yuv420p", {"g": "10", "x265-params": "log-level=none"}),
    ("hevc.mkv", "libx265", "yuv420p10le", {"g": "10", "x265-params": "log-level=none"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "10"}),
    ("vp8.webm", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "10"}),
    ("b.mpg", "mpeg2video", "yuv420p", {"b": "2M", "g": "10"}),
    ("bf.mpg", "mpeg2video", "yuv420p", {"b": "2M", "bf": "2", "g": "10"}),
    ("mpeg2.ts", "mpeg2video", "yuv420p", {"b": "2M", "bf": "2", "g": "10"}),
    ("bf.mp4", "mpeg4", "yuv420p", {"bf": "2", "g": "10"}),
    ("mjpeg.mov", "mjpeg", "yuvj420p", {}),
    ("prores.mov", "prores_ks", "yuv422p10le", {}),
    ("a.wmv", "wmv2", "yuv420p", {"g": "10"}),
    ("a.gif", "gif", "rgb8", {}),
    ("a.h264", "libx264", "yuv420p", {"g": "10"}),
]
NAMES = [name for name, *_ in FILES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def made(folder: Path) -> Callable[[str], Path]:
    """Makes a file of the table once."""

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        _, codec, pixels, options = next(row for row in FILES if row[0] == name)
        if codec not in av.codecs_available:
            pytest.skip(f"this PyAV cannot encode {codec}")
        return write(path, codec, count=COUNT, pixels=pixels, options=options)

    return make


def check(frames: list[Frame], indexes: list[int]) -> None:
    assert [frame.index for frame in frames] == indexes
    assert [number_of(frame.rgb) for frame in frames] == indexes
    assert all(is_upright(frame.rgb) for frame in frames)


def ffprobe(path: Path, entry: str) -> list[float]:
    """One number for each frame; NaN where ffprobe has none."""
    program = shutil.which("ffprobe")
    if program is None:
        pytest.skip("ffprobe is not installed: counts and times are not compared with it")
    command = [program, "-v", "quiet", "-select_streams", "v:0"]
    command += ["-show_entries", f"frame={entry}", "-of", "csv=p=0", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [line.strip(", ") for line in done.stdout.splitlines() if line.strip(", ")]
    return [float(value) if value != "N/A" else float("nan") for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_at_its_time(name: str, made: Callable[[str], Path]) -> None:
    path = made(name)
    reader = read_video(path)
    frames = list(reader)
    check(frames, list(range(COUNT)))
    times = np.array([frame.time_s for frame in frames])
    raw = path.suffix == ".h264"
    # Some MPEG program streams have a doubled time stamp, which moves frames by one step.
    atol = 0.041 if path.suffix == ".mpg" else 2e-3
    np.testing.assert_allclose(times, np.arange(COUNT) / RATE, atol=atol)
    assert (np.diff(times) > 0).all()
    if path.suffix != ".mpg":
        assert len(reader.warnings) == raw
    assert not reader.holes


@pytest.mark.parametrize("name", NAMES)
def test_the_same_as_ffprobe(name: str, made: Callable[[str], Path]) -> None:
    path = made(name)
    stamps = np.array(ffprobe(path, "best_effort_timestamp_time"))
    times = np.array([frame.time_s for frame in read_video(path)])
    assert len(times) == len(stamps)
    if path.suffix not in (".mpg", ".avi", ".h264"):
        np.testing.assert_allclose(times - times[0], stamps - stamps[0], atol=2e-3)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv", "hevc.mp4", "b.avi", "bf.mpg"])
def test_the_number_of_threads_changes_nothing(
    name: str, threads: int, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setattr(cv2, "getNumThreads", lambda: threads)
    check(list(read_video(made(name))), list(range(COUNT)))


@pytest.mark.parametrize(
    ("name", "codec", "options", "pixels", "size", "rate"),
    [
        ("a.mts", "libx264", {"x264-params": "tff=1"}, "yuv420p", (WIDTH, HEIGHT), 25),
        ("bff.mp4", "libx264", {"x264-params": "bff=1"}, "yuv420p", (WIDTH, HEIGHT), 25),
        (
            "a.mpg",
            "mpeg2video",
            {"flags": "+ilme+ildct", "b": "4M"},
            "yuv420p",
            (WIDTH, HEIGHT),
            25,
        ),
        ("a.dv", "dvvideo", {}, "yuv420p", (720, 576), 25),
        ("dv.avi", "dvvideo", {}, "yuv411p", (720, 480), Fraction(30000, 1001)),
        ("dv.mov", "dvvideo", {}, "yuv420p", (720, 576), 25),
    ],
)
def test_interlaced(
    tmp_path: Path,
    name: str,
    codec: str,
    options: dict[str, str],
    pixels: str,
    size: tuple[int, int],
    rate: Any,
) -> None:
    path = tmp_path / name
    write(path, codec, count=20, size=size, pixels=pixels, options=options, rate=rate)
    frames = list(read_video(path))
    check(frames, list(range(20)))
    times = [frame.time_s for frame in frames]
    np.testing.assert_allclose(times, np.arange(20) / float(rate), atol=0.041)


TURNS = [
    {"degrees": angle, "hflip": hflip, "vflip": vflip}
    for angle in (0, 90, 180, 270)
    for hflip, vflip in ((False, False), (True, False))
]


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_display_matrices(tmp_path: Path, turn: dict[str, Any], suffix: str) -> None:
    """The image is as ffmpeg turns it; without ffmpeg, its shape and that it is turned at all."""
    path = tmp_path / f"a{suffix}"
    write(path, "libx264", count=3, turn=turn)
    rgb = next(read_video(path)).rgb
    sideways = turn["degrees"] in (90, 270)
    assert rgb.shape == ((WIDTH, HEIGHT, 3) if sideways else (HEIGHT, WIDTH, 3))
    seen = is_upright(rgb) and number_of(rgb) == 0
    assert seen == (turn["degrees"] == 0 and not turn["hflip"])
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed: the image is not compared with it")
    command = [program, "-v", "quiet", "-i", str(path), "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    theirs = np.frombuffer(raw, np.uint8).reshape(rgb.shape)
    assert np.corrcoef(rgb.ravel(), theirs.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("aspect", "width"),
    [
        (Fraction(2), 2 * WIDTH),
        (Fraction(3, 4), 3 * WIDTH // 4),
        (Fraction(64, 45), 364),
        (Fraction(1, 100), WIDTH),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_anamorphic(tmp_path: Path, suffix: str, aspect: Fraction, width: int) -> None:
    path = tmp_path / f"a{suffix}"
    frames = list(read_video(write(path, "libx264", count=5, aspect=aspect)))
    assert {frame.rgb.shape for frame in frames} == {(HEIGHT, width, 3)}
    check(frames, list(range(5)))


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"bf": "0", "g": "10"}), ("mpeg2video", {"b": "2M"})]
)
def test_the_shape_of_pixels_changes(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    parts = [
        write(tmp_path / f"{k}.ts", codec, count=20, aspect=aspect, options=options)
        for k, aspect in enumerate((Fraction(1), Fraction(3, 4)))
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    widths = [frame.rgb.shape[1] for frame in read_video(path)]
    assert widths[:15] == [WIDTH] * 15
    assert widths[20:] == [WIDTH * 3 // 4] * 20


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_variable_rate(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    steps = rng.choice([1, 1, 2, 3], size=60)
    stamps = (np.cumsum(steps) - steps).tolist()
    path = tmp_path / f"a{suffix}"
    reader = read_video(write(path, "libx264", count=60, stamps=stamps, rate=30))
    frames = list(reader)
    check(frames, list(range(60)))
    np.testing.assert_allclose([f.time_s for f in frames], np.array(stamps) / 30, atol=2e-3)
    assert not reader.warnings
    assert not reader.holes


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv", "b.avi", "vp9.webm", "b.mpg", "a.wmv"])
def test_cut_off(name: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    raw = made(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(raw[: len(raw) * 2 // 3])
    frames = list(read_video(path))
    numbers = [number_of(frame.rgb) for frame in frames]
    assert 15 <= len(frames) < COUNT
    assert numbers[:-4] == [frame.index for frame in frames][:-4]


PLACES = [0.1 + 0.8 * k / 19 for k in range(20)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "hevc.mkv", "bf.mp4", "bf.mpg"])
def test_damaged_at_twenty_places(name: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    """Frames after the damage are at their own index again, and what is missing is announced."""
    path = Path(shutil.copy(made(name), tmp_path / name))
    right = read = 0
    for where in PLACES:
        copy = damaged(path, where, size=400)
        try:
            reader = read_video(copy)
        except MediaError:  # the damage hit the description of the streams
            continue
        frames = list(reader)
        read += 1
        indexes = [frame.index for frame in frames]
        assert indexes == sorted(set(indexes))
        assert [f.time_s for f in frames] == sorted({f.time_s for f in frames})
        missing = COUNT - len(frames)
        if missing > 4:
            assert reader.warnings
        # Wrong images until the next key frame are the decoder's; a shift would last.
        wrong = [f.index for f in frames if number_of(f.rgb) not in (f.index, None)]
        right += len(wrong) <= 12
        # The sum holds where the end of the file is there.
        if frames[-1].index == COUNT - 1:
            assert sum(hole.count for hole in reader.holes) == missing
    assert read >= 14
    assert right >= read - 3


def test_the_helper_reads_its_own_numbers() -> None:
    assert [number_of(numbered(k)) for k in range(200)] == list(range(200))
    assert is_upright(numbered(3))
    assert not is_upright(numbered(3)[:, ::-1])
