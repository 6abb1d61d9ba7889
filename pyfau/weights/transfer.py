"""Requests to the Hugging Face Hub under limits: the server may be hostile.

The session is that of huggingface_hub, with its proxies and certificates. Its download functions
are not used, because they cannot be limited: they follow redirects to any host, build paths from
unchecked headers, accept any number of bytes, and wait as long as single bytes arrive.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

GRACE_S = 60.0  # grace period: for this time, a file may arrive at any rate
MIN_RATE = 20_000  # bytes per second, on average, after that time
MAX_REDIRECTS = 5
MAX_JSON_BYTES = 1_000_000
MAX_TRIES = 4  # of a request that fails without receiving data
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
SITES = ("huggingface.co", "hf.co")  # the Hub and its storage, which has hosts below these names
HOSTS_VARIABLE = "PYFAU_HUB_HOSTS"  # further hosts, for mirrors with a storage of their own
_WARNING = "x-hf-warning"  # huggingface_hub prints it as it is, also what a terminal obeys
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PORTS = {"http": 80, "https": 443}


class RefusedAnswerError(Exception):
    """The server sent something that pyfau does not accept."""


class NotAHubError(Exception):
    """The answer lacks the headers of a Hub, such as the login page of a network."""


class TooSlowError(Exception):
    """The server sends less than the minimum rate."""


class CutConnectionError(Exception):
    """The server ended an answer before all of it had arrived."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the Hub states about a file.

    Attributes:
        commit: Commit that the revision stands for: 40 or 64 hexadecimal digits.
        etag: sha256 (64 digits) of a large file, or git's hash (40 digits) of a small one.
        size: In bytes; None if the Hub does not state it.
    """

    commit: str
    etag: str
    size: int | None


class Pace:
    """The time that one file may take in all: a grace period plus its bytes at the minimum rate.

    An idle timeout alone is not enough: a server that sends one byte per second never reaches it.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._received = 0

    def seconds_left(self) -> float:
        """Time until the transfer is too slow, if no more data arrives."""
        allowed = GRACE_S + self._received / MIN_RATE
        return allowed - (time.monotonic() - self._started)

    def add(self, count: int) -> None:
        """Count received bytes.

        Raises:
            TooSlowError: The transfer is too slow.
        """
        self._received += count
        if self.seconds_left() < 0:
            raise self.too_slow()

    def too_slow(self) -> TooSlowError:
        """The error for a transfer that has no time left."""
        seconds = time.monotonic() - self._started
        return TooSlowError(
            f"the transfer is too slow: {self._received} bytes in {seconds:.0f} seconds, "
            f"expected at least {MIN_RATE} bytes per second after {GRACE_S:.0f} seconds"
        )


def read_facts(url: str, headers: dict[str, str], pace: Pace) -> RemoteFile:
    """Request commit, hash and size of a file.

    Args:
        url: Address of the file at a revision.
        headers: From `make_headers`.
        pace: Counts the time of this file.

    Raises:
        RefusedAnswerError: A header is not what it should be, or a redirect leads elsewhere.
        NotAHubError: A header is missing.
        TooSlowError: The answer takes too long.
        Exception: The request failed, in a class of huggingface_hub or of its HTTP library.
    """
    for _ in range(MAX_REDIRECTS):
        with _answer("HEAD", url, headers, pace) as response:
            target = _redirect(url, response)
            if target is None or not _is_endpoint(target):
                # The Hub redirects to its storage, and states the facts in that answer.
                return _parse_facts(response)
            url = target
    raise RefusedAnswerError(f"more than {MAX_REDIRECTS} redirects")


def receive(
    url: str, part: Path, limit: int, headers: dict[str, str], pace: Pace, bar: Any
) -> None:
    """Append to a file what it lacks of a remote file.

    Args:
        url: Address of the file.
        part: Local file, with the bytes received so far.
        limit: Accept at most this number of bytes in all.
        headers: From `make_headers`.
        pace: Counts the time and bytes of this file.
        bar: Progress bar of tqdm.

    Raises:
        RefusedAnswerError: Too many bytes, a wrong range, or a redirect elsewhere.
        TooSlowError: Too few bytes per second.
        Exception: The request failed, in a class of huggingface_hub or of its HTTP library.
    """
    for _ in range(MAX_REDIRECTS):
        with part.open("ab") as stream:
            start = stream.tell()
            wanted = {**headers, "Accept-Encoding": "identity"}
            if start:
                wanted["Range"] = f"bytes={start}-"
            with _answer("GET", url, wanted, pace) as response:
                target = _redirect(url, response)
                if target is None:
                    _write_body(response, stream, start, limit, pace, bar)
                    return
                url = target
    raise RefusedAnswerError(f"more than {MAX_REDIRECTS} redirects")


