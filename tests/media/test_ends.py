"""Where a recording begins and ends: no false alarm if sound is longer, a word if frames are lost.

Each kind is made here, with its damage.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import damaged, number_of, numbered, write

from pyfau.media.clock import Clock
from pyfau.media.readers import read_video

STEP = 0.04


def with_sound(path: Path, codec: str, late_s: float, sound: str, seconds: float) -> Path:
    """A clip of 50 frames that starts late, with sound from 0 on."""
    with av.open(str(path), "w") as file:
        video: Any = file.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 256, 144, "yuv420p"
        audio: Any = file.add_stream(sound, rate=44_100, layout="mono")
        audio.bit_rate = 64_000
        for number in range(round(seconds * 10)):
            samples = np.zeros((1, 4410), np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.sample_rate, part.pts = 44_100, number * 4410
            file.mux(audio.encode(part))
        file.mux(audio.encode(None))
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = number + round(25 * late_s), Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mkv", "libx264", "aac"),
        ("a.flv", "libx264", "aac"),
        ("a.wmv", "wmv2", "wmav2"),
        ("a.mp4", "libx264", "aac"),
    ],
)
@pytest.mark.parametrize(("late_s", "seconds"), [(1.0, 3.0), (0.0, 5.0)])
def test_longer_sound_is_no_truncation(
    tmp_path: Path, name: str, codec: str, sound: str, late_s: float, seconds: float
) -> None:
    reader = read_video(with_sound(tmp_path / name, codec, late_s, sound, seconds))
    times = [frame.time_s for frame in reader]
    assert len(times) == 50
    assert times[0] == pytest.approx(late_s, abs=0.05)
    assert not reader.warnings


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_video_after_the_sound_keeps_its_last_frames(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as file:
        audio: Any = file.add_stream("aac", rate=44_100, layout="mono")
        video: Any = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 256, 144, "yuv420p"
        for number in range(20):
            samples = np.zeros((1, 4410), np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.sample_rate, part.pts = 44_100, number * 4410
            file.mux(audio.encode(part))
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(audio.encode(None))
        file.mux(video.encode(None))
    reader = read_video(path)
    assert [number_of(frame.rgb) for frame in reader] == list(range(50))
    assert not reader.warnings


def test_a_cut_file_with_sound_is_truncated(tmp_path: Path) -> None:
    path = with_sound(tmp_path / "a.mkv", "libx264", 0.0, "aac", 5.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    reader = read_video(path)
    assert len(list(reader)) < 45
    assert any("it may be truncated" in text for text in reader.warnings)


def test_a_recording_that_begins_between_key_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", "libx264", options={"g": "20", "bf": "0"})
    data = path.read_bytes()
    packet = 188
    start = data.find(b"\x47", len(data) // 6 // packet * packet)
    # The tables of the stream stay, so that only images are missing.
    path.write_bytes(data[: 3 * packet] + data[start:])
    reader = read_video(path)
    frames = list(reader)
    assert frames[0].index == 0
    assert frames[0].time_s > 5 * STEP
    (warning,) = reader.warnings
    assert "cannot be decoded: its key frame is missing or damaged" in warning


def test_fragments_that_cannot_be_reached(tmp_path: Path) -> None:
    container = {"movflags": "frag_keyframe+empty_moov"}
    path = write(tmp_path / "a.mp4", "libx264", options={"g": "10"}, container=container)
    whole = read_video(path)
    assert (len(list(whole)), whole.warnings) == (50, [])
    data = path.read_bytes()
    third = data.find(b"moof", data.find(b"moof", data.find(b"moof") + 1) + 1)
    reader = read_video(damaged(path, (third - 4) / len(data), size=8))
    assert len(list(reader)) == 20
    (warning,) = reader.warnings
    assert "the file is damaged after 0.760 s: the fragments there" in warning


@pytest.mark.parametrize("frames", [1, 3])
def test_an_avi_file_without_some_of_its_packets(tmp_path: Path, frames: int) -> None:
    path = write(tmp_path / "a.avi", "mjpeg", pixels="yuvj420p")
    data = path.read_bytes()
    assert not read_video(path).warnings
    # Chunks of video become chunks of a stream that the file does not have.
    place = len(data) // 2
    for _ in range(frames):
        place = data.find(b"00dc", place + 1)
        data = data[:place] + b"JUNK" + data[place + 4 :]
    data = data[: data.find(b"idx1")]
    path.write_bytes(data)
    reader = read_video(path)
    assert len(list(reader)) == 50 - frames
    assert reader.warnings == [
        f"the file announces 50 frames, but holds {50 - frames}: it may be truncated"
    ]


@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads_lose_no_frame_at_a_damaged_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    path = write(tmp_path / "a.nut", "libx264", options={"g": "10"})
    copy = damaged(path, 0.63, size=1500)
    read = []
    for number in (1, threads):
        monkeypatch.setattr(cv2, "getNumThreads", lambda number=number: number)
        read.append([frame.index for frame in read_video(copy)])
    assert read[0] == read[1]


def test_lost_frames_at_the_start_are_counted_by_their_time() -> None:
    clock = Clock(25.0)
    clock.errors = 1
    for stamp in (0.0, *(0.4 + STEP * k for k in range(20))):
        clock.announce(stamp, None)
    assert clock.place(0.4).index == 10
    (hole,) = clock.holes
    assert (hole.index, hole.count) == (0, 10)


def test_a_wild_time_stamp_of_the_first_frame() -> None:
    clock = Clock(25.0)
    stamps = [50.0, *(STEP * k for k in range(1, 20))]
    for stamp in stamps:
        clock.announce(stamp, None)
    times = [clock.place(stamp).time_s for stamp in stamps]
    np.testing.assert_allclose(times, STEP * np.arange(20), atol=1e-6)
    (warning,) = clock.warnings()
    assert warning.startswith("frame 0 has a missing or backward time stamp")


def test_a_small_step_back_after_damage_does_not_move_the_clock() -> None:
    # Lost packets made two time stamps 3 steps too late.
    numbers = [*range(10), 13, 14, *range(12, 40)]
    clock = Clock(25.0)
    clock.damaged = True
    for number in numbers:
        clock.announce(STEP * number, None)
    times = [clock.place(STEP * number).time_s for number in numbers]
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(STEP * 39)


def without_frames(path: Path, numbers: list[int]) -> Path:
    """A copy of a transport stream without some of its images, in the order of the file."""
    packets = [path.read_bytes()[at : at + 188] for at in range(0, path.stat().st_size, 188)]
    image, kept = -1, []
    for packet in packets:
        is_video = (packet[1] & 0x1F, packet[2]) == (1, 0)
        image += is_video and bool(packet[1] & 0x40)
        if not (is_video and image in numbers):
            kept.append(packet)
    copy = path.with_name("without.ts")
    copy.write_bytes(b"".join(kept))
    return copy


@pytest.mark.parametrize("numbers", [[1], [1, 2], [3], [3, 5], [45], [47], [48], [44, 46]])
def test_lost_frames_near_the_ends_of_a_transport_stream(
    tmp_path: Path, numbers: list[int]
) -> None:
    path = write(tmp_path / "a.ts", "libx264", options={"g": "50", "bf": "0"})
    reader = read_video(without_frames(path, numbers))
    indexes = [frame.index for frame in reader]
    # FFmpeg's decoder drops the last image if the one before it is missing.
    assert [k for k in range(49) if k not in numbers] == [k for k in indexes if k < 49]
    holes = [k for hole in reader.holes for k in range(hole.index, hole.index + hole.count)]
    assert sorted([*indexes, *holes]) == list(range(50))


@pytest.mark.parametrize("lost", [1, 3])
@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_lost_frames_at_the_end_by_the_length_in_the_header(
    tmp_path: Path, name: str, lost: int
) -> None:
    path = write(tmp_path / name, "libx264", options={"g": "50", "bf": "0"})
    assert not read_video(path).warnings
    with av.open(str(path)) as file:
        start = [packet.pos for packet in file.demux(video=0) if packet.size][-lost]
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(len(data) - start))
    reader = read_video(path)
    assert len(list(reader)) == 50 - lost
    assert [(hole.index, hole.count) for hole in reader.holes] == [(50 - lost, lost)]
    assert "missing at the end of the file" in reader.warnings[0]


def test_lost_frames_at_the_end_of_wmv(tmp_path: Path) -> None:
    """A block of this container holds several images."""
    path = write(tmp_path / "a.wmv", "wmv2", options={"b": "4M", "qmax": "2"})
    data = path.read_bytes()
    # The last block, and the index after it.
    path.write_bytes(data[:-4000] + bytes(4000))
    reader = read_video(path)
    left = len(list(reader))
    assert 46 <= left < 50
    assert [(hole.index, hole.count) for hole in reader.holes] == [(left, 50 - left)]
    assert "missing at the end of the file" in reader.warnings[0]


def test_zeros_at_the_end_of_a_transport_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", "libx264", options={"g": "50", "bf": "0"})
    assert not read_video(path).warnings
    data = path.read_bytes()
    path.write_bytes(data[: -3 * 188] + bytes(3 * 188))
    reader = read_video(path)
    assert len(list(reader)) < 50
    (warning,) = reader.warnings
    assert warning.startswith("the file is damaged after 1.")
    assert "564 bytes there are no video" in warning


def test_the_last_frames_of_a_trimmed_stream_are_not_missed(tmp_path: Path) -> None:
    """The last image in the file is shown after some that were cut off."""
    options = {"g": "50", "bf": "2", "x264-params": "b-adapt=0:b-pyramid=none"}
    path = write(tmp_path / "a.ts", "libx264", options=options)
    with av.open(str(path)) as file:
        stamps = [packet.pts for packet in file.demux(video=0) if packet.size]
    last = max(k for k in range(50) if stamps[k] == max(stamps[: k + 1]) and k < 48)
    reader = read_video(without_frames(path, list(range(last + 1, 50))))
    times = [frame.time_s for frame in reader]
    assert np.diff(times)[-1] == pytest.approx(3 * STEP, abs=1e-3)
    assert not reader.warnings


HEVC = {"x265-params": "keyint=20:min-keyint=20:scenecut=0:bframes=0:log-level=none"}


def test_hevc_frames_after_a_lost_one_are_kept(tmp_path: Path) -> None:
    """FFmpeg's decoder drops them up to the next key frame unless a flag is set."""
    path = write(tmp_path / "a.ts", "libx265", options=HEVC)
    reader = read_video(without_frames(path, [25]))
    assert [frame.index for frame in reader] == [k for k in range(50) if k != 25]
    assert reader.warnings[0].startswith("frame 25 is missing")
    assert "frames are damaged in part" in reader.warnings[-1]


