"""A Hugging Face Hub on loopback: the part of its protocol that the real client uses, and
misfortunes on demand.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_loopback"
Files = dict[str, bytes]


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A model repository.

    Attributes:
        commits: Files by commit, oldest first; the last is the main branch.
        tags: Commits by name.
        trouble: Called with a request's handler and file name before it is answered; True if it did
            that itself.
        send: Called instead of writing a file's data: with the handler, the data, and the offset
            they begin at.
    """

    commits: dict[str, Files]
    tags: dict[str, str] = field(default_factory=dict)
    trouble: Callable[[Any, str], bool] | None = None
    send: Callable[[Any, bytes, int], None] | None = None

    def commit(self, revision: str) -> str | None:
        main = list(self.commits)[-1] if self.commits else None
        named = {"main": main, **self.tags, **{c: c for c in self.commits}}
        return named.get(revision)


def commit_of(files: Files) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub:
    """The server.

    Attributes:
        asked: What it was asked for, as "GET /user/repo/resolve/...".
        sent: Repository and name of the files that it began to send.
        ranges: The parts of them that were asked for.
        leaks: Where the other host, of the large files, was shown a token.
        upload_trouble: Called with the handler and path of a request of an upload before it is
            answered; True if it did that itself.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.ranges: list[str | None] = []
        self.leaks: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.upload_trouble: Callable[[Any, str], bool] | None = None
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})
        )
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        # Large files are on another host.
        self.elsewhere = self.url.replace("127.0.0.1", "localhost")
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def add(self, name: str, files: Files, **options: Any) -> str:
        """A repository of one commit, which is returned."""
        commit = commit_of(files)
        self.repos[name] = Repo({commit: files}, **options)
        return commit

    def downloads(self, repo: str) -> list[str]:
        """Names of the files that were sent, not only asked about."""
        return sorted(name for sent, name in self.sent if sent == repo)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.serve(body=False)

    def do_GET(self) -> None:
        self.serve(body=True)

    def serve(self, body: bool) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.path.startswith("/cdn/") and self.headers.get("Authorization"):
            self.hub.leaks.append(self.path)
        match = re.fullmatch(r"/(cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/([^/?]+)", self.path)
        repo = self.hub.repos.get(match[2]) if match else None
        if match is None or repo is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if repo.trouble is not None and repo.trouble(self, match[4]):
            return None
        commit = repo.commit(match[3])
        if commit is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        data = repo.commits[commit].get(match[4])
        if data is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        large = match[4].endswith(".safetensors")
        # As the Hub does with files in LFS: elsewhere, with the facts here.
        if large and not match[1]:
            return self.answer(
                302,
                headers={
                    "X-Repo-Commit": commit,
                    "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                    "X-Linked-Size": str(len(data)),
                    "Location": f"{self.hub.elsewhere}/cdn{self.path.replace(match[3], commit)}",
                },
            )
        start = 0
        if body:
            self.hub.sent.append((match[2], match[4]))
            self.hub.ranges.append(self.headers.get("Range"))
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                start = int(wanted[1])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{git_sha1(data)}"')
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            (
                repo.send
                if repo.send and large
                else lambda handler, data, start: handler.wfile.write(data)
            )(self, data[start:], start)
        return None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        self.hub.asked.append(f"POST {self.path}")
        if self.hub.upload_trouble is not None and self.hub.upload_trouble(self, self.path):
            return None
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        repos = self.hub.repos
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in repos:
                return self.answer(
                    409,
                    {
                        "error": "You already created this model repo",
                        "url": f"{self.hub.url}/{name}",
                    },
                )
            repos[name] = Repo({})
            return self.answer(200, {"url": f"{self.hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path):
            if match[1] not in repos:
                return self.refuse(404, "RepoNotFound", "Repository not found")
            return (
                self.preupload(body)
                if match[2] == "preupload"
                else self.take_commit(match[1], body)
            )
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path):
            objects = [
                {
                    **wanted,
                    "actions": {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}},
                }
                for wanted in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        return self.refuse(404, "", f"no such endpoint: {self.path}")

    def preupload(self, body: bytes) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def take_commit(self, name: str, body: bytes) -> None:
        repo = self.hub.repos[name]
        files = dict(repo.commits[main]) if (main := repo.commit("main")) else {}
        for line in body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                assert row["value"]["encoding"] == "base64"
                files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "lfsFile":
                data = self.hub.uploads[row["value"]["oid"]]
                assert len(data) == row["value"]["size"]
                files[row["value"]["path"]] = data
        commit = commit_of(files)
        repo.commits[commit] = files
        self.answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
            },
        )

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append(f"PUT {self.path}")
        if self.hub.upload_trouble is not None and self.hub.upload_trouble(self, self.path):
            return None
        oid = self.path.removeprefix("/upload/")
        if hashlib.sha256(data).hexdigest() != oid:
            return self.refuse(400, "", "the data are not those announced")
        self.hub.uploads[oid] = data
        return self.answer(200)

    def chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer(status, headers={"X-Error-Code": code, "X-Error-Message": message, **headers})

    def answer(
        self, status: int, content: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def hang_up(self, reset: bool = False) -> None:
        """End the connection in the middle; with `reset`, as a router that forgot about it."""
        self.wfile.flush()
        if reset:
            time.sleep(1)  # for what was sent to arrive, of which a reset takes the rest away
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close() if reset else self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


# Misfortunes


def cut(times: int, reset: bool = False) -> Callable[[Any, bytes, int], None]:
    """The connection ends after half of the data that are left."""

    count = itertools.count()

    def send(handler: Any, data: bytes, start: int) -> None:
        if next(count) >= times:
            handler.wfile.write(data)
            return
        handler.wfile.write(data[: len(data) // 2])
        handler.hang_up(reset)

    return send


def stall(seconds: float, times: int) -> Callable[[Any, bytes, int], None]:
    """Half of the data, and then nothing for some time."""

    count = itertools.count()

    def send(handler: Any, data: bytes, start: int) -> None:
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        if next(count) < times:
            time.sleep(seconds)
            handler.hang_up()
            return
        handler.wfile.write(data[len(data) // 2 :])

    return send


def damage(times: int) -> Callable[[Any, bytes, int], None]:
    """The last byte is another."""

    count = itertools.count()

    def send(handler: Any, data: bytes, start: int) -> None:
        handler.wfile.write(data[:-1] + bytes([data[-1] ^ 1]) if next(count) < times else data)

    return send


def refused(
    status: int, code: str, message: str, times: int = 1 << 30, **headers: str
) -> Callable[[Any, str], bool]:
    """An error instead of an answer."""

    count = itertools.count()

    def trouble(handler: Any, name: str) -> bool:
        if next(count) >= times:
            return False
        handler.refuse(status, code, message, **headers)
        return True

    return trouble


def members_only(handler: Any, name: str) -> bool:
    """A private repository: for others it does not exist."""
    if handler.headers.get("Authorization") == f"Bearer {TOKEN}" or handler.path.startswith(
        "/cdn/"
    ):
        return False
    handler.refuse(401, "RepoNotFound", "Repository not found")
    return True