def _write_body(
    response: Any, stream: BinaryIO, start: int, limit: int, pace: Pace, bar: Any
) -> None:
    _check_encoding(response)
    if start and response.status_code != 206:  # the server ignored the range and sends everything
        stream.truncate(0)
        bar.update(-start)
        start = 0
    if start:
        sent = response.headers.get("Content-Range", "")
        if not sent.startswith(f"bytes {start}-"):
            raise RefusedAnswerError(f"the answer has the range {sent!r}, expected bytes {start}-")
    total = start
    for piece in response.iter_raw():
        total += len(piece)
        if total > limit:
            raise RefusedAnswerError(f"the answer is larger than {limit} bytes")
        stream.write(piece)
        bar.update(len(piece))
        pace.add(len(piece))


@contextmanager
def _answer(method: str, url: str, headers: dict[str, str], pace: Pace) -> Iterator[Any]:
    """The answer to one request, without its body; errors of HTTP are raised.

    The idle timeout limits each wait for the head of an answer. A watchdog limits all of them
    together: it closes the session, which huggingface_hub opens again for the next request. A
    connection that is just being made escapes that, so each step of a request checks the time too.
    """
    from huggingface_hub import close_session, constants, get_session

    idle = constants.HF_HUB_DOWNLOAD_TIMEOUT if method == "GET" else constants.HF_HUB_ETAG_TIMEOUT
    watchdog = threading.Timer(max(0.0, pace.seconds_left()), close_session)
    watchdog.daemon = True
    watchdog.start()

    def check_time(event: str, info: Any) -> None:
        if pace.seconds_left() < 0:
            raise pace.too_slow()

    try:
        session: Any = get_session()
        with session.stream(
            method,
            url,
            headers=_headers_for(url, headers),
            follow_redirects=False,
            timeout=idle,
            extensions={"trace": check_time},
        ) as response:
            watchdog.cancel()
            _raise_for_status(response)
            yield response
    except Exception as error:
        if pace.seconds_left() < 0 and not isinstance(error, TooSlowError):
            raise pace.too_slow() from error
        raise
    finally:
        watchdog.cancel()


def make_headers() -> dict[str, str]:
    """The headers of a request, with the user's token if there is one."""
    from huggingface_hub import utils

    with _without_telemetry():
        headers: dict[str, str] = utils.build_hf_headers()  # type: ignore[attr-defined]
    return headers


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """For its header on the user's software, huggingface_hub 2 downloads a list from the Hub.

    It reads the answer to its end, however long that is, and however slowly it arrives.
    """
    from huggingface_hub import constants

    usual = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = usual


@contextmanager
def limited_session() -> Iterator[None]:
    """Limit what huggingface_hub itself reads and follows meanwhile, for its uploads.

    Each answer has at most MAX_JSON_BYTES and no compression, and redirects stay with the Hub.
    Xet is off, because its client is a library of its own, which reads what it likes. The factory
    of sessions is replaced, because huggingface_hub opens a new session after errors of TLS.
    """
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    usual = _http._GLOBAL_CLIENT_FACTORY
    xet_off = constants.HF_HUB_DISABLE_XET

    def limited() -> Any:
        session = usual()
        hooks = session.event_hooks
        session.event_hooks = {
            "request": [*hooks["request"], _ask_for_plain],
            "response": [_limit_answer, *hooks["response"]],
        }
        return session

    set_client_factory(limited)
    constants.HF_HUB_DISABLE_XET = True
    try:
        with _without_telemetry():
            yield
    finally:
        constants.HF_HUB_DISABLE_XET = xet_off
        set_client_factory(usual)


def _ask_for_plain(request: Any) -> None:
    request.headers["Accept-Encoding"] = "identity"


