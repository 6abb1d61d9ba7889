"""An upload ends: files that are too large and a Hub that never answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyfau.errors import WeightsError
from pyfau.weights import hub

NAMES = ("config.json", "model.safetensors", "README.md")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x" * 100)
    return tmp_path


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that accepts a commit and does not answer."""
    end = threading.Event()

    class Api:
        def create_repo(self, *_: Any, **__: Any) -> None:
            pass

        def create_commit(self, *_: Any, **__: Any) -> Any:
            end.wait(600)
            return SimpleNamespace(oid="0" * 40)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    yield
    end.set()


def publish(folder: Path) -> str:
    return hub.publish_files(folder, NAMES, "user/repo", private=True, message="m")


@pytest.mark.usefixtures("never")
def test_a_hub_that_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_UPLOAD_GRACE_S", 0.3)
    with pytest.raises(WeightsError, match=r"user/repo could not be published: 300 bytes were not"):
        publish(folder)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_files_that_nobody_could_fetch_are_not_sent(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_BYTES", 2_000_000)
    (folder / name).write_bytes(bytes(2_000_001))
    with pytest.raises(WeightsError, match=rf"{name} has 2000001 bytes: expected at most"):
        publish(folder)


def test_the_result_and_the_error_of_a_call_come_back() -> None:
    assert hub._within(60, lambda: 3) == 3
    assert hub._within(60, lambda: None) is None
    with pytest.raises(KeyError):
        hub._within(60, lambda: {}["a"])
