from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import ImageGrab

from pyfau import AUDetector, AURow, MediaError, PyfauError, live
from pyfau.cli import main
from pyfau.errors import DependencyError, OptionError
from pyfau.live import NewestFrames, paced, play
from pyfau.overlay.writer import OverlayWriter
from pyfau.tables.writers import open_writer
from pyfau.types import Frame
from pyfau.video import read_video

GREEN = np.array([82, 190, 172])  # of face 0


def image(value: int = 0) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def camera(count: int, fps: float) -> Iterator[Frame]:
    """Delivers frames at its rate, whether somebody takes them or not."""
    start = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, start + i / fps - time.monotonic()))
        yield Frame(i, i / fps, image(i))


class Screen:
    """Keeps what is shown, and is closed by the user after `most` images."""

    def __init__(self, most: int = 10**9) -> None:
        self.all_aus = False
        self.most = most
        self.shown: list[np.ndarray] = []

    def show(self, image: np.ndarray) -> None:
        self.shown.append(image)

    def is_open(self) -> bool:
        return len(self.shown) < self.most

    def close(self) -> None:
        self.most = 0


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines in the corner."""
    made: list[str] = []

    def draw(*args: object, note: str, **options: object) -> np.ndarray:
        made.append(note)
        return real(*args, note=note, **options)

    real = live.draw_overlay
    monkeypatch.setattr(live, "draw_overlay", draw)
    return made


def test_a_slow_consumer_gets_the_newest_frame_and_the_others_are_counted():
    frames = NewestFrames(camera(200, fps=200))
    taken, ages = [], []
    for item in frames:
        if item is None:
            continue
        ages.append(time.monotonic() - item[1])
        taken.append(item[0].index)
        time.sleep(0.05)
    assert taken == sorted(set(taken))
    assert taken[-1] == 199
    assert len(taken) < 40
    assert len(taken) + frames.dropped == 200
    assert np.median(ages) < 0.4  # with a queue of ten it would be half a second


def test_a_fast_consumer_gets_every_frame_and_is_never_kept_waiting_long():
    waits, indices, last = [], [], time.monotonic()
    for item in NewestFrames(camera(5, fps=5)):
        waits.append(time.monotonic() - last)
        last = time.monotonic()
        indices += [item[0].index] if item else []
    assert indices == [0, 1, 2, 3, 4]
    assert len(waits) > 20
    assert np.median(waits) < 0.1


def test_the_thread_ends_with_the_consumer_and_passes_errors_on():
    def broken() -> Iterator[Frame]:
        yield Frame(0, 0.0, image())
        raise MediaError("the camera was pulled out")

    frames = iter(NewestFrames(broken()))
    with pytest.raises(MediaError, match="pulled out"):
        for _ in frames:
            pass
    endless = iter(NewestFrames(camera(10**6, fps=200)))
    next(endless)
    endless.close()
    until = time.monotonic() + 60
    while any(thread.name == "pyfau-newest" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_file_is_played_at_its_own_rate_or_slower_and_no_frame_is_lost():
    source = [Frame(i, i * 0.05, image()) for i in range(11)]
    start = time.monotonic()
    came = [item[1] - start for item in paced(source) if item]
    assert len(came) == 11
    assert all(at >= frame.time_s - 1e-6 for at, frame in zip(came, source, strict=True))
    assert came[-1] < 5
    indices = []
    for item in paced(source):
        if item:
            indices.append(item[0].index)
            time.sleep(0.06)
    assert indices == list(range(11))
    without_times = [Frame(i, float("nan"), image()) for i in range(3)]
    assert len([item for item in paced(without_times) if item]) == 3


def test_rows_are_those_of_the_stream_and_images_have_them(
    media: Path, detector: AUDetector, tmp_path: Path, notes: list[str]
):
    frames = list(read_video(media / "single_face.mp4"))[:24]
    screen = Screen()
    with (
        open_writer(tmp_path / "a.csv", detector.aus, {}) as table,
        OverlayWriter(tmp_path / "a.mp4", 30) as video,
    ):
        played = play(
            detector,
            ((frame, time.monotonic()) for frame in frames),
            screen,
            table=table,
            video=video,
        )
    stream = detector.stream(latency=0)
    expected = [row for frame in frames for row in stream.push(frame.rgb, frame.time_s)]
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["frame"].tolist() == list(range(24))
    np.testing.assert_allclose(rows["time_s"], [frame.time_s for frame in frames], atol=1e-6)
    np.testing.assert_allclose(
        rows[list(detector.aus)], [row.scores for row in expected], atol=2e-6
    )
    assert played.frames == len(screen.shown) == 24
    assert 0 < played.latency_s <= played.worst_latency_s < played.seconds * 2
    assert played.fps == pytest.approx(23 / played.seconds)
    assert all(
        (np.abs(shown.astype(int) - GREEN).max(axis=2) < 30).sum() > 300 for shown in screen.shown
    )
    with av.open(str(tmp_path / "a.mp4")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert times == pytest.approx([frame.time_s for frame in frames], abs=1e-3)
    rate, latency = notes[-1].split("  ")
    assert rate.endswith(" frames/s")
    assert float(rate.split()[0]) > 0
    assert latency.endswith(" ms")
    assert 0 < float(latency.split()[0]) <= 1000 * played.worst_latency_s + 1


def test_dropped_frames_are_shown_and_leave_gaps_in_the_numbers(
    detector: AUDetector, notes: list[str], monkeypatch: pytest.MonkeyPatch
):
    class Table:
        rows: list[AURow] = []  # noqa: RUF012

        def write(self, rows: list[AURow]) -> None:
            self.rows += rows
            time.sleep(0.03)

    source = NewestFrames(camera(150, fps=150))
    table = Table()
    played = play(detector, source, Screen(), table=table)  # type: ignore[arg-type]
    assert played.frames + source.dropped == 150
    assert source.dropped > 50
    indices = [row.frame for row in table.rows]
    assert indices == sorted(indices)
    assert indices[-1] == 149
    assert [row.time_s for row in table.rows] == pytest.approx([i / 150 for i in indices])
    assert notes[-1].endswith(" dropped")
    assert played.latency_s < 0.5


def test_the_user_or_ctrl_c_ends_it(detector: AUDetector, tmp_path: Path):
    def interrupted() -> Iterator[live.Taken]:
        for i in range(3):
            yield Frame(i, i / 10, image()), time.monotonic()
        raise KeyboardInterrupt

    source = ((Frame(i, i / 10, image()), time.monotonic()) for i in range(100))
    assert play(detector, source, Screen(most=5)).frames == 5
    with OverlayWriter(tmp_path / "a.mp4", 10) as video:
        assert play(detector, interrupted(), Screen(), video=video).frames == 3
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert len(list(file.decode(video=0))) == 3
    waiting: Iterator[live.Taken] = iter([None] * 3)
    assert play(detector, waiting, Screen()).frames == 0


def test_without_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert main(["live", "0"]) == 1
    assert capsys.readouterr().err == (
        "pyfau: there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set; `pyfau detect` "
        "scores without one\n"
    )
    (tmp_path / "cv2.py").write_text(
        "raise RuntimeError('The function is not implemented. Rebuild the library')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(DependencyError, match="install opencv-python, not its headless"):
        live.check_screen()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X")
def test_a_screen_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(PyfauError, match="a window could not be opened"):
        live.check_screen()


def test_without_a_camera_and_other_bad_input(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, media: Path
):
    monkeypatch.setattr(live, "check_screen", lambda: None)

    def said(*arguments: str | Path) -> str:
        assert main(["live", *map(str, arguments)]) == 1
        (line,) = capfd.readouterr().err.splitlines()  # nothing of OpenCV's
        return line

    clip = media / "single_face.mp4"
    assert said("63") == "pyfau: camera 63 could not be opened"
    assert "no such file" in said(tmp_path / "none.mp4")
    copy = Path(shutil.copy(clip, tmp_path / "copy.mp4"))
    assert "would replace the input" in said(copy, "--record-video", copy)
    assert copy.read_bytes() == clip.read_bytes()
    assert "latency 0 is for the continuous window" in said(clip, "--window", "clips")
    assert ".mp4, .mkv or .webm" in said(clip, "--record-video", tmp_path / "a.avi")
    assert "written as .csv, .parquet, .jsonl" in said(clip, "--record", tmp_path / "a.xlsx")
    shutil.copy(clip, tmp_path / "second.mp4")
    assert "shows one camera or video, got 2" in said(tmp_path)


def test_a_clip_is_watched_from_python(
    detector: AUDetector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, media: Path
):
    screen = Screen(most=4)
    monkeypatch.setattr(live, "Window", lambda title, all_aus: screen)
    clip, table = media / "single_face.mp4", tmp_path / "a.csv"
    seen = live.watch(lambda: detector, clip, table=table)
    assert (seen.source, seen.played.frames, seen.dropped) == (str(clip), 4, None)
    assert screen.most == 0  # the window is closed
    assert len(pd.read_csv(table)) == 4


def test_a_recording_of_the_view_cannot_cover_faces(
    detector: AUDetector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, media: Path
):
    monkeypatch.setattr(live, "Window", lambda title, all_aus: Screen(most=4))
    monkeypatch.setattr(detector, "anonymise", True)
    with pytest.raises(OptionError, match="shows faces"):
        live.watch(lambda: detector, media / "single_face.mp4", video=tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[str]:
    """The name of a display that is nobody's; skips where there is no X server for it."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool (Debian: xvfb, xdotool)")
    read, write = os.pipe()
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(write),
            "-screen",
            "0",
            "800x600x24",
            "-nolisten",
            "tcp",
            "-noreset",
        ],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            yield f":{pipe.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def test_in_a_real_window(screen: str, media: Path, tmp_path: Path):
    clip = media / "WolfgangLanger_Pexels.mp4"
    table, video = tmp_path / "a.csv", tmp_path / "a.mp4"
    command = [
        sys.executable,
        "-m",
        "pyfau",
        "live",
        clip,
        "--record",
        table,
        "--record-video",
        video,
        "--threads",
        "1",
    ]
    environment = os.environ | {"DISPLAY": screen}

    def do(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["xdotool", *arguments], env=environment, capture_output=True, text=True
        )

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        until = time.monotonic() + 60
        shown = again = False
        while not shown:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until, "no box in the window"
            time.sleep(0.5)
            if table.exists() and table.read_text().count("\n") > 20:
                seen = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"), int)
                shown = (np.abs(seen - GREEN).max(axis=2) < 12).sum() > 500  # the box
                # Without a window manager Qt's window at times never hears that it is seen.
                if not (shown or again):
                    again = True
                    do("search", "--name", "pyfau: ", "windowunmap", "--sync", "windowmap")
                    time.sleep(2)
        do("search", "--name", "pyfau: ", "key", "q")
        said, complaints = run.communicate(timeout=60)
    assert run.returncode == 0, complaints
    assert (seen.min(axis=2) > 220).sum() > 50  # letters
    rows = pd.read_csv(table)
    assert 20 <= len(rows) < 472
    record = json.loads((tmp_path / "a.csv.json").read_text())
    assert record["complete"] is True
    assert record["latency_frames"] == 0
    assert record["overlay"]["path"] == str(video)
    assert record["overlay_video"]["codec"]
    assert record["warnings"] == []
    assert f"{len(rows)} frames shown at " in said
    with av.open(str(video)) as file:
        assert sum(1 for _ in file.decode(video=0)) == len(rows)
    with av.open(str(video)) as file:
        heard = [frame.time for frame in file.decode(audio=0)]
    # The sound ends with what was shown.
    assert heard[-1] == pytest.approx(rows["time_s"].iloc[-1], abs=0.1)
