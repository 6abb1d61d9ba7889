"""training/finetune.py: the paper's losses by hand, and a run on a miniature data set."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from miniature import Miniature

from pyfau import AUDetector
from pyfau.cli import main as pyfau
from pyfau.evaluation.lists import read_list
from pyfau.models.mdhr import MDHR
from pyfau.weights.store import load_model, save_model

pytest.importorskip("sklearn", reason="figures need scikit-learn")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "training" / "finetune.py"
    spec = importlib.util.spec_from_file_location("finetune", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["finetune"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def start_model(script: ModuleType, data: str, folder: Path) -> Path:
    """A fresh network in a size that learns in seconds."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        script.new_config(None, "small", data, 1),
        width=32,
        dynamic_channels=16,
        backbone_options={"widths": [16, 16, 32, 32], "blocks": [1, 1, 1, 1]},
    )
    save_model(MDHR(config), folder)
    return folder


def run(script: ModuleType, mini: Miniature, out: Path, model: Path | str, *more: object) -> int:
    options = [
        "--data",
        mini.data,
        "--root",
        mini.root,
        "--lists",
        mini.lists,
        "--fold",
        1,
        "--out",
        out,
    ]
    options += ["--model", model, "--device", "cpu", "--quiet", "--workers", 1, *more]
    status: int = script.main([str(option) for option in options])
    return status


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_weighted_asymmetric_loss_by_hand(script: ModuleType) -> None:
    scores = torch.tensor([[[0.5, 0.25, 0.9]]], requires_grad=True)
    labels = torch.tensor([[[1, 0, -1]]], dtype=torch.int8)
    loss = script.weighted_asymmetric_loss(scores, labels, torch.tensor([2.0, 0.5, 7.0]))
    assert loss.item() == pytest.approx(-(2 * math.log(0.5) + 0.5 * 0.25 * math.log(0.75)) / 2)
    loss.backward()
    # The weight of the absent AU is not learnt from: d/ds of 0.25 log(1 - s), not of s log(1 - s).
    assert scores.grad is not None
    assert scores.grad[0, 0].tolist() == pytest.approx([-2 / 0.5 / 2, 0.5 * 0.25 / 0.75 / 2, 0.0])
    assert (
        script.weighted_asymmetric_loss(scores, torch.full((1, 1, 3), -1), torch.ones(3)).item()
        == 0.0
    )


def test_region_loss_by_hand(script: ModuleType) -> None:
    config = script.new_config(None, "small", "disfa", 1)  # up 1 2 4, mid 6 9, down 12 25 26
    labels = torch.tensor([[[1, 0, 1, 0, 1, 0, 0, 0], [0, 0, 0, -1, 1, 1, 1, 1]]], dtype=torch.int8)
    logits = [torch.zeros(1, 2, 8), torch.zeros(1, 2, 4), torch.zeros(1, 2, 8)]
    logits[0][0, 0, 0b101] = logits[0][0, 1, 0b000] = 3.0
    logits[1][0, 0, 0b01] = 3.0  # its second frame is ignored: AU6 is not known
    logits[2][0, 0, 0b000] = logits[2][0, 1, 0b111] = 3.0
    right = [math.log(math.exp(3) + others) - 3 for others in (7, 3, 7)]
    assert script.region_loss(logits, labels, config).item() == pytest.approx(
        sum(right) / 3, rel=1e-5
    )
    nothing = script.region_loss(logits, torch.full_like(labels, -1), config)
    assert nothing.item() == 0.0


def test_class_weights_by_hand(script: ModuleType) -> None:
    # Present in 1/2, 1/4 (of the four that are known) and none: 2 and 4, with mean 1; 1.
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, -1, 0], [0, -1, 0]], np.int8)
    assert script.class_weights(labels).tolist() == pytest.approx([2 / 3, 4 / 3, 1.0])


