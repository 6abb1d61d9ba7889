"""Models from the Hub and to it: the real client against a Hub on loopback, with all that can go
wrong.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_client
import pytest
from loopback_hub import TOKEN, Files, Hub, commit_of, cut, damage, members_only, refused, stall
from test_models import tiny_model

from pyfau import WeightsError, load_model
from pyfau.models.mdhr import MDHR
from pyfau.weights.hashes import file_sha256
from pyfau.weights.manifest import read_manifest
from pyfau.weights.store import save_model

ROOT = Path(__file__).resolve().parents[2]
FORKS = multiprocessing.get_context("forkserver")
# The slow part of a start.
FORKS.set_forkserver_preload(["pyfau.detector", "pyfau.cli", "safetensors.torch"])
Request = tuple[Any, ...]


class Client:
    """A fresh process that makes requests, as `hub_client.answer` takes them."""

    def __init__(
        self,
        hub: Hub,
        cache: Path,
        *requests: Request,
        models: dict[str, Any] | None = None,
        **environment: str,
    ) -> None:
        self.errors = cache.parent / f"{cache.name}.errors"
        self.answers, theirs = FORKS.Pipe(duplex=False)
        arguments = (
            (list(requests), models),
            surroundings(hub, cache) | environment,
            theirs,
            self.errors,
        )
        self.process = FORKS.Process(target=hub_client.run, args=arguments)
        self.process.start()
        theirs.close()

    def finish(self) -> list[dict[str, Any]]:
        try:
            answers: list[dict[str, Any]] = self.answers.recv()
        except EOFError:
            pytest.fail(self.errors.read_text())
        self.process.join(60)
        return answers


def surroundings(hub: Hub, cache: Path) -> dict[str, str]:
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "PYTHON")) and "proxy" not in k.lower()
    }
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "PYFAU_HUB_HOSTS": "localhost",
    }


def ask(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return Client(*arguments, **options).finish()


def ask_with_mounts(
    mounts: str, hub: Hub, cache: Path, *requests: Request, **environment: str
) -> list[dict[str, Any]]:
    """In a process that sees file systems of its own, made by shell commands."""
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            f'{mounts}; exec "$@"',
            "sh",
            sys.executable,
            hub_client.__file__,
            json.dumps([requests, None]),
        ],
        env=surroundings(hub, cache) | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def files_of(model: MDHR, folder: Path) -> Files:
    save_model(model, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model() -> MDHR:
    return tiny_model(5)


@pytest.fixture(scope="module")
def files(model: MDHR, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files_of(model, tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Weights of more than two pieces."""
    files = files_of(
        tiny_model(width=512, dynamic_channels=3072), tmp_path_factory.mktemp("hub") / "large"
    )
    assert 22e6 < len(files["model.safetensors"]) < 40e6
    return files


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def right(model: MDHR) -> dict[str, float]:
    return {"sum": float(model.classifier.double().sum())}


def entry(repo: str, commit: str, files: Files, **changes: Any) -> dict[str, Any]:
    """As in the manifest."""
    config = json.loads(files["config.json"])
    record = {
        "status": "hub",
        "network": "mdhr",
        "backbone": "small",
        "data": "noise",
        "aus": config["aus"],
        "template": config["template"],
        "code_licence": "MIT",
        "weights_licence": "MIT",
        "training_data": "none",
        "training_terms": "none",
        "source": "a test",
        "repo": repo,
        "revision": commit,
        "file": "model.safetensors",
        "sha256": sha256(files["model.safetensors"]),
        "config_sha256": sha256(files["config.json"]),
        "bytes": len(files["model.safetensors"]),
    }
    return record | changes


