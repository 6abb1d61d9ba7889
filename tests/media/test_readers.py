from __future__ import annotations

import math
import os
import re
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import write_clip
from PIL import Image

from pyfau import video
from pyfau.errors import InputError, MediaError, OptionError
from pyfau.media import frames as frames_module
from pyfau.media import readers
from pyfau.types import Failure, Frame
from pyfau.video import (
    FrameReader,
    Limits,
    check_frame,
    is_image,
    is_video,
    natural_key,
    read_arrays,
    read_camera,
    read_frames,
    read_image,
    read_images,
    read_video,
)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not reading_threads()


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pyfau-read"]


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_video(path: Path, codec: str = "mp4v", count: int = 30, fps: float = 25.0) -> Path:
    return write_clip(path, (grey(8 * k % 256) for k in range(count)), fps, codec)


def write_image(path: Path, value: int = 100) -> Path:
    Image.fromarray(grey(value)).save(path)
    return path


class FakeCapture:
    """Stands in for cv2.VideoCapture: a time stamp in seconds per frame, None for a lost frame."""

    def __init__(
        self,
        stamps: list[float | None],
        fps: float = 25.0,
        opened: bool = True,
        announced: float | None = None,
    ) -> None:
        self.stamps, self.fps, self.opened = stamps, fps, opened
        self.announced = len(stamps) if announced is None else announced
        self.index = -1
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def grab(self) -> bool:
        self.index += 1
        return self.index < len(self.stamps)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        ok = self.stamps[self.index] is not None
        return ok, grey(self.index) if ok else None

    def read(self) -> tuple[bool, np.ndarray | None]:
        return self.retrieve() if self.grab() else (False, None)

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_POS_MSEC:
            stamp = self.stamps[self.index]
            return 1000.0 * (self.index / 25.0 if stamp is None else stamp)
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: self.announced}.get(prop, 0.0)

    def set(self, prop: int, value: float) -> bool:
        return True

    def release(self) -> None:
        self.released = True


# Video


@pytest.mark.media
@pytest.mark.parametrize(
    ("file", "count", "fps", "shape"),
    [
        ("WolfgangLanger_Pexels.mp4", 472, 24000 / 1001, (360, 640, 3)),
        ("single_face.mp4", 72, 30.0, (360, 640, 3)),
    ],
)
def test_real_clip(media: Path, file: str, count: int, fps: float, shape: tuple[int, ...]) -> None:
    with read_video(media / file) as reader:
        assert (reader.kind, reader.name, reader.frame_count) == ("video", str(media / file), count)
        assert reader.fps == pytest.approx(fps, abs=1e-9)
        times = []
        for index, frame in enumerate(reader):
            assert frame.index == index
            assert frame.file is None
            assert frame.rgb.shape == shape
            assert frame.rgb.dtype == np.uint8
            assert frame.rgb.flags.c_contiguous
            times.append(frame.time_s)
    np.testing.assert_allclose(times, np.arange(count) / fps, atol=1e-6)
    assert not reader.warnings
    assert not reader.failures


@pytest.mark.media
def test_variable_frame_rate_of_a_real_clip(media: Path) -> None:
    # The times in the file's own tables (time to sample, composition offset), read independently.
    raw = (media / "face_noface.mov").read_bytes()

    def table(kind: bytes) -> list[int]:
        at = raw.rindex(kind) + 8  # the last track is the video
        (rows,) = struct.unpack(">I", raw[at : at + 4])
        pairs = struct.unpack(f">{2 * rows}i", raw[at + 4 : at + 4 + 8 * rows])
        return [value for n, value in zip(pairs[::2], pairs[1::2], strict=True) for _ in range(n)]

    at = raw.rindex(b"mdhd") + 16
    (timescale,) = struct.unpack(">I", raw[at : at + 4])
    steps, offsets = np.array(table(b"stts")), np.array(table(b"ctts"))
    expected = np.sort((np.cumsum(steps) - steps + offsets) / timescale)
    with read_video(media / "face_noface.mov") as reader:
        times = np.array([frame.time_s for frame in reader])
    assert len(times) == 169
    np.testing.assert_allclose(times, expected - expected[0], atol=1e-6)
    assert np.ptp(np.diff(times)) > 0.005  # it does vary
    assert not reader.warnings


