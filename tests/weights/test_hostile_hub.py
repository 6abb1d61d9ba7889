"""A Hub that attacks: the real client, pyfau's limits, and a server on loopback."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import TOKEN, Files, Hub, Repo, commit_of, git_sha1
from test_hub import ask, entry, files_of, right, sha256
from test_models import tiny_model

from pyfau.weights import transfer
from pyfau.weights.store import save_model
from pyfau.weights.transfer import MAX_JSON_BYTES

Trouble = Callable[[Any, str], bool]
COMMIT = "a" * 40
ENDLESS = 60_000_000  # bytes after which a server on loopback has proved that it was not stopped


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files_of(tiny_model(5), tmp_path_factory.mktemp("hub") / "model")


def reply(
    status: int = 200, body: bytes = b"", drop: tuple[str, ...] = (), **headers: str
) -> Trouble:
    """An answer with these headers; `_` stands for `-`, and "" leaves a header out."""

    def trouble(handler: Any, name: str) -> bool:
        usual = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{git_sha1(body)}"',
            "Content-Length": str(len(body)),
        }
        usual |= {key.replace("_", "-"): value for key, value in headers.items()}
        handler.send_response(status)
        for key, value in usual.items():
            if value:
                handler.send_header(key, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        return True

    return trouble


def only_get(trouble: Trouble) -> Trouble:
    """Honest about the facts of a file, until the file itself is requested."""
    return lambda handler, name: handler.command == "GET" and trouble(handler, name)


def endless(status: int = 200, sent: list[int] | None = None, **headers: str) -> Trouble:
    """An answer without an end, which counts what it could send."""
    counts = [] if sent is None else sent

    def trouble(handler: Any, name: str) -> bool:
        reply(status, **{"Content_Length": "", "Connection": "close", **headers})(handler, name)
        handler.close_connection = True
        if handler.command == "HEAD":
            return True
        total = 0
        with contextlib.suppress(OSError):
            while total < ENDLESS:
                handler.wfile.write(b" " * 65536)
                total += 65536
        counts.append(total)
        return True

    return trouble


def drip(headers: bool) -> Trouble:
    """One byte in each tenth of a second, of the body or of the headers."""

    def trouble(handler: Any, name: str) -> bool:
        if headers:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            reply(Content_Length="100000", ETag="b" * 40)(handler, name)
            if handler.command == "HEAD":
                return True
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(600):
                handler.wfile.write(b"x")
                time.sleep(0.1)
        return True

    return trouble


def written(folder: Path) -> dict[str, int]:
    """Files below a folder and their sizes."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".errors")
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


FACTS = {
    "etag-up": ({"ETag": '"../../../../evil"'}, "the header ETag is '../../../../evil'"),
    "etag-root": ({"ETag": '"/tmp/pyfau-evil"'}, "the header ETag is '/tmp/pyfau-evil'"),
    "etag-word": ({"ETag": "W/latest"}, "the header ETag is 'latest'"),
    "etag-long": ({"ETag": "a" * 65}, "expected 40 or 64 hexadecimal digits"),
    "linked-up": ({"X_Linked_Etag": '"../x"'}, "the header ETag is '../x'"),
    "commit-up": ({"X_Repo_Commit": "../../evil"}, "the header X-Repo-Commit is '../../evil'"),
    "commit-word": ({"X_Repo_Commit": "main"}, "the header X-Repo-Commit is 'main'"),
    "no-commit": ({"X_Repo_Commit": ""}, "does not answer as a Hub does"),
    "no-etag": ({"ETag": ""}, "does not answer as a Hub does"),
    "size": ({"X_Linked_Size": "-1"}, "the header with the size is '-1', expected digits"),
    "large": ({"X_Linked_Size": "9" * 12}, f"at most {MAX_JSON_BYTES} are accepted"),
}


