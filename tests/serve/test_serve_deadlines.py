"""Slow clients and killed servers: nothing is held for ever, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from pyfau import AUDetector
from pyfau.errors import OptionError
from pyfau.locks import FileLock
from pyfau.serve import closing, deadlines, storage
from pyfau.serve.closing import ClosingProtocol
from pyfau.serve.deadlines import Pace, TimedProtocol
from pyfau.serve.server import AUServer, ServeLimits

MESSAGE_BYTES = 1000  # most of a WebSocket's message
ANSWER_BYTES = 30_000_000  # more than the buffers of a loopback connection hold


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def running(app: object) -> Iterator[int]:
    """A server on a free port of the loopback interface."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws=ClosingProtocol,
        ws_max_size=MESSAGE_BYTES,
        log_level="critical",
        timeout_graceful_shutdown=20,
    )
    runner = uvicorn.Server(config)
    thread = Thread(target=lambda: runner.run(sockets=[listener]))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        runner.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def small_app() -> Starlette:
    async def answer(request: Request) -> Response:
        return Response("hello")

    async def answer_much(request: Request) -> Response:
        return Response(b"\0" * ANSWER_BYTES)

    async def answer_late(request: Request) -> Response:
        await asyncio.sleep(1.5)
        return Response("late")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for message in socket.iter_bytes():
            await socket.send_bytes(message)

    return Starlette(
        routes=[
            Route("/", answer, methods=["GET", "POST"]),
            WebSocketRoute("/echo", echo),
            Route("/much", answer_much),
            Route("/late", answer_late),
        ]
    )


def drip(connection: socket.socket, most_s: float) -> float:
    """Send a byte every 50 ms; how long it took until the server ended the connection."""
    start = time.monotonic()
    connection.settimeout(0.05)
    while (elapsed := time.monotonic() - start) < most_s:
        try:
            connection.sendall(b"x")
            if not connection.recv(4096):
                return elapsed
        except TimeoutError:
            continue
        except OSError:
            return elapsed
    pytest.fail(f"the connection is still open after {most_s} s")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "])
def test_dripping_request_heads_are_ended(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.5)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(start)
        assert drip(client, 20) > 0.3


def test_a_second_head_on_one_connection_has_a_deadline_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.5)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"hello" in receive_until(client, b"hello")
        client.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        drip(client, 20)


def test_a_body_that_nobody_reads_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.5)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert b"hello" in receive_until(client, b"hello")
        drip(client, 20)


def test_an_answer_that_is_not_taken_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.5)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2.5)
        assert len(receive_all(client)) < ANSWER_BYTES


def test_an_answer_that_is_taken_slowly_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.3)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(receive_all(client, pause_s=0.02)) > ANSWER_BYTES


def begin_message(client: socket.socket, size: int) -> None:
    """Open a WebSocket and announce a binary message, masked with zeros."""
    client.sendall(
        b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b"101 Switching Protocols" in receive_until(client, b"\r\n\r\n")
    client.sendall(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4))


def test_a_client_that_still_sends_gets_the_code_of_a_refused_message() -> None:
    """A server that closes at once resets the connection instead."""
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        begin_message(client, 2_000_000)
        for _ in range(20):
            client.sendall(bytes(100_000))
            time.sleep(0.02)
        answer = receive_all(client)
        assert answer[0] == 0x88  # the only frame closes the session
        assert int.from_bytes(answer[2:4], "big") == 1009  # message too big
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        begin_message(client, MESSAGE_BYTES)
        client.sendall(b"x" * MESSAGE_BYTES)
        assert b"x" * MESSAGE_BYTES in receive_until(client, b"x" * MESSAGE_BYTES)


def test_a_refused_client_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "CLOSE_S", 0.5)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        begin_message(client, 2_000_000)
        assert receive_all(client)[0] == 0x88
        drip(client, 20)


