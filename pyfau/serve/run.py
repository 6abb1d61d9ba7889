"""Running the server: from a listening socket to a clean end."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from contextlib import ExitStack

import uvicorn

from pyfau.detector import AUDetector
from pyfau.errors import OptionError
from pyfau.messages import say
from pyfau.serve.closing import ClosingProtocol
from pyfau.serve.deadlines import TimedProtocol
from pyfau.serve.server import AUServer, ServeLimits


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        OptionError: The address is not of this machine, or the port is taken or not allowed.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        raise OptionError(f"cannot listen at --host {host} --port {port}: {error}") from error


def serve(detector: AUDetector, listener: socket.socket, host: str, limits: ServeLimits) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        detector: Scores for all sessions.
        listener: From `listen`.
        host: As given to `listen`.
        limits: Limits of sessions and uploads.
    """
    address, port = listener.getsockname()[:2]
    ip = ipaddress.ip_address(address)
    server = AUServer(detector, limits, host, ip.is_loopback)
    config = uvicorn.Config(
        server.app,
        http=TimedProtocol,
        ws=ClosingProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=5,
        ws_max_size=detector.limits.camera_bytes,
        # JPEGs do not get smaller, and an inflated message has no size limit.
        ws_per_message_deflate=False,
    )
    runner = uvicorn.Server(config)
    server.is_ending = lambda: runner.should_exit
    if not ip.is_loopback:
        say(
            f"pyfau: warning: --host {host} lets other machines in. There is no password and no "
            "encryption: anyone who reaches this address can use the server, and others can read "
            "the images on the way.",
            sys.stderr,
        )
    shown = address
    if ip.is_unspecified:
        shown = "localhost"
    elif ip.version == 6:
        shown = f"[{address}]"
    name = detector.model.config.name
    say(f"pyfau serve: http://{shown}:{port}/ scores with {name}; Ctrl-C ends it")

    def end(number: int, frame: object) -> None:
        runner.should_exit = True

    with ExitStack() as stack:
        # uvicorn handles both while it runs, and raises them once more for these when it has ended.
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, end))
        runner.run(sockets=[listener])