def test_facts_are_checked_before_a_path_is_made_from_them(hub: Hub, tmp_path: Path) -> None:
    for name, (headers, _) in FACTS.items():
        hub.repos[f"user/{name}"] = Repo({}, trouble=reply(**headers))
    cache = tmp_path / "deep" / "below" / "cache"
    cache.parent.mkdir(parents=True)
    answers = ask(hub, cache, *[("load", f"user/{name}", {}) for name in FACTS])
    for answer, (_, words) in zip(answers, FACTS.values(), strict=True):
        assert words in answer["error"]
        assert "\n" not in answer["error"]
    assert not [path for path in written(tmp_path) if "evil" in path or "blobs" in path]
    assert not Path("/tmp/pyfau-evil").exists()
    assert not [line for line in hub.asked if line.startswith("GET")]


def test_revisions_are_names(hub: Hub, files: Files, tmp_path: Path) -> None:
    hub.add("user/repo", files)
    odd = ("../../x", "a/../b", "/etc", "a b", "a\nb", "x?y", "a//b", ".git", "x" * 201)
    answers = ask(hub, tmp_path, *[("load", "user/repo", {"revision": name}) for name in odd])
    assert all("expected a commit, tag or branch" in answer["error"] for answer in answers)
    assert hub.asked == []


def test_bytes_are_counted_as_they_arrive(hub: Hub, files: Files, tmp_path: Path) -> None:
    """Whatever was announced. A server without an end neither fills the disk nor goes on."""
    sent: list[int] = []
    small = {"ETag": "b" * 40, "Content_Length": "100"}
    hub.repos["user/unknown"] = Repo({}, trouble=endless(sent=sent, ETag="b" * 40))
    hub.repos["user/announced"] = Repo(
        {},
        trouble=lambda handler, name: (
            reply(**small)(handler, name)
            if handler.command == "HEAD"
            else endless(sent=sent)(handler, name)
        ),
    )
    hub.repos["user/error"] = Repo(
        {}, trouble=endless(404, sent=sent, X_Error_Code="EntryNotFound")
    )
    hub.repos["user/error-get"] = Repo(
        {commit_of(files): files}, trouble=only_get(endless(403, sent=sent))
    )
    bomb = gzip.compress(b" " * 50_000_000)
    hub.repos["user/packed"] = Repo(
        {commit_of(files): files}, trouble=only_get(reply(body=bomb, Content_Encoding="gzip"))
    )
    commit = hub.add("user/more", files)
    claimed = len(files["model.safetensors"]) - 1
    models = {"more": entry("user/more", commit, files, bytes=claimed)}
    names = ("user/unknown", "user/announced", "user/error", "user/error-get", "user/packed")
    answers = ask(hub, tmp_path, *[("load", name, {}) for name in (*names, "more")], models=models)
    for answer, words in zip(
        answers,
        (
            f"the answer is larger than {MAX_JSON_BYTES} bytes",
            "the answer is larger than 100 bytes",
            "has no config.json",
            "the token does not allow this",
            "the encoding 'gzip', expected identity",
            f"at most {claimed} are accepted",
        ),
        strict=True,
    ):
        assert words in answer["error"]
    assert len(sent) >= 3
    assert max(sent) < ENDLESS
    assert sum(written(tmp_path).values()) < 100_000


def test_a_server_that_drips_is_left(hub: Hub, files: Files, tmp_path: Path) -> None:
    """Each byte comes in time; all of them would take hours."""
    hub.repos["user/body"] = Repo({}, trouble=drip(headers=False))
    hub.repos["user/head"] = Repo({}, trouble=drip(headers=True))
    hub.repos["user/later"] = Repo({commit_of(files): files}, trouble=only_get(drip(headers=True)))
    later = reply(429, Retry_After="99999999999")
    hub.repos["user/busy"] = Repo({}, trouble=later)
    started = time.monotonic()
    requests = [("load", f"user/{name}", {}) for name in ("body", "head", "later", "busy")]
    answers = ask(hub, tmp_path, *requests, TEST_GRACE_S="2")
    assert time.monotonic() - started < 100
    for answer in answers[:3]:
        assert "sends too slowly" in answer["error"]
        assert f"expected at least {transfer.MIN_RATE} bytes per second" in answer["error"]
    assert "too many requests" in answers[3]["error"]