def test_clips_for_training(script: ModuleType, tmp_path: Path) -> None:
    mini = Miniature(tmp_path, "bp4d", frames=20)
    frames = read_list("bp4d", mini.lists, 1, "train")
    videos = script.training_videos(frames)
    assert [len(video) for video in videos] == [20, 10, 20, 10]
    images = mini.root / "img"

    def clip(video: range, seed: int) -> tuple[np.ndarray, np.ndarray]:
        loaded = script.load_clip(frames, images, video, 112, np.random.default_rng(seed))
        assert loaded is not None
        return loaded

    crops, labels = clip(videos[0], 1)
    assert (crops.shape, crops.dtype, labels.shape) == ((16, 112, 112, 3), np.uint8, (16, 12))
    assert np.array_equal(clip(videos[0], 1)[0], crops), "the same seed, the same clip"
    starts = {clip(videos[0], seed)[1].tobytes() for seed in range(20)}
    assert len(starts) > 2
    # A video of ten frames: the last is repeated and the repeats are ignored.
    crops, labels = clip(videos[1], 1)
    assert (labels[10:] == -1).all()
    assert np.array_equal(labels[:10], frames.labels[20:30])
    assert (crops[10:] == crops[9]).all()
    (images / frames.paths[22]).write_bytes(b"")
    broken, labels = clip(videos[1], 1)
    assert (labels[2] == -1).all()
    assert np.array_equal(broken[2], crops[1])
    assert np.array_equal(broken[3], crops[3])
    for i in videos[1]:
        (images / frames.paths[i]).unlink(missing_ok=True)
    assert script.load_clip(frames, images, videos[1], 112, np.random.default_rng(1)) is None


def test_disfa_is_taken_in_pieces(script: ModuleType, tmp_path: Path) -> None:
    mini = Miniature(tmp_path, "disfa", frames=4)
    for name in mini.paths:
        mini.paths[name] = [f"{name}/{name}_{i}.png" for i in range(1300)]
        mini.labels[name] = np.zeros((1300, 8), np.int8)
    mini.write_lists()
    frames = read_list("disfa", mini.lists, 1, "train")
    assert [len(video) for video in script.training_videos(frames)] == [607, 607, 86] * 2


def test_what_is_kept_of_a_model_with_other_aus(script: ModuleType, tmp_path: Path) -> None:
    mini = Miniature(tmp_path / "mini", "bp4d", frames=16)
    assert run(script, mini, tmp_path / "out", "mdhr-lite", "--epochs", 1, "--lr", 0.0) == 0
    lite, tuned = (
        load_model("mdhr-lite").state_dict(),
        load_model(tmp_path / "out" / "last").state_dict(),
    )
    same = {key for key in tuned if key in lite and torch.equal(tuned[key], lite[key])}
    assert {"backbone.stem.weight", "static.linear.weight", "dynamics.projections.3.weight"} <= same
    assert "cross_region.linear.weight" in same
    assert not any(key.startswith(("regions.0.head.w", "classifier")) for key in same)
    assert tuned["classifier"].shape == (12, lite["classifier"].shape[1])


def test_head_and_calibration_of_the_start(script: ModuleType, tmp_path: Path) -> None:
    """The head stays, its weights too where the AUs do; a calibration does not."""
    config = script.new_config(None, "small", "disfa", 1)
    config = dataclasses.replace(config, head="logistic", calibration=((2.0, 0.5),) * 8)
    start = MDHR(config)
    torch.nn.init.uniform_(start.classifier_bias)
    save_model(start, tmp_path / "start")
    args = argparse.Namespace(
        data="disfa", fold=2, model=tmp_path / "start", backbone=None, backbone_weights=None
    )
    model = script.make_model(args)
    assert (model.config.head, model.config.calibration) == ("logistic", ())
    assert torch.equal(model.classifier_bias, start.classifier_bias)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "swin_b"])