def test_hevc_frames_before_the_first_key_frame_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", "libx265", options=HEVC)
    frames = list(read_video(without_frames(path, list(range(5)))))
    assert [number_of(frame.rgb) for frame in frames] == list(range(20, 50))


@pytest.mark.parametrize("codecs", [("libx265", "mpeg4"), ("libx264", "libx265")])
def test_another_codec_in_the_middle_of_a_stream(tmp_path: Path, codecs: tuple[str, str]) -> None:
    options = {"libx265": HEVC, "libx264": {"bf": "0"}, "mpeg4": {}}
    parts = [
        write(tmp_path / f"{codec}.ts", codec, count=40, options=options[codec]) for codec in codecs
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = read_video(path)
    assert len(list(reader)) <= 40
    end = reader.holes[-1]
    assert np.isnan(end.end_s)
    assert end.count >= 35


def test_the_order_of_h264_images_in_mxf(tmp_path: Path) -> None:
    """FFmpeg writes them without the table of their order."""
    path = write(tmp_path / "a.mxf", "libx264", options={"g": "10", "bf": "2"})
    reader = read_video(path)
    frames = list(reader)
    assert [number_of(frame.rgb) for frame in frames] == list(range(50))
    np.testing.assert_allclose([frame.time_s for frame in frames], STEP * np.arange(50), atol=1e-6)
    assert not reader.warnings


# Milliseconds: one frame a second while nothing moves, else 30.
SCREEN = [0, 1000, 2000, 3000, 3033, 3066, 3100, 3133, 3166, 3200, 4200, 5200, 6200]
SCREEN += [6233, 6266, 6300, 6333, 6366, 6400, 9000, 12_000]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
def test_pauses_of_a_recorded_screen_are_no_holes(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "libx264", count=len(SCREEN), stamps=SCREEN, rate=1000)
    reader = read_video(path)
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(len(SCREEN)))
    np.testing.assert_allclose([f.time_s for f in frames], np.array(SCREEN) / 1000, atol=2e-3)
    assert not reader.warnings


