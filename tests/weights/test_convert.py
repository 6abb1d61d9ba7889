"""`pyfau convert`, and what it makes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from test_store import cheap_state, official_checkpoint, shapes

from pyfau import load_model
from pyfau.aus import AU_NAMES
from pyfau.cli import main
from pyfau.errors import OptionError, WeightsError
from pyfau.models.paper import DISFA_TEMPLATE, paper_config
from pyfau.weights import convert_official
from pyfau.weights.card import model_card
from pyfau.weights.manifest import read_manifest
from pyfau.weights.official import from_official

NAME = "mdhr-resnet50-disfa-fold2"
SAID = ("--net", "mdhr", "--backbone", "resnet50", "--data", "disfa", "--fold", "2")


@pytest.fixture(scope="module")
def made(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of the real size, and the directory that the command makes of it."""
    keys = parity / "official_state_dict_keys.json"
    state = oracle.official_state(keys, "disfa_resnet", 3)
    folder = tmp_path_factory.mktemp("convert")
    path = official_checkpoint(folder / "best_model_fold2.pth", state)
    assert main(["convert", str(path), *SAID, "-o", str(folder / "made")]) == 0
    yield state, path, folder / "made"
    path.unlink()
    (folder / "made" / "model.safetensors").unlink()


def test_a_checkpoint_becomes_a_directory_that_scores_the_same(made: Any) -> None:
    state, path, folder = made
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    model = load_model(folder)
    assert model.config.name == NAME
    assert model.config.backbone == "resnet50"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in model.config.source
    assert "best_model_fold2.pth" in model.config.source
    expected = from_official(state, paper_config("disfa", "resnet50"))
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in expected.items())
    with torch.inference_mode():
        x = oracle.frames(3, 1, 2)
        assert torch.equal(model(x), load_model(path)(x))


def test_the_card_says_what_one_must_know(made: Any) -> None:
    card = (made[2] / "README.md").read_text(encoding="utf-8")
    record = read_manifest()[NAME].record
    assert card.startswith("---\nlibrary_name: pyfau\nlicense: other\n")
    rows = (
        card.split("| column | AU | name | threshold |\n|---|---|---|---|\n")[1]
        .split("\n\n")[0]
        .splitlines()
    )
    units = [row.split(" | ")[1] for row in rows]
    assert units == ["AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26"]
    assert all(AU_NAMES[au] in card for au in units)
    assert "**not** an intensity" in card
    assert all(f"| {x:g} | {y:g} |" in card for x, y in DISFA_TEMPLATE)
    for field in ("code_licence", "weights_licence", "training_data", "training_terms", "source"):
        assert record[field] in card
    assert record["reported_metrics"]["protocol"] in card
    assert "64.9" in card
    assert " ".join(f"| {v:g}" for v in record["reported_metrics"]["f1"].values()) in card
    assert "pyfau has not repeated them" in card
    assert max(map(len, card.splitlines())) < 400


def test_a_card_without_facts_says_that_they_are_not_stated() -> None:
    card = model_card(paper_config("bp4d", "swin_b"))
    assert "Weights: not stated" in card
    assert "Reported accuracy\nNot stated." in card