def test_the_client_makes_no_requests_of_its_own(
    hub: Hub, files: Files, made: Path, tmp_path: Path
) -> None:
    """Version 2 of huggingface_hub downloads a list for its telemetry, without any limit."""
    commit = hub.add("user/repo", files)
    requests = [("load", "user/repo", {}), ("cli", "publish", str(made), "user/tiny")]
    loaded, published = ask(hub, tmp_path / "cache", *requests, HF_TOKEN=TOKEN)
    assert "sum" in loaded
    assert published["status"] == 0, published["err"]
    asked = [line for line in hub.asked if "/resolve/" not in line]
    known = ("/api/repos/", "/api/validate-yaml", "/api/models/user/tiny/", "/user/tiny.git/")
    others = [line for line in asked if not any(path in line for path in known)]
    assert [line for line in others if not line.startswith("PUT ")] == []
    assert any(f"/resolve/{commit}/config.json" in line for line in hub.asked)


def test_redirects_stay_with_the_hub(hub: Hub, files: Files, tmp_path: Path) -> None:
    commit = commit_of(files)
    with Hub() as other:
        other.add("user/repo", files)
        path = f"/user/repo/resolve/{commit}/config.json"
        targets = {
            "other": f"{other.url}{path}",
            "named": f"{other.elsewhere}{path}",
            "inner": "http://169.254.169.254/latest/meta-data",
            "file": "file:///etc/passwd",
            "user": f"http://127.0.0.1@evil.example{path}",
            "like": f"https://huggingface.co.evil.example{path}",
            "suffix": f"https://evilhuggingface.co{path}",
            "plain": f"http://huggingface.co{path}",
            "bad": "http://[::1",
        }
        for name, target in targets.items():
            hub.repos[f"user/{name}"] = Repo({}, trouble=reply(302, Location=target))
            late = only_get(reply(302, Location=target))
            hub.repos[f"user/{name}-get"] = Repo({commit: files}, trouble=late)
        names = list(hub.repos)
        answers = ask(hub, tmp_path, *[("load", name, {}) for name in names], PYFAU_HUB_HOSTS="")
        for name, answer in zip(names, answers, strict=True):
            assert "it redirects to " in answer["error"], name
        assert other.asked == []
        # With the host on the list, its storage is used, as for a mirror.
        hub.add("user/repo", files)
        refused, taken = (
            ask(hub, tmp_path / str(i), ("load", "user/repo", {}), PYFAU_HUB_HOSTS=hosts)[0]
            for i, hosts in enumerate(("", "cdn.example, localhost"))
        )
        assert "it redirects to 'http://localhost" in refused["error"]
        assert taken == right(tiny_model(5))


def test_redirects_on_the_same_site_are_followed_and_end(
    hub: Hub, files: Files, tmp_path: Path
) -> None:
    """A repository that was renamed redirects; a circle of redirects is left."""
    hub.add("user/new", files)

    def moved(handler: Any, name: str) -> bool:
        return reply(307, Location=handler.path.replace("old", "new"))(handler, name)

    def circle(handler: Any, name: str) -> bool:
        return reply(307, Location=handler.path)(handler, name)

    hub.repos["user/old"] = Repo({}, trouble=moved)
    hub.repos["user/circle"] = Repo({}, trouble=circle)
    hub.repos["user/turn"] = Repo({commit_of(files): files}, trouble=only_get(circle))
    names = ("old", "circle", "turn")
    answers = ask(hub, tmp_path, *[("load", f"user/{name}", {}) for name in names])
    assert answers[0] == right(tiny_model(5))
    for answer in answers[1:]:
        assert f"more than {transfer.MAX_REDIRECTS} redirects" in answer["error"]
    assert len([line for line in hub.asked if "circle" in line]) == transfer.MAX_REDIRECTS