@pytest.mark.media
def test_edit_list_is_not_taken_for_truncation(media: Path) -> None:
    with read_video(media / "no_face.mp4") as reader:
        assert len(list(reader)) == 95  # of 98 in the file; its edit list shows 95
    assert not reader.warnings


@pytest.mark.media
def test_pixels_are_rgb(media: Path) -> None:
    _, bgr = cv2.VideoCapture(str(media / "single_face.mp4")).read()
    with read_video(media / "single_face.mp4") as reader:
        rgb = next(reader).rgb
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    assert rgb[..., 0].mean() > rgb[..., 2].mean() + 5  # skin is red rather than blue


@pytest.mark.media
def test_truncated_video(media: Path, tmp_path: Path) -> None:
    raw = (media / "WolfgangLanger_Pexels.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(raw[: len(raw) // 4])
    with read_video(path) as reader:
        frames = sum(1 for _ in reader)
    assert 50 < frames < 236
    assert reader.warnings == [
        f"the file announces 472 frames, but holds {frames}: it may be truncated"
    ]


@pytest.mark.media
def test_rotated_video(media: Path, tmp_path: Path) -> None:
    raw = bytearray((media / "WolfgangLanger_Pexels.mp4").read_bytes())
    matrix = raw.index(b"tkhd") + 44
    # As phones write for 90 degrees.
    raw[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)
    path = tmp_path / "rotated.mp4"
    path.write_bytes(raw)
    with read_video(media / "WolfgangLanger_Pexels.mp4") as plain, read_video(path) as rotated:
        np.testing.assert_array_equal(next(rotated).rgb, np.rot90(next(plain).rgb, -1))


def test_variable_frame_rate(tmp_path: Path) -> None:
    raw = bytearray(write_video(tmp_path / "constant.mp4").read_bytes())
    at = raw.index(b"stts")
    count, step = struct.unpack(">2I", raw[at + 12 : at + 20])
    # All grow by one row of the stts table.
    for box in (
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"stts",
    ):
        start = raw.index(box, raw.index(b"moov")) - 4
        raw[start : start + 4] = struct.pack(
            ">I", struct.unpack(">I", raw[start : start + 4])[0] + 8
        )
    raw[at + 8 : at + 20] = struct.pack(">5I", 2, 10, step // 2, count - 10, step * 5 // 4)
    path = tmp_path / "variable.mp4"
    path.write_bytes(raw)
    times = [frame.time_s for frame in read_video(path)]
    assert count == len(times) == 30
    expected = np.cumsum([0.0] + [0.02] * 10 + [0.05] * 19)
    np.testing.assert_allclose(times, expected, atol=1e-3)


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mkv", "MJPG"), ("webm", "VP80")])
def test_other_containers(tmp_path: Path, suffix: str, codec: str) -> None:
    reader = read_frames(write_video(tmp_path / f"clip.{suffix}", codec, fps=24000 / 1001))
    frames = list(reader)
    assert reader.fps == pytest.approx(24000 / 1001, abs=1e-3)
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(30) * 1001 / 24000, atol=1e-3)
    assert [int(f.rgb.mean()) for f in frames] == pytest.approx([8 * k for k in range(30)], abs=4)
    assert not reader.warnings


def test_gif_is_video_with_its_own_times(tmp_path: Path) -> None:
    images = [Image.fromarray(grey(60 * k)) for k in range(4)]
    images[0].save(
        tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 100, 100]
    )
    reader = read_frames(tmp_path / "a.gif")
    assert reader.kind == "video"
    frames = list(reader)
    assert [f.time_s for f in frames] == pytest.approx([0.0, 0.1, 0.4, 0.5])
    assert [int(f.rgb[0, 0, 0]) for f in frames] == [0, 60, 120, 180]