def test_a_slow_application_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_S", 0.3)
    with running(small_app()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"late" in receive_until(client, b"late")


def receive_until(client: socket.socket, end: bytes) -> bytes:
    client.settimeout(30)
    data = b""
    while end not in data:
        part = client.recv(4096)
        assert part, data
        data += part
    return data


def receive_all(client: socket.socket, pause_s: float = 0.0) -> bytes:
    client.settimeout(30)
    data = bytearray()
    try:
        while part := client.recv(1 << 20):
            data += part
            time.sleep(pause_s)
    except ConnectionResetError:
        pass
    return bytes(data)


def test_two_dripping_uploads_do_not_hold_the_server(
    media: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "GRACE_S", 1.0)
    server = AUServer(AUDetector(device="cpu"), ServeLimits(sessions=2, idle_seconds=60))
    clip = (media / "face_noface.mov").read_bytes()
    with running(server.app) as port, ExitStack() as stack:
        head = (
            f"POST /clip HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        )
        uploads = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in "12"]
        for upload in uploads:
            upload.sendall(f"{head}Content-Length: 100000000\r\n\r\n".encode())
        end = time.monotonic() + 30
        answers = [b"", b""]
        while not all(answers):
            assert time.monotonic() < end, "the uploads still run"
            for i, upload in enumerate(uploads):
                if not answers[i]:
                    upload.sendall(b"x")
                    answers[i] = receive_now(upload)
        assert all(b"408" in answer and b"did not arrive in time" in answer for answer in answers)
        with socket.create_connection(("127.0.0.1", port)) as client:
            whole = f"{head}Connection: close\r\nContent-Length: {len(clip)}\r\n\r\n".encode()
            client.sendall(whole + clip)
            client.settimeout(300)
            assert b"200 OK" in client.recv(4096)
    assert not list(folder.glob("pyfau-serve-*"))


def receive_now(client: socket.socket) -> bytes:
    """What has arrived within 0.1 s."""
    client.settimeout(0.1)
    data = b""
    try:
        while b"in time" not in data:
            data += client.recv(4096)
    except TimeoutError:
        pass
    return data


def test_the_sum_of_all_waits_is_limited() -> None:
    pace = Pace(idle_s=60, per_s=1000)
    assert pace.allowed_s() == deadlines.GRACE_S
    pace.add(waited_s=deadlines.GRACE_S - 1, size=0)
    assert pace.allowed_s() == pytest.approx(1)
    pace.add(waited_s=0.5, size=10_000)
    assert pace.allowed_s() == pytest.approx(10.5)
    pace.add(waited_s=0, size=10**9)
    assert pace.allowed_s() == 60
    pace = Pace(idle_s=60, per_s=1000)
    for _ in range(100):
        pace.add(waited_s=1, size=1)
    assert pace.allowed_s() == 0


# Folders


def test_the_folder_of_a_killed_server_is_removed_at_the_next_start(folder: Path) -> None:
    program = (
        "from pyfau.serve.storage import UploadFolder\n"
        "folder = UploadFolder()\n"
        "(folder.path / 'clip').write_bytes(b'a face')\n"
        "print(folder.path, flush=True)\n"
        "input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    with process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert storage.remove_stale_folders() == 0
        assert (left / "clip").exists()  # the other server runs
        process.kill()  # SIGKILL
        process.wait()
    assert (left / "clip").exists()
    assert storage.remove_stale_folders() == 1
    assert not left.exists()


def test_folders_in_use_links_and_young_folders_stay(folder: Path) -> None:
    used = storage.UploadFolder()
    precious = folder / "precious"
    precious.mkdir()
    (precious / ".clip.lock").touch()
    (folder / "pyfau-serve-link").symlink_to(precious)
    young = folder / "pyfau-serve-young"
    young.mkdir()
    (folder / "pyfau-serve-file").touch()
    assert storage.remove_stale_folders() == 0
    assert used.path.is_dir()
    assert (precious / ".clip.lock").exists()
    os.utime(young, (0, 0))
    assert storage.remove_stale_folders() == 1
    assert not young.exists()
    used.remove()
    assert not used.path.exists()


def test_a_folder_that_another_start_took_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = storage.FileLock
    calls = []

    def lose_once(path: Path) -> FileLock:
        calls.append(path)
        if len(calls) == 1:
            raise OptionError("another process has it")
        return real(path)

    monkeypatch.setattr(storage, "FileLock", lose_once)
    made = storage.UploadFolder()
    assert made.path == calls[1].parent != calls[0].parent
    made.remove()


def test_a_place_without_locks_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(path: Path) -> FileLock:
        raise OptionError("another process has it")

    monkeypatch.setattr(storage, "FileLock", lose)
    with pytest.raises(OSError, match="could be locked"):
        storage.UploadFolder()


def test_the_server_removes_stale_folders_when_it_starts(folder: Path) -> None:
    left = folder / "pyfau-serve-old"
    left.mkdir()
    (left / ".clip.lock").write_text("{}")
    (left / "clip").write_bytes(b"a face")
    with running(AUServer(AUDetector(device="cpu"), ServeLimits()).app):
        end = time.monotonic() + 30
        while left.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
