"""Deadlines for slow clients: a connection that sends a few bytes now and then is closed."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0  # for the head of a request
GRACE_S = 10.0  # of waiting for a client, before its rate counts


class Pace:
    """The time that the server waits for one client.

    A limit for each wait is not enough: a client that sends one byte during each wait would never
        end. So the sum of all waits is limited as well, to a grace period plus the time that the
        bytes take at the lowest rate.

    Args:
        idle_s: The longest single wait in seconds.
        per_s: The lowest rate, in bytes (or frames) per second.
        grace_s: The grace period; None for `GRACE_S`.
        most_s: The longest time for which a client may be slow after it was fast.
    """

    def __init__(
        self,
        idle_s: float,
        per_s: float,
        *,
        grace_s: float | None = None,
        most_s: float = math.inf,
    ) -> None:
        self._idle_s = idle_s
        self._per_s = per_s
        self._left_s = GRACE_S if grace_s is None else grace_s
        self._most_s = most_s

    def allowed_s(self) -> float:
        """The longest time for which the next wait may last."""
        return max(0.0, min(self._idle_s, self._left_s))

    def add(self, waited_s: float, size: int) -> None:
        """Count a wait, and the bytes or frames that arrived or were read during it."""
        self._left_s = min(self._most_s, self._left_s + size / self._per_s - waited_s)


class TimedProtocol(H11Protocol):
    """HTTP of uvicorn with deadlines.

    uvicorn itself has no deadline for the head of a request, for the rest of a body after the
    answer, or for a client that does not read the answer. Each of these keeps a connection open,
    and the number of connections is limited. While a request is being answered, the application
    limits the time; see `Pace`.
    """

    bytes_per_s = 100_000  # the lowest rate at which a client takes the rest of an answer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._is_answering():
            self._start()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection to the protocol for WebSockets, which has its own timeouts."""
        self._stop()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._start()

    def _start(self) -> None:
        """Start the time again."""
        self._stop()
        self._unsent = self.transport.get_write_buffer_size()
        self._deadline = self.loop.call_later(HEAD_S, self._check)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check(self) -> None:
        """End the connection if it waits for the client, and the client is too slow."""
        unsent = self.transport.get_write_buffer_size()
        is_application = self._is_answering() and not self.transport.is_closing()
        is_taken = 0 < unsent <= self._unsent - self.bytes_per_s * HEAD_S
        if is_application or is_taken:
            self._start()
        else:
            self.transport.abort()