def write_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("missing.mp4", lambda p: None, "no such file"),
        ("folder.mp4", lambda p: p.mkdir(), "is a folder"),
        ("empty.mp4", lambda p: p.touch(), r"is empty \(0 bytes\)"),
        (
            "noise.mp4",
            lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)),
            "not a video file",
        ),
        ("notes.txt", lambda p: p.write_text("some words\n" * 500), "not a video file"),
        ("sound.wav", write_sound, "not a video file"),
        ("pipe.mp4", lambda p: os.mkfifo(p), "not a regular file"),
    ],
)
def test_not_a_video(tmp_path: Path, name: str, make: Any, reason: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(MediaError, match=f"^{re.escape(str(path))}: {reason}.*expected"):
        read_video(path)


@pytest.mark.media
def test_header_without_frames(media: Path, tmp_path: Path) -> None:
    raw = (media / "WolfgangLanger_Pexels.mp4").read_bytes()
    path = tmp_path / "header.mp4"
    path.write_bytes(raw[: raw.index(b"mdat") + 4])
    with pytest.raises(MediaError, match=re.escape(str(path))):
        read_video(path)


@pytest.mark.media
def test_container_from_which_nothing_decodes(media: Path, tmp_path: Path) -> None:
    raw = bytearray((media / "single_face.mp4").read_bytes())
    start = raw.index(b"mdat") + 4
    end = raw.index(b"moov") - 4 if raw.index(b"moov") > start else len(raw)
    raw[start:end] = bytes(end - start)
    path = tmp_path / "zeros.mp4"
    path.write_bytes(raw)
    with pytest.raises(MediaError, match="no frame of it could be decoded"):
        read_video(path)


def test_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=3).read_bytes()
    monkeypatch.chdir(tmp_path)
    # The last name is not valid UTF-8.
    names = ("http:clip.mp4", "a b%03d.mp4", "Bräuße 🙂.MP4", "clip", os.fsdecode(b"bad\xff.mp4"))
    for name in names:
        Path(name).write_bytes(clip)
        reader = read_frames(name)
        assert (reader.name, len(list(reader))) == (name, 3)


# Decoding ahead: in a thread, or in bursts


