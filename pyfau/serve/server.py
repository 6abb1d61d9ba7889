"""The server of `pyfau serve`: one model, few sessions, no stored data.

A session is one connection: a WebSocket with camera frames, or a POST request with a clip, which is
answered with its scores. When a session ends, also by an error, its temporary folder is deleted.
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
from pyfau.detector import AUDetector
from pyfau.errors import InputError, PyfauError
from pyfau.limits import LIMITS, Limits
from pyfau.pipeline import AUStream
from pyfau.result import AUResult
from pyfau.serve.deadlines import Pace
from pyfau.serve.guard import Guard
from pyfau.serve.storage import UploadFolder, remove_stale_folders
from pyfau.serve.uploads import check_length, decode_frame, is_container, open_clip
from pyfau.types import AURow

T = TypeVar("T")
_TURN_S = 0.1  # longest time for which a clip keeps other sessions waiting
# A page that reloads can connect before the server has noticed the end of its last session.
_PATIENCE_S = 1.0
_LOOK_UP_S = 0.2  # interval at which a waiting task checks whether to continue
_PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css")}
_PAGE["/page.js"] = ("page.js", "text/javascript")


@dataclass(frozen=True)
class ServeLimits:
    """The limits of the sessions of a server.

    The detector's `limits` say how large the frames of a clip or a camera can be.

    Attributes:
        sessions: Largest number of sessions at the same time.
        clip_bytes: Largest size of an uploaded clip.
        clip_seconds: Longest duration of a clip.
        idle_seconds: A session ends if no data arrives, or the client reads no answer, for this
            time.
        bytes_per_second: Lowest rate at which the client sends a clip and reads the answer, after
            the first seconds.
        camera_seconds: The longest session of a camera.
        frames_per_second: The lowest rate at which the frames of a camera arrive, apart from pauses
            of `idle_seconds` in all.
    """

    sessions: int = 2
    clip_bytes: int = LIMITS.upload_bytes
    clip_seconds: float = 600.0
    idle_seconds: float = 60.0
    bytes_per_second: float = 100_000
    camera_seconds: float = 3600.0
    frames_per_second: float = 0.5


class AUServer:
    """Scores for a page. `app` is its ASGI application.

    Scoring runs in one thread for all sessions, in turns: some engines have one set of buffers, and
    torch itself uses several cores. Each session has a stream with its own tracks and windows.

    Args:
        detector: Scores for all sessions.
        limits: Limits of sessions and uploads.
        host: Host name of the server, in addition to localhost and IP addresses.
        local: Whether only this machine can reach the server; the page says so.

    Attributes:
        app: The ASGI application; use it with its lifespan.
        is_ending: Whether the server is about to end; clips that arrive or are being scored are
            given up then.

    Raises:
        OptionError: The detector's window is "clips", which has no immediate scores.
    """

    def __init__(
        self, detector: AUDetector, limits: ServeLimits, host: str = "localhost", local: bool = True
    ) -> None:
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
        remove_stale_folders()
        with ThreadPoolExecutor(1, "pyfau-serve") as self._thread:
            yield

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        patience = time.monotonic() + _PATIENCE_S
        while self._open >= self._limits.sessions:
            if time.monotonic() > patience:
                sessions = "1 session runs" if self._open == 1 else f"{self._open} sessions run"
                raise HTTPException(
                    503, f"the server is busy: {sessions} already. End one, or try again later"
                )
            await asyncio.sleep(_PATIENCE_S / 20)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _in_time(self, step: Awaitable[T], most_s: float | None = None) -> T:
        """Wait for the client, up to the idle limit or `most_s`, or until the server ends."""
        end = time.monotonic() + (self._limits.idle_seconds if most_s is None else most_s)
        task = asyncio.ensure_future(step)
        try:
            while not task.done():
                left_s = end - time.monotonic()
                if left_s <= 0:
                    raise asyncio.TimeoutError
                await asyncio.wait({task}, timeout=min(left_s, _LOOK_UP_S))
                if self.is_ending() and not task.done():
                    raise asyncio.TimeoutError
            return task.result()
        finally:
            task.cancel()

    async def _settings(self, request: Request) -> Response:
        detector, limits = self._detector, self._limits
        return JSONResponse(
            {
                "model": detector.model.config.name,
                "aligner": detector.settings()["aligner"],
                "aus": [
                    {
                        "au": au,
                        "name": AU_NAMES.get(au, ""),
                        "threshold": round(float(threshold), 4),
                    }
                    for au, threshold in zip(detector.aus, detector.thresholds, strict=True)
                ],
                "clip_bytes": limits.clip_bytes,
                "clip_seconds": limits.clip_seconds,
                "local": self._local,
            }
        )

    async def _camera(self, socket: WebSocket) -> None:
        """Receive JPEG frames and send one answer to each."""
        await socket.accept()
        with suppress(WebSocketDisconnect, asyncio.TimeoutError):
            try:
                async with self._session():
                    await self._answer_frames(socket)
            except HTTPException as busy:
                await self._in_time(socket.send_json({"error": busy.detail}))
                await socket.close(1013)

    async def _answer_frames(self, socket: WebSocket) -> None:
        limits = self._limits
        idle_s = limits.idle_seconds
        stream = self._detector.stream(latency=0)
        start = time.monotonic()
        # All pauses together are limited. So a client that sends one frame just before each
        # deadline soon reaches the limit.
        pace = Pace(idle_s, limits.frames_per_second, grace_s=idle_s, most_s=idle_s)
        while True:
            before = time.monotonic()
            left_s = start + limits.camera_seconds - before
            allowed_s = pace.allowed_s()
            try:
                message = await self._in_time(socket.receive(), min(allowed_s, left_s))
            except asyncio.TimeoutError:
                await self._end_camera(socket, allowed_s, left_s)
                return
            if message["type"] == "websocket.disconnect":
                return
            pace.add(time.monotonic() - before, 1)
            time_s = time.monotonic() - start
            try:
                answer = await self._in_thread(
                    _score_frame, stream, message.get("bytes"), time_s, self._detector.limits
                )
            except PyfauError as refused:
                answer = {"error": str(refused)}
            await self._in_time(socket.send_json(answer))

    async def _end_camera(self, socket: WebSocket, allowed_s: float, left_s: float) -> None:
        """Say why a session of a camera ends, and end it.

        Args:
            socket: The session.
            allowed_s: How long the server waited for a frame.
            left_s: What was left of the longest session.
        """
        limits = self._limits
        reason = f"no frame came for {limits.idle_seconds:g} s"
        if left_s <= allowed_s:
            reason = f"it lasted {limits.camera_seconds:g} s; start it again"
        elif allowed_s < limits.idle_seconds:
            reason = f"fewer than {limits.frames_per_second:g} frames a second came"
        await self._in_time(socket.send_json({"error": f"the session was ended: {reason}"}))
        await socket.close()

    async def _clip(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive a clip and send lines of JSON: facts about it, its rows, and at the end a CSV."""
        with suppress(ClientDisconnect, asyncio.TimeoutError):
            async with self._session():
                await self._answer_clip(Request(scope, receive), send)

    async def _answer_clip(self, request: Request, send: Send) -> None:
        try:
            folder = UploadFolder()
        except OSError as error:
            raise HTTPException(507, f"the clip could not be stored: {error.strerror}") from None
        pace = Pace(self._limits.idle_seconds, self._limits.bytes_per_second)
        clip = _Clip(self._detector, folder.clip, self._limits.clip_seconds)
        try:
            await self._receive_clip(request, clip.path)
            try:
                first = await self._in_thread(clip.open)
            except PyfauError as error:
                raise HTTPException(422, str(error)) from error
            headers = [(b"content-type", b"application/x-ndjson")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send_line(send, pace, first)
            last = await self._send_rows(request, send, pace, clip)
        finally:
            # The scoring thread closes the clip when its current work on it is done.
            ended = self._thread.submit(clip.close, folder)
        await asyncio.wrap_future(ended)
        await self._send_line(send, pace, last, more=False)

    async def _receive_clip(self, request: Request, path: Path) -> None:
        most = self._limits.clip_bytes
        too_large = HTTPException(413, f"the clip is too large: expected at most {most / 1e6:g} MB")
        announced = request.headers.get("content-length", "0")
        # Python refuses to convert thousands of digits.
        if not announced.isdecimal() or len(announced) > 18 or int(announced) > most:
            raise too_large
        pace = Pace(self._limits.idle_seconds, self._limits.bytes_per_second)
        size, chunks = 0, request.stream()
        start = time.monotonic()
        try:
            with path.open("wb") as file:
                while chunk := await self._in_time(anext(chunks), pace.allowed_s()):
                    # Time for writing to a slow disk counts as well, because the client cannot send
                    # during it.
                    pace.add(time.monotonic() - start, len(chunk))
                    start = time.monotonic()
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
                raise HTTPException(
                    415, "not a video file: expected MP4, MOV, WebM, MKV, AVI or Ogg"
                )

    async def _send_rows(
        self, request: Request, send: Send, pace: Pace, clip: _Clip
    ) -> dict[str, Any]:
        """Send all lines except the last one, which is returned."""
        try:
            while rows := await self._in_thread(clip.score):
                if await request.is_disconnected():
                    raise ClientDisconnect
                if self.is_ending():
                    return {"error": "the server was ended"}
                await self._send_line(send, pace, {"rows": [_describe(row) for row in rows]})
            return await self._in_thread(clip.finish)
        except PyfauError as error:
            return {"error": str(error)}

    async def _send_line(
        self, send: Send, pace: Pace, record: dict[str, Any], more: bool = True
    ) -> None:
        body = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        message = {"type": "http.response.body", "body": body, "more_body": more}
        start = time.monotonic()
        await self._in_time(send(message), pace.allowed_s())
        pace.add(time.monotonic() - start, len(body))


class _Endpoint:
    """A method as an ASGI application; Starlette would call a bare method with a request."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)


class _Clip:
    """A clip in its folder; `open` to `close` run in the scoring thread."""

    def __init__(self, detector: AUDetector, path: Path, most_seconds: float) -> None:
        self.path = path
        self._detector = detector
        self._most_seconds = most_seconds
        self._result = AUResult(
            detector.aus,
            detector.settings(),
            intensity=detector.has_intensity,
            measures=detector.has_measures,
            landmarks=detector.has_landmarks,
        )
        self._rows: Generator[AURow, None, None] | None = None
        self._warnings: list[str] = []
        self._size: tuple[int, int] | None = None

    def open(self) -> dict[str, Any]:
        reader = open_clip(
            self.path,
            self._most_seconds,
            self._detector.limits,
            planar=self._detector.cuts_planes,
        )
        self._warnings = reader.warnings
        self._size = reader.size
        width, height = reader.size or (0, 0)
        # Larger batches are scored in a second thread, and some engines have only one set of
        # buffers, which only one thread may use.
        self._rows = self._detector.iter_frames(reader, batch_size=1)
        return {"width": width, "height": height, "fps": reader.fps, "frames": reader.frame_count}

    def score(self) -> list[AURow]:
        """The rows of one turn; empty at the end."""
        rows: list[AURow] = []
        end = time.monotonic() + _TURN_S
        for row in self._rows or ():
            check_length(
                row.frame, row.time_s, self._most_seconds, self._size, self._detector.limits
            )
            rows.append(row)
            if time.monotonic() > end:
                break
        self._result.extend(rows)
        return rows

    def finish(self) -> dict[str, Any]:
        table = self._result.to_csv(self.path.with_name("scores.csv"))
        return {"csv": table.read_text(), "warnings": self._warnings}

    def close(self, folder: UploadFolder) -> None:
        if self._rows is not None:
            self._rows.close()
        folder.remove()


def _score_frame(
    stream: AUStream, data: bytes | None, time_s: float, limits: Limits
) -> dict[str, Any]:
    if data is None:
        raise InputError("expected a JPEG as a binary message, got text")
    rgb = decode_frame(data, limits)
    rows = stream.push(rgb, time_s)
    return {"width": rgb.shape[1], "height": rgb.shape[0], "rows": [_describe(row) for row in rows]}


def _describe(row: AURow) -> dict[str, Any]:
    record: dict[str, Any] = {
        "frame": row.frame,
        "time_s": round(row.time_s, 4) if math.isfinite(row.time_s) else None,
    }
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