@pytest.mark.parametrize(
    ("option", "value"),
    [("--net", "graph"), ("--backbone", "swin_b"), ("--data", "bp4d"), ("--fold", "4")],
)
def test_what_is_said_must_agree_with_what_is_there(
    parity: Path, tmp_path: Path, capsys: Any, option: str, value: str
) -> None:
    path = official_checkpoint(tmp_path / "a.pth", cheap_state(shapes(parity)["disfa_resnet"]))
    assert main(["convert", str(path), *SAID, option, value, "-o", str(tmp_path / "made")]) == 1
    said = capsys.readouterr().err
    assert f"{option} {value}" in said or f"{option} must be one of [1, 2, 3]" in said
    assert "mdhr" in said
    if option != "--fold":
        assert "its tensors are those of --net mdhr, --backbone resnet50, --data disfa" in said
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_nothing_is_written_over_and_nothing_half_is_left(
    parity: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    state = cheap_state(shapes(parity)["disfa_swin"])
    path = official_checkpoint(tmp_path / "a.pth", state)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "mine").write_text("")
    for there in (folder, path):
        with pytest.raises(OptionError, match="already exists"):
            convert_official.convert_checkpoint(path, there)
    (folder / "mine").unlink()
    (tmp_path / "link").symlink_to(folder)
    for odd in (tmp_path / "link", folder / ".."):
        with pytest.raises(OptionError):
            convert_official.convert_checkpoint(path, odd)
    (tmp_path / "link").unlink()
    monkeypatch.chdir(folder)
    with pytest.raises(OptionError, match="give its own name"):
        convert_official.convert_checkpoint(path, Path())

    def differ(model: Any, frames: int) -> torch.Tensor:
        return torch.rand(1, 4, 8)

    monkeypatch.setattr(convert_official, "score_test_clip", differ)
    with pytest.raises(WeightsError, match="gives other scores"):
        convert_official.convert_checkpoint(path, folder)
    assert [*folder.iterdir()] == []

    def full(*args: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyfau.weights.convert_official.save_model", full)
    with pytest.raises(WeightsError, match=r"made could not be written: .*No space left"):
        convert_official.convert_checkpoint(path, folder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pth", "made"]


def test_a_model_without_a_fold_and_one_that_is_not_finite(
    parity: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    # The scores of a network of this size take some time.
    monkeypatch.setattr(
        convert_official, "score_test_clip", lambda model, frames: torch.zeros(1, 4, 8)
    )
    state = cheap_state(shapes(parity)["disfa_swin"])
    path = official_checkpoint(tmp_path / "a.pth", state)
    assert convert_official.convert_checkpoint(path, tmp_path / "deep" / "made") is None
    config = json.loads((tmp_path / "deep" / "made" / "config.json").read_text())
    assert config["name"] == "mdhr-swinb-disfa"
    (tmp_path / "deep" / "made" / "model.safetensors").unlink()
    state["global_linear.fc.bias"] = torch.full((512,), torch.inf)
    with pytest.raises(
        WeightsError, match=r"static\.linear\.bias holds numbers that are not finite"
    ):
        convert_official.convert_checkpoint(official_checkpoint(path, state), tmp_path / "other")
    with pytest.raises(WeightsError, match="is not a file"):
        convert_official.convert_checkpoint(tmp_path / "none.pth", tmp_path / "other")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_others_can_read_the_directory(made: Any) -> None:
    folder = made[2]
    assert folder.stat().st_mode & 0o055 == 0o055
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.iterdir())


# pyfau info NAME


def test_info_of_a_model(made: Any, capsys: Any) -> None:
    def shown(name: str) -> str:
        assert main(["info", name]) == 0
        out: str = capsys.readouterr().out
        return out

    bundled = shown("mdhr-lite")
    record = read_manifest()["mdhr-lite"].record
    assert all(
        str(value) in bundled
        for value in (record["sha256"], record["bytes"], record["weights_licence"])
    )
    assert "12 lip corner puller" in bundled
    wanted = shown(NAME)
    assert f"pyfau convert best_model_fold2.pth {' '.join(SAID)} -o {NAME}" in wanted
    assert record["code_licence"] in wanted
    assert "AU25 91.5" in wanted
    assert str(made[2]) in shown(str(made[2]))
    assert main(["info", "mdhr-lit"]) == 1
    assert "did you mean mdhr-lite?" in capsys.readouterr().err


def test_download_of_what_cannot_be_downloaded(capsys: Any, tmp_path: Path) -> None:
    assert main(["download", "user/repo", "--revision", ""]) == 1
    assert "revision is empty text" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["download", str(tmp_path / "file")]) == 1
    assert "there is nothing to download" in capsys.readouterr().err
    assert main(["download", "mdhr-lite"]) == 0
    assert read_manifest()["mdhr-lite"].record["sha256"] in capsys.readouterr().out
    assert main(["download", NAME]) == 1
    assert (
        f"pyfau convert best_model_fold2.pth {' '.join(SAID)} -o {NAME}" in capsys.readouterr().err
    )