def test_frames_that_a_phone_left_out_are_no_damage(tmp_path: Path) -> None:
    """The tables of MP4 list all frames, although their durations are in another order."""
    stamps = [k for k in range(60) if k not in (7, 19, 20, 33, 50, 51, 52)]
    options = {"bf": "3", "g": "12"}
    path = write(tmp_path / "a.mp4", "libx264", count=53, stamps=stamps, options=options)
    reader = read_video(path)
    assert [frame.index for frame in reader] == list(range(53))
    assert not reader.warnings


@pytest.mark.parametrize("missing", [[2], [1, 3]])
def test_fragments_that_are_missing_leave_holes(tmp_path: Path, missing: list[int]) -> None:
    container = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    options = {"g": "10", "bf": "2"}
    path = write(tmp_path / "a.mp4", "libx264", options=options, container=container)
    assert not read_video(path).warnings
    data = path.read_bytes()
    at, fragment, kept = 0, -1, b""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        fragment += kind == b"moof"
        if fragment not in missing or kind not in (b"moof", b"mdat"):
            kept += data[at : at + size]
        at += size
    path.write_bytes(kept)
    reader = read_video(path)
    frames = [k for k in range(50) if k // 10 not in missing]
    assert [frame.index for frame in reader] == frames
    assert [(hole.index, hole.count) for hole in reader.holes] == [(10 * k, 10) for k in missing]


def test_a_second_recording_in_an_flv_file(tmp_path: Path) -> None:
    """FFmpeg stops at the header of the second one."""
    path = write(tmp_path / "a.flv", "libx264", options={"g": "10"})
    assert not read_video(path).warnings
    path.write_bytes(2 * path.read_bytes())
    reader = read_video(path)
    assert len(list(reader)) == 50
    (warning,) = reader.warnings
    assert "bytes there are no video, so frames may be missing" in warning


def test_an_mp4_file_that_begins_with_nothing_is_whole(tmp_path: Path) -> None:
    """Its edit list shows the video after a pause and cuts the first and the last frames off."""
    path = write(tmp_path / "a.mp4", "libx264", options={"bf": "0", "g": "12"})
    data = path.read_bytes()
    # Time scales: 1000 of the file, 12800 of the video.
    entries = [(400, -1), (1000, 10 * 512)]
    body = b"".join(struct.pack(">iiI", *entry, 1 << 16) for entry in entries)
    box = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(entries)) + body
    at = data.index(b"elst") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = bytearray(data[:at] + box + data[at + old :])
    for name in (b"moov", b"trak", b"edts"):
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(box) - old
        new[place : place + 4] = size.to_bytes(4, "big")
    path.write_bytes(new)
    reader = read_video(path)
    assert [number_of(frame.rgb) for frame in reader] == list(range(10, 35))
    assert not reader.warnings
