"""Models through a proxy: the real client, a proxy on loopback, and a Hub that only it reaches.

The Hub has a name that no resolver has, so that a request that goes past the proxy fails.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from loopback_hub import TOKEN, Files, Hub
from test_hostile_hub import drip, reply
from test_hub import Request, ask, files_of
from test_models import tiny_model

NAME = "hub.invalid"
Trouble = Callable[[Any, str], bool]


class Proxy:
    """The server.

    Attributes:
        asked: The addresses of its requests.
        trouble: Called with a request's handler and address; True if it answered itself.
    """

    def __init__(self, hub: Hub) -> None:
        self.asked: list[str] = []
        self.trouble: Trouble | None = None
        handler = type("Handler", (_Handler,), {"proxy": self, "hub": hub})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    hub: Hub

    def do_HEAD(self) -> None:
        self.forward()

    def do_GET(self) -> None:
        self.forward()

    def forward(self) -> None:
        """Pass the request on, and its answer back. Both hosts of the Hub are the loopback one."""
        self.proxy.asked.append(self.path)
        if self.proxy.trouble is not None and self.proxy.trouble(self, self.path):
            return
        address = urlsplit(self.path)
        assert address.hostname in (NAME, "localhost"), self.path
        target = http.client.HTTPConnection(urlsplit(self.hub.url).netloc, timeout=30)
        target.request(self.command, address.path, headers=dict(self.headers))
        answer = target.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "connection"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        target.close()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def proxy(hub: Hub) -> Iterator[Proxy]:
    proxy = Proxy(hub)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files_of(tiny_model(5), tmp_path_factory.mktemp("proxy") / "model")


def through(
    proxy: Proxy, hub: Hub, cache: Path, *requests: Request, **environment: str
) -> list[dict[str, Any]]:
    """Answers to the requests in a process that has this proxy and no way around it."""
    return ask(
        hub,
        cache,
        *requests,
        HF_ENDPOINT=f"http://{NAME}",
        HTTP_PROXY=proxy.url,
        NO_PROXY="",
        **environment,
    )


def test_a_model_comes_through_the_proxy(
    proxy: Proxy, hub: Hub, files: Files, tmp_path: Path
) -> None:
    hub.add("user/repo", files)
    request = ("load", "user/repo", {})
    (answer,) = through(proxy, hub, tmp_path / "cache", request, HF_TOKEN=TOKEN)
    assert answer["sum"] == pytest.approx(float(tiny_model(5).classifier.double().sum()))
    assert {urlsplit(address).hostname for address in proxy.asked} == {NAME, "localhost"}
    assert len(hub.asked) == len(proxy.asked)
    assert hub.leaks == []  # the host of the large files gets no token


def test_redirects_to_other_hosts_are_refused(
    proxy: Proxy, hub: Hub, files: Files, tmp_path: Path
) -> None:
    hub.add("user/repo", files)
    proxy.trouble = reply(302, Location="http://elsewhere.invalid/model.safetensors")
    (answer,) = through(proxy, hub, tmp_path / "cache", ("load", "user/repo", {}))
    assert "elsewhere.invalid" in answer["error"]
    assert all(urlsplit(address).hostname == NAME for address in proxy.asked)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("trouble", "texts"),
    [
        (
            reply(200, b"<html>sign in</html>", X_Repo_Commit="", ETag=""),
            ("does not answer as a Hub does", "the proxy"),
        ),
        (
            reply(407, Proxy_Authenticate='Basic realm="campus"', X_Repo_Commit="", ETag=""),
            ("the proxy expects a user name and a password", "HTTPS_PROXY"),
        ),
        (drip(headers=True), ("sends too slowly",)),
    ],
    ids=["login", "password", "drip"],
)
def test_proxies_that_do_not_help(
    proxy: Proxy, hub: Hub, files: Files, tmp_path: Path, trouble: Trouble, texts: tuple[str, ...]
) -> None:
    hub.add("user/repo", files)
    proxy.trouble = trouble
    (answer,) = through(proxy, hub, tmp_path / "c", ("load", "user/repo", {}), TEST_GRACE_S="1")
    for text in texts:
        assert text in answer["error"]
    assert hub.asked == []
