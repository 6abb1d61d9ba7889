from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau import overlay
from pyfau.aus import AU_NAMES
from pyfau.errors import InputError, OptionError
from pyfau.overlay import OverlayWriter, draw_overlay, write_overlay_picture
from pyfau.types import AURow

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
        0, 0.0, face_id, success, 0.9, np.array(box, np.float32), points.astype(np.float32), values, values >= 0.5, AUS
    )


def grey(width: int, height: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class Spy(overlay._Style):
    """Records what is drawn where."""

    made: list[Spy]

    def __init__(self, picture: np.ndarray) -> None:
        super().__init__(picture)
        self.labels: list[str] = []
        self.made.append(self)

    def write(self, label: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
        self.labels.append(label)
        assert x >= 0
        assert x + self.measure(label) <= self.width
        assert 0 <= y <= self.height - self.row
        super().write(label, x, y, colour)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    Spy.made = []
    monkeypatch.setattr(overlay, "_Style", Spy)
    return Spy.made


def test_the_picture_given_is_left_alone():
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
        "face 0", "AU12 lip corner puller", "0.90", "AU25 lips part", "0.70", "AU06 cheek raiser", "0.60",
    ]  # fmt: skip


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
    pictures = [draw_overlay(grey(640, 360), [row_of(face_id=i, scores=(0,) * 5)]) for i in range(5)]
    edges = {tuple(int(v) for v in picture[200, 200]) for picture in pictures}
    assert len(edges) == 5


@pytest.mark.parametrize(("width", "height"), [(540, 360), (1000, 667), (3840, 2160), (400, 900)])
def test_labels_of_five_faces_do_not_overlap(spy: list[Spy], width: int, height: int):
    boxes = [(0.22, 0.1, 0.3, 0.26), (0.31, 0.35, 0.41, 0.54), (0.44, 0.33, 0.52, 0.46), (0.53, 0.46, 0.63, 0.65),
             (0.68, 0.43, 0.79, 0.63)]  # fmt: skip
    scale = np.array([width, height] * 2)
    rows = [row_of(tuple(np.array(box) * scale), i, (0.6, 0.7, 0.8, 0.9, 1)) for i, box in enumerate(boxes)]
    draw_overlay(grey(width, height), rows)
    assert 10 <= len(spy[0].taken) <= 15  # five numbers, five panels, and tabs for what found no room
    assert not any(overlay._overlap(a, b) for a, b in combinations(spy[0].taken, 2))
    for x0, y0, x1, y1 in spy[0].taken:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    tag_width = min(rect[2] - rect[0] for rect in spy[0].taken[:5])
    for panel in (rect for rect in spy[0].taken[5:] if rect[2] - rect[0] > tag_width):  # tabs are narrower
        assert not any(overlay._overlap(panel, tuple(int(v) for v in row.box_xyxy)) for row in rows)


def test_sizes_follow_the_picture():
    small, large = (overlay._Style(grey(w, h)) for w, h in ((640, 360), (3840, 2160)))
    assert small.text > 11
    assert large.text > 4 * small.text
    assert large.line > small.line


_number = st.floats(-200, 300) | st.sampled_from([-1e9, 1e9, 1e30, np.nan, np.inf])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.lists(st.tuples(_number, _number, _number, _number), max_size=5),
    st.floats(0, 1, width=32),
)  # fmt: skip
def test_no_box_and_no_size_is_too_odd(
    width: int, height: int, boxes: list[tuple[float, float, float, float]], score: float
):
    with np.errstate(all="ignore"):
        rows = [row_of(box, i, (score,) * 5) for i, box in enumerate(boxes)]
    drawn = draw_overlay(grey(width, height), rows)
    assert drawn.shape == (height, width, 3)


def test_what_is_no_picture_is_refused(tmp_path: Path):
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "x"):
        with pytest.raises(InputError, match="expected a uint8"):
            draw_overlay(bad, [])
        with pytest.raises(InputError, match="expected a uint8"):
            write_overlay_picture(tmp_path / "a.png", bad)
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


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
@pytest.mark.parametrize("fps", [23.976023976, 119.88])
def test_video_is_read_back_with_its_size_rate_and_frames(tmp_path: Path, suffix: str, fps: float):
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
    assert writer.codec in overlay._CODECS[suffix]


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


def test_tiny_pictures_make_a_video(tmp_path: Path):
    for suffix in overlay._CODECS:
        with OverlayWriter(tmp_path / f"a{suffix}", 25) as writer:
            writer.write(grey(1, 1), [row_of()])
            writer.write(grey(1, 1), [])
        frames, _ = read_video(tmp_path / f"a{suffix}")
        assert [frame.shape for frame in frames] == [(32, 32, 3)] * 2


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path):
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
def test_disk_full(tmp_path: Path):
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    writer = OverlayWriter(tmp_path / "a.mp4", 25)
    with pytest.raises(OptionError, match=r"cannot write .*a\.mp4"):  # noqa: PT012
        writer.write(grey(64, 48), [])
        writer.close()


def test_frame_rates(tmp_path: Path):
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
    for codec in ("zzzz", "MJPG"):  # the second is opened in .webm, and gives nothing that can be read
        writer = OverlayWriter(tmp_path / "b.webm", 25, codec=codec)
        with pytest.raises(OptionError, match=rf"b\.webm: .* 64x48 at 25 frames per second with {codec}"):
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
            write_overlay_picture(tmp_path / name, grey(4, 4))
    for name in ("folder.mp4", "file/a.mp4"):
        with pytest.raises(OptionError, match=f"cannot write .*{name}"):
            OverlayWriter(tmp_path / name, 25)
    for name in ("folder.png", "file/a.png"):
        with pytest.raises(OptionError, match=f"cannot write .*{name}"):
            write_overlay_picture(tmp_path / name, grey(4, 4))


def test_an_existing_video_stays_until_there_is_a_frame(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with OverlayWriter(path, 25):
        pass
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".PNG"])
def test_pictures(tmp_path: Path, suffix: str):
    rgb = np.zeros((40, 30, 3), np.uint8)
    rgb[:20], rgb[20:] = (250, 10, 20), (10, 20, 250)
    path = write_overlay_picture(tmp_path / "new" / f"Gesicht ü 顔{suffix}", rgb)
    assert path.exists()
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - rgb).mean() <= (0 if suffix.lower() == ".png" else 3)


def test_names_are_columns():
    assert len(AU_NAMES) == 23
    assert all(au[:2] == "AU" and len(au) == 4 and au[2:].isdigit() for au in AU_NAMES)
    assert AU_NAMES["AU12"] == "lip corner puller"
    assert list(AU_NAMES) == sorted(AU_NAMES)
