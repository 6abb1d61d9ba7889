"""Recordings as people have them: what is right for each file was taken from ffprobe and ffmpeg."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pyfau.errors import OptionError
from pyfau.media.frames import FrameReader
from pyfau.types import Frame
from pyfau.video import read_frames, read_image, read_video

CASES = Path(__file__).parents[1] / "data" / "cases"
STEP = 1 / 30


def read(name: str) -> tuple[FrameReader, list[Frame]]:
    reader = read_video(CASES / name)
    return reader, list(reader)


def times(frames: list[Frame]) -> np.ndarray:
    return np.array([frame.time_s for frame in frames])


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """The clip that the files show, as it was recorded."""
    return [frame.rgb for frame in read_video(CASES / "hevc_10bit.mp4")]


def likeness(rgb: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images, brought to one small size."""
    import cv2

    small = [cv2.resize(p, (120, 68), interpolation=cv2.INTER_AREA).ravel() for p in (rgb, other)]
    return float(np.corrcoef(small)[0, 1])


def test_the_control_clip_is_the_clip(clip: list[np.ndarray]) -> None:
    assert len(clip) == 60
    assert clip[0].shape == (270, 480, 3)
    assert 130 < np.mean(clip) < 150


# Controls


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("hevc_10bit.mp4", 60),
        ("yuv444.mp4", 60),
        ("webm_no_duration.webm", 60),
        ("bframes_open_gop.mp4", 60),
        ("cover_first.mp4", 60),
        ("av1.mp4", 60),
    ],
)
def test_ordinary_files(clip: list[np.ndarray], name: str, count: int) -> None:
    reader, frames = read(name)
    assert [frame.index for frame in frames] == list(range(count))
    np.testing.assert_allclose(times(frames), STEP * np.arange(count), atol=1e-3)
    assert {frame.rgb.shape for frame in frames} == {(270, 480, 3)}
    assert not reader.warnings
    assert not reader.holes
    for k in (0, 20, 59):
        assert likeness(frames[k].rgb, clip[k]) > 0.97


def test_a_raw_stream_has_no_times(clip: list[np.ndarray]) -> None:
    reader, frames = read("raw_stream.h264")
    np.testing.assert_allclose(times(frames), STEP * np.arange(60), atol=1e-6)
    assert len(reader.warnings) == 1
    assert "time stamp" in reader.warnings[0]
    assert likeness(frames[30].rgb, clip[30]) > 0.97


def test_a_recording_that_was_cut_off() -> None:
    reader, frames = read("webcam_cut_60pct.mkv")
    assert len(frames) == 30
    assert reader.warnings == ["the file announces 60 frames, but holds 30: it may be truncated"]


# Images that are stored in another way than they are seen


def test_interlaced(clip: list[np.ndarray]) -> None:
    reader, frames = read("h264_interlaced.mts")
    assert [frame.index for frame in frames] == list(range(50))
    np.testing.assert_allclose(times(frames), 0.04 * np.arange(50), atol=1e-4)
    assert not reader.warnings
    # 25 frames a second were taken from 30.
    for frame in frames[::7]:
        nearest = min(59, round(frame.time_s * 30))
        assert likeness(frame.rgb, clip[nearest]) > 0.97
    # No comb: lines that follow each other are alike.
    rgb = frames[25].rgb.astype(float)
    assert np.abs(np.diff(rgb, axis=0)).mean() < 1.3 * np.abs(rgb[2:] - rgb[:-2]).mean()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dv_pal_16x9.mp4", (576, 1024, 3)),
        ("dv_pal_4x3.mp4", (576, 768, 3)),
        ("dv_ntsc_4x3.mp4", (480, 640, 3)),
    ],
)
def test_pixels_become_square(name: str, shape: tuple[int, ...]) -> None:
    reader, frames = read(name)
    assert {frame.rgb.shape for frame in frames} == {shape}
    assert not reader.warnings


@pytest.mark.parametrize("name", ["mirrored_matrix.mp4", "mirrored_90.mp4", "rotated_90.mp4"])
def test_display_matrices(clip: list[np.ndarray], name: str) -> None:
    """Each file shows the clip when its matrix is applied, as ffmpeg does."""
    _, frames = read(name)
    assert len(frames) == 30
    seen = likeness(frames[10].rgb, clip[10])
    assert frames[10].rgb.shape == (270, 480, 3)
    assert seen > 0.97
    for other in (clip[10][::-1], clip[10][:, ::-1], clip[10][::-1, ::-1]):
        assert likeness(frames[10].rgb, other) < seen - 0.1


def test_the_size_changes_in_mid_stream() -> None:
    for name, shapes in [
        ("size_turns.ts", {(270, 480, 3): 30, (270, 152, 3): 30}),
        ("size_changes.ts", {(270, 480, 3): 30, (180, 320, 3): 30}),
    ]:
        reader, frames = read(name)
        assert [frame.index for frame in frames] == list(range(60))
        assert Counter(frame.rgb.shape for frame in frames) == shapes
        np.testing.assert_allclose(np.diff(times(frames)), STEP, atol=1e-3)
        assert not reader.warnings


def test_high_dynamic_range_looks_like_the_ordinary_clip(clip: list[np.ndarray]) -> None:
    _, frames = read("hdr_hlg.mov")
    assert len(frames) == 60
    for k in (0, 30, 59):
        rgb = frames[k].rgb.astype(float)
        assert likeness(frames[k].rgb, clip[k]) > 0.97
        assert abs(rgb.mean() - clip[k].mean()) < 8
        assert abs(rgb.std() - clip[k].std()) < 8
        assert (rgb >= 254).mean() < 0.01