def test_imagenet_weights_of_a_backbone(script: ModuleType, tmp_path: Path, backbone: str) -> None:
    """As torchvision and Swin's authors write them: with a classifier, Swin's with constant tables
    and in a dict.
    """
    donor = MDHR(script.new_config(None, backbone, "disfa", 1)).backbone.state_dict()
    file = dict(donor)
    if backbone == "resnet50":
        file |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    else:
        file |= {
            "head.bias": torch.zeros(1000),
            "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        }
        file = {"model": file}
    torch.save(file, tmp_path / "imagenet.pth")
    args = argparse.Namespace(
        data="disfa",
        fold=1,
        model=None,
        backbone=backbone,
        backbone_weights=tmp_path / "imagenet.pth",
    )
    model = script.make_model(args)
    assert model.config.name == f"mdhr-{backbone.replace('_', '')}-disfa-fold1"
    assert all(torch.equal(value, donor[key]) for key, value in model.backbone.state_dict().items())


def test_an_interrupted_run_ends_as_a_whole_one(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mini = Miniature(tmp_path / "mini", "disfa", frames=20)
    model = start_model(script, "disfa", tmp_path / "start")
    options = ("--epochs", 3, "--validate-every", 2, "--checkpoint-every", 1, "--lr", 1e-3)
    assert run(script, mini, tmp_path / "whole", model, *options) == 0
    real = script.train_epoch

    def stop(
        model: MDHR, adam: object, frames: object, images: Path, epoch: int, args: object
    ) -> object:
        if epoch == 1:
            raise KeyboardInterrupt
        return real(model, adam, frames, images, epoch, args)

    with monkeypatch.context() as patch:
        patch.setattr(script, "train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(script, mini, tmp_path / "parts", model, *options)
    assert [record["epoch"] for record in log(tmp_path / "parts")] == [1]
    assert run(script, mini, tmp_path / "parts", model, *options) == 0
    assert [record["epoch"] for record in log(tmp_path / "parts")] == [1, 2, 3]
    for whole, parts in zip(log(tmp_path / "whole"), log(tmp_path / "parts"), strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert ["validation" in record for record in log(tmp_path / "parts")] == [False, True, True]
    capsys.readouterr()
    assert run(script, mini, tmp_path / "parts", model, "--epochs", 3, "--lr", 1e-2) == 1
    assert "is of another run (lr 0.001, now 0.01): give another --out" in capsys.readouterr().err


def test_files_that_are_not_what_they_should_be(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = Miniature(tmp_path / "mini", "disfa", frames=2)
    start = start_model(script, "disfa", tmp_path / "start")
    torch.save([1], tmp_path / "list.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"torn")
    for out, more, message in (
        ("out", (), "checkpoint.pt could not be read: it is damaged"),
        ("list.pt", (), "cannot write to"),
        ("new", ("--backbone-weights", tmp_path / "nowhere.pt"), "No such file"),
        ("new", ("--backbone-weights", tmp_path / "list.pt"), "holds no state dict"),
        ("new", ("--backbone-weights", tmp_path / "other.pt"), "does not fit the backbone small"),
    ):
        assert run(script, mini, tmp_path / out, start, *more) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(script, mini, tmp_path / "new", start, "--lr", "nan")
    assert not (tmp_path / "new").exists()


def test_lists_that_share_people_are_refused(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = Miniature(tmp_path / "mini", "disfa", frames=16)
    for part in ("list_file", "label_file"):
        getattr(mini, part)(1, "train").write_bytes(getattr(mini, part)(1, "test").read_bytes())
    assert run(script, mini, tmp_path / "out", "mdhr-lite") == 1
    assert "share people (SN001): expected a split by person" in capsys.readouterr().err


@pytest.mark.slow
def test_it_learns(script: ModuleType, tmp_path: Path) -> None:
    """Loss falls, and F1 on people it never saw rises above what a coin or a constant answer
    reaches.
    """
    mini = Miniature(tmp_path / "mini", "disfa", subjects=8, frames=32)
    model = start_model(script, "disfa", tmp_path / "start")
    options = ("--epochs", 12, "--validate-every", 6, "--lr", 5e-3, "--batch-size", 4)
    assert run(script, mini, tmp_path / "out", model, *options) == 0
    losses = [record["loss"] for record in log(tmp_path / "out")]
    assert np.mean(losses[-2:]) < 0.7 * np.mean(losses[:2])
    frames = read_list("disfa", mini.lists, 1)
    share = (frames.labels == 1).mean(axis=0)
    # F1 of always answering yes, which no coin beats.
    constant = float(np.mean(2 * share / (1 + share)))
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["best"]["mean"]["f1"] > constant + 0.15
    # The model directory is a model like any other, and evaluate finds the same figures.
    best = tmp_path / "out" / "best"
    detector = AUDetector(best, device="cpu", aligner="aligned")
    assert detector.model.config.name == "mdhr-small-disfa-fold1"
    assert len(detector.detect_image(np.zeros((128, 128, 3), np.uint8))) == 1
    options = (
        "--root",
        mini.root,
        "--lists",
        mini.lists,
        "--predictions",
        tmp_path / "kept",
        "--device",
        "cpu",
    )
    report = tmp_path / "report.json"
    arguments = [
        "evaluate",
        "--data",
        "disfa",
        "--model",
        best,
        "--report",
        report,
        "--quiet",
        *options,
    ]
    assert pyfau([str(argument) for argument in arguments]) == 0
    found = json.loads(report.read_text())
    assert list(found["folds"]) == ["1"], "a model of one fold is measured on that fold"
    assert found["folds"]["1"]["mean"]["f1"] == pytest.approx(
        figures["best"]["mean"]["f1"], abs=0.01
    )
