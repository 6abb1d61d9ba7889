from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from browser import chromium, complaints
from hypothesis import given, settings
from hypothesis import strategies as st
from made import write_timed_clip

from pyfau import AUDetector, AUResult
from pyfau.aus import AU_NAMES
from pyfau.errors import InputError, OptionError
from pyfau.intensity import grade_letter
from pyfau.media import encoding
from pyfau.overlay import drawing as overlay
from pyfau.overlay.drawing import LastFaces, draw_overlay
from pyfau.overlay.writer import OverlayWriter, write_overlay_image
from pyfau.types import AURow
from pyfau.video import read_video as read_frames_of

AUS = ("AU01", "AU06", "AU12", "AU25", "AU99")


def row_of(
    box: tuple[float, float, float, float] = (200, 100, 300, 230),
    face_id: int | None = 0,
    scores: tuple[float, ...] = (0.1, 0.6, 0.9, 0.7, 0.2),
    success: bool = True,
) -> AURow:
    x0, y0, x1, y1 = box
    spots = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    points = np.array([x0, y0]) + spots * np.array([x1 - x0, y1 - y0])
    values = np.array(scores, np.float32)
    return AURow(
        0,
        0.0,
        face_id,
        success,
        0.9,
        np.array(box, np.float32),
        points.astype(np.float32),
        values,
        values >= 0.5,
        AUS,
    )