def test_models_come_once_and_then_from_the_cache(
    hub: Hub, model: MDHR, files: Files, tmp_path: Path
) -> None:
    commit = hub.add("user/repo", files, tags={"v1": commit_of(files)})
    hub.add("user/half", {"config.json": files["config.json"]})
    hub.add("user/other", {**files, "config.json": b'{"architectures": ["BertModel"]}'})
    hub.add(
        "user/broken",
        {**files, "model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"},
    )
    pinned = {"revision": commit}
    client = Client(
        hub,
        tmp_path,
        ("load", "user/repo", pinned),
        ("detect", "user/repo", {**pinned, "device": "cpu"}),
        ("load", "user/repo", {}),
        ("load", "user/repo", {"revision": "v1"}),
        ("load", "user/repo", {"revision": "v2"}),
        ("load", "user/none", {}),
        ("load", "user/half", {}),
        ("load", "user/other", {}),
        ("load", "user/broken", {}),
        TQDM_POSITION="-1",
    )
    answers = client.finish()
    assert answers[:4] == [right(model)] * 4
    for said, words in zip(
        [answer["error"] for answer in answers[4:]],
        [
            ("user/repo@v2", "no revision 'v2'"),
            ("user/none@main", "no such repository, or it is private", "HF_TOKEN"),
            ("model.safetensors of user/half@", "has no model.safetensors"),
            ("config.json", '"format": 1'),
            ("model.safetensors is not a safetensors file",),
        ],
        strict=True,
    ):
        assert all(word in said for word in words), said
        assert "\n" not in said
    assert hub.downloads("user/repo") == ["config.json", "model.safetensors"]
    assert hub.downloads("user/other") == [
        "config.json"
    ]  # refused before the weights were requested
    # The progress bar, which TQDM_POSITION shows where no terminal is.
    assert "model.safetensors: 100%" in client.errors.read_text()

    asked = len(hub.asked)
    requests = [
        ("load", "user/repo", pinned),
        ("load", "user/repo", {}),
        ("detect", "user/repo", {"device": "cpu"}),
        ("load", "user/half", {}),
        ("load", "user/never", {}),
    ]
    for environment, options in (({"HF_HUB_OFFLINE": "1"}, {}), ({}, {"local_files_only": True})):
        offline = [(kind, name, {**given, **options}) for kind, name, given in requests]
        answers = ask(hub, tmp_path, *offline, **environment)
        assert answers[:3] == [right(model)] * 3
        for answer, name in zip(answers[3:], ("user/half", "user/never"), strict=True):
            assert f"of {name}@" in answer["error"]
            assert "not in the cache" in answer["error"]
            assert "HF_HUB_OFFLINE" in answer["error"]
    assert len(hub.asked) == asked


def test_a_pinned_revision_stays_and_the_main_branch_moves(
    hub: Hub, files: Files, tmp_path: Path
) -> None:
    newer = tiny_model(6)
    first = hub.add("user/repo", files)
    second = files_of(newer, tmp_path / "newer")
    hub.repos["user/repo"].commits[commit_of(second)] = second
    models = {"pinned": entry("user/repo", first, files)}
    pinned, main = ask(
        hub, tmp_path / "hub", ("load", "pinned", {}), ("load", "user/repo", {}), models=models
    )
    assert pinned == right(tiny_model(5))
    assert main == right(newer) != pinned
    # The name asked for the commit alone.
    assert not any("/main/" in line for line in hub.asked[:3])