def _limit_answer(response: Any) -> None:
    """Check the head of an answer, and count its bytes as they are read."""
    _check_encoding(response)
    _redirect(str(response.request.url), response)
    response.headers.pop(_WARNING, None)
    read = response.iter_raw

    def counted(chunk_size: int | None = None) -> Iterator[bytes]:
        total = 0
        for piece in read(chunk_size):
            total += len(piece)
            if total > MAX_JSON_BYTES:
                raise RefusedAnswerError(f"the answer is larger than {MAX_JSON_BYTES} bytes")
            yield piece

    response.iter_raw = counted


def _check_encoding(response: Any) -> None:
    """A compressed answer could inflate to any size."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RefusedAnswerError(f"the answer has the encoding {encoding!r}, expected identity")


def _raise_for_status(response: Any) -> None:
    """Raise huggingface_hub's error for a status from 400 up.

    Its function would read the whole body for a message; here it gets a copy without a body.
    """
    from huggingface_hub import hf_raise_for_status

    if response.status_code < 400:
        return
    left_out = ("content-encoding", "content-length", "transfer-encoding", _WARNING)
    headers = [(k, v) for k, v in response.headers.items() if k.lower() not in left_out]
    bare = type(response)(
        response.status_code, headers=headers, content=b"", request=response.request
    )
    hf_raise_for_status(bare)


def _parse_facts(response: Any) -> RemoteFile:
    """Check the headers of an answer before any of them becomes part of a path."""
    headers = response.headers
    commit = headers.get("X-Repo-Commit")
    etag = headers.get("X-Linked-Etag") or headers.get("ETag")
    if commit is None or etag is None:
        raise NotAHubError("the answer lacks the headers X-Repo-Commit and ETag of a Hub")
    etag = etag.removeprefix("W/").strip('"')
    for name, value in (("X-Repo-Commit", commit), ("ETag", etag)):
        if not _HASH.fullmatch(value):
            raise RefusedAnswerError(
                f"the header {name} is {value[:100]!r}, expected 40 or 64 hexadecimal digits"
            )
    size = headers.get("X-Linked-Size")
    if size is None and not 300 <= response.status_code < 400:
        size = headers.get("Content-Length")
    if size is not None and not re.fullmatch("[0-9]{1,15}", size):
        raise RefusedAnswerError(f"the header with the size is {size[:100]!r}, expected digits")
    return RemoteFile(commit, etag, None if size is None else int(size))


def _redirect(url: str, response: Any) -> str | None:
    """Where an answer leads, or None if it is not a redirect.

    Raises:
        RefusedAnswerError: It leads to a host that pyfau does not contact.
    """
    location = response.headers.get("Location")
    if location is None or response.status_code not in (301, 302, 303, 307, 308):
        return None
    try:
        target: str = urljoin(url, location)
    except ValueError:  # it is not an address
        target = location
    if not _is_allowed(target):
        raise RefusedAnswerError(
            f"it redirects to {target[:200]!r}; only the endpoint, {' and '.join(SITES)} and the "
            f"hosts in {HOSTS_VARIABLE} are contacted"
        )
    return target


def _is_allowed(url: str) -> bool:
    scheme, host, _ = _origin(url)
    if _is_endpoint(url):
        return True
    encrypted = scheme == "https" or _endpoint()[0] == "http"
    listed = os.environ.get(HOSTS_VARIABLE, "").lower().replace(",", " ").split()
    if scheme in _PORTS and encrypted and host in listed:
        return True
    return scheme == "https" and any(host == site or host.endswith(f".{site}") for site in SITES)


def _is_endpoint(url: str) -> bool:
    """Whether a request to this address goes to the Hub itself, and may carry the token."""
    main = [("https", site, 443) for site in SITES]
    return _origin(url) in (_endpoint(), *main)


def _endpoint() -> tuple[str, str, int]:
    from huggingface_hub import constants

    return _origin(constants.ENDPOINT)


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; text that is not an address has no host."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0
    return parts.scheme, (parts.hostname or "").lower(), port


def _headers_for(url: str, headers: dict[str, str]) -> dict[str, str]:
    """The headers of a request: the token goes to the Hub only, not to its storage."""
    if _is_endpoint(url):
        return headers
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}