def grey(width: int, height: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class Spy(overlay._Style):
    """Records what is drawn where."""

    made: list[Spy]

    def __init__(self, image: np.ndarray) -> None:
        super().__init__(image)
        self.labels: list[str] = []
        self.made.append(self)

    def write(self, label: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
        self.labels.append(label)
        assert x >= 0
        assert x + self.measure(label) <= self.width
        assert 0 <= y <= self.height - self.row
        super().write(label, x, y, colour)


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    Spy.made = []
    monkeypatch.setattr(overlay, "_Style", Spy)
    return Spy.made


def test_the_image_given_is_left_alone():
    rgb = grey(640, 360)
    drawn = draw_overlay(rgb, [row_of()])
    assert (rgb == 128).all()
    assert drawn.shape == rgb.shape
    assert drawn.dtype == np.uint8
    assert (drawn != 128).any()


def test_nothing_is_drawn_without_a_face():
    rgb = grey(64, 48)
    nowhere = row_of((np.nan,) * 4)
    drawn = draw_overlay(rgb, [row_of((np.nan,) * 4, None, success=False), nowhere])
    np.testing.assert_array_equal(drawn, rgb)
    assert drawn is not rgb
    np.testing.assert_array_equal(draw_overlay(rgb, []), rgb)


def test_labels_are_the_active_ones_with_the_strongest_first(spy: list[Spy]):
    draw_overlay(grey(640, 360), [row_of()])
    assert spy[0].labels == [
        "face 0",
        "AU12 lip corner puller",
        "0.90",
        "AU25 lips part",
        "0.70",
        "AU06 cheek raiser",
        "0.60",
    ]


def test_an_action_unit_without_a_name_and_a_face_without_a_number(spy: list[Spy]):
    draw_overlay(grey(640, 360), [row_of(scores=(0, 0, 0, 0, 0.99), face_id=None)])
    assert spy[0].labels == ["face", "AU99", "0.99"]


def test_the_panel_is_on_the_side_with_more_room(spy: list[Spy]):
    draw_overlay(grey(640, 360), [row_of((60, 100, 160, 230))])
    draw_overlay(grey(640, 360), [row_of((480, 100, 580, 230))])
    assert spy[0].taken[1][0] >= 160
    assert spy[1].taken[1][2] <= 480


def test_the_bar_is_as_long_as_the_score():
    def length(score: float) -> int:
        drawn = draw_overlay(grey(640, 360, 0), [row_of(scores=(0, 0, score, 0, 0))]).astype(int)
        panel = drawn[:, 304:]  # right of the box
        return int(((panel[..., 1] - panel[..., 0]) > 30).any(axis=0).sum())  # the green of face 0

    assert length(0.5) == pytest.approx(length(1.0) / 2, abs=4)
    assert length(1.0) > 60


def test_faces_have_colours_of_their_own():
    images = [draw_overlay(grey(640, 360), [row_of(face_id=i, scores=(0,) * 5)]) for i in range(5)]
    edges = {tuple(int(v) for v in image[200, 200]) for image in images}
    assert len(edges) == 5


@pytest.mark.parametrize(("width", "height"), [(540, 360), (1000, 667), (3840, 2160), (400, 900)])
def test_labels_of_five_faces_do_not_overlap(spy: list[Spy], width: int, height: int):
    boxes = [
        (0.22, 0.1, 0.3, 0.26),
        (0.31, 0.35, 0.41, 0.54),
        (0.44, 0.33, 0.52, 0.46),
        (0.53, 0.46, 0.63, 0.65),
        (0.68, 0.43, 0.79, 0.63),
    ]
    scale = np.array([width, height] * 2)
    rows = [
        row_of(tuple(np.array(box) * scale), i, (0.6, 0.7, 0.8, 0.9, 1))
        for i, box in enumerate(boxes)
    ]
    draw_overlay(grey(width, height), rows)
    # Five numbers, five panels, and tabs for what found no room.
    assert 10 <= len(spy[0].taken) <= 15
    assert not any(overlay._overlap(a, b) for a, b in combinations(spy[0].taken, 2))
    for x0, y0, x1, y1 in spy[0].taken:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    tag_width = min(rect[2] - rect[0] for rect in spy[0].taken[:5])
    # Tabs are narrower.
    for panel in (rect for rect in spy[0].taken[5:] if rect[2] - rect[0] > tag_width):
        assert not any(overlay._overlap(panel, tuple(int(v) for v in row.box_xyxy)) for row in rows)


def test_sizes_follow_the_image():
    small, large = (overlay._Style(grey(w, h)) for w, h in ((640, 360), (3840, 2160)))
    assert small.text > 11
    assert large.text > 4 * small.text
    assert large.line > small.line


_number = st.floats(-200, 300) | st.sampled_from([-1e9, 1e9, 1e30, np.nan, np.inf])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.lists(st.tuples(_number, _number, _number, _number), max_size=5),
    st.floats(0, 1, width=32),
)
def test_no_box_and_no_size_is_too_odd(
    width: int, height: int, boxes: list[tuple[float, float, float, float]], score: float
):
    with np.errstate(all="ignore"):
        rows = [row_of(box, i, (score,) * 5) for i, box in enumerate(boxes)]
    drawn = draw_overlay(grey(width, height), rows)
    assert drawn.shape == (height, width, 3)


def test_what_is_no_image_is_refused(tmp_path: Path):
    for bad in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        "x",
    ):
        with pytest.raises(InputError, match="expected a uint8"):
            draw_overlay(bad, [])
        with pytest.raises(InputError, match="expected a uint8"):
            write_overlay_image(tmp_path / "a.png", bad)
    assert not list(tmp_path.iterdir())
    view = np.zeros((8, 8, 6), np.uint8)[:, ::-1, ::2]
    assert draw_overlay(view, [row_of((1, 1, 5, 5))]).shape == (8, 8, 3)


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames in RGB, and frames per second."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while (got := video.read())[0]:
        frames.append(got[1][..., ::-1])
    return frames, video.get(cv2.CAP_PROP_FPS)