def test_downloads_that_are_interrupted_go_on(hub: Hub, large: Files, tmp_path: Path) -> None:
    """In the same call: the client goes on after a connection that ends, and is called again after
    one that breaks.
    """
    for name, send in (
        ("user/ends", cut(2)),
        ("user/breaks", cut(1, reset=True)),
        ("user/slow", stall(3, times=1)),
    ):
        hub.add(name, large, send=send)
    requests = [("load", f"user/{name}", {}) for name in ("ends", "breaks", "slow")]
    client = Client(hub, tmp_path, *requests, HF_HUB_DOWNLOAD_TIMEOUT="1")
    answers = client.finish()
    assert all("sum" in answer for answer in answers), answers
    assert len({answer["sum"] for answer in answers}) == 1
    assert "Trying again; a download is resumed" in client.errors.read_text()
    size = len(large["model.safetensors"])
    starts = [int(text.strip("bytes=-")) for text in hub.ranges if text]
    # After every cut, with what was there. A reset may take the last pieces away.
    assert len(starts) == 4
    assert starts[:2] == [size // 2, size // 2 + (size - size // 2) // 2]
    assert 0 < starts[2] <= size // 2
    assert starts[3] == size // 2
    assert not list((tmp_path / "hub").glob("models--*/blobs/*.incomplete"))


def test_downloads_of_a_process_that_was_killed_go_on_in_the_next(
    hub: Hub, large: Files, tmp_path: Path
) -> None:
    hub.add("user/repo", large, send=stall(30, times=1))
    load = ("load", "user/repo", {})
    client = Client(hub, tmp_path, load)
    blobs = tmp_path / "hub" / "models--user--repo" / "blobs"
    half = len(large["model.safetensors"]) // 2
    for _ in range(600):
        if any(blob.stat().st_size >= half for blob in blobs.glob("*.incomplete")):
            break
        time.sleep(0.1)
    client.process.kill()
    client.process.join()
    (answer,) = ask(hub, tmp_path, load)
    assert "sum" in answer
    assert hub.ranges[-1] == f"bytes={half}-"
    assert {path.name for path in blobs.iterdir()} > {sha256(large["model.safetensors"])}
    assert not list(blobs.glob("*.incomplete"))


def test_wrong_hashes_are_named_and_fetched_again_once(
    hub: Hub, model: MDHR, files: Files, tmp_path: Path
) -> None:
    once, always = (
        hub.add("user/once", files, send=damage(1)),
        hub.add("user/always", files, send=damage(99)),
    )
    hub.add("user/free", files, send=damage(1))
    other = hub.add(
        "user/config", files | {"config.json": files["config.json"].replace(b"tiny", b"evil")}
    )
    models = {
        "once": entry("user/once", once, files),
        "always": entry("user/always", always, files),
        "config": entry("user/config", other, files),
    }
    names = ("once", "always", "config", "user/free", "always")
    answers = ask(hub, tmp_path, *[("load", name, {}) for name in names], models=models)
    assert answers[0] == answers[3] == right(model)
    assert hub.downloads("user/once").count("model.safetensors") == 2
    data = files["model.safetensors"]
    spoilt = data[:-1] + bytes([data[-1] ^ 1])
    for answer in (answers[1], answers[4]):
        assert f"has sha256 {sha256(spoilt)}, expected {sha256(data)}" in answer["error"]
        assert f"user/always@{always}" in answer["error"]
        assert "do not use this model" in answer["error"]
    # Twice, and once more in the second try.
    assert hub.downloads("user/always").count("model.safetensors") == 3
    assert f"expected {sha256(files['config.json'])}" in answers[2]["error"]
    assert "model.safetensors" not in hub.downloads("user/config")

    (blob,) = (tmp_path / "hub" / "models--user--once" / "blobs").glob(sha256(data))
    blob.write_bytes(spoilt)  # damaged on the disk, without a Hub
    (answer,) = ask(hub, tmp_path, ("load", "once", {"local_files_only": True}), models=models)
    assert (
        f"has sha256 {sha256(spoilt)}, expected {sha256(data)}; fetch it again" in answer["error"]
    )
    del hub.repos["user/once"]
    (answer,) = ask(hub, tmp_path, ("load", "once", {}), models=models)
    said = f"has sha256 {sha256(spoilt)}, expected {sha256(data)}; fetching it again failed: "
    assert said in answer["error"]
    assert "no such repository" in answer["error"]


def test_doors_that_are_closed(hub: Hub, model: MDHR, files: Files, tmp_path: Path) -> None:
    troubles = {
        "gated": refused(403, "GatedRepo", "Access to model user/gated is restricted"),
        "private": members_only,
        "expired": refused(401, "", "Invalid credentials in Authorization header"),
        "forbidden": refused(403, "", "not for you"),
        "busy": refused(429, "", "Too Many Requests", times=2, **{"Retry-After": "0"}),
    }
    for name, trouble in troubles.items():
        hub.add(f"user/{name}", files, trouble=trouble)
    requests = [("load", f"user/{name}", {}) for name in troubles]
    answers = dict(zip(troubles, ask(hub, tmp_path / "a", *requests), strict=True))
    for name, words in {
        "gated": ("gated", f"{hub.url}/user/gated", "HF_TOKEN"),
        "private": ("no such repository, or it is private", "HF_TOKEN"),
        "expired": ("token was not accepted", "HF_TOKEN"),
        "forbidden": ("token does not allow this",),
    }.items():
        assert all(word in answers[name]["error"] for word in words), answers[name]
        assert f"user/{name}@main" in answers[name]["error"]
    assert answers["busy"] == right(model)
    (answer,) = ask(hub, tmp_path / "b", ("load", "user/private", {}), HF_TOKEN=TOKEN)
    assert answer == right(model)
    assert hub.leaks == []  # the other host was not shown the token


@pytest.mark.slow  # the client waits up to 23 seconds before it gives up
def test_hubs_that_give_no_answer(hub: Hub, files: Files, tmp_path: Path) -> None:
    hub.add("user/repo", files)
    hub.add("user/busy", files, trouble=refused(429, "", "no", **{"Retry-After": "0"}))
    hub.add("user/down", files, trouble=refused(503, "", "no"))
    dead = "http://user:secret@127.0.0.1:9"
    cases: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
        (
            "user/repo",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            ("http://127.0.0.1:9 cannot be reached", "network"),
        ),
        (
            "user/repo",
            {"HTTP_PROXY": dead, "NO_PROXY": ""},
            ("the proxy that HTTPS_PROXY or HTTP_PROXY names",),
        ),
        ("user/busy", {}, ("too many requests", "HF_TOKEN")),
        ("user/down", {}, ("HTTP 503", "try again later")),
    ]
    clients = [
        Client(hub, tmp_path / str(i), ("load", repo, {}), **environment)
        for i, (repo, environment, _) in enumerate(cases)
    ]
    for client, (repo, _, words) in zip(clients, cases, strict=True):
        (answer,) = client.finish()
        assert f"{repo}@main could not be fetched from the Hugging Face Hub" in answer["error"]
        assert all(word in answer["error"] for word in words), answer
        assert "secret" not in answer["error"]


