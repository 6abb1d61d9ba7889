"""Errors of the Hugging Face Hub and its client, with advice in words."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from urllib.request import getproxies

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"
_FULL = {"ENOSPC", "EDQUOT"}
_NOT_WRITABLE = {"EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "ELOOP", "ENAMETOOLONG"}
_BAD_ADDRESS = {"UnsupportedProtocol", "InvalidURL", "MissingSchema", "InvalidSchema"}
_NETWORK = {"NetworkError", "ProtocolError", "ConnectionError", "CutConnectionError"}
_CUT = {
    "CutConnectionError",
    "ReadError",
    "RemoteProtocolError",
    "ChunkedEncodingError",
    "ConnectionResetError",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failed request, as the table of advice sees it.

    Attributes:
        kinds: Names of the error's classes and of their base classes, and of its causes'. Names,
            because the client has changed its HTTP library more than once.
        status: HTTP status, or 0.
        system: Name of the operating system's error, such as "ENOSPC", or "".
        repo: `user/repo`.
        revision: Commit, tag or branch.
        name: The file; "" for an upload.
        offline: Whether the Hub must not be contacted.
    """

    kinds: frozenset[str]
    status: int
    system: str
    repo: str
    revision: str | None
    name: str
    offline: bool

    @property
    def endpoint(self) -> str:
        """Address of the Hub."""
        from huggingface_hub.constants import ENDPOINT

        return ENDPOINT

    @property
    def cache(self) -> str:
        """Folder of the Hub's cache."""
        from huggingface_hub.constants import HF_HUB_CACHE

        return HF_HUB_CACHE


def _kind(*names: str) -> Callable[[Trouble], bool]:
    wanted = frozenset(names)
    return lambda trouble: bool(trouble.kinds & wanted)


def _status(status: int) -> Callable[[Trouble], bool]:
    return lambda trouble: trouble.status == status


