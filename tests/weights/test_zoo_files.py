"""Authors' checkpoints of networks for single frames, in every layout that the projects use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import save_file
from torch import Tensor

from pyfau.cli import main
from pyfau.errors import ConfigError, OptionError, WeightsError
from pyfau.models.frame_config import FrameConfig
from pyfau.models.protocol import AUNetwork
from pyfau.weights.convert_official import convert_checkpoint
from pyfau.weights.networks import NETWORKS, read_official
from pyfau.weights.official_frames import build
from pyfau.weights.store import load_model

PYFEAT_CONFIG = {"config": json.dumps({"drop_mefl": True, "n_au": 20, "n_emotions": 7})}

State = dict[str, Tensor]


def module_state(state: State) -> dict[str, Any]:
    state = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 3, "state_dict": state, "optimizer": {"param_groups": [{"lr": 1e-4}]}}


LAYOUTS: dict[str, Callable[[State], Any]] = {
    "module": module_state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {}},
    "model": lambda state: {"model": state},
    "namespace": lambda state: {
        "model": state,
        "optimizer": {"state": {}},
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3, output_dir="out"),
    },
    "bare": lambda state: state,
}


@pytest.fixture(scope="module")
def libreface() -> State:
    return zoo.official_state("libreface-combined")


@pytest.fixture(scope="module")
def resnet18() -> State:
    return zoo.official_state("opengraphau-s1-resnet18")


def expected(name: str, key: str) -> np.ndarray:
    with np.load(zoo.case_file(name)) as case:
        return case[key]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_stored_outputs(
    layout: str, libreface: State, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    torch.save(LAYOUTS[layout](libreface), path)
    model = load_model(path)
    assert isinstance(model, AUNetwork)
    assert model.context == 0
    with torch.inference_mode():
        scores = model(zoo.images(7)[:, None])
    assert scores.shape == (2, 1, 24)
    intensity = expected("libreface-combined", "intensity")
    occurrence = expected("libreface-combined", "occurrence")
    assert np.abs(scores[:, 0, :12].numpy() - intensity).max() <= 1e-5
    assert np.abs(scores[:, 0, 12:].numpy() - occurrence).max() <= 1e-5


def test_safetensors_gives_the_stored_outputs(tmp_path: Path) -> None:
    save_file(zoo.official_state("pyfeat-v28"), tmp_path / "face.safetensors", PYFEAT_CONFIG)
    model = load_model(tmp_path / "face.safetensors")
    with torch.inference_mode():
        scores = model(zoo.images(7)[None])[0]
    assert np.abs(scores.numpy() - expected("pyfeat-v28", "scores")).max() <= 1e-5


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        (None, "no config"),
        ({"config": "no JSON"}, "no config"),
        ({"config": json.dumps({"drop_mefl": False, "n_au": 20})}, "drop_mefl=False"),
        ({"config": json.dumps({"drop_mefl": True, "n_au": 24})}, "n_au=24, expected 20"),
    ],
)
def test_the_config_of_pyfeat_is_checked(
    metadata: dict[str, str] | None, match: str, tmp_path: Path
) -> None:
    path = tmp_path / "face.safetensors"
    save_file(zoo.official_state("pyfeat-v28"), path, metadata)
    with pytest.raises(WeightsError, match=match) as caught:
        read_official(path)
    assert str(path) in str(caught.value)


def test_safetensors_of_another_network_is_not_a_model(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="weights file alone"):
        load_model(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_model(tmp_path / "b.safetensors")


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_a_namespace_is_read_and_no_code_is_run(libreface: State, tmp_path: Path) -> None:
    args = argparse.Namespace(payload=Payload(tmp_path / "made"))
    torch.save({"model": libreface, "args": args}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="holds objects that only running code could make"):
        load_model(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("case", "extra", "name"),
    [
        ("megraphau-s1-resnet50-bp4d", {}, "megraphau-s1-resnet50-bp4d"),
        ("megraphau-s2-resnet50-disfa", {}, "megraphau-s2-resnet50-disfa"),
        ("opengraphau-s2-resnet50", {}, "opengraphau-s2-resnet50-hybrid"),
        (
            "megraphau-s1-resnet50-bp4d",
            {"backbone.layer3.22.conv1.weight": [256, 1024, 1, 1]},
            "megraphau-s1-resnet101-bp4d",
        ),
        ("opengraphau-s1-swin_transformer_tiny", {}, "opengraphau-s1-swint-hybrid"),
        (
            "opengraphau-s1-swin_transformer_tiny",
            {"backbone.layers.2.blocks.6.norm1.weight": [384]},
            "opengraphau-s1-swins-hybrid",
        ),
        ("fmae-base-disfa", {}, "fmae-vitb-disfa"),
    ],
)
def test_stage_backbone_and_data_are_recognised(
    case: str, extra: dict[str, list[int]], name: str
) -> None:
    shapes = json.loads((zoo.ZOO / f"{case}.keys.json").read_text()) | extra
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    configs = [network.recognise(state) for network in NETWORKS.values()]
    (config,) = [config for config in configs if config is not None]
    assert config.name == name


def refused(state: State, folder: Path) -> str:
    torch.save({"state_dict": state}, folder / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load_model(folder / "a.pth")
    assert str(folder / "a.pth") in str(caught.value)
    return str(caught.value)


def test_missing_and_extra_tensors_are_named(resnet18: State, tmp_path: Path) -> None:
    state = dict(resnet18)
    del state["head.gnn.V.bias"]
    state["head.gnn.W.bias"] = torch.zeros(2)
    text = refused(state, tmp_path)
    assert "opengraphau-s1-resnet18-hybrid" in text
    assert "missing head.gnn.V.bias; unexpected head.gnn.W.bias" in text


def test_a_file_of_stage_2_without_all_of_it_is_not_taken_for_stage_1(
    resnet18: State, tmp_path: Path
) -> None:
    extra = {"head.edge_extractor.FAM.linear_q.weight": torch.zeros(64, 128)}
    text = refused(resnet18 | extra, tmp_path)
    assert "opengraphau-s2-resnet18-hybrid" in text
    assert "head.edge_extractor.ARM.linear_k.bias" in text
    assert "unexpected head.gnn.U.bias" in text


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("head.main_class_linears.3.fc.weight", (128, 64)),
        ("head.main_sc", (26, 128)),
        ("backbone.conv1.weight", (64, 3, 5, 5)),
    ],
)
def test_wrong_shapes_are_named(
    key: str, shape: tuple[int, ...], resnet18: State, tmp_path: Path
) -> None:
    text = refused(resnet18 | {key: torch.zeros(shape)}, tmp_path)
    assert f"{key} {shape}" in text


def test_the_head_of_persons_is_checked(tmp_path: Path) -> None:
    shapes = json.loads((zoo.ZOO / "fmae-base-disfa.keys.json").read_text())
    shapes["ID_head.weight"][0] = 41
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    config = NETWORKS["fmae"].recognise(state)
    with pytest.raises(WeightsError, match="41 rows: expected 27, the persons of DISFA"):
        NETWORKS["fmae"].from_official(state, config, "a.pth")


def test_a_file_of_bp4d_plus_is_recognised_by_its_persons() -> None:
    shapes = json.loads((zoo.ZOO / "fmae-base-bp4d.keys.json").read_text())
    for persons, name in ((41, "fmae-vitb-bp4d"), (140, "fmae-vitb-bp4dplus")):
        shapes["ID_head.weight"][0] = shapes["ID_head.bias"][0] = persons
        state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
        config = NETWORKS["fmae"].recognise(state)
        assert config is not None
        assert config.name == name
        assert config.aus == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
        NETWORKS["fmae"].from_official(state, config, "a.pth")


def test_wrong_types_are_named(resnet18: State, tmp_path: Path) -> None:
    key = "head.main_sc"
    text = refused(resnet18 | {key: resnet18[key].int()}, tmp_path)
    assert f"{key} (27, 128) int32" in text
    assert "(for classifier (41, 128) float32)" in text


def test_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    text = refused({}, tmp_path)
    assert "it holds no tensors" in text
    assert "; or py-feat" in text


def test_info_describes_outputs_crop_and_licence(
    libreface: State, resnet18: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for name, state in (("libre.pt", libreface), ("graph.pth", resnet18)):
        torch.save({"model": state}, tmp_path / name)
        assert main(["info", str(tmp_path / name)]) == 0
        said.append(capsys.readouterr().out)
    assert "AU12 lip corner puller (intensity)" in said[0]
    assert "libreface-resnet18-joint" in said[0]
    assert "USC research licence" in said[0]
    assert "the similarity of the FFHQ data set" in said[0]
    assert "AU12L lip corner puller, left" in said[1]
    assert "stage1" in said[1]


def test_convert_writes_a_directory_with_a_card(
    libreface: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": libreface}, tmp_path / "a.pth")
    with pytest.raises(OptionError, match="is not --net mdhr"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "made", net="mdhr")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "made", net="libreface")
    card = (tmp_path / "made/README.md").read_text()
    for text in ("| AU12_r | lip corner puller | intensity |", "USC research", "**no**"):
        assert text in card
    x = zoo.images(7)[:, None]
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "made")(x), load_model(tmp_path / "a.pth")(x))
    printed = capsys.readouterr().err
    assert printed.count("libreface-resnet18-joint is not for commercial use") <= 1


def test_a_licence_is_printed_once(
    libreface: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyfau.weights import licences

    licences._printed.clear()
    torch.save({"model": libreface}, tmp_path / "a.pth")
    for _ in range(2):
        load_model(tmp_path / "a.pth")
    assert capsys.readouterr().err.count("not for commercial use") == 1


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("backbone", "resnet34", "unknown backbone 'resnet34'"),
        ("variant", "stage3", "unknown variant 'stage3'"),
        ("thresholds", [0.5], "expected 41 thresholds"),
        ("outputs", [{"au": 1}, {"au": 1}], "must be distinct"),
        ("outputs", [{"au": 1, "kind": "sum"}], "unknown kind"),
        ("crop", {"kind": "box", "margin": -1}, "margin"),
        ("crop", {"kind": "template"}, "five points"),
        ("speed", 3, "unknown"),
    ],
)
def test_a_config_is_checked(field: str, value: Any, match: str) -> None:
    config = NETWORKS["opengraphau"].recognise(
        {
            "head.main_sc": torch.zeros(27, 128),
            "backbone.layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3),
        }
    )
    assert FrameConfig.from_json(config.to_json()) == config
    record = json.loads(config.to_json()) | {field: value}
    with pytest.raises(ConfigError, match=match):
        build(FrameConfig.from_json(json.dumps(record)))
