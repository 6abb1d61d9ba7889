from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from browser import chromium, complaints
from made import write_clip, write_timed_clip
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from pyfau import AUDetector, cli
from pyfau.errors import InputError, MediaError, OptionError
from pyfau.limits import LIMITS, Limits
from pyfau.serve import uploads
from pyfau.serve.deadlines import Pace
from pyfau.serve.server import AUServer, ServeLimits
from pyfau.video import read_image, read_video

OWN = {"origin": "http://localhost"}


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextmanager
def client_of(detector: AUDetector, **limits: Any) -> Iterator[TestClient]:
    with TestClient(
        AUServer(detector, ServeLimits(**limits)).app, base_url="http://localhost"
    ) as client:
        yield client


@pytest.fixture(scope="module")
def client(detector: AUDetector) -> Iterator[TestClient]:
    with client_of(detector) as client:
        yield client


@pytest.fixture(scope="module")
def clip(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames: a man begins to smile."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with read_video(media / "single_face.mp4") as reader:
        return write_clip(path, [frame.rgb for frame in reader][:40:4])


def jpeg(rgb: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", **options)
    return file.getvalue()


def exchange(session: WebSocketTestSession, data: bytes) -> Any:
    session.send_bytes(data)
    return session.receive_json()


def post(client: TestClient, body: Any) -> list[Any]:
    response = client.post("/clip", content=body, headers=OWN)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)
    return value


# The page


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    linked = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page.text)
    assert sorted(linked) == ["page.css", "page.js"]
    for name in linked:
        assert client.get(f"/{name}").status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"


def test_settings_are_those_of_the_detector(client: TestClient, detector: AUDetector) -> None:
    settings = client.get("/settings").json()
    assert settings["model"] == "mdhr-lite"
    assert settings["aligner"] == detector.settings()["aligner"]
    assert [entry["au"] for entry in settings["aus"]] == list(detector.aus)
    assert [entry["threshold"] for entry in settings["aus"]] == pytest.approx(
        detector.thresholds, abs=1e-4
    )
    assert (
        next(entry for entry in settings["aus"] if entry["au"] == "AU12")["name"]
        == "lip corner puller"
    )
    assert settings["local"] is True