UPLOAD_STEPS = (
    "repos/create",
    "validate-yaml",
    "preupload/main",
    "objects/batch",
    "",
    "commit/main",
)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A model directory that can be published."""
    folder = tmp_path / "made"
    save_model(tiny_model(7, name="tiny-noise"), folder)
    (folder / "README.md").write_text("# tiny\n")
    return folder


@pytest.mark.parametrize("step", UPLOAD_STEPS)
def test_answers_to_an_upload_are_limited(hub: Hub, made: Path, tmp_path: Path, step: str) -> None:
    """No answer is read without an end, none is inflated, and no redirect leads elsewhere.

    The step "" is the path of the data, which ends with their hash.
    """
    end = step or sha256((made / "model.safetensors").read_bytes())
    bomb = gzip.compress(b" " * 50_000_000)
    sent: list[int] = []
    with Hub() as other:
        elsewhere = f"{other.elsewhere}/x"
        troubles = {
            f"the answer is larger than {MAX_JSON_BYTES} bytes": endless(sent=sent),
            "the encoding 'gzip', expected identity": reply(
                body=bomb, Content_Encoding="gzip", Connection="close"
            ),
            "it redirects to ": reply(307, Location=elsewhere, Connection="close"),
        }
        turns = iter(troubles.values())
        hub.upload_trouble = lambda handler, path: path.endswith(end) and next(turns)(handler, path)
        requests = [("cli", "publish", str(made), "user/tiny")] * len(troubles)
        answers = ask(hub, tmp_path / "cache", *requests, HF_TOKEN=TOKEN, PYFAU_HUB_HOSTS="")
        assert other.asked == []
    for words, answer in zip(troubles, answers, strict=True):
        assert answer["status"] == 1
        assert "was refused: check HF_ENDPOINT" in answer["err"]
        assert words in answer["err"]
    assert len(sent) == 1
    assert sent[0] < ENDLESS
    assert not hub.repos.get("user/tiny", Repo({})).commits


def test_words_of_the_hub_are_not_obeyed_by_a_terminal(
    hub: Hub, made: Path, tmp_path: Path
) -> None:
    words = "look \x1b]0;title\x07here"
    notes = [{"message": words}]
    headers = {"X_HF_Warning": words, "X_Error_Message": words, "X_Error_Code": words}

    def remark(handler: Any, path: str) -> bool:
        if path == "/api/validate-yaml":
            handler.answer(200, {"errors": [], "warnings": notes}, {"X-HF-Warning": words})
            return True
        return False

    hub.upload_trouble = remark
    turns = iter([reply(503, **headers), reply(404, **headers)])
    hub.repos["user/repo"] = Repo({}, trouble=lambda *request: next(turns)(*request))
    requests = [("cli", "publish", str(made), "user/tiny"), ("cli", "download", "user/repo")]
    answers = ask(hub, tmp_path / "cache", *requests, HF_TOKEN=TOKEN)
    (errors,) = tmp_path.rglob("*.errors")
    printed = errors.read_text() + "".join(answer["out"] + answer["err"] for answer in answers)
    assert "look ]0;titlehere" in printed
    assert "\x1b" not in printed
    assert answers[0]["status"] == 0


def test_a_range_that_was_not_requested(hub: Hub, files: Files, tmp_path: Path) -> None:
    """A server could send other bytes than those that are missing."""
    data = files["config.json"]
    hub.add("user/repo", files, trouble=only_get(reply(206, data, Content_Range="bytes 0-9/10")))
    part = tmp_path / "hub" / "models--user--repo" / "blobs" / f"{git_sha1(data)}.pyfau.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(data[:10])
    (answer,) = ask(hub, tmp_path, ("load", "user/repo", {}))
    assert "the range 'bytes 0-9/10', expected bytes 10-" in answer["error"]
    assert not part.exists()
    assert hub.ranges == []


def test_a_cached_model_is_used_when_the_hub_fails(hub: Hub, files: Files, tmp_path: Path) -> None:
    """A login page or a broken server instead of the Hub does not stop work with a cached model."""
    hub.add("user/repo", files)
    load = ("load", "user/repo", {})
    (first,) = ask(hub, tmp_path, load)
    for trouble in (reply(200, b"<html>", X_Repo_Commit=""), reply(503), drip(headers=True)):
        hub.repos["user/repo"].trouble = trouble
        assert ask(hub, tmp_path, load, TEST_GRACE_S="1") == [first]
    assert sha256(files["model.safetensors"]) in str(written(tmp_path))