@pytest.fixture(params=[2, 1], ids=["thread", "bursts"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of cores that `read_video` finds: a thread decodes on two, none on one."""
    monkeypatch.setattr(readers, "own_cores", lambda: request.param)
    return int(request.param)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "own_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_close_ends_the_thread_behind_a_full_queue(tmp_path: Path) -> None:
    reader = read_video(write_video(tmp_path / "a.mp4"), ahead=2)
    assert [next(reader).index, next(reader).index] == [0, 1]
    (thread,) = reading_threads()
    time.sleep(0.1)  # it fills the queue and waits
    assert thread.is_alive()
    reader.close()
    reader.close()
    assert not thread.is_alive()
    assert list(reader) == []


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")
    return any(link.exists() and link.resolve() == path for link in descriptors.iterdir())


@pytest.mark.usefixtures("cores")
def test_close_before_the_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4").resolve()
    reader = read_video(path)
    assert is_open(path)
    reader.close()
    assert not is_open(path)
    assert list(reader) == []


@pytest.mark.usefixtures("cores")
def test_exhausted_reader_is_closed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=2).resolve()
    reader = read_video(path)
    assert len(list(reader)) == 2
    assert not is_open(path)
    assert list(reader) == []


@pytest.mark.usefixtures("cores")
def test_error_in_the_with_block_closes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(ZeroDivisionError), read_video(path, ahead=1) as reader:
        _ = [1 / (1 - frame.index) for frame in reader]
    assert not reading_threads()


@pytest.mark.usefixtures("two_cores")
def test_dropped_reader_ends_its_thread(tmp_path: Path) -> None:
    reader = read_video(write_video(tmp_path / "a.mp4"), ahead=1)
    next(reader)
    next(reader)
    (thread,) = reading_threads()
    del reader
    thread.join(2.0)
    assert not thread.is_alive()


@pytest.mark.parametrize("in_bursts", [False, True])
def test_error_comes_after_the_frames_before_it(in_bursts: bool) -> None:
    def frames() -> Iterator[Frame]:
        for k in range(3):
            yield Frame(k, float(k), grey(k))
        raise RuntimeError("decoder fell over")

    reader = FrameReader(
        "x",
        "video",
        frames(),  # type: ignore[arg-type]
        ahead=8,
        in_bursts=in_bursts,
    )
    seen: list[Frame] = []
    with pytest.raises(RuntimeError, match="decoder fell over"):
        seen.extend(reader)
    assert [frame.index for frame in seen] == [0, 1, 2]
    assert list(reader) == []


def frames_into(made: list[int]) -> Generator[Frame, None, None]:
    """50 frames of 9216 bytes; the number of each is added to the list when it is made."""
    for k in range(50):
        made.append(k)
        yield Frame(k, float(k), grey(k))


@pytest.mark.parametrize(
    ("ahead", "limit", "expected"), [(3, 1 << 20, 4), (100, 3 * 9216, 4), (100, 1, 2)]
)
def test_how_far_ahead(
    monkeypatch: pytest.MonkeyPatch, ahead: int, limit: int, expected: int
) -> None:
    made: list[int] = []
    monkeypatch.setattr(frames_module, "_AHEAD_BYTES", limit)
    with FrameReader("x", "video", frames_into(made), ahead=ahead) as reader:
        next(reader)
        time.sleep(0.1)
        # One delivered, those in the queue, and one in the hand of the thread.
        assert len(made) == expected + 1
        assert [frame.index for frame in reader] == list(range(1, 50))


@pytest.mark.parametrize(
    ("ahead", "limit", "expected"), [(3, 1 << 20, 3), (100, 3 * 9216, 3), (100, 1, 1)]
)
def test_how_long_a_burst_is(
    monkeypatch: pytest.MonkeyPatch, ahead: int, limit: int, expected: int
) -> None:
    made: list[int] = []
    monkeypatch.setattr(frames_module, "_AHEAD_BYTES", limit)
    source = frames_into(made)
    with FrameReader("x", "video", source, ahead=ahead, in_bursts=True) as reader:
        assert not made
        for delivered in range(1, 13):
            next(reader)
            bursts = math.ceil(delivered / expected)
            assert len(made) == bursts * expected
        assert [frame.index for frame in reader] == list(range(12, 50))


def test_on_one_core_the_same_frames_come_without_a_thread(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media / "single_face.mp4"
    monkeypatch.setattr(readers, "own_cores", lambda: 2)
    expected = list(read_video(path))
    monkeypatch.setattr(readers, "own_cores", lambda: 1)
    reader = read_video(path, ahead=3)
    for frame, other in zip(reader, expected, strict=True):
        assert not reading_threads()
        assert (frame.index, frame.time_s) == (other.index, other.time_s)
        np.testing.assert_array_equal(frame.image, other.image)


def test_abandoned_reader_does_not_hold_up_the_interpreter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=60)
    code = f"""
import sys
from pyfau.video import read_video
assert "torch" not in sys.modules
readers = [read_video({str(path)!r}, ahead=n) for n in (1, 4, 100)]
for reader in readers:
    next(reader); next(reader)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=20,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("ahead", [-1, 1.5, True, "4"])
def test_ahead_must_be_whole(media: Path, ahead: Any) -> None:
    with pytest.raises(OptionError, match="ahead"):
        read_video(media / "no_face.mp4", ahead=ahead)


def test_without_a_thread(tmp_path: Path) -> None:
    reader = read_video(write_video(tmp_path / "a.mp4", count=5), ahead=0)
    next(reader)
    next(reader)
    assert not reading_threads()
    assert [frame.index for frame in reader] == [2, 3, 4]


# Cameras


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture([0.0] * 5, fps=0.0)
    now = iter([100.0, 100.05, 100.07, 100.2, 101.0, 102.0])
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    monkeypatch.setattr(readers.time, "monotonic", lambda: next(now, 103.0))
    reader = read_frames(0)
    assert (reader.name, reader.kind, reader.fps, reader.frame_count) == (
        "camera 0",
        "camera",
        None,
        None,
    )
    frames = list(reader)
    assert [f.time_s for f in frames] == pytest.approx([0.0, 0.05, 0.07, 0.2, 1.0])
    assert [f.rgb[0, 0, 0] for f in frames] == [0, 1, 2, 3, 4]  # none dropped
    assert reader.warnings == ["camera 0 stopped after 5 frames"]
    assert capture.released


def test_camera_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: FakeCapture([], opened=False))
    with pytest.raises(MediaError, match="camera 3 could not be opened"):
        read_camera(3)


def test_camera_that_delivers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture([])
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with pytest.raises(MediaError, match="camera 0 was opened but delivers no images"):
        read_camera(0)
    assert capture.released


@pytest.mark.parametrize("index", [-1, True, "0"])
def test_camera_number(index: Any) -> None:
    with pytest.raises(OptionError, match="camera number"):
        read_camera(index)


# Images


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for value, name in enumerate(["img2.png", "img10.png", "IMG1.png", ".hidden.png"]):
        write_image(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    reader = read_frames(str(tmp_path), fps=12.5)
    assert (reader.kind, reader.name, reader.fps, reader.frame_count) == (
        "images",
        str(tmp_path),
        12.5,
        3,
    )
    frames = list(reader)
    assert [f.file for f in frames] == [
        str(tmp_path / n) for n in ("IMG1.png", "img2.png", "img10.png")
    ]
    assert [f.rgb[0, 0, 0] for f in frames] == [2, 0, 1]
    assert [f.time_s for f in frames] == [0.0, 0.08, 0.16]


def test_list_keeps_its_order(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{k}.png", k) for k in (5, 3, 4)]
    frames = list(read_frames(paths))
    assert [f.rgb[0, 0, 0] for f in frames] == [5, 3, 4]
    assert all(math.isnan(f.time_s) for f in frames)
    assert [f.index for f in read_images(map(str, paths))] == [0, 1, 2]


def test_bad_images_are_noted_and_skipped(tmp_path: Path, media: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((media / "multi_face.jpg").read_bytes()[:60000])
    text = tmp_path / "text.png"
    text.write_text("no image")
    empty = tmp_path / "empty.png"
    empty.touch()
    good = write_image(tmp_path / "good.png")
    reader = read_images([tmp_path / "gone.jpg", good, cut, text, empty, tmp_path, good], fps=10)
    frames = list(reader)
    assert [f.index for f in frames] == [1, 6]
    assert [f.time_s for f in frames] == [0.1, 0.6]
    assert [f.source for f in reader.failures] == [
        str(p) for p in (tmp_path / "gone.jpg", cut, text, empty, tmp_path)
    ]
    reasons = [f.error for f in reader.failures]
    assert reasons[0] == "no such file"
    assert "truncated" in reasons[1]
    assert reasons[2:] == [
        "not an image in a format that pyfau reads",
        "is empty (0 bytes)",
        "is a folder",
    ]
    assert isinstance(reader.failures[0], Failure)


def test_no_images_at_all(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=rf"{re.escape(str(tmp_path))}: no images or videos"):
        read_frames(tmp_path)
    (tmp_path / "a.png").write_text("x")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        MediaError, match=r"no image could be read; the first is .*a\.png: not an image"
    ):
        read_frames(tmp_path)
    with pytest.raises(MediaError, match=r"^[^ ]*a\.png: not an image"):
        read_frames(tmp_path / "a.png")
    with pytest.raises(MediaError, match=r"gone\.jpg: no such file"):
        read_frames(tmp_path / "gone.jpg")
    with pytest.raises(MediaError, match="empty list"):
        read_images([])
    with pytest.raises(InputError, match="expected image paths, got list"):
        read_images([1, 2])  # type: ignore[list-item]


@pytest.mark.media
def test_real_image(media: Path) -> None:
    reader = read_frames(media / "multi_face.jpg")
    (frame,) = reader
    assert frame.rgb.shape == (667, 1000, 3)
    expected = cv2.imread(str(media / "multi_face.jpg"))[..., ::-1].astype(int)
    assert np.abs(frame.rgb - expected).mean() < 1.0  # two JPEG decoders
    np.testing.assert_array_equal(read_image(str(media / "multi_face.jpg")), frame.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :15] = (255, 0, 0)
    upright[:10, 15:] = (0, 255, 0)
    stored = {  # what a camera stores so that the tag turns it upright
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(check_frame(opened, color="bgr"), upright)


def test_image_modes(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.dstack([ramp, ramp[::-1], ramp.T])
    path = tmp_path / "a.png"

    def saved(image: Image.Image, name: str = "a.png", **options: Any) -> np.ndarray:
        image.save(tmp_path / name, **options)
        array = read_image(tmp_path / name)
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        return array

    image = Image.fromarray(rgb)
    np.testing.assert_array_equal(saved(image), rgb)
    np.testing.assert_array_equal(saved(Image.fromarray(ramp)), np.dstack([ramp] * 3))
    np.testing.assert_array_equal(
        saved(Image.fromarray(ramp >= 128)), np.dstack([(ramp >= 128) * 255] * 3)
    )
    palette = image.quantize(16)
    np.testing.assert_array_equal(saved(palette), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(np.dstack([255 - rgb, np.zeros_like(ramp)]), "CMYK")
    np.testing.assert_allclose(saved(cmyk, "a.tif"), rgb, atol=1)
    # Transparency, full, half and none, is laid on white.
    red = np.zeros((1, 3, 4), np.uint8)
    red[0] = [(255, 0, 0, 0), (255, 0, 0, 128), (255, 0, 0, 255)]
    on_white = [[[255, 255, 255], [255, 127, 127], [255, 0, 0]]]
    np.testing.assert_array_equal(saved(Image.fromarray(red)), on_white)
    np.testing.assert_array_equal(check_frame(red), on_white)
    np.testing.assert_array_equal(check_frame(red[..., [2, 1, 0, 3]], color="bgr"), on_white)
    two = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    two.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(saved(two, transparency=0), [[[255, 255, 255], [40, 50, 60]]])
    # 16 bit is scaled, not clipped.
    wide = np.array([[0, 128, 129, 257 * 100, 257 * 200 + 128, 65535]], np.uint16)
    narrow = [[0, 0, 1, 100, 200, 255]]
    for name in ("g.png", "g.tif", "g.pgm"):
        cv2.imwrite(str(tmp_path / name), wide)
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 1], narrow)
    for name in ("c.png", "c.tif"):
        cv2.imwrite(str(tmp_path / name), np.dstack([wide // 3, wide // 2, wide]))
        array = read_image(tmp_path / name)
        np.testing.assert_allclose(array, np.dstack([wide, wide // 2, wide // 3]) / 257.0, atol=1.0)
        assert array[0, -1, 0] == 255
    # 32-bit grey has no agreed range.
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(MediaError, match=r"i\.tif: .*from 0 to 70000"):
        read_image(tmp_path / "i.tif")
    np.testing.assert_array_equal(
        saved(Image.fromarray(np.array([[0, 0.5]], np.float32)), "f.tif")[..., 0], [[0, 128]]
    )
    assert path.exists()


def test_image_sizes(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").tolist() == [[[1, 2, 3]]]
    Image.new("RGB", (7680, 4320), (1, 2, 3)).save(tmp_path / "8k.png", compress_level=1)
    assert read_image(tmp_path / "8k.png").shape == (4320, 7680, 3)
    assert not recwarn.list
    with pytest.raises(MediaError, match=r"8k\.png: .*33177600 pixels"):
        read_image(tmp_path / "8k.png", limits=Limits(image_pixels=4_000_000))


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_by_value(numbers: list[int]) -> None:
    names = sorted((f"Shot {n} b.png" for n in numbers), key=natural_key)
    assert names == [f"Shot {n} b.png" for n in sorted(numbers)]


@given(st.lists(st.text()))
def test_natural_order_takes_any_names(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key, reverse=True), key=natural_key) == sorted(
        names, key=natural_key
    )


def test_suffixes() -> None:
    assert is_image("a/B.JPG")
    assert is_video(Path("b.MoV"))
    assert is_video("b.gif")
    assert not is_image("b.gif")
    assert not is_image("jpg")
    assert not video.IMAGE_SUFFIXES & video.VIDEO_SUFFIXES


# Arrays


def test_arrays() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    reader = read_frames(stack, fps=2)
    assert (reader.name, reader.kind, reader.fps, reader.frame_count) == (
        "arrays",
        "arrays",
        2.0,
        3,
    )
    frames = list(reader)
    assert [(f.index, f.time_s, f.file) for f in frames] == [
        (0, 0.0, None),
        (1, 0.5, None),
        (2, 1.0, None),
    ]
    np.testing.assert_array_equal(np.stack([f.rgb for f in frames]), stack)
    assert all(np.shares_memory(f.rgb, stack) for f in frames)
    reversed_frames = list(read_arrays(list(stack), color="bgr"))
    np.testing.assert_array_equal(reversed_frames[1].rgb, stack[1, ..., ::-1])
    assert math.isnan(reversed_frames[1].time_s)
    assert len(list(read_frames([Image.fromarray(a) for a in stack]))) == 3


def test_generator_runs_in_the_callers_thread_one_at_a_time() -> None:
    made = []

    def images() -> Iterator[np.ndarray]:
        for k in range(4):
            made.append(threading.current_thread())
            yield grey(k)

    source = images()
    with read_frames(source) as reader:
        assert reader.frame_count is None
        next(reader)
        next(reader)
        assert made == [threading.main_thread()] * 2
    assert list(reader) == []
    assert len(list(source)) == 2  # the caller's generator is left as it is


def test_bad_array_is_named_by_its_index() -> None:
    seen: list[Frame] = []
    reader = read_arrays([grey(0), grey(1), np.zeros((4, 4), bool)])
    with pytest.raises(InputError, match=r"frame 2: expected .* got bool of shape \(4, 4\)"):
        seen.extend(reader)
    assert [frame.index for frame in seen] == [0, 1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), r"got one array of shape \(4, 5, 3\)"),
        (3.5, "got float"),
        (None, "got NoneType"),
        (Image.new("RGB", (2, 2)), "got Image"),
    ],
)
def test_not_arrays(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_frames(source)


@pytest.mark.parametrize("source", [[], iter([]), np.zeros((0, 4, 4, 3), np.uint8)])
def test_no_arrays(source: Any) -> None:
    with pytest.raises(InputError, match="empty sequence"):
        list(read_frames(source))


@pytest.mark.parametrize("fps", [0, -1.0, math.nan, math.inf, "fast"])
def test_bad_fps(tmp_path: Path, fps: Any) -> None:
    with pytest.raises(OptionError, match="fps"):
        read_arrays([grey(0)], fps=fps)
    with pytest.raises(OptionError, match="fps"):
        read_frames(write_image(tmp_path / "a.png"), fps=fps)


def test_fps_is_refused_where_the_source_has_a_clock(tmp_path: Path) -> None:
    for source in (tmp_path / "a.mp4", 0):
        with pytest.raises(OptionError, match="its own clock"):
            read_frames(source, fps=25)


def test_check_frame_conversions() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.shares_memory(check_frame(rgb), rgb)
    np.testing.assert_array_equal(check_frame(rgb), rgb)
    turned = rgb.transpose(1, 0, 2)
    assert check_frame(turned).flags.c_contiguous
    np.testing.assert_array_equal(check_frame(turned), turned)
    np.testing.assert_array_equal(check_frame(rgb, color="bgr"), rgb[..., ::-1])
    np.testing.assert_array_equal(check_frame(rgb[..., 0]), np.dstack([rgb[..., 0]] * 3))
    np.testing.assert_array_equal(
        check_frame(rgb[..., :1], color="bgr"), np.dstack([rgb[..., 0]] * 3)
    )
    np.testing.assert_array_equal(check_frame(rgb.astype(np.uint16) * 257), rgb)
    np.testing.assert_array_equal(check_frame((rgb.astype(np.uint16) * 257).astype(">u2")), rgb)
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(check_frame((rgb / 255).astype(dtype)), rgb)

    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return rgb

    np.testing.assert_array_equal(check_frame(Wrapped()), rgb)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((3, 20, 30), np.uint8),
            r"got shape \(3, 20, 30\); channels come last: transpose\(1, 2, 0\)",
        ),
        (np.zeros((20, 30, 2), np.uint8), r"got shape \(20, 30, 2\)$"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"got shape \(2, 20, 30, 3\)"),
        (np.zeros(5, np.uint8), r"got shape \(5,\)"),
        (np.uint8(3), r"got shape \(\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got shape \(0, 5, 3\)"),
        (np.zeros((4, 4, 3), bool), r"got bool of shape \(4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4, 3), np.uint32), "got uint32"),
        (np.zeros((4, 4, 3), np.int8), "got int8"),
        (np.zeros((4, 4, 3), complex), "got complex128"),
        (None, "got object"),
        (np.full((4, 4, 3), 255.0), r"float values in \[0, 1\], got 255 to 255"),
        (np.full((4, 4), -0.1), r"float values in \[0, 1\], got -0.1"),
        (np.array([[0.5, np.nan]]), r"got nan to nan"),
        (np.array([[0.5, np.inf]]), r"got 0.5 to inf"),
        ([[1, 2], [3]], "got list"),
        ("a.png", "got a path; read_image"),
    ],
)
def test_check_frame_refuses(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^face shot: expected .*{message}"):
        check_frame(image, name="face shot")


def test_color_must_be_known() -> None:
    with pytest.raises(OptionError, match="unknown color 'RGB'"):
        check_frame(grey(0), color="RGB")
    with pytest.raises(OptionError, match="color"):
        read_arrays([grey(0)], color="gbr")
