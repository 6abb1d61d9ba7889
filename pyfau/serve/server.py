"""The server of `pyfau serve`: one model, few sessions, nothing kept.

A session is one connection: a WebSocket of camera frames, or a POST of a clip whose answer is its scores. When it ends,
for whatever reason, its temporary folder is gone.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from pyfau.aus import AU_NAMES
from pyfau.detector import AUDetector, AUStream
from pyfau.errors import InputError, PyfauError
from pyfau.result import AUResult
from pyfau.serve.guard import Guard
from pyfau.serve.uploads import check_length, decode_frame, is_container, open_clip
from pyfau.types import AURow

T = TypeVar("T")
MOST_FRAME_BYTES = 2 << 20  # of one camera frame
_TURN_S = 0.1  # a clip gives way to other sessions so often
_PATIENCE_S = 1.0  # a page that begins anew may come before its last session is seen to have ended
_LOOK_UP_S = 0.2  # who waits looks so often whether it still should
_PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css")}
_PAGE["/page.js"] = ("page.js", "text/javascript")


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        sessions: At once.
        clip_bytes: Size of an uploaded clip.
        clip_seconds: Its length.
        idle_seconds: A session in which nothing arrives, or whose answers are not taken, for so long is ended.
    """

    sessions: int = 2
    clip_bytes: int = 200_000_000
    clip_seconds: float = 600.0
    idle_seconds: float = 60.0


