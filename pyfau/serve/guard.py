"""Checks of the sender of a request, and security headers of the answers."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # The page uses only its own files. A clip plays from the file that the user chose (blob:).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what another site could make a browser send, and adds security headers to every
    answer.

    The `Host` must be an IP address, "localhost" or `name`. If another site lets its own name point
    to this machine (DNS rebinding), the requests have that name as `Host`. A request that opens a
    session (a WebSocket or a POST) must have the `Origin` of the page. Every browser sends it, and
    no other site can choose it.

    Args:
        app: The ASGI application behind it.
        name: A further host name, in lower case; what the user gave as `--host`.
    """

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._names = {"localhost", name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        problem = self._problem(scope)
        if not problem:
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        else:
            await JSONResponse({"error": problem}, 403)(scope, receive, send_with_headers)

    def _problem(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            return (
                f"this server does not answer to the host name {host!r}: "
                f"use localhost or its IP address"
            )
        origin = headers.get("origin", "").lower()
        opens_session = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if opens_session and origin not in (f"http://{host}", f"https://{host}"):
            return (
                f"only the server's own page may use it: "
                f"expected the origin http://{host}, got {origin!r}"
            )
        return ""

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False
