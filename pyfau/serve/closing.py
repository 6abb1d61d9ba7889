"""A client that is still sending learns why its WebSocket session ends."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_S = 10.0  # for a refused client to end the connection


class ClosingProtocol(WebSocketsSansIOProtocol):
    """WebSockets of uvicorn that give the code of a refused message to the client.

    uvicorn closes the connection as soon as it refuses a message. The operating system then resets
    the connection if more of the message comes, and a client that is still sending sees the reset
    instead of the code. Here, the rest of the message is read and discarded until the client ends
    the connection, for at most `CLOSE_S`.
    """

    _is_refused = False

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._is_refused:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Send the code and wait for the client to end the connection."""
        close = self.conn.close_sent
        assert close is not None
        self._is_refused = True
        self.close_sent = True
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.transport.resume_reading()
        loop = asyncio.get_running_loop()
        # uvicorn keeps the connection open as long as there is a timer.
        self.close_timer = loop.call_later(CLOSE_S, self.transport.close)