class AUServer:
    """Scores for a page. `app` is its ASGI application.

    Scoring runs in one thread for all sessions, in turns: some engines have one set of buffers, and torch uses several
    cores by itself. Each session has a stream, so tracks and windows of its own.

    Args:
        detector: Scores for all sessions.
        limits: What it takes on.
        host: The name that the server is reached by, beside localhost and IP addresses.
        local: Whether only this machine can reach it; the page says so.

    Attributes:
        app: The ASGI application; use it with its lifespan.
        is_ending: Whether the server is about to end; clips that arrive or are being scored are given up then.

    Raises:
        OptionError: The detector's window is "clips", which cannot answer at once.
    """

    def __init__(self, detector: AUDetector, limits: Limits, host: str = "localhost", local: bool = True) -> None:
        detector.stream(latency=0)  # raises
        self._detector = detector
        self._limits = limits
        self._local = local
        self._open = 0
        self.is_ending: Callable[[], bool] = lambda: False
        routes = [_page_route(path, *page) for path, page in _PAGE.items()]
        self.app = Starlette(
            routes=[
                *routes,
                Route("/settings", self._settings),
                Route("/clip", _Endpoint(self._clip), methods=["POST"]),
                WebSocketRoute("/camera", self._camera),
            ],
            middleware=[Middleware(Guard, name=host.lower())],
            exception_handlers={HTTPException: _answer_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1, "pyfau-serve") as self._thread:
            yield

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        patience = time.monotonic() + _PATIENCE_S
        while self._open >= self._limits.sessions:
            if time.monotonic() > patience:
                sessions = "1 session runs" if self._open == 1 else f"{self._open} sessions run"
                raise HTTPException(503, f"the server is busy: {sessions} already. End one, or try again later")
            await asyncio.sleep(_PATIENCE_S / 20)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _in_time(self, step: Awaitable[T]) -> T:
        """Wait for the other side, but no longer than it may stand still, nor for long when the server is to end."""
        end = time.monotonic() + self._limits.idle_seconds
        task = asyncio.ensure_future(step)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_UP_S))[0]:
                if self.is_ending() or time.monotonic() > end:
                    raise asyncio.TimeoutError
            return task.result()
        finally:
            task.cancel()

    async def _settings(self, request: Request) -> Response:
        detector, limits = self._detector, self._limits
        return JSONResponse(
            {
                "model": detector.model.config.name,
                "aus": [
                    {"au": au, "name": AU_NAMES.get(au, ""), "threshold": round(float(threshold), 4)}
                    for au, threshold in zip(detector.aus, detector.thresholds, strict=True)
                ],
                "clip_bytes": limits.clip_bytes,
                "clip_seconds": limits.clip_seconds,
                "local": self._local,
            }
        )

    async def _camera(self, socket: WebSocket) -> None:
        """JPEG frames in, one answer to each."""
        await socket.accept()
        with suppress(WebSocketDisconnect, asyncio.TimeoutError):
            try:
                async with self._session():
                    await self._answer_frames(socket)
            except HTTPException as busy:
                await self._in_time(socket.send_json({"error": busy.detail}))
                await socket.close(1013)

    async def _answer_frames(self, socket: WebSocket) -> None:
        stream = self._detector.stream(latency=0)
        start = time.monotonic()
        while True:
            try:
                message = await self._in_time(socket.receive())
            except asyncio.TimeoutError:
                error = f"the session was ended: no frame came for {self._limits.idle_seconds:g} s"
                await self._in_time(socket.send_json({"error": error}))
                await socket.close()
                return
            if message["type"] == "websocket.disconnect":
                return
            time_s = time.monotonic() - start
            try:
                answer = await self._in_thread(_score_frame, stream, message.get("bytes"), time_s)
            except PyfauError as refused:
                answer = {"error": str(refused)}
            await self._in_time(socket.send_json(answer))

    async def _clip(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A clip in; out come lines of JSON: what it is, its rows as they are scored, and in the end a CSV file."""
        with suppress(ClientDisconnect, asyncio.TimeoutError):
            async with self._session():
                await self._answer_clip(Request(scope, receive), send)

    async def _answer_clip(self, request: Request, send: Send) -> None:
        folder = TemporaryDirectory(prefix="pyfau-serve-")
        clip = _Clip(self._detector, Path(folder.name), self._limits.clip_seconds)
        try:
            await self._receive_clip(request, clip.path)
            try:
                first = await self._in_thread(clip.open)
            except PyfauError as error:
                raise HTTPException(422, str(error)) from error
            headers = [(b"content-type", b"application/x-ndjson")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send_line(send, first)
            last = await self._send_rows(request, send, clip)
        finally:
            # In the thread, so after whatever it is still doing with the clip.
            ended = self._thread.submit(clip.close, folder)
        await asyncio.wrap_future(ended)
        await self._send_line(send, last, more=False)

    async def _receive_clip(self, request: Request, path: Path) -> None:
        most = self._limits.clip_bytes
        too_large = HTTPException(413, f"the clip is too large: expected at most {most / 1e6:g} MB")
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > most:
            raise too_large
        size, chunks = 0, request.stream()
        try:
            with path.open("wb") as file:
                while chunk := await self._in_time(anext(chunks)):
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    file.write(chunk)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the clip did not arrive in time") from None
        except OSError as error:
            raise HTTPException(507, f"the clip could not be stored: {error.strerror}") from None
        with path.open("rb") as file:
            if not is_container(file.read(12)):
                raise HTTPException(415, "not a video file: expected MP4, MOV, WebM, MKV, AVI or Ogg")

    async def _send_rows(self, request: Request, send: Send, clip: _Clip) -> dict[str, Any]:
        """Send all but the last line, which is returned."""
        try:
            while rows := await self._in_thread(clip.score):
                if await request.is_disconnected():
                    raise ClientDisconnect
                if self.is_ending():
                    return {"error": "the server was ended"}
                await self._send_line(send, {"rows": [_describe(row) for row in rows]})
            return await self._in_thread(clip.finish)
        except PyfauError as error:
            return {"error": str(error)}

    async def _send_line(self, send: Send, record: dict[str, Any], more: bool = True) -> None:
        body = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        await self._in_time(send({"type": "http.response.body", "body": body, "more_body": more}))


class _Endpoint:
    """A method as an ASGI application; Starlette takes a bare one for a function of a request."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)


class _Clip:
    """A clip in its folder; `open` to `close` run in the scoring thread."""

    def __init__(self, detector: AUDetector, folder: Path, most_seconds: float) -> None:
        self.path = folder / "clip"
        self._detector = detector
        self._most_seconds = most_seconds
        self._result = AUResult(detector.aus, detector.settings())
        self._rows: Generator[AURow, None, None] | None = None
        self._warnings: list[str] = []

    def open(self) -> dict[str, Any]:
        reader, (width, height) = open_clip(self.path, self._most_seconds)
        self._warnings = reader.warnings
        self._rows = self._detector.iter_frames(reader, batch_size=1)  # larger ones are scored in a second thread
        return {"width": width, "height": height, "fps": reader.fps, "frames": reader.frame_count}

    def score(self) -> list[AURow]:
        """The rows of one turn; empty at the end."""
        rows: list[AURow] = []
        end = time.monotonic() + _TURN_S
        for row in self._rows or ():
            check_length(row.frame, row.time_s, self._most_seconds)
            rows.append(row)
            if time.monotonic() > end:
                break
        self._result.extend(rows)
        return rows

    def finish(self) -> dict[str, Any]:
        table = self._result.to_csv(self.path.with_name("scores.csv"))
        return {"csv": table.read_text(), "warnings": self._warnings}

    def close(self, folder: TemporaryDirectory[str]) -> None:
        if self._rows is not None:
            self._rows.close()
        folder.cleanup()


def _score_frame(stream: AUStream, data: bytes | None, time_s: float) -> dict[str, Any]:
    if data is None:
        raise InputError("expected a JPEG as a binary message, got text")
    rgb = decode_frame(data)
    rows = stream.push(rgb, time_s)
    return {"width": rgb.shape[1], "height": rgb.shape[0], "rows": [_describe(row) for row in rows]}


def _describe(row: AURow) -> dict[str, Any]:
    record: dict[str, Any] = {"frame": row.frame, "time_s": round(row.time_s, 4) if math.isfinite(row.time_s) else None}
    if row.success:
        record |= {
            "face": row.face_id,
            "box": [round(value, 1) for value in row.box_xyxy.tolist()],
            "landmarks": [[round(x, 1), round(y, 1)] for x, y in row.landmarks.tolist()],
            "scores": [round(value, 4) for value in row.scores.tolist()],
            "active": row.active.tolist(),
        }
    return record


def _page_route(path: str, name: str, media_type: str) -> Route:
    content = (files("pyfau.serve") / "page" / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(path, answer)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