# Clocks


def test_sound_that_leads() -> None:
    _, frames = read("audio_leads_07.mp4")
    np.testing.assert_allclose(times(frames), 0.7 + STEP * np.arange(60), atol=1e-3)


def test_a_trimmed_file_is_not_damaged() -> None:
    reader, frames = read("edit_list_cut.mp4")
    assert [frame.index for frame in frames] == list(range(47))
    assert times(frames)[[0, 45, 46]] == pytest.approx([0.0, 1.5, 1.6], abs=1e-3)
    assert not reader.warnings
    assert not reader.holes


def test_negative_time_stamps() -> None:
    """ffprobe: 15 frames without a time, then 0 to 1.6 s; the file starts at -0.564 s."""
    reader, frames = read("negative_start.mkv")
    seconds = times(frames)
    assert len(frames) == 62
    assert seconds[15] == pytest.approx(0.564, abs=1e-3)
    assert seconds[-1] == pytest.approx(0.564 + 1.6, abs=1e-3)
    np.testing.assert_allclose(seconds[:15], 0.064 + STEP * np.arange(15), atol=2e-3)
    assert len(reader.warnings) == 1


def test_doubled_time_stamps() -> None:
    reader, frames = read("dup_pts.mkv")
    np.testing.assert_allclose(times(frames), STEP * np.arange(40), atol=2e-3)
    assert len(reader.warnings) == 1
    assert reader.warnings[0].startswith("frame 1 has a missing or backward time stamp")


def test_a_clock_that_restarts() -> None:
    reader, frames = read("clock_restarts.ts")
    assert [frame.index for frame in frames] == list(range(60))
    np.testing.assert_allclose(times(frames), STEP * np.arange(60), atol=1e-3)
    assert [warning.split(" has ")[0] for warning in reader.warnings] == ["frame 30"]


def test_a_clock_that_wraps() -> None:
    reader, frames = read("ts_wrap_33bit.ts")
    assert len(frames) == 47
    # Sound starts 64 ms before the image.
    assert frames[0].time_s == pytest.approx(0.064, abs=1e-3)
    np.testing.assert_allclose(np.diff(times(frames))[:45], STEP, atol=1e-3)
    assert not reader.warnings


def test_a_rate_that_falls() -> None:
    reader, frames = read("rate_30_then_5.mp4")
    expected = np.concatenate([STEP * np.arange(31), 1 + 0.2 * np.arange(1, 30)])
    np.testing.assert_allclose(times(frames), expected, atol=1e-3)
    assert [frame.index for frame in frames] == list(range(60))
    assert not reader.warnings


# Holes


def test_a_gap_in_the_recording() -> None:
    reader, frames = read("drop_gap.mkv")
    assert len(frames) == 44
    assert [frame.index for frame in frames][:11] == [*range(10), 25]
    assert times(frames)[9:11] == pytest.approx([0.3, 0.833], abs=1e-3)
    assert reader.warnings[0] == "frames 10 to 24 are missing: a hole of 0.533 s after 0.300 s"
    assert (reader.holes[0].index, reader.holes[0].count) == (10, 15)


@pytest.mark.parametrize("name", ["zeroed_block.mp4", "zeroed_block.ts"])
def test_a_damaged_block(clip: list[np.ndarray], name: str) -> None:
    reader, frames = read(name)
    assert len(frames) == 47
    seconds = times(frames)
    assert seconds[-1] == pytest.approx(1.967, abs=1e-3)
    # The index is the frame's place in the clip, also after the hole.
    np.testing.assert_allclose(seconds, STEP * np.array([f.index for f in frames]), atol=1e-3)
    assert frames[-1].index == 59
    for frame in frames[-20:]:
        assert likeness(frame.rgb, clip[frame.index]) > 0.97
    assert sum(hole.count for hole in reader.holes) == 13
    longest = max(reader.holes, key=lambda hole: hole.count)
    warning = next(
        w for w in reader.warnings if f"a hole of {longest.end_s - longest.start_s:.3f}" in w
    )
    assert f"after {longest.start_s:.3f} s" in warning


# Streams and images


def test_the_default_stream_and_another(clip: list[np.ndarray]) -> None:
    path = CASES / "two_cameras_second_default.mkv"
    reader, frames = read(path.name)
    assert {frame.rgb.shape for frame in frames} == {(270, 480, 3)}
    assert likeness(frames[10].rgb, clip[10]) > 0.97
    assert reader.warnings == [
        "the file holds 2 video streams; number 1 is read, the default (stream=... selects another)"
    ]
    other = read_video(path, stream=0)
    assert {frame.rgb.shape for frame in other} == {(480, 640, 3)}
    assert not other.warnings
    with pytest.raises(OptionError, match="stream: expected less than 2"):
        read_video(path, stream=2)
    with pytest.raises(OptionError, match="stream"):
        read_video(path, stream=-1)


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_animations(name: str) -> None:
    reader = read_frames(CASES / name)
    frames = list(reader)
    assert reader.kind == "video"
    assert len(frames) == 10
    assert times(frames)[:4] == pytest.approx([0.0, 0.1, 0.3, 0.35], abs=1e-3)
    assert not reader.warnings


def test_avif() -> None:
    assert read_image(CASES / "photo.avif").shape == (562, 572, 3)


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No decoder writes to the terminal."""
    yield
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