@pytest.fixture(params=[True, False], ids=["pyav", "opencv"])
def pyav(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once with the encoders of PyAV and once as if it had none."""
    if not request.param:
        monkeypatch.setattr(encoding, "_PYAV_CODECS", {})
    return bool(request.param)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
@pytest.mark.parametrize("fps", [23.976023976, 119.88])
def test_video_is_read_back_with_its_size_rate_and_frames(
    tmp_path: Path, suffix: str, fps: float, pyav: bool
):
    path = tmp_path / "new" / f"clip é{suffix.upper()}"
    with OverlayWriter(path, fps) as writer:
        for i in range(12):
            rgb = grey(161, 91)
            rgb[:] = (220, 40, 20 * i)
            writer.write(rgb, [row_of((60, 30, 90, 70))])
    frames, rate = read_video(path)
    assert len(frames) == 12
    assert {frame.shape for frame in frames} == {(92, 162, 3)}
    assert rate == pytest.approx(fps, abs=2e-3)
    corners = np.array([frame[-8:, -8:].mean(axis=(0, 1)) for frame in frames])
    assert np.abs(corners[:, 0] - 220).max() < 25  # red is red
    assert np.abs(corners[:, 1] - 40).max() < 25
    assert corners[11, 2] - corners[0, 2] > 150
    made = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "XVID"}
    assert writer.codec == made[suffix] if pyav else writer.codec in encoding.OPENCV_CODECS[suffix]
    told = [
        warning
        for warning in writer.warnings
        if "browsers do not play: this PyAV has no encoder" in warning
    ]
    assert len(told) == len(writer.warnings) == (writer.codec == "mp4v")


def clip_with_tone(path: Path, times: Sequence[float], audio: str, sound_from: float = 0.0) -> Path:
    """A video whose image changes colour, with a tone as long as the images; each encoded by
    name.
    """
    colours = ((40 + 8 * i % 200, 120, 90) for i in range(len(times)))
    frames = [np.full((96, 96, 3), colour, np.uint8) for colour in colours]
    return write_timed_clip(path, frames, times, audio, sound_from)


def overlaid(source: Path, path: Path, most: int | None = None) -> OverlayWriter:
    """Write the overlay of a clip, frame by frame."""
    with read_frames_of(source) as frames, OverlayWriter(path, frames.fps, source=source) as writer:
        for frame in frames:
            writer.write(frame.rgb, [], frame.time_s)
            if frame.index + 1 == most:
                raise KeyboardInterrupt
    return writer


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [frame.time for frame in file.decode(video=0)]


def loudness(path: Path) -> tuple[float, float, float]:
    """Where the sound of a file begins and ends, in seconds, and how much of its energy is the
    tone.
    """
    heard, begins = [], None
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            begins = frame.time if begins is None else begins
            values = frame.to_ndarray()[0].astype(float)
            heard.append(values)
            rate = frame.sample_rate
    wave = np.concatenate(heard)
    power = np.abs(np.fft.rfft(wave)) ** 2
    pitch = np.fft.rfftfreq(len(wave), 1 / rate)
    assert begins is not None
    return (
        begins,
        begins + len(wave) / rate,
        float(power[np.abs(pitch - 440) < 20].sum() / power.sum()),
    )


UNEVEN = [0.0, 0.04, 0.05, 0.2, 0.21, 0.5, *(0.55 + 0.03 * i for i in range(40))]


@pytest.mark.parametrize(
    ("source", "audio", "target", "kept"),
    [
        ("a.mp4", "aac", "o.mp4", "aac, copied"),
        ("a.mkv", "flac", "o.mkv", "flac, copied"),
        ("a.webm", "libopus", "o.webm", "opus, copied"),
        ("a.mov", "pcm_s16le", "o.mp4", "pcm_s16le, encoded as aac"),
        ("a.mp4", "aac", "o.webm", "aac, encoded as libopus"),
    ],
)
def test_times_and_sound_are_those_of_the_source(
    tmp_path: Path, source: str, audio: str, target: str, kept: str
):
    clip = clip_with_tone(tmp_path / source, UNEVEN, audio)
    writer = overlaid(clip, tmp_path / target)
    assert writer.describe() == {
        "codec": "libvpx-vp9" if ".webm" in target else "libx264",
        "sound": kept,
    }
    assert writer.warnings == []
    was, now = times_of(clip), times_of(tmp_path / target)
    assert len(now) == len(UNEVEN)
    assert np.abs(np.subtract(now, was)).max() < 1.1e-3  # .webm and .mkv count milliseconds
    with av.open(str(clip)) as before, av.open(str(tmp_path / target)) as after:
        # One frame, or two of sound.
        assert after.duration / 1e6 == pytest.approx(before.duration / 1e6, abs=0.045)
    was_from, was_to, pure = loudness(clip)
    begins, ends, tone = loudness(tmp_path / target)
    assert pure > 0.98
    assert tone > 0.98
    assert begins == pytest.approx(was_from, abs=0.03)
    assert ends == pytest.approx(was_to, abs=0.06)


@pytest.mark.parametrize("target", ["o.mp4", "o.webm"])
def test_sound_that_begins_late_stays_late(tmp_path: Path, target: str):
    clip = clip_with_tone(tmp_path / "a.mkv", UNEVEN, "aac", sound_from=0.5)
    overlaid(clip, tmp_path / target)
    assert loudness(clip)[0] == pytest.approx(0.5, abs=0.03)
    assert loudness(tmp_path / target)[0] == pytest.approx(0.5, abs=0.03)
    assert times_of(tmp_path / target)[0] == 0


def test_ctrl_c_ends_the_sound_with_the_images(tmp_path: Path):
    clip = clip_with_tone(tmp_path / "a.mp4", [i / 30 for i in range(120)], "aac")
    for target in ("o.mp4", "o.webm"):
        with pytest.raises(KeyboardInterrupt):
            overlaid(clip, tmp_path / target, most=30)
        assert len(times_of(tmp_path / target)) == 30
        assert loudness(tmp_path / target)[1] == pytest.approx(1.0, abs=0.06)


def test_sound_that_cannot_be_read_is_told_and_the_images_are_kept(tmp_path: Path):
    clip = clip_with_tone(tmp_path / "a.mkv", [i / 30 for i in range(90)], "flac")
    (tmp_path / "text.mp4").write_text("no video")
    for source in (tmp_path / "text.mp4", tmp_path / "missing.mp4"):
        with OverlayWriter(tmp_path / "o.mp4", 30, source=source) as writer:
            writer.write(grey(64, 48), [])
        assert len(times_of(tmp_path / "o.mp4")) == 1
        (told,) = writer.warnings
        assert "sound is missing" in told
    data = bytearray(clip.read_bytes())
    data[len(data) // 2 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 2)
    clip.write_bytes(data)
    with OverlayWriter(tmp_path / "o.webm", 30, source=clip) as writer:
        for i in range(90):
            writer.write(grey(96, 96), [], i / 30)
    assert len(times_of(tmp_path / "o.webm")) == 90


def test_very_few_frames_a_second(tmp_path: Path):
    with OverlayWriter(tmp_path / "o.mp4", 1e-4) as writer:
        for _ in range(3):
            writer.write(grey(64, 48), [])
    assert times_of(tmp_path / "o.mp4") == [0, 1e4, 2e4]


def test_times_that_stand_still_or_are_missing(tmp_path: Path):
    with OverlayWriter(tmp_path / "o.mp4", 10) as writer:
        for time_s in (0.0, 0.1, 0.1, 0.05, 0.4, float("nan")):
            writer.write(grey(64, 48), [], time_s)
    times = times_of(tmp_path / "o.mp4")
    assert times[:2] == [0, 0.1]
    assert 0.1 < times[2] < times[3] < 0.11
    assert times[4:] == [pytest.approx(0.4), pytest.approx(0.5)]


PLAYS = """
const [done, video] = [arguments[1], document.createElement('video')];
document.body.append(video);
video.muted = true;
video.onerror = () => done({error: video.error.message});
video.src = arguments[0];
video.play().then(() => setTimeout(() => {
  video.pause();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pencil = canvas.getContext('2d', {willReadFrequently: true});
  pencil.drawImage(video, 0, 0);
  const pixel = (x, y) => Array.from(pencil.getImageData(x, y, 1, 1).data);
  done({width: video.videoWidth, height: video.videoHeight,
        duration: video.duration, time: video.currentTime,
        sound: video.webkitAudioDecodedByteCount,
        frames: video.getVideoPlaybackQuality().totalVideoFrames,
        plain: pixel(4, 20), panel: pixel(130, 40)});
}, 1000), error => done({error: String(error)}));
"""


def test_chromium_plays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = clip_with_tone(tmp_path / "a.mp4", [i / 30 for i in range(90)], "aac")
    (tmp_path / "page.html").write_text(
        "<!DOCTYPE html><title>video</title><link rel=icon href=data:,>"
    )
    row = row_of((20, 20, 60, 90))
    names = {
        "o.mp4": clip,
        "o.webm": clip,
        "silent.mp4": None,
        "opencv.webm": clip,
        "opencv.mp4": clip,
    }
    for name, source in names.items():
        if name == "opencv.webm":
            monkeypatch.setattr(encoding, "_PYAV_CODECS", {})
        with OverlayWriter(tmp_path / name, 30, source=source) as writer:
            for i in range(90):
                rgb = grey(320, 240)
                rgb[:] = (200, 40, 60)
                writer.write(rgb, [row], i / 30)
    with chromium(tmp_path / "profile", "--allow-file-access-from-files") as browser:
        browser.get((tmp_path / "page.html").as_uri())
        for name in names:
            seen = browser.execute_async_script(PLAYS, (tmp_path / name).as_uri())
            if writer.codec == "mp4v" and name == "opencv.mp4":  # as the writer says
                assert "error" in seen
                continue
            assert "error" not in seen, f"{name}: {seen}"
            assert (seen["width"], seen["height"]) == (320, 240)
            assert seen["duration"] == pytest.approx(3.0, abs=0.05)
            assert 0.3 < seen["time"] < 3
            assert seen["frames"] > 5
            assert (seen["sound"] > 0) == (name in ("o.mp4", "o.webm"))
            # The colours too.
            assert np.abs(np.subtract(seen["plain"][:3], (200, 40, 60))).max() < 12
            assert max(seen["panel"][:3]) < 140
        assert complaints(browser) == []


def at(frame: int, row: AURow) -> AURow:
    return dataclasses.replace(row, frame=frame)


def nobody(frame: int) -> AURow:
    return at(frame, row_of((np.nan,) * 4, None, (np.nan,) * 5, success=False))


def test_a_face_that_is_missing_is_held_for_a_while():
    faces = LastFaces(hold=3)
    first, second = row_of(face_id=0), row_of((20, 20, 60, 60), face_id=1)
    shape = (360, 640, 3)
    assert faces.missing([at(0, first), at(0, second)], shape) == []
    for frame in (1, 2, 3):
        (held,) = faces.missing([at(frame, first)], shape)
        assert (held.face_id, held.success, held.frame) == (1, False, 0)
        np.testing.assert_array_equal(held.box_xyxy, second.box_xyxy)
    assert faces.missing([at(4, first)], shape) == []
    assert [row.face_id for row in faces.missing([nobody(5)], shape)] == [0]
    assert faces.missing([at(6, first)], shape) == []  # it is back
    assert faces.missing([nobody(7)], (720, 1280, 3)) == []  # another scene
    assert (
        LastFaces(0).missing([at(0, first)], shape)
        == LastFaces(0).missing([nobody(1)], shape)
        == []
    )


def test_a_lost_face_is_grey_and_says_so(spy: list[Spy]):
    row = row_of()
    seen, lost = (
        draw_overlay(grey(640, 360), [r]) for r in (row, dataclasses.replace(row, success=False))
    )
    assert np.ptp(lost.astype(int), axis=2).max() < 12  # no colour
    assert np.ptp(seen.astype(int), axis=2).max() > 80
    assert spy[1].labels == ["face 0 lost", *spy[0].labels[1:]]


def test_the_overlay_holds_a_lost_face(tmp_path: Path):
    row = row_of((40, 40, 80, 90), scores=(0,) * 5)
    with OverlayWriter(tmp_path / "o.mkv", 30, hold=4) as writer:
        for i in range(10):
            writer.write(grey(160, 128), [at(i, row) if i < 3 else nobody(i)])
    frames, _ = read_video(tmp_path / "o.mkv")
    edge = [frame[60:70, 40].astype(int).mean(axis=0) for frame in frames]
    assert all(np.ptp(colour) > 40 for colour in edge[:3])  # green
    # Lighter than the wall.
    assert all(np.ptp(colour) < 25 and colour.mean() > 132 for colour in edge[3:7])
    assert all(abs(colour.mean() - 128) < 4 for colour in edge[7:])


def test_a_result_draws_its_frames():
    result = AUResult(AUS, {"max_gap": 2})
    rows = [
        at(0, row_of(face_id=0)),
        at(0, row_of((20, 20, 60, 60), 1)),
        at(1, row_of(face_id=0)),
        nobody(2),
        nobody(4),
    ]
    result.extend(rows)
    rgb = grey(640, 360)
    np.testing.assert_array_equal(result.draw(rgb, 0), draw_overlay(rgb, rows[:2]))
    lost = [dataclasses.replace(row, success=False) for row in rows]
    np.testing.assert_array_equal(result.draw(rgb, 1), draw_overlay(rgb, [rows[2], lost[1]]))
    np.testing.assert_array_equal(result.draw(rgb, 2), draw_overlay(rgb, [lost[1], lost[2]]))
    np.testing.assert_array_equal(result.draw(rgb, 4, all_aus=True), rgb)
    with pytest.raises(InputError, match="no row of frame 3"):
        result.draw(rgb, 3)
    with pytest.raises(InputError, match="expected a uint8"):
        result.draw(rgb[..., 0], 0)


def test_all_action_units_in_their_order(spy: list[Spy]):
    draw_overlay(grey(640, 360), [row_of()], all_aus=True)
    names = [f"{au} {AU_NAMES.get(au, '')}".strip() for au in AUS]
    assert [label for label in spy[0].labels if label.startswith("AU")] == names


def test_a_note_is_in_the_corner_and_no_label_covers_it(spy: list[Spy]):
    draw_overlay(grey(640, 360), [row_of((0, 0, 90, 120))], note="25.0 frames/s  40 ms")
    assert spy[0].labels[0] == "25.0 frames/s  40 ms"
    assert spy[0].taken[0][:2] == (0, 0)
    assert not any(overlay._overlap(spy[0].taken[0], other) for other in spy[0].taken[1:])


@pytest.mark.parametrize(("width", "height"), [(640, 360), (3840, 2160)])
def test_five_smiling_people(
    media: Path, detector: AUDetector, spy: list[Spy], width: int, height: int
):
    image = cv2.imread(str(media / "multi_face.jpg"))[..., ::-1]
    scale = width / image.shape[1]
    image = cv2.resize(image, None, fx=scale, fy=scale)[:height]
    result = detector.detect_image(np.ascontiguousarray(image))
    assert len(result) == 5
    drawn = result.draw(image)
    assert drawn.shape == image.shape
    assert sum(label.startswith("AU12") for label in spy[0].labels) == 5
    # Where there is room for words.
    assert sum(label == "AU12 lip corner puller" for label in spy[0].labels) >= 3
    boxes = [spy[0].visible(row) for row in result]
    assert not any(overlay._overlap(a, b) for a, b in combinations(spy[0].taken, 2))
    panels = [
        rect for rect in spy[0].taken[5:] if rect[2] - rect[0] > 1.5 * spy[0].measure("face 0")
    ]
    assert len(panels) == 5
    assert not any(overlay._overlap(panel, box) for panel in panels for box in boxes)


def test_detect_video_keeps_sound_and_says_how(media: Path, detector: AUDetector, tmp_path: Path):
    clip = media / "single_face.mp4"
    result = detector.detect_video(clip, save=tmp_path / "a.csv", overlay=tmp_path / "a.mp4")
    made = {"codec": "libx264", "sound": "mp3, copied"}
    assert (
        result.metadata["overlay_video"]
        == AUResult.read_csv(tmp_path / "a.csv").metadata["overlay_video"]
        == made
    )
    assert times_of(tmp_path / "a.mp4") == pytest.approx(times_of(clip), abs=1e-4)
    with av.open(str(clip)) as before, av.open(str(tmp_path / "a.mp4")) as after:
        assert after.duration == pytest.approx(before.duration, abs=1000)  # microseconds


def test_real_clip(tmp_path: Path, media: Path):
    frames, fps = read_video(media / "single_face.mp4")
    path = tmp_path / "out.mp4"
    with OverlayWriter(path, fps) as writer:
        for rgb in frames:
            writer.write(np.ascontiguousarray(rgb), [row_of((215, 75, 365, 285))])
    back, rate = read_video(path)
    assert len(back) == len(frames) == 72
    assert rate == fps
    assert back[0].shape == frames[0].shape
    differs = np.abs(back[40].astype(int) - frames[40]).mean(axis=2)
    assert differs[:, :180].mean() < 6  # nothing is drawn here
    assert differs[80:140, 375:560].mean() > 25  # here is the panel


def test_frames_of_other_sizes_are_letterboxed(tmp_path: Path):
    with OverlayWriter(tmp_path / "a.avi", 25) as writer:
        for size in ((160, 96), (96, 160), (320, 192), (161, 97)):
            writer.write(grey(*size, 200), [])
    frames, _ = read_video(tmp_path / "a.avi")
    assert [frame.shape for frame in frames] == [(96, 160, 3)] * 4
    assert frames[1][:, :40].mean() < 20
    assert frames[1][:, 60:100].mean() > 180
    assert frames[2].mean() > 180


def test_tiny_images_make_a_video(tmp_path: Path, pyav: bool):
    for suffix in encoding.OPENCV_CODECS:
        with OverlayWriter(tmp_path / f"a{suffix}", 25) as writer:
            writer.write(grey(1, 1), [row_of()])
            writer.write(grey(1, 1), [])
        frames, _ = read_video(tmp_path / f"a{suffix}")
        assert [frame.shape for frame in frames] == [(32, 32, 3)] * 2


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path, pyav: bool):
    path = tmp_path / "a.mp4"

    def interrupted() -> None:
        with OverlayWriter(path, 30) as writer:
            for _ in range(5):
                writer.write(grey(64, 48), [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read_video(path)[0]) == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_disk_full(tmp_path: Path, pyav: bool):
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    writer = OverlayWriter(tmp_path / "a.mp4", 25)
    with pytest.raises(OptionError, match=r"cannot write .*a\.mp4"):  # noqa: PT012
        writer.write(grey(64, 48), [])
        writer.close()


def test_frame_rates(tmp_path: Path, pyav: bool):
    for fps in (None, float("nan")):
        writer = OverlayWriter(tmp_path / "a.mp4", fps)
        assert writer.fps == 25
        writer.write(grey(64, 48), [])
        writer.close()
        assert read_video(tmp_path / "a.mp4")[1] == 25
    for bad in (0, -1, float("inf")):
        with pytest.raises(OptionError, match="fps"):
            OverlayWriter(tmp_path / "a.mp4", bad)


def test_closing(tmp_path: Path):
    writer = OverlayWriter(tmp_path / "a.mp4", 25)
    writer.close()
    writer.close()
    with pytest.raises(OptionError, match=r"a\.mp4: it is closed"):
        writer.write(grey(64, 48), [])
    assert not list(tmp_path.iterdir())


def test_a_codec_can_be_chosen(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with OverlayWriter(tmp_path / "a.mp4", 25, codec="vp09") as writer:
        for _ in range(30):
            writer.write(grey(64, 48), [])
    frames, _ = read_video(tmp_path / "a.mp4")
    assert len(frames) == 30
    # The second is opened in .webm, and gives nothing that can be read.
    for codec in (
        "zzzz",
        "MJPG",
    ):
        writer = OverlayWriter(tmp_path / "b.webm", 25, codec=codec)
        with pytest.raises(
            OptionError, match=rf"b\.webm: .* 64x48 at 25 frames per second with {codec}"
        ):
            writer.write(grey(64, 48), [])
        writer.close()
    assert not (tmp_path / "b.webm").exists()
    with pytest.raises(OptionError, match="four letters"):
        OverlayWriter(tmp_path / "b.mp4", 25, codec="h264x")
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"  # no chatter, and stderr works again


def test_targets_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.png").mkdir()
    for name in ("a.gif", "a"):
        with pytest.raises(OptionError, match=r"\.mp4.*\.webm.*'.*a"):
            OverlayWriter(tmp_path / name, 25)
        with pytest.raises(OptionError, match=r"\.png or \.jpg, got '.*a"):
            write_overlay_image(tmp_path / name, grey(4, 4))
    for name in ("folder.mp4", "file/a.mp4"):
        with pytest.raises(OptionError, match=f"cannot write .*{name}"):
            OverlayWriter(tmp_path / name, 25)
    for name in ("folder.png", "file/a.png"):
        with pytest.raises(OptionError, match=f"cannot write .*{name}"):
            write_overlay_image(tmp_path / name, grey(4, 4))


def test_an_existing_video_stays_until_there_is_a_frame(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with OverlayWriter(path, 25):
        pass
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".PNG"])
def test_images(tmp_path: Path, suffix: str):
    rgb = np.zeros((40, 30, 3), np.uint8)
    rgb[:20], rgb[20:] = (250, 10, 20), (10, 20, 250)
    path = write_overlay_image(tmp_path / "new" / f"Gesicht ü 顔{suffix}", rgb)
    assert path.exists()
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - rgb).mean() <= (0 if suffix.lower() == ".png" else 3)


def test_names_are_columns():
    assert len(AU_NAMES) == 30
    assert all(au[:2] == "AU" and len(au) == 4 and au[2:].isdigit() for au in AU_NAMES)
    assert AU_NAMES["AU12"] == "lip corner puller"
    assert list(AU_NAMES) == sorted(AU_NAMES)


# Intensity and hostile names


def graded_row(intensity: tuple[float, ...]) -> AURow:
    return dataclasses.replace(row_of(), intensity=np.array(intensity, np.float32))


def test_active_action_units_have_their_grade(spy: list[Spy]):
    draw_overlay(grey(640, 360), [graded_row((4.5, 0.3, 3.2, 1.5, 5.0))])
    assert spy[0].labels == [
        "face 0",
        "AU12 lip corner puller",
        "0.90 D",
        "AU25 lips part",
        "0.70 B",
        "AU06 cheek raiser",
        "0.60 A",
    ]
    draw_overlay(grey(640, 360), [graded_row((4.5, 0.3, 3.2, 1.5, 5.0))], all_aus=True)
    assert spy[1].labels[1:] == [
        "AU01 inner brow raiser",
        "0.10",
        "AU06 cheek raiser",
        "0.60 A",
        "AU12 lip corner puller",
        "0.90 D",
        "AU25 lips part",
        "0.70 B",
        "AU99",
        "0.20",
    ]


def test_letters_of_intensities():
    letters = {0: "", 0.01: "A", 1: "A", 1.01: "B", 2: "B", 3: "C", 4: "D", 4.01: "E", 5: "E"}
    assert {value: grade_letter(value) for value in letters} == letters
    assert grade_letter(math.nan) == grade_letter(-1) == ""
    assert grade_letter(math.inf) == "E"


def test_names_and_notes_are_drawn_as_visible_text(spy: list[Spy]):
    odd = "A\x1b[2J\nU\u202e"
    row = dataclasses.replace(row_of(), aus=("AU01", "AU06", odd, "AU25", "AU99"))
    draw_overlay(grey(640, 360), [row], note=odd)
    shown = r"A\x1b[2J\nU\u202e"
    assert spy[0].labels[0] == shown
    assert shown in spy[0].labels[1:]
    assert all(label.isprintable() for label in spy[0].labels)


def test_a_name_that_is_longer_than_the_image(spy: list[Spy]):
    row = dataclasses.replace(row_of(), aus=("AU01", "AU06", "x" * 100_000, "AU25", "AU99"))
    draw_overlay(grey(1280, 720), [row])
    assert "x" * 32 in spy[0].labels
