"""From a listening socket to a clean end."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from contextlib import ExitStack

import uvicorn
import websockets  # noqa: F401  uvicorn answers WebSockets with it, and without it not at all

from pyfau.detector import AUDetector
from pyfau.errors import OptionError
from pyfau.serve.server import MOST_FRAME_BYTES, AUServer, Limits


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        OptionError: It is none of this machine, or the port is taken or not allowed.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise OptionError(f"cannot listen at --host {host} --port {port}: {error}") from error


def serve(detector: AUDetector, listener: socket.socket, host: str, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        detector: Scores for all sessions.
        listener: From `listen`.
        host: As given to `listen`.
        limits: What the server takes on.
    """
    address, port = listener.getsockname()[:2]
    ip = ipaddress.ip_address(address)
    server = AUServer(detector, limits, host, ip.is_loopback)
    config = uvicorn.Config(
        server.app,
        http="h11",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=5,
        ws_max_size=MOST_FRAME_BYTES,
        ws_per_message_deflate=False,  # JPEGs do not get smaller, and what is inflated has no bound
    )
    runner = uvicorn.Server(config)
    server.is_ending = lambda: runner.should_exit
    if not ip.is_loopback:
        print(
            f"pyfau: warning: --host {host} lets other machines in. There is no password and no encryption: whoever "
            "reaches this address can use the server, and pictures can be read on the way.",
            file=sys.stderr,
        )
    shown = "localhost" if ip.is_unspecified else f"[{address}]" if ip.version == 6 else address
    print(f"pyfau serve: http://{shown}:{port}/ scores with {detector.model.config.name}; Ctrl-C ends it", flush=True)

    def end(number: int, frame: object) -> None:
        runner.should_exit = True

    with ExitStack() as stack:
        # uvicorn handles both while it runs, and raises them once more for these when it has ended.
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, end))
        runner.run(sockets=[listener])
