"""Pins of models: commit, size and hash, from the Hub on loopback and from files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from loopback_hub import Files, Hub, commit_of
from safetensors.torch import save_file
from test_hub import ask
from test_zoo_files import PYFEAT_CONFIG

from pyfau.cli import main
from pyfau.errors import OptionError, WeightsError
from pyfau.weights.manifest import read_manifest
from pyfau.weights.pin import pin_entry

NAME = "pyfeat-convnextv2t-multitask"
FILE = "face_multitask_v28.safetensors"
REPO = "py-feat/face_multitask_v2"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path = tmp_path_factory.mktemp("pin") / FILE
    save_file(zoo.official_state("pyfeat-v28"), path, PYFEAT_CONFIG)
    return {FILE: path.read_bytes()}


@pytest.fixture(scope="module")
def libreface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pin") / "combined.pt"
    torch.save({"model": zoo.official_state("libreface-combined")}, path)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return dict(read_manifest()[NAME].record) | changes


def test_a_file_on_the_hub_is_pinned_and_then_loads(hub: Hub, files: Files, tmp_path: Path) -> None:
    commit = hub.add(REPO, files, tags={"v28": commit_of(files)})
    unpinned, by_tag, pinned = ask(
        hub,
        tmp_path / "first",
        ("cli", "detect", "none.mp4", "--model", NAME, "-o", str(tmp_path / "a.csv")),
        ("cli", "info", NAME),
        ("cli", "pin", NAME, "--quiet"),
        models={NAME: entry()},
    )
    assert unpinned["status"] == 1
    assert "is not pinned" in unpinned["err"]
    assert f"`pyfau pin {NAME}`" in unpinned["err"]
    assert "here             no:" in by_tag["out"]
    assert pinned["status"] == 0, pinned
    (made,) = json.loads(pinned["out"]).values()
    assert made["status"] == "official"
    assert made["revision"] == commit
    assert made["sha256"] == hashlib.sha256(files[FILE]).hexdigest()
    assert made["bytes"] == len(files[FILE])
    # With that entry the name loads, at that commit. Without it, a revision is needed.
    wrong = entry(**made | {"sha256": "0" * 64})
    for models, options, words in (
        ({NAME: made}, {}, None),
        ({NAME: entry()}, {"revision": "v28"}, None),
        ({NAME: made}, {"revision": "v28"}, "is for a Hub repository"),
        ({NAME: wrong}, {}, f"expected {'0' * 64}"),
        ({NAME: entry()}, {"revision": "none"}, "no revision 'none'"),
    ):
        (answer,) = ask(hub, tmp_path / "second", ("load", NAME, options), models=models)
        if words is None:
            assert "sum" in answer, answer
        else:
            assert words in answer["error"]
    (verified,) = ask(hub, tmp_path / "second", ("cli", "verify"), models={"a": entry()})
    assert f"{REPO}@{commit}: {FILE}: ok" in verified["out"]


def test_another_file_on_the_hub_is_not_pinned(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / FILE
    save_file({"a": torch.zeros(3)}, path)
    hub.add(REPO, {FILE: path.read_bytes()})
    (answer,) = ask(hub, tmp_path / "hub", ("cli", "pin", NAME, "--quiet"), models={NAME: entry()})
    assert answer["status"] == 1
    assert answer["out"] == ""
    assert "is a weights file alone" in answer["err"]


def test_a_file_of_ones_own_is_pinned(libreface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "libreface-resnet18-joint"
    assert main(["pin", name, "--file", str(libreface)]) == 0
    (made,) = json.loads(capsys.readouterr().out).values()
    assert made["status"] == "convert"
    assert made["sha256"] == hashlib.sha256(libreface.read_bytes()).hexdigest()
    assert made["bytes"] == libreface.stat().st_size
    assert made["official_file"] == "combined_resnet.pt"


def test_pins_that_are_refused(libreface: Path, tmp_path: Path) -> None:
    for name, options, error, words in (
        ("nothing", {}, OptionError, "not a name"),
        ("mdhr-lite", {}, OptionError, "needs no pin"),
        (NAME, {"file": libreface}, OptionError, "--file is for files that are not"),
        ("libreface-resnet18-joint", {"revision": "v1"}, OptionError, "--revision does not"),
        ("libreface-resnet18-joint", {}, WeightsError, "--file PATH` prints its hash"),
        ("libreface-resnet18-joint", {"file": tmp_path}, WeightsError, "is not a file"),
        (
            "libreface-resnet18-disfa",
            {"file": libreface},
            WeightsError,
            "is libreface-resnet18-joint, expected libreface-resnet18-disfa",
        ),
    ):
        with pytest.raises(error, match=words):
            pin_entry(name, **options)


def test_a_name_that_is_not_on_the_hub_says_where_to_get_the_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info", "fmae-vitl-bp4d-fold2"]) == 0
    said = capsys.readouterr().out
    assert "FMAE_IAT_BP4D_fold2.pth" in said
    assert "https://github.com/forever208/FMAE-IAT" in said