@pytest.mark.parametrize(
    "path", ["/page", "/page/page.js", "/../pyproject.toml", "/%2e%2e/server.py", "/camera", "/x"]
)
def test_no_other_path_leads_anywhere(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


# Who may use it


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"]
)
def test_foreign_host_names_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "host name" in answer.json()["error"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "host", ["localhost:8765", "127.0.0.1", "127.0.0.1:9999", "[::1]:8765", "LOCALHOST"]
)
def test_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:1",
        "http://127.0.0.1",
        "file://localhost",
        None,
    ],
)
def test_other_origins_open_no_session(client: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    answer = client.post("/clip", content=b"", headers=headers)
    assert answer.status_code == 403
    assert "own page" in answer.json()["error"]
    with (
        pytest.raises(WebSocketDisconnect) as denied,
        client.websocket_connect("ws://localhost/camera", headers=headers),
    ):
        pass
    assert denied.value.code == 1008


# The camera


def test_camera_frames_get_the_scores_of_a_stream(
    client: TestClient, detector: AUDetector, clip: Path
) -> None:
    stream = detector.stream(latency=0)
    with (
        read_video(clip) as frames,
        client.websocket_connect("ws://localhost/camera", headers=OWN) as session,
    ):
        for frame in frames:
            data = jpeg(frame.rgb)
            answer = exchange(session, data)
            (row,) = stream.push(np.asarray(Image.open(io.BytesIO(data))))
            (given,) = answer["rows"]
            assert (answer["width"], answer["height"]) == (640, 360)
            assert (given["frame"], given["face"]) == (row.frame, row.face_id) == (frame.index, 0)
            assert given["scores"] == pytest.approx(row.scores, abs=1e-4)
            assert given["active"] == row.active.tolist()
            assert np.allclose(given["box"], row.box_xyxy, atol=0.06)
            assert np.allclose(given["landmarks"], row.landmarks, atol=0.06)


def test_sessions_do_not_mix_faces(
    client: TestClient, detector: AUDetector, media: Path, clip: Path
) -> None:
    several = [read_image(media / "multi_face.jpg")] * 4
    with read_video(clip) as frames:
        one = [frame.rgb for frame in frames][:4]
    sequences = [[jpeg(rgb) for rgb in rgbs] for rgbs in (one, several)]
    alone = []
    for sequence in sequences:
        with client.websocket_connect("ws://localhost/camera", headers=OWN) as session:
            alone.append([exchange(session, data)["rows"] for data in sequence])
    with (
        client.websocket_connect("ws://localhost/camera", headers=OWN) as first,
        client.websocket_connect("ws://localhost/camera", headers=OWN) as second,
    ):
        together: list[list[Any]] = [[], []]
        for pair in zip(*sequences, strict=True):
            for session, data in zip((first, second), pair, strict=True):
                session.send_bytes(data)  # both before either answers
            for session, rows in zip((first, second), together, strict=True):
                rows.append(session.receive_json()["rows"])

    def untimed(rows: list[Any]) -> list[Any]:
        return [[{**row, "time_s": None} for row in of_frame] for of_frame in rows]

    assert [untimed(rows) for rows in together] == [untimed(rows) for rows in alone]
    assert {row["face"] for row in together[1][-1]} == {0, 1, 2, 3, 4}


def bomb(side: int) -> bytes:
    """A small file that says it has side x side pixels."""
    data = bytearray(jpeg(np.zeros((8, 8, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = side.to_bytes(2, "big") * 2
    return bytes(data)


def test_bad_frames_are_answered_and_the_session_goes_on(client: TestClient, clip: Path) -> None:
    with read_video(clip) as frames:
        rgb = next(frames).rgb
    png = io.BytesIO()
    Image.fromarray(rgb).save(png, "PNG")
    good = jpeg(rgb)
    bad = {
        b"": "not a JPEG",
        b"\xff\xd8\xff": "not a JPEG",
        os.urandom(5000): "not a JPEG",
        good[: len(good) // 2]: "not a JPEG",
        png.getvalue(): "not a JPEG",
        bomb(1500): "too many pixels, 1500 x 1500: expected at most 2073600",
        bomb(60000): "too many pixels: expected at most 2073600",
        good + b"\xff\xda" * 100: "scans",
    }
    with client.websocket_connect("ws://localhost/camera", headers=OWN) as session:
        for data, message in bad.items():
            assert message in exchange(session, data)["error"]
        session.send_text("{}")
        assert "binary" in session.receive_json()["error"]
        for odd in (jpeg(rgb[:1, :1]), jpeg(rgb[:, :, 0]), jpeg(rgb, progressive=True)):
            assert "error" not in exchange(session, odd)
        assert exchange(session, good)["rows"][0]["face"] >= 0


def test_nothing_larger_than_a_frame_may_be_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(uploads, "check_frame", refuse)
    for side in (1500, 60000):
        with pytest.raises(InputError, match="at most 2073600"):
            uploads.decode_frame(bomb(side))


def test_one_session_too_many_is_told_so(detector: AUDetector, clip: Path) -> None:
    with client_of(detector, sessions=1) as client:
        with client.websocket_connect("ws://localhost/camera", headers=OWN) as session:
            assert "rows" in exchange(session, jpeg(np.zeros((48, 64, 3), np.uint8)))
            with client.websocket_connect("ws://localhost/camera", headers=OWN) as other:
                assert "busy: 1 session runs already" in other.receive_json()["error"]
                assert other.receive()["code"] == 1013
            answer = client.post("/clip", content=clip.read_bytes(), headers=OWN)
            assert answer.status_code == 503
            assert "busy" in answer.json()["error"]
            assert "rows" in exchange(session, jpeg(np.zeros((48, 64, 3), np.uint8)))
        assert "csv" in post(client, clip.read_bytes())[-1]


def test_a_session_that_stands_still_is_ended(detector: AUDetector) -> None:
    with client_of(detector, sessions=1, idle_seconds=0.2) as client:
        for _ in range(2):  # and gives its place back
            with client.websocket_connect("ws://localhost/camera", headers=OWN) as session:
                assert "no frame came for 0.2 s" in session.receive_json()["error"]
                assert session.receive()["type"] == "websocket.close"


def test_a_camera_that_drips_frames_loses_its_place(detector: AUDetector) -> None:
    """One frame just before each end of the idle time is too few."""
    black = jpeg(np.zeros((48, 64, 3), np.uint8))
    limits = {"sessions": 1, "idle_seconds": 1.0, "frames_per_second": 50.0}
    with (
        client_of(detector, **limits) as client,
        client.websocket_connect("ws://localhost/camera", headers=OWN) as session,
    ):
        for _ in range(5):
            time.sleep(0.7)
            session.send_bytes(black)
            answer = session.receive_json()
            if "error" in answer:
                break
        assert "the session was ended: fewer than 50 frames a second came" in answer["error"]
        assert session.receive()["type"] == "websocket.close"
    # A camera at the lowest rate stays, and what it had in hand is limited.
    pace = Pace(60, 0.5, grace_s=60, most_s=60)
    for _ in range(1000):
        pace.add(2.0, 1)
    assert pace.allowed_s() == 60
    for _ in range(100_000):
        pace.add(0.03, 1)
    assert pace.allowed_s() == 60
    pace.add(59, 1)
    assert pace.allowed_s() == 3


def test_a_session_of_a_camera_ends_after_its_time(detector: AUDetector) -> None:
    black = jpeg(np.zeros((48, 64, 3), np.uint8))
    with (
        client_of(detector, sessions=1, camera_seconds=0.5) as client,
        client.websocket_connect("ws://localhost/camera", headers=OWN) as session,
    ):
        answer = {}
        for _ in range(10_000):
            answer = exchange(session, black)
            if "error" in answer:
                break
        assert answer["error"] == "the session was ended: it lasted 0.5 s; start it again"
        assert session.receive()["type"] == "websocket.close"


# A clip


def test_a_clip_gets_the_scores_of_detect_video_and_leaves_nothing(
    client: TestClient, detector: AUDetector, clip: Path, folder: Path, tmp_path: Path
) -> None:
    first, *parts, last = post(client, clip.read_bytes())
    assert not list(folder.iterdir())
    assert first == {"width": 640, "height": 360, "fps": 25.0, "frames": 10}
    assert last["warnings"] == []
    rows = [row for part in parts for row in part["rows"]]
    expected = list(detector.iter_video(clip))
    assert [row["frame"] for row in rows] == list(range(10))
    assert [row["time_s"] for row in rows] == pytest.approx(
        [row.time_s for row in expected], abs=1e-4
    )
    scores = np.array([row["scores"] for row in rows])
    assert np.allclose(scores, [row.scores for row in expected], atol=1e-4)
    smile = scores[:, detector.aus.index("AU12")]
    assert smile[0] < 0.2 < 0.8 < smile[-1]
    detector.detect_video(clip, save=tmp_path / "direct.csv")
    direct, sent = (tmp_path / "direct.csv").read_text().splitlines(), last["csv"].splitlines()
    assert sent[0] == direct[0]
    numbers = [np.array([line.split(",") for line in lines[1:]], float) for lines in (direct, sent)]
    assert np.allclose(*numbers, atol=1e-4)


def test_a_clip_in_which_the_face_goes_and_comes(
    client: TestClient, media: Path, folder: Path
) -> None:
    with read_video(media / "face_noface.mov") as reader:
        frames = [cv2.resize(frame.rgb, (480, 270)) for frame in reader if frame.index % 20 == 0]
    path = write_clip(folder / "clip.avi", frames, 10)
    lines = post(client, path.read_bytes())
    rows = [row for line in lines[1:-1] for row in line["rows"]]
    assert rows[0]["face"] == 0
    assert set(rows[-1]) == {"frame", "time_s"}


def test_what_was_wrong_with_a_clip_is_said(client: TestClient, media: Path) -> None:
    damaged = bytearray((media / "single_face.mp4").read_bytes())
    third = len(damaged) // 3
    damaged[third : third + 20_000] = bytes(20_000)
    first, *parts, last = post(client, bytes(damaged))
    lost = first["frames"] - len({row["frame"] for part in parts for row in part["rows"]})
    assert lost > 0
    assert last["warnings"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 415, "expected MP4"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", 415, "expected MP4"),
        (b"ffconcat version 1.0\nfile 'other.mp4'\n", 415, "expected MP4"),
        (b"v=0\r\nm=video 5004 RTP/AVP 96\r\n", 415, "expected MP4"),
        (jpeg(np.zeros((8, 8, 3), np.uint8)), 415, "expected MP4"),
        (b"\0\0\0\x20ftypisom" + b"\1" * 5000, 422, "the clip: not a video file"),
        (b"\x1aE\xdf\xa3" + b"\1" * 5000, 422, "the clip: not a video file"),
    ],
)
def test_what_is_no_clip_is_refused(
    client: TestClient,
    folder: Path,
    body: bytes,
    status: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    answer = client.post("/clip", content=body, headers=OWN)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert str(folder) not in answer.text
    wait_for(lambda: not list(folder.iterdir()))


def test_ffmpeg_opens_nothing_else_under_the_first_bytes_of_a_container(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    clip = write_timed_clip(tmp_path / "clip.ts", [noise] * 10, [i / 25 for i in range(10)])
    disguised = tmp_path / "clip"
    disguised.write_bytes(b"\1\1\1\1ftypjp2 " + clip.read_bytes())
    assert uploads.is_container(disguised.read_bytes()[:12])
    with read_video(disguised) as frames:  # FFmpeg sees through it
        assert len(list(frames)) == 10
    answer = client.post("/clip", content=disguised.read_bytes(), headers=OWN)
    assert answer.status_code == 422
    assert "not a video file" in answer.json()["error"]
    with read_video(disguised):  # elsewhere it is as before
        pass


def test_a_clip_that_is_too_long_or_too_wide_is_refused(
    detector: AUDetector, clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(detector, clip_seconds=0.3) as client:
        answer = client.post("/clip", content=clip.read_bytes(), headers=OWN)
        assert answer.status_code == 422
        assert "at most 0.3 s" in answer.json()["error"]
        # Where the file does not say its length, it shows in the end.
        monkeypatch.setattr("pyfau.serve.uploads.check_length", lambda *_: None)
        first, *_, last = post(client, clip.read_bytes())
        assert first["frames"] == 10
        assert "at most 0.3 s" in last["error"]
        monkeypatch.setattr(detector, "limits", Limits(upload_pixels=640 * 359))
        monkeypatch.setattr(uploads, "read_video", None)  # which would decode a frame
        answer = client.post("/clip", content=clip.read_bytes(), headers=OWN)
        assert answer.status_code == 422
        assert "too many pixels, 640 x 360" in answer.json()["error"]
        wait_for(lambda: not list(folder.iterdir()))


def test_a_clip_that_is_too_large_is_refused(detector: AUDetector, folder: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"\0" * 10_000

    with client_of(detector, clip_bytes=100_000) as client:
        announced = client.post("/clip", content=b"\0" * 100_001, headers=OWN)
        streamed = client.post("/clip", content=endless(), headers=OWN)
        wait_for(lambda: not list(folder.iterdir()))
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert "at most 0.1 MB" in answer.json()["error"]


# The command


def test_options_are_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--max-sessions", "0"]) == 1
    assert "--max-sessions must be a number above 0, got 0" in capsys.readouterr().err
    assert cli.main(["serve", "--host", "192.0.2.1"]) == 1
    assert "cannot listen at --host 192.0.2.1 --port 8765" in capsys.readouterr().err
    assert cli.main(["serve", "--port", "99999"]) == 1
    assert "--port 99999" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "pyfau.serve.run", raising=False)
    assert cli.main(["serve"]) == 1
    assert "pip install 'pyfau[serve]'" in capsys.readouterr().err


def test_clips_windows_cannot_answer_at_once() -> None:
    with pytest.raises(OptionError, match="latency 0"):
        AUServer(AUDetector(device="cpu", window="clips"), ServeLimits())


class Served:
    """`pyfau serve` as a process of its own, with a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.folder = folder
        command = [
            sys.executable,
            "-m",
            "pyfau",
            "serve",
            "--port",
            "0",
            "--device",
            "cpu",
            "--threads",
            "1",
            *arguments,
        ]
        environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.errors = (folder.parent / f"{folder.name}.log").open("w+")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)/", said)
        assert found, said + self.said()
        self.host, self.port = found[1], int(found[2])
        self.url = found[0]

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def begin_post(self, clip: Path, length: int | None = None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.putrequest("POST", "/clip")
        connection.putheader("Origin", f"http://{self.host}:{self.port}")
        connection.putheader(
            "Content-Length", str(clip.stat().st_size if length is None else length)
        )
        connection.endheaders()
        return connection

    def end(self, number: int = signal.SIGINT) -> str:
        """End it and return what it said on standard error."""
        self.process.send_signal(number)
        try:
            assert self.process.wait(30) == 0, self.said()
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            said = self.said()
            self.errors.close()
        assert not list(self.folder.glob("pyfau-serve-*"))
        return said


def test_a_server_with_open_sessions_ends_cleanly(media: Path, tmp_path: Path) -> None:
    served = Served(tmp_path / "temporary")
    clip = media / "WolfgangLanger_Pexels.mp4"
    early = served.begin_post(clip, 10**12)  # refused by its announcement alone
    answer = early.getresponse()
    assert answer.status == 413
    assert "too large" in json.load(answer)["error"]
    early.close()
    gone = served.begin_post(clip)
    gone.send(clip.read_bytes()[:100_000])
    wait_for(lambda: list(served.folder.glob("pyfau-serve-*/clip")))
    gone.close()  # in the middle of the upload
    wait_for(lambda: not list(served.folder.glob("pyfau-serve-*")))
    gone = served.begin_post(clip)
    gone.send(clip.read_bytes())
    reading = gone.getresponse()
    assert "width" in json.loads(reading.readline())
    reading.close()
    gone.close()  # in the middle of the scores
    wait_for(lambda: not list(served.folder.glob("pyfau-serve-*")))
    address = f"{served.host}:{served.port}"
    with connect(
        f"ws://{address}/camera", origin=Origin(f"http://{address}"), proxy=None
    ) as session:
        with suppress(ConnectionClosed):
            session.send(b"\0" * (LIMITS.camera_bytes + 1))
        with pytest.raises(ConnectionClosed) as closed:
            session.recv(timeout=120)
        assert closed.value.rcvd.code == 1009  # message too big
    running = served.begin_post(clip)
    running.send(clip.read_bytes())
    scores = running.getresponse()
    assert "width" in json.loads(scores.readline())
    assert "rows" in json.loads(scores.readline())
    with connect(
        f"ws://{address}/camera", origin=Origin(f"http://{address}"), proxy=None
    ) as session:
        # Is not kept waiting by the clip.
        session.send(jpeg(read_image(media / "single_face.jpg")))
        assert json.loads(session.recv(timeout=120))["rows"][0]["face"] == 0
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://{address}/camera", origin=Origin("http://evil.example"), proxy=None)
    stalled = served.begin_post(clip)
    stalled.send(clip.read_bytes()[:100_000])
    wait_for(lambda: len(list(served.folder.glob("pyfau-serve-*/clip"))) == 2)
    assert served.end() == ""
    assert "the server was ended" in json.loads(scores.read().splitlines()[-1])["error"]
    running.close()
    stalled.close()


def test_listening_to_other_machines_comes_with_a_warning(tmp_path: Path) -> None:
    served = Served(tmp_path / "temporary", "--host", "0.0.0.0")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
    connection.request("GET", "/settings")
    assert json.load(connection.getresponse())["local"] is False
    connection.close()
    assert "lets other machines in" in served.end(signal.SIGTERM)


# The page in a browser


def text_of(page: WebDriver, name: str) -> str:
    return page.find_element(By.ID, name).text


def scores_of(page: WebDriver, au: str) -> list[float]:
    """Of all faces that are shown, as a screen reader has them."""
    script = (
        'return [...document.querySelectorAll(`[aria-label^="${arguments[0]}"]`)]'
        ".map((bar) => bar.ariaValueNow)"
    )
    return [float(value) for value in page.execute_script(script, au)]


def width_of(page: WebDriver, au: str) -> float:
    """Of the first bar, as a part of its track."""
    return float(
        page.execute_script(
            'const bar = document.querySelector(`[aria-label^="${arguments[0]}"]`);'
            "return bar.firstChild.getBoundingClientRect().width / "
            "bar.getBoundingClientRect().width",
            au,
        )
    )


def painted(page: WebDriver) -> int:
    """How many pixels the overlay has painted."""
    return int(
        page.execute_script(
            "const c = document.getElementById('overlay');"
            "const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
            "return data.filter((value, i) => i % 4 == 3 && value).length"
        )
    )


def test_camera_in_the_browser(media: Path, tmp_path: Path) -> None:
    served = Served(tmp_path / "temporary", "--max-sessions", "1")
    with read_video(media / "single_face.mp4") as frames:
        neutral_then_smile = [
            cv2.cvtColor(f.rgb, cv2.COLOR_RGB2BGR) for f in frames if f.index < 10 or f.index >= 40
        ]
    neutral, smile = neutral_then_smile[:10], neutral_then_smile[10:]
    film = tmp_path / "camera.mjpeg"  # of 6 s
    images = [cv2.imencode(".jpg", bgr)[1].tobytes() for bgr in neutral * 9 + smile * 3]
    film.write_bytes(b"".join(images))
    (tmp_path / "profile").mkdir()
    switches = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(
        tmp_path / "profile", *switches, f"--use-file-for-fake-video-capture={film}"
    ) as page:
        page.get(served.url)
        assert "not emotion" in page.find_element(By.TAG_NAME, "footer").text
        wait_for(lambda: "Nothing leaves this machine" in text_of(page, "privacy"))
        # The first thing that takes the focus.
        page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB, Keys.ENTER)
        seen: list[float] = []

        def smiled() -> bool:
            seen.extend(scores_of(page, "AU12 lip corner puller"))
            return bool(seen) and min(seen) < 0.2 and max(seen) > 0.8

        wait_for(smiled)
        for _ in range(100):  # the bar is as long as the score says
            score, width = scores_of(page, "AU12")[0], width_of(page, "AU12")
            if abs(score - width) < 0.01:
                break
        assert width == pytest.approx(score, abs=0.01)
        assert painted(page) > 500
        assert float(text_of(page, "rate")) > 0.2
        assert text_of(page, "latency").endswith(" ms")
        page.find_element(By.ID, "stop").click()
        wait_for(lambda: text_of(page, "status") == "Stopped.")
        assert not page.find_element(By.ID, "video").is_displayed()
        assert text_of(page, "error") == ""
        for _ in range(2):  # one session at a time, and each click begins another
            page.find_element(By.ID, "camera").click()
        wait_for(lambda: text_of(page, "latency").endswith(" ms"))
        assert text_of(page, "error") == ""
        assert complaints(page) == []
        assert served.end() == ""
        wait_for(lambda: "The server does not answer" in text_of(page, "error"))


def with_sound(clip: Path, path: Path) -> Path:
    """The same images with a second of silence as sound."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as file:
        images, sound = (
            file.add_stream_from_template(source.streams.video[0]),
            file.add_stream("aac", rate=48_000),
        )
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = images
                file.mux(packet)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((2, 48_000), np.float32), format="fltp", layout="stereo"
        )
        silence.rate, silence.pts = 48_000, 0
        file.mux([*sound.encode(silence), *sound.encode(None)])
    return path


@pytest.mark.slow
def test_clip_in_the_browser(media: Path, clip: Path, tmp_path: Path) -> None:
    served = Served(tmp_path / "temporary")
    downloads = tmp_path / "downloads"
    for name in ("downloads", "profile"):
        (tmp_path / name).mkdir()
    with read_video(media / "single_face.mp4") as reader:
        film = write_clip(tmp_path / "a smile.webm", [frame.rgb for frame in reader][::2], 15)
    with chromium(tmp_path / "profile") as page:
        page.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
        )
        page.get(served.url)
        wait_for(lambda: text_of(page, "model"))
        chooser = page.find_element(By.ID, "file")
        chooser.send_keys(str(film))
        wait_for(
            lambda: text_of(page, "status") == "36 frames scored. The server has deleted the clip."
        )
        assert not list(served.folder.glob("pyfau-serve-*"))
        page.find_element(By.ID, "csv").click()
        table = wait_for(lambda: next(downloads.glob("a smile.csv"), None)).read_text().splitlines()
        assert len(table) == 37
        columns = table[0].split(",")
        scores = [float(line.split(",")[columns.index("AU12")]) for line in table[1:]]
        page.execute_script("document.getElementById('video').pause()")
        for index in (2, 30, 0, 35):
            page.execute_script(
                "document.getElementById('video').currentTime = arguments[0]", (index + 0.5) / 15
            )
            wait_for(
                lambda at=index: scores_of(page, "AU12") == pytest.approx([scores[at]], abs=0.006)
            )
        assert scores[2] < 0.2 < 0.8 < scores[30]
        assert painted(page) > 500
        # It moves by itself as well.
        page.execute_script(
            "const v = document.getElementById('video'); v.currentTime = 0; v.play()"
        )
        wait_for(lambda: scores_of(page, "AU12")[0] < 0.2)
        wait_for(lambda: scores_of(page, "AU12")[0] > 0.8)
        assert text_of(page, "error") == ""
        assert complaints(page) == []

        # MPEG-4 part 2, which Chromium does not play; if there is sound, it would play that.
        for silent_or_not in (clip, with_sound(clip, tmp_path / "sound.mp4")):
            chooser.send_keys(str(silent_or_not))
            wait_for(lambda: text_of(page, "error") == "")
            wait_for(lambda: "cannot play the clip" in text_of(page, "error"))
            low = scores_of(page, "AU12")[0]
            page.find_element(By.ID, "slider").send_keys(Keys.END)
            wait_for(lambda low=low: scores_of(page, "AU12")[0] > low + 0.5)
            assert not page.find_element(By.ID, "video").is_displayed()
            assert page.find_element(By.ID, "csv").is_displayed()
    assert served.end() == ""


@pytest.mark.slow
def test_errors_in_the_browser(tmp_path: Path, clip: Path) -> None:
    served = Served(tmp_path / "temporary", "--max-clip-mb", "1", "--max-sessions", "1")
    (tmp_path / "profile").mkdir()
    text = tmp_path / "text.mp4"
    text.write_text("no clip")
    big = tmp_path / "big.mp4"
    big.write_bytes(b"\0" * 1_000_001)

    def error_of(page: WebDriver, words: str) -> None:
        wait_for(lambda: words in text_of(page, "error"))
        assert not page.find_element(By.ID, "stop").is_enabled()

    with chromium(tmp_path / "profile", "--deny-permission-prompts") as page:
        page.get(served.url)
        wait_for(lambda: text_of(page, "model"))
        page.find_element(By.ID, "camera").click()
        wait_for(lambda: re.search("No camera was found|no permission", text_of(page, "error")))
        chooser = page.find_element(By.ID, "file")
        chooser.send_keys(str(big))
        error_of(page, "at most 1.0 MB")
        chooser.send_keys(str(text))
        error_of(page, "Not a video file: expected MP4")
        other = served.begin_post(clip)
        wait_for(lambda: list(served.folder.glob("pyfau-serve-*")))
        chooser.send_keys(str(clip))
        error_of(page, "The server is busy: 1 session runs already.")
        other.close()
        wait_for(lambda: not list(served.folder.glob("pyfau-serve-*")))
        assert served.end() == ""
        chooser.send_keys(str(text))
        error_of(page, "The server does not answer.")


def test_the_pixels_of_all_frames_together_are_limited() -> None:
    check = uploads.check_length
    check(600 * 30, 600.0, 600.0, (3840, 2160))
    check(600 * 120, 600.0, 600.0, (1920, 1080))
    check(600 * 200, 600.0, 600.0, None)
    with pytest.raises(MediaError, match="too many frames of 8294400 pixels"):
        check(600 * 31, 600.0, 600.0, (3840, 2160))