# The first row that fits gives the advice. A cause with its own remedy stands above the
# rows for its base classes.
_ADVICE: list[tuple[Callable[[Trouble], bool], Callable[[Trouble], str]]] = [
    (
        lambda t: t.offline and not t.name,
        lambda t: "offline mode is on: unset HF_HUB_OFFLINE",
    ),
    (
        lambda t: t.offline,
        lambda t: (
            f"it is not in the cache {t.cache}, and offline mode is on (HF_HUB_OFFLINE, --offline "
            f"or local_files_only): run `pyfau download` once where there is a network, or point "
            f"HF_HOME to a cache that has it"
        ),
    ),
    (
        _kind("GatedRepoError"),
        lambda t: (
            f"the repository is gated: request access at {t.endpoint}/{t.repo}, then {_LOGIN}"
        ),
    ),
    (
        _kind("RepositoryNotFoundError"),
        lambda t: (
            f"there is no such repository, or it is private: check the name, and for a private "
            f"one {_LOGIN}"
        ),
    ),
    (
        _kind("RevisionNotFoundError"),
        lambda t: (
            f"the repository has no revision {t.revision!r}: check it at "
            f"{t.endpoint}/{t.repo}/commits/main"
        ),
    ),
    (
        _kind("EntryNotFoundError"),
        lambda t: (
            f"the repository has no {t.name} at this revision, so it is not a model of pyfau: "
            f"check its name and revision"
        ),
    ),
    (
        lambda t: t.system in _FULL,
        lambda t: (
            f"the disk of {t.cache} is full: free some space, or set HF_HOME to a folder on "
            f"another disk"
        ),
    ),
    (
        lambda t: t.system in _NOT_WRITABLE,
        lambda t: f"the cache {t.cache} cannot be written: set HF_HOME to a folder that can",
    ),
    (
        _kind("HFValidationError"),
        lambda t: "this is not the name of a repository: expected user/repo",
    ),
    (
        _kind(*_BAD_ADDRESS),
        lambda t: (
            f"{t.endpoint} is not the address of a Hub: set HF_ENDPOINT to an address such as "
            f"https://huggingface.co, or unset it"
        ),
    ),
    (
        _kind("RefusedAnswerError"),
        lambda t: (
            f"the answer of {t.endpoint} was refused: check HF_ENDPOINT, the proxy and the "
            f"firewall, and do not use this server if it is not yours"
        ),
    ),
    (
        _kind("NotAHubError"),
        lambda t: (
            f"{t.endpoint} does not answer as a Hub does: check HF_ENDPOINT, the proxy and the "
            f"firewall"
        ),
    ),
    (
        _kind("TooSlowError"),
        lambda t: (
            f"{t.endpoint} sends too slowly: run the same command again, which continues the "
            f"download, or use a faster network"
        ),
    ),
    (_status(401), lambda t: f"the token was not accepted: {_LOGIN} with a valid one"),
    (
        _status(407),
        lambda t: (
            "the proxy expects a user name and a password: write them into HTTPS_PROXY and "
            "HTTP_PROXY, as in http://NAME:PASSWORD@HOST:PORT"
        ),
    ),
    (_status(403), lambda t: f"the token does not allow this: {_LOGIN} with one that does"),
    (
        _status(429),
        lambda t: (
            f"the Hub received too many requests: wait some minutes and try again; for a higher "
            f"limit, {_LOGIN}"
        ),
    ),
    (
        lambda t: t.status >= 500,
        lambda t: f"the server {t.endpoint} has a problem (HTTP {t.status}): try again later",
    ),
    (
        _kind("ProxyError"),
        lambda t: "the proxy does not answer: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    ),
    (
        _kind("TimeoutException", "Timeout"),
        lambda t: (
            f"{t.endpoint} did not answer in time: try again, or set HF_HUB_ETAG_TIMEOUT and "
            f"HF_HUB_DOWNLOAD_TIMEOUT to more than 10 seconds"
        ),
    ),
    (
        _kind(*_NETWORK, *_CUT),
        lambda t: (
            f"{t.endpoint} cannot be reached, or the connection broke off: check the "
            f"network{_proxy()}, and try again"
        ),
    ),
    (
        lambda t: t.system == "ENOENT",
        lambda t: f"the cache {t.cache} cannot be created: set HF_HOME to a folder that can",
    ),
]


def explain(error: BaseException, repo: str, revision: str | None, name: str, offline: bool) -> str:
    """Describe in one line what went wrong and what to do.

    Args:
        error: Of huggingface_hub, of its HTTP library, or of the operating system.
        repo: `user/repo`.
        revision: Commit, tag or branch.
        name: File of the repository; "" for an upload.
        offline: Whether the Hub must not be contacted.
    """
    trouble = Trouble(
        kinds(error), _status_of(error), _system(error), repo, revision, name, offline
    )
    fitting = (advice(trouble) for fits, advice in _ADVICE if fits(trouble))
    text = next(fitting, "try again, and report it if it happens again")
    # The client wraps what its upload of data raises in an error that only names the file.
    refused = (link for link in _chain(error) if type(link).__name__ == "RefusedAnswerError")
    shown = next(refused, error)
    return f"{text} [{type(shown).__name__}: {one_line(shown) or 'no reason given'}]"


def one_line(words: object) -> str:
    """At most 500 visible characters of a text that may come from a server."""
    return "".join(c for c in " ".join(str(words).split()) if c.isprintable())[:500]


def kinds(error: BaseException) -> frozenset[str]:
    """Names of the classes of an error and of its causes, and of their base classes."""
    return frozenset(kind.__name__ for link in _chain(error) for kind in type(link).__mro__)


def is_cut(error: BaseException) -> bool:
    """Whether a connection ended while it was in use."""
    return bool(kinds(error) & _CUT)


def can_retry(error: BaseException, statuses: tuple[int, ...]) -> bool:
    """Whether a second request may succeed: a failure of the network, or one of these statuses."""
    names = kinds(error)
    if names & {"RefusedAnswerError", "ProxyError"}:
        return False
    temporary = {"TimeoutException", "NetworkError", *_CUT}
    return _status_of(error) in statuses or bool(names & temporary)


def wait_of(error: BaseException) -> float:
    """Seconds that the server wants the client to wait, or 0."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if response is not None:
            text = response.headers.get("Retry-After", "")
            return float(text) if text.isascii() and text.isdigit() else 0.0
    return 0.0


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and its causes."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status_of(error: BaseException) -> int:
    for link in _chain(error):
        response = getattr(link, "response", None)
        if response is not None:
            return int(response.status_code)
    return 0


def _system(error: BaseException) -> str:
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno is not None:
            return errno.errorcode.get(link.errno, "")
    return ""


def _proxy() -> str:
    return " and the proxy that HTTPS_PROXY or HTTP_PROXY names" if getproxies() else ""