def test_two_processes_at_once_download_once(hub: Hub, large: Files, tmp_path: Path) -> None:
    hub.add("user/repo", large, send=stall(1, times=0))
    both = [Client(hub, tmp_path, ("load", "user/repo", {})) for _ in range(2)]
    answers = [client.finish() for client in both]
    assert answers[0] == answers[1]
    assert "sum" in answers[0][0]
    assert hub.downloads("user/repo") == ["config.json", "model.safetensors"]


needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
    ).returncode
    != 0,
    reason="cannot mount file systems of its own here",
)


@needs_mounts
def test_a_disk_that_is_full_and_a_cache_that_cannot_be_written(
    hub: Hub, large: Files, tmp_path: Path
) -> None:
    hub.add("user/repo", large)
    cache = tmp_path / "cache"
    cache.mkdir()
    loads = ("load", "user/repo", {})
    (answer,) = ask_with_mounts(f"mount -t tmpfs -o size=4m none {cache}", hub, cache, loads)
    assert "is full: free some space, or set HF_HOME" in answer["error"]
    assert str(cache) in answer["error"]
    (answer,) = ask_with_mounts(f"mount -t tmpfs -o ro none {cache}", hub, cache, loads)
    assert "cannot be written: set HF_HOME" in answer["error"]
    assert str(cache) in answer["error"]
    (fetched,) = ask(hub, cache, loads)
    read_only = f"mount --bind {cache} {cache}; mount -o remount,ro,bind {cache}"
    pinned = ("load", "user/repo", {"revision": commit_of(large)})
    answers = ask_with_mounts(
        read_only, hub, cache, loads, pinned, PYFAU_CACHE=str(cache / "pyfau")
    )
    assert answers == [fetched, fetched]  # what is there is used


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "is full: free some space, or set HF_HOME"),
        (PermissionError(13, "Permission denied"), "cannot be written: set HF_HOME"),
        (NotADirectoryError(20, "Not a directory"), "cannot be written: set HF_HOME"),
        (OSError(30, "Read-only file system"), "cannot be written: set HF_HOME"),
        (FileNotFoundError(2, "No such file or directory"), "cannot be created: set HF_HOME"),
        (
            type("UnsupportedProtocol", (Exception,), {})("no protocol"),
            "is not the address of a Hub: set HF_ENDPOINT",
        ),
        (
            ValueError("odd\n\nthing"),
            r"try again, and report it if it happens again \[ValueError: odd thing\]",
        ),
    ],
)
def test_errors_of_the_client_are_put_in_words(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr("huggingface_hub.get_session", fail)
    with pytest.raises(WeightsError, match=words) as caught:
        load_model("user/repo")
    assert "config.json of user/repo@main" in str(caught.value)
    assert "\n" not in str(caught.value)


# The commands


def test_from_a_directory_to_the_hub_and_back(hub: Hub, tmp_path: Path) -> None:
    """What is published has the entry that is printed, and is found by it; nothing else of the
    directory leaves.
    """
    made = tiny_model(7, name="tiny-noise")
    folder = tmp_path / "made"
    save_model(made, folder)
    (folder / "secret.env").write_text("HF_TOKEN=...")
    publish = ("cli", "publish", str(folder), "user/tiny")
    without_card, without_token = ask(
        hub, tmp_path / "a", publish, ("cli", "publish", str(tmp_path), "user/tiny")
    )
    assert without_card["status"] == without_token["status"] == 1
    assert "README.md is missing" in without_card["err"]
    assert "model.safetensors is missing" in without_token["err"]
    (folder / "README.md").write_text("# tiny\n")
    named = tmp_path / "named"
    shutil.copytree(folder, named)
    (named / "config.json").write_text(
        (named / "config.json").read_text().replace("tiny-noise", "Tiny noise")
    )
    (answer,) = ask(
        hub, tmp_path / "a", ("cli", "publish", str(named), "user/named"), HF_TOKEN=TOKEN
    )
    assert answer["status"] == 1
    assert "model 'Tiny noise' must be named by lower-case letters" in answer["err"]
    assert "user/named" not in hub.repos
    (answer,) = ask(hub, tmp_path / "a", publish)
    assert answer["status"] == 1
    assert "user/tiny could not be published: the token was not accepted" in answer["err"]
    (answer,) = ask(hub, tmp_path / "a", publish, HF_HUB_OFFLINE="1")
    assert (
        "user/tiny could not be published: offline mode is on: unset HF_HUB_OFFLINE"
        in answer["err"]
    )
    assert "user/tiny" not in hub.repos

    allowed = {"HF_TOKEN": TOKEN}
    (answer,) = ask(hub, tmp_path / "a", publish, **allowed)
    assert answer["status"] == 0, answer
    assert "licence of these weights is not stated" in answer["err"]
    assert "state before you add it to weights_manifest.json: data, code_licence" in answer["err"]
    printed = json.loads(answer["out"])
    record = printed["tiny-noise"]
    repo = hub.repos["user/tiny"]
    assert [*repo.commits] == [record["revision"]]
    assert repo.commits[record["revision"]] == {
        name: (folder / name).read_bytes()
        for name in ("config.json", "model.safetensors", "README.md")
    }
    assert record["sha256"] == file_sha256(folder / "model.safetensors")
    assert record["bytes"] == (folder / "model.safetensors").stat().st_size
    assert (record["repo"], record["status"], record["aus"]) == (
        "user/tiny",
        "hub",
        list(made.config.aus),
    )

    here = ("cli", "info", "tiny-noise")
    answers = ask(
        hub,
        tmp_path / "b",
        here,
        ("cli", "download", "tiny-noise"),
        here,
        ("load", "tiny-noise", {}),
        ("cli", "verify"),
        ("cli", "models"),
        models=printed,
    )
    assert [answer.get("status") for answer in answers] == [0, 0, 0, None, 0, 0]
    assert "not in the cache" in answers[0]["out"]
    assert record["sha256"] in answers[1]["out"]
    assert f"user/tiny@{record['revision']}" in answers[1]["out"]
    assert str(tmp_path / "b") in answers[2]["out"]
    assert answers[3] == right(made)
    assert answers[5]["out"].split()[:2] == ["tiny-noise", "hub"]
    lines = answers[4]["out"].splitlines()
    assert [line.split(": ")[1] for line in lines] == ["config.json", "model.safetensors"]
    assert all(f"user/tiny@{record['revision']}" in line and ": ok, " in line for line in lines)

    again = ask(hub, tmp_path / "a", publish, publish, **allowed)  # the repository is there already
    assert [answer["status"] for answer in again] == [0, 0]


def test_verify_finds_what_rotted_in_the_cache(hub: Hub, files: Files, tmp_path: Path) -> None:
    commit = hub.add("user/repo", files)
    hub.add(
        "user/other",
        {"config.json": b'{"architectures": ["BertModel"]}', "model.safetensors": b"x"},
    )
    requests = [("load", "user/repo", {}), ("load", "user/other", {}), ("cli", "verify")]
    loaded, _, whole = ask(hub, tmp_path, *requests)
    assert whole["status"] == 0
    assert whole["out"].startswith(
        f"mdhr-lite: model.safetensors: ok, {read_manifest()['mdhr-lite'].record['sha256']}"
    )
    assert "user/other" not in whole["out"]
    data = files["model.safetensors"]
    blob = tmp_path / "hub" / "models--user--repo" / "blobs" / sha256(data)
    before = blob.stat()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    rotten, mended, whole = ask(
        hub, tmp_path, ("cli", "verify"), ("load", "user/repo", {}), ("cli", "verify")
    )
    assert rotten["status"] == 1
    assert f"user/repo@{commit}: model.safetensors: DAMAGED" in rotten["out"]
    assert f"expected {sha256(data)}" in rotten["out"]
    assert f"user/repo@{commit}: config.json: ok" in rotten["out"]
    assert mended == loaded  # loading it notices too, and fetches it again
    assert whole["status"] == 0
    # The client can keep one file for all repositories: a blob is then a link itself.
    shared = tmp_path / "hub" / "blobs" / "ab" / ("c" * 64)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to("../../blobs/ab/" + "c" * 64)
    linked, still = ask(hub, tmp_path, ("load", "user/repo", {}), ("cli", "verify"))
    assert linked == loaded
    assert still["out"] == whole["out"]
    blob.unlink()
    (lost,) = ask(hub, tmp_path, ("cli", "verify"))
    assert lost["status"] == 1
    assert "model.safetensors: DAMAGED: has no contents" in lost["out"]


def test_a_configuration_that_rotted_in_the_cache(hub: Hub, files: Files, tmp_path: Path) -> None:
    commit = hub.add("user/repo", files)
    loaded, _ = ask(hub, tmp_path, ("load", "user/repo", {}), ("cli", "verify"))
    (config,) = (tmp_path / "hub" / "models--user--repo" / "snapshots").glob("*/config.json")
    for spoilt in (b"{", files["config.json"].replace(b"0.5", b"0.6")):
        assert spoilt != files["config.json"]
        config.resolve().write_bytes(spoilt)
        rotten, alone, mended, whole = ask(
            hub,
            tmp_path,
            ("cli", "verify"),
            ("load", "user/repo", {"local_files_only": True}),
            ("load", "user/repo", {}),
            ("cli", "verify"),
        )
        assert rotten["status"] == 1
        assert f"user/repo@{commit}: config.json: DAMAGED" in rotten["out"]
        assert "fetch it again with `pyfau download`" in alone["error"]
        assert mended == loaded
        assert whole["status"] == 0
    config.resolve().unlink()
    (lost,) = ask(hub, tmp_path, ("cli", "verify"))
    assert lost["status"] == 1
    assert "config.json: DAMAGED: has no contents" in lost["out"]
