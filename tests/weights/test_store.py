"""Checkpoints: found, checked, converted, fetched."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from pyfau import AUDetector, load_model
from pyfau.errors import ConfigError, DeviceError, WeightsError
from pyfau.models.config import MDHRConfig, read_config
from pyfau.models.devices import resolve_device
from pyfau.models.mdhr import MDHR
from pyfau.models.paper import DATA_SETS
from pyfau.weights import find, hashes, read
from pyfau.weights.hashes import file_sha256, remembered_sha256
from pyfau.weights.manifest import read_manifest
from pyfau.weights.networks import NETWORKS, Network
from pyfau.weights.official import from_official, recognise
from pyfau.weights.read import check_finite
from pyfau.weights.store import open_model, save_model

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "pyfau" / "assets"
MANIFEST = read_manifest()
OFFICIAL = {
    "bp4d_resnet": "mdhr-resnet50-bp4d",
    "bp4d_swin": "mdhr-swinb-bp4d",
    "disfa_resnet": "mdhr-resnet50-disfa",
    "disfa_swin": "mdhr-swinb-disfa",
}
State = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def tiny() -> MDHR:
    """A small network with weights that no other has."""
    disfa = DATA_SETS["disfa"]
    config = MDHRConfig(
        name="tiny",
        backbone="small",
        aus=disfa.aus,
        regions=disfa.regions,
        project_regions=True,
        template=disfa.template,
        thresholds=tuple(0.1 + 0.1 * k for k in range(8)),
        input_size=112,
        width=16,
        dynamic_channels=8,
        backbone_options={"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
        source="a test",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MDHR(config)
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif key.endswith("num_batches_tracked"):
                value.fill_(7)
    return model.eval().requires_grad_(False)


@pytest.fixture
def folder(tiny: MDHR, tmp_path: Path) -> Path:
    save_model(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"


def change_state(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) take away tensors of a model directory."""
    state = load_file(folder / "model.safetensors") | {
        k.replace("__", "."): v for k, v in changes.items()
    }
    save_file({k: v for k, v in state.items() if v is not None}, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    """Replace, add or (the value `...`) take away fields."""
    record = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in record.items() if v is not ...})
    )


def crops(model: MDHR, count: int = 3) -> torch.Tensor:
    size = model.config.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, count, size, size, 3), dtype=np.uint8)
    return model.preprocess(pixels)


# The bundled model


def test_the_bundled_model_is_the_one_of_the_manifest() -> None:
    record = MANIFEST["mdhr-lite"].record
    weights = ASSETS / "mdhr-lite" / record["file"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["sha256"] == digest == file_sha256(weights)
    assert record["bytes"] == weights.stat().st_size < 15_000_000
    loaded = open_model("mdhr-lite")
    assert (loaded.sha256, loaded.origin) == (digest, "bundled mdhr-lite")
    assert loaded.model.config == read_config(ASSETS / "mdhr-lite" / "config.json")
    assert list(loaded.model.config.aus) == record["aus"]
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    with torch.inference_mode():
        scores = loaded.model(crops(loaded.model))
    assert scores.shape == (1, 3, len(record["aus"]))
    assert bool(((scores >= 0) & (scores <= 1)).all())
    assert float(scores.std()) > 0


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled model that the store takes for it."""
    shutil.copytree(ASSETS, tmp_path / "package" / "assets")
    monkeypatch.setattr(find, "files", lambda package: tmp_path / "package")
    return tmp_path / "package" / "assets" / "mdhr-lite"


def test_a_damaged_bundled_model_is_refused(assets: Path) -> None:
    # The copy serves.
    assert open_model("mdhr-lite").sha256 == MANIFEST["mdhr-lite"].record["sha256"]
    data = bytearray((assets / "model.safetensors").read_bytes())
    data[-1000] ^= 1  # one bit of one weight
    (assets / "model.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="damaged") as caught:
        load_model("mdhr-lite")
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    assert MANIFEST["mdhr-lite"].record["sha256"] in str(caught.value)
    with pytest.raises(WeightsError, match="damaged"):
        AUDetector(device="cpu")


def test_a_bundled_model_of_half_the_size_is_refused(assets: Path) -> None:
    data = (assets / "model.safetensors").read_bytes()
    (assets / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"model\.safetensors|mdhr-lite"):
        load_model()


# Model directories


def test_a_directory_gives_back_what_was_saved(tiny: MDHR, folder: Path) -> None:
    loaded = open_model(folder)
    assert loaded.model.config == tiny.config
    assert loaded.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.origin == str(folder)
    saved, own = tiny.state_dict(), loaded.model.state_dict()
    assert saved.keys() == own.keys()
    for key, value in saved.items():
        assert own[key].dtype == value.dtype
        assert torch.equal(own[key], value), key
    with torch.inference_mode():
        assert torch.allclose(loaded.model(crops(tiny)), tiny(crops(tiny)), atol=1e-6)
    assert read_config(folder / "config.json") == tiny.config


def test_half_precision_is_close_and_computes_in_float32(tiny: MDHR, tmp_path: Path) -> None:
    digest = save_model(tiny, tmp_path / "half", torch.float16)
    save_model(tiny, tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    loaded = open_model(str(tmp_path / "half"))
    assert loaded.sha256 == digest
    own = loaded.model.state_dict()
    for key, value in tiny.state_dict().items():
        assert own[key].dtype == value.dtype
        assert torch.allclose(own[key].double(), value.double(), rtol=2**-11, atol=1e-7), key
    assert any(not torch.equal(own[key], value) for key, value in tiny.state_dict().items())
    with torch.inference_mode():
        assert torch.allclose(loaded.model(crops(tiny)), tiny(crops(tiny)), atol=5e-3)


def test_the_detector_takes_units_and_thresholds_from_the_directory(
    tiny: MDHR, folder: Path
) -> None:
    detector = AUDetector(folder, device="cpu", threshold={12: 0.25})
    assert detector.aus == ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")
    assert detector.thresholds.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.25, 0.7, 0.8])
    result = detector.detect_image(np.zeros((64, 64, 3), np.uint8))
    assert result.metadata["model"] == "tiny"
    assert result.metadata["model_origin"] == str(folder)
    assert result.scores.shape == (1, 8)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_others_can_read_what_was_saved(tiny: MDHR, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_model(tiny, tmp_path / "tiny")
    finally:
        os.umask(before)
    for name in ("config.json", "model.safetensors"):
        assert stat.S_IMODE((tmp_path / "tiny" / name).stat().st_mode) == 0o644


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_others_can_read_what_is_bundled() -> None:
    for path in ASSETS.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044, path


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_without_one_of_the_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(
        WeightsError, match=f"not a model directory: {re.escape(name)} is missing"
    ) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_weights_alone_are_not_a_model(folder: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"alone: give the directory that holds it and its config\.json"
    ):
        load_model(folder / "model.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
def test_truncated_weights(folder: Path, kept: float) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(WeightsError, match="is not a safetensors file") as caught:
        load_model(folder)
    assert str(weights) in str(caught.value)


def test_missing_and_unexpected_tensors_are_both_listed(folder: Path) -> None:
    change_state(folder, classifier=None, static__linear__bias=None, head__weight=torch.zeros(3))
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert "missing tensors ['classifier', 'static.linear.bias']" in str(caught.value)
    assert "unexpected ['head.weight']" in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(8, 17), r"classifier is F32 \(8, 17\), expected F16 or BF16 or F32 \(8, 16\)"),
        (torch.zeros(128), r"classifier is F32 \(128,\), expected F16 or BF16 or F32 \(8, 16\)"),
        (
            torch.zeros(8, 16, dtype=torch.int64),
            r"classifier is I64 \(8, 16\), expected F16 or BF16 or F32",
        ),
        (torch.full((8, 16), torch.nan), "classifier holds numbers that are not finite"),
        (torch.full((8, 16), -torch.inf), "classifier holds numbers that are not finite"),
        (
            torch.zeros(8, 16, dtype=torch.float64),
            r"classifier is F64 \(8, 16\), expected F16 or BF16 or F32",
        ),
        (
            torch.zeros(8, 16).to(torch.float8_e4m3fn),
            r"classifier is F8_E4M3 \(8, 16\), expected F16",
        ),
    ],
)
def test_tensors_that_cannot_be_right(folder: Path, value: torch.Tensor, message: str) -> None:
    change_state(folder, classifier=value)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_weights_of_another_width(folder: Path) -> None:
    change_config(folder, width=24)
    with pytest.raises(
        WeightsError, match=r"is F32 \(.*16.*\), expected F16 or BF16 or F32 \(.*24.*\)"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, r"unknown fields \['colour'\], missing \[\]"),
        ({"aus": ..., "template": ...}, r"unknown fields \[\], missing \['aus', 'template'\]"),
        ({"format": 2}, '"format": 1'),
        ({"format": ...}, '"format": 1'),
        ({"network": "resnet"}, r"unknown network 'resnet'"),
        ({"backbone": "vgg"}, "unknown backbone, expected one of .* got 'vgg'"),
        ({"aus": [1, 2]}, r"the regions hold AUs .* expected each of \(1, 2\) once"),
        (
            {"input_size": 100},
            "input_size must be 112 for 'small' and 224 for the other backbones, got 'small' and "
            "100",
        ),
        ({"width": "wide"}, "width|wrong type"),
        ({"thresholds": [0.5]}, r"thresholds must be 8 numbers"),
        ({"thresholds": [2.0] * 8}, r"thresholds must be 8 numbers in \[0, 1\]"),
        ({"template": [[0.5, 0.5]]}, "template must be five points"),
        ({"std": [0, 1, 1]}, "std positive"),
        ({"std": [1e-320, 1, 1]}, "1e-6 at least"),
        ({"mean": [1e308, 0, 0]}, "1000 at most"),
        ({"template": [[0.5, 0.5]] * 5}, "must lie apart"),
        ({"regions": [{"name": "all"}]}, "wrong type"),
        ({"aus": [1, 2, 4, 6, 9, 12, 25, 100]}, r"distinct, ascending numbers in 1\.\.99"),
        ({"calibration": [[1.0, 0.0]]}, "calibration must be empty or 8 pairs"),
        ({"calibration": [[0.0, 0.0]] * 8}, r"a slope in 0\.001\.\.1000"),
        ({"calibration": [[1e30, 0.0]] * 8}, r"a slope in 0\.001\.\.1000"),
        ({"calibration": [[1.0, -1e30]] * 8}, r"an offset in -1000\.\.1000"),
        ({"calibration": [[math.nan, 0.0]] * 8}, r"a slope in 0\.001\.\.1000"),
        ({"grade_offsets": [[-1.0, -1.0]] * 8}, r"a number in 0\.\.100 and one in -100\.\.0"),
        ({"grade_offsets": [[1.0, -1e9]] * 8}, r"a number in 0\.\.100 and one in -100\.\.0"),
        ({"thresholds": [math.nan] * 8}, r"thresholds must be 8 numbers in \[0, 1\]"),
        ({"name": "x" * 101}, r"name must be 1\.\.100 letters"),
        ({"name": "../../up"}, r"name must be 1\.\.100 letters"),
        ({"name": "=cmd()"}, r"name must be 1\.\.100 letters"),
        ({"name": ""}, r"name must be 1\.\.100 letters"),
        ({"version": "1\n2"}, r"version must be 1\.\.100 letters"),
        ({"source": "x" * 2001}, "source must be printable text of at most 2000 characters"),
    ],
)
def test_configs_that_cannot_be_right(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        load_model(folder)
    assert issubclass(ConfigError, WeightsError)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 16.0},
        {"dynamic_channels": 8.0},
        {"input_size": 112.0},
        {"name": ["tiny"]},
        {"name": "ti\x1b[2Jny"},
        {"source": "a\nb"},
        {"project_regions": "no"},
        {"backbone_options": None},
        {"backbone_options": {"depth": 3}},
        {"backbone_options": {"widths": [8, 8, 8]}},
        {"backbone_options": {"widths": [-8, 8, 8, 8]}},
    ],
)
def test_config_fields_of_the_wrong_type(folder: Path, changes: dict[str, Any]) -> None:
    change_config(folder, **changes)
    with pytest.raises(ConfigError, match=next(iter(changes))):
        load_model(folder)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"{" + b" " * 1_000_001 + b"}"]
)
def test_config_files_that_are_none(folder: Path, data: bytes) -> None:
    (folder / "config.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(folder)


# Names


def test_every_name_without_published_weights_says_where_they_are() -> None:
    names = [name for name, entry in MANIFEST.items() if entry.status == "convert"]
    assert len(names) == 12
    for name in names:
        record = MANIFEST[name].record
        with pytest.raises(WeightsError) as caught:
            load_model(name)
        message = str(caught.value)
        assert name in message
        assert f'AUDetector("{record["official_file"]}")' in message
        assert record["official_folder"] in message
        assert record["data"].upper() in message
    with pytest.raises(WeightsError, match=r"best_model_fold1\.pth"):
        AUDetector("mdhr-resnet50-bp4d-fold1", device="cpu")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mdhr-lit", "did you mean mdhr-lite?"),
        ("mdhr-resnet50-bp4d-fold4", "did you mean mdhr-resnet50-bp4d-fold"),
        ("openface", "listed by `pyfau models`"),
        ("./not/there", "existing model directory"),
        ("not/there/either", "existing model directory"),
        ("weights/missing.pth", "existing model directory or .pth file"),
        ("weights/missing.safetensors", "existing model directory or .pth file"),
    ],
)
def test_unknown_names(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_model(name)
    assert f"unknown model {name!r}" in str(caught.value)
    assert hint in str(caught.value)
    assert ("did you mean" in str(caught.value)) == hint.startswith("did you mean")


# Official checkpoints


def shapes(parity: Path) -> dict[str, dict[str, list[int]]]:
    return json.loads((parity / "official_state_dict_keys.json").read_text())


def cheap_state(shapes: dict[str, list[int]]) -> State:
    """Tensors of these shapes that share one number each, and so take no room in memory or in a
    file.
    """
    whole = ("num_batches_tracked", "relative_position_index")
    return {
        key: torch.zeros(1, dtype=torch.int64 if key.endswith(whole) else torch.float32).expand(
            shape or (1,)
        )
        if shape
        else torch.zeros((), dtype=torch.int64)
        for key, shape in shapes.items()
    }


def official_checkpoint(path: Path, state: State, **options: Any) -> Path:
    """As the authors' training script leaves it."""
    checkpoint = {
        "epoch": 3,
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]},
    }
    torch.save(checkpoint, path, **options)
    return path


@pytest.fixture(scope="session")
def checkpoint(
    parity: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, State]]:
    """A DISFA ResNet-50 checkpoint of the real size: 365 MB, deleted afterwards."""
    keys = parity / "official_state_dict_keys.json"
    state = oracle.official_state(keys, "disfa_resnet", 0)
    path = official_checkpoint(tmp_path_factory.mktemp("official") / "best_model_fold1.pth", state)
    assert path.stat().st_size > 300_000_000
    yield path, state
    path.unlink()


def test_an_official_checkpoint_becomes_the_network_it_is(checkpoint: tuple[Path, State]) -> None:
    path, state = checkpoint
    model = load_model(path)
    config = model.config
    assert (config.name, config.backbone) == ("mdhr-resnet50-disfa", "resnet50")
    assert (config.aus, config.input_size) == ((1, 2, 4, 6, 9, 12, 25, 26), 224)
    assert config.thresholds == (0.5,) * 8
    assert "official checkpoint" in config.source
    own = model.state_dict()
    expected = from_official(state, config)
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[key], value) for key, value in expected.items())
    # Spot checks that do not go through the same code.
    assert torch.equal(
        own["backbone.layer3.2.conv1.weight"], state["Backbone.layer3.2.conv1.weight"]
    )
    assert torch.equal(own["classifier"], state["node_classifier.sc"])
    assert torch.equal(own["temporal.weight"][4, 7], state["TCN.temporal_cnn.7.weight"][:, 0, 4])
    assert torch.equal(
        own["regions.1.au_blocks.linear.weight"][512:], state["LRM.class_linears.4.fc.weight"]
    )


def test_the_detector_takes_an_official_checkpoint(
    checkpoint: tuple[Path, State], media: Path
) -> None:
    path, _ = checkpoint
    detector = AUDetector(str(path), device="cpu")
    assert detector.aus == ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")
    assert detector.thresholds.tolist() == [0.5] * 8
    result = detector.detect_image(media / "single_face.jpg")
    assert len(result) == 1
    assert result[0].success
    assert bool(((result.scores >= 0) & (result.scores <= 1)).all())
    assert float(result.scores.std()) > 0
    record = result.metadata
    assert (record["model"], record["model_origin"]) == ("mdhr-resnet50-disfa", str(path))
    assert record["model_sha256"] == hashlib.sha256(np.memmap(path, np.uint8, "r")).hexdigest()
    assert set(record["thresholds"].values()) == {0.5}


@pytest.mark.parametrize("network", OFFICIAL)
def test_the_keys_of_all_four_official_networks_are_those_expected(
    parity: Path, network: str
) -> None:
    state = cheap_state(shapes(parity)[network])
    config = recognise(state)
    assert config is not None
    assert config.name == OFFICIAL[network]
    with torch.device("meta"):
        own = MDHR(config).state_dict()
    converted = from_official(state, config)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in own.items()}
    constants = [key for key in state if key.endswith(("relative_position_index", "attn_mask"))]
    assert bool(constants) == ("swin" in network)
    needed = [key for key in state if key not in constants]
    for key in (*needed[:: len(needed) // 4], needed[-1]):
        with pytest.raises(WeightsError, match=rf"missing {re.escape(key)}; unexpected none"):
            from_official({k: v for k, v in state.items() if k != key}, config)
    for key in constants:
        del state[key]
    assert from_official(state, config).keys() == own.keys()  # pyfau computes the constants


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"]
)
def test_both_file_formats_with_and_without_prefixes(
    parity: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    state = cheap_state(shapes(parity)["disfa_swin"])
    loaded = open_model(official_checkpoint(tmp_path / "a.pth", state, **options))
    assert loaded.model.config.name == "mdhr-swinb-disfa"
    # The state dict alone, not of a DataParallel model.
    torch.save(state, tmp_path / "b.pth", **options)
    assert open_model(tmp_path / "b.pth").model.config == loaded.model.config


def test_missing_and_foreign_official_keys_are_both_listed(parity: Path, tmp_path: Path) -> None:
    state = cheap_state(shapes(parity)["disfa_resnet"])
    del state["CRM.gat.bias"]
    state["head.weight"] = torch.zeros(2)
    path = official_checkpoint(tmp_path / "a.pth", state)
    for load in (load_model, AUDetector):
        with pytest.raises(
            WeightsError, match=r"missing CRM\.gat\.bias; unexpected head\.weight"
        ) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "mdhr-resnet50-disfa" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Backbone.layer1.0.conv1.weight", torch.zeros(64, 64, 3, 3)),
        ("LRM.class_linears.2.fc.bias", torch.zeros(100)),
        ("TCN.temporal_cnn.0.weight", torch.zeros(512, 1, 1, 7)),
        ("CRM.gat.scoring_fn_source", torch.zeros(1, 1, 511)),
        ("MFD.weight_1.weight", torch.zeros(())),
        ("global_linear.fc.bias", torch.zeros(512, dtype=torch.int64)),
    ],
)
def test_official_tensors_of_the_wrong_shape_are_named(
    parity: Path, tmp_path: Path, key: str, value: torch.Tensor
) -> None:
    state = cheap_state(shapes(parity)["disfa_resnet"])
    assert key in state
    path = official_checkpoint(tmp_path / "a.pth", state | {key: value})
    with pytest.raises(WeightsError, match="shapes do not fit") as caught:
        load_model(path)
    assert f"{key} {tuple(value.shape)}" in str(caught.value)
    assert str(path) in str(caught.value)


def test_official_weights_that_are_not_finite(parity: Path, tmp_path: Path) -> None:
    state = cheap_state(shapes(parity)["disfa_swin"])
    state["global_linear.fc.bias"] = torch.tensor([0.0, torch.nan] * 256)
    with pytest.raises(
        WeightsError, match=r"static\.linear\.bias holds numbers that are not finite"
    ):
        load_model(official_checkpoint(tmp_path / "a.pth", state))


@pytest.mark.parametrize(
    "content", [{"fc.weight": torch.zeros(3)}, {}, [1, 2], 3.0, {"state_dict": {"epoch": 3}}]
)
def test_checkpoints_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"is not a checkpoint of MDHR|holds no state dict"
    ) as caught:
        load_model(tmp_path / "a.pth")
    assert str(tmp_path / "a.pth") in str(caught.value)


def test_a_network_for_another_number_of_units(parity: Path, tmp_path: Path) -> None:
    state = cheap_state(shapes(parity)["disfa_resnet"])
    state["node_classifier.sc"] = torch.zeros(10, 512)
    with pytest.raises(
        WeightsError, match=r"not a checkpoint of MDHR for BP4D \(12 AUs\) or DISFA \(8 AUs\)"
    ):
        load_model(official_checkpoint(tmp_path / "a.pth", state))


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_checkpoint_cannot_run_code(parity: Path, tmp_path: Path, form: str) -> None:
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = {"state_dict": cheap_state(shapes(parity)["disfa_swin"]), "optimizer": Payload(ran)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}, "optimizer": Payload(ran)}, protocol=2))
        pickle.loads(path.read_bytes())  # this is what must not happen
        assert ran.exists()
        ran.unlink()
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    for load in (load_model, AUDetector):
        with pytest.raises(
            WeightsError, match="is not a checkpoint that loads with weights_only=True"
        ) as caught:
            load(path)
        assert str(path) in str(caught.value)
    assert not ran.exists()


@pytest.mark.parametrize(
    "data", [b"", b"plain text\n", b"<html>404</html>", b"PK\x03\x04", b"\x80\x02}q\x00"]
)
def test_files_that_only_have_the_name_of_a_checkpoint(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "best_model_fold1.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is not a checkpoint that loads") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_truncated_checkpoint(parity: Path, tmp_path: Path) -> None:
    path = official_checkpoint(tmp_path / "a.pth", cheap_state(shapes(parity)["disfa_swin"]))
    data = path.read_bytes()
    for kept in (len(data) // 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(WeightsError, match="is not a checkpoint that loads"):
            load_model(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02a.",
        b"\x80\x02\x86.",
        b"\x80\x02M",
        b"\x80\x02}]K\x01s.",
        b"these are no weights\n",
    ],
    ids=["IndexError", "IndexError 2", "struct.error", "TypeError", "text"],
)
def test_damaged_pickles(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(WeightsError, match=r"a\.pth is not a checkpoint"):
        load_model(tmp_path / "a.pth")


def test_the_reason_is_about_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"
    )
    with pytest.raises(WeightsError) as caught:
        load_model(tmp_path / "a.pth")
    assert "mmap" not in str(caught.value)


# Names and directories


def test_a_directory_comes_before_a_repository_of_its_name(
    tiny: MDHR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny, tmp_path / "user" / "repo")
    monkeypatch.chdir(tmp_path)
    assert open_model("user/repo").origin == "user/repo"  # and not user/repo@main


# Devices


def test_devices_that_are_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    assert load_model("mdhr-lite", "cpu").device == torch.device("cpu")


@pytest.mark.parametrize(
    "device", ["tpu", "CPU", "", "cuda:-1", "cuda:x", "cuda:0:1", "meta", "xpu", None, 3.5, []]
)
def test_devices_that_are_unknown(device: Any) -> None:
    with pytest.raises(DeviceError, match="unknown device") as caught:
        resolve_device(device)
    assert repr(device) in str(caught.value)
    assert "expected auto, cpu, cuda, cuda:N" in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 1), "mps"])
def test_devices_that_are_missing(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match=f"{device}.*not available"):
        resolve_device(device)
    with pytest.raises(DeviceError):
        AUDetector(device=device)


def test_devices_of_machines_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (resolve_device("auto"), resolve_device("mps")) == (torch.device("mps"),) * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(
        DeviceError, match=r"'cuda:2' is not available: this torch sees 2 CUDA devices"
    ):
        resolve_device("cuda:2")


@pytest.mark.gpu
def test_a_model_on_the_gpu_scores_as_on_the_cpu(folder: Path) -> None:
    cpu, gpu = load_model(folder, "cpu"), load_model(folder, "cuda:0")
    assert gpu.device == torch.device("cuda:0")
    x = crops(cpu)
    with torch.inference_mode():
        assert torch.allclose(gpu(x.to(gpu.device)).cpu(), cpu(x), atol=2e-3)


# What a network computes


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        ({"static__linear__weight": 3e38}, {}),
        ({"temporal__weight": 3e38}, {}),
        ({"dynamics__norms__0__weight": 3e38, "dynamics__projections__0__weight": 3e38}, {}),
        ({"static__linear__weight": 3e38}, {"calibration": [[1.0, 0.0]] * 8}),
    ],
)
def test_finite_weights_that_give_no_scores_are_refused(
    folder: Path, tensors: dict[str, float], changes: dict[str, Any]
) -> None:
    state = load_file(folder / "model.safetensors")
    change_config(folder, **changes)
    change_state(
        folder, **{k: torch.full_like(state[k.replace("__", ".")], v) for k, v in tensors.items()}
    )
    for load in (load_model, AUDetector):
        with pytest.raises(
            WeightsError, match=r"scores outside their range on a test clip, for AU\d\d"
        ):
            load(folder)


def test_calibrations_within_the_bounds_give_scores(folder: Path) -> None:
    for pair in ([1e3, -1e3], [1e-3, 1e3], [1e3, 1e3], [1e-3, -1e3]):
        change_config(folder, calibration=[pair] * 8)
        model = load_model(folder)
        with torch.inference_mode():
            assert bool(model(crops(model)).isfinite().all())


# Hostile directories


class Watch(TorchFunctionMode):
    """Sees what torch makes, and lists the bytes of what is large and not on "meta"."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if (
            type(result) is torch.Tensor
            and result.device.type != "meta"
            and result.layout == torch.strided
        ):
            size = result.untyped_storage().nbytes()
            if size > 1_000_000:
                self.made.append(size)
        return result


@pytest.fixture
def allocations() -> Iterator[list[int]]:
    with Watch() as watch:
        torch.zeros(300_000)
        assert watch.made == [1_200_000]
        watch.made.clear()
        yield watch.made


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 4096, "dynamic_channels": 8192},
        {"backbone_options": {"widths": [1024] * 4, "blocks": [16] * 4}, "width": 4096},
        {"width": 4097},
        {"width": 10**30},
        {"dynamic_channels": 1e300},
        {"backbone_options": {"widths": [8, 8, 8, 10**9], "blocks": [1, 1, 1, 1]}},
        {"backbone_options": {"widths": [8] * 4, "blocks": [1, 1, 1, 10**9]}},
        {"aus": list(range(1, 10_000))},
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(
    folder: Path, changes: dict[str, Any], allocations: list[int]
) -> None:
    change_config(folder, **changes)
    with pytest.raises(
        WeightsError,
        match=r"parameters, at most|width|dynamic_channels|backbone_options|aus|\(8, 4096\)",
    ):
        load_model(folder)
    assert allocations == []


def safetensors_file(path: Path, header: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def test_huge_tensors_in_a_header_are_refused_before_memory_is_taken(
    folder: Path, allocations: list[int]
) -> None:
    weights = folder / "model.safetensors"
    header, data = header_of(weights)
    size = 4_000_000_000_000
    huge = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(data), len(data) + size]}
    safetensors_file(weights, header | {"more": huge}, data)
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_model(folder)
    # Now with a file of that size. It is sparse, so it takes no space on most disks.
    with weights.open("r+b") as stream:
        stream.truncate(weights.stat().st_size + size)
    with pytest.raises(WeightsError, match="too many for a model"):
        load_model(folder)
    with weights.open("r+b") as stream:
        stream.truncate(3_000_000_000)
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        read.read_found(find.FoundModel(folder, weights, "", "here"))
    assert allocations == []


@pytest.mark.parametrize("claim", [2**64 - 1, 2**63, 10_000_001, 19_999_993])
def test_headers_of_absurd_length(folder: Path, claim: int) -> None:
    weights = folder / "model.safetensors"
    with weights.open("r+b") as stream:
        stream.write(claim.to_bytes(8, "little"))
        stream.truncate(20_000_000)
    with pytest.raises(
        WeightsError, match=f"is not a safetensors file: it claims a header of {claim} bytes"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 4]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": [2**63, 2**63 + 4]},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"shape": None},
        {"dtype": "F99"},
        {"dtype": "U8"},
    ],
)
def test_headers_that_lie(folder: Path, change: dict[str, Any]) -> None:
    weights = folder / "model.safetensors"
    header, data = header_of(weights)
    header["classifier"] |= change
    safetensors_file(weights, header, data)
    with pytest.raises(WeightsError, match=r"is not a safetensors file|classifier is"):
        load_model(folder)


@pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices of POSIX")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_that_leave_the_directory_and_what_is_no_file(
    folder: Path, tmp_path: Path, name: str
) -> None:
    path, outside = folder / name, tmp_path / "outside"
    path.rename(outside)

    def refused(words: str) -> None:
        with pytest.raises(WeightsError, match=words) as caught:
            load_model(folder)
        assert str(folder) in str(caught.value)
        path.unlink()

    path.symlink_to(outside)
    refused(f"{name} is a link that leads out of it")
    path.symlink_to("../outside")
    refused(f"{name} is a link that leads out of it")
    (tmp_path / "way").symlink_to(tmp_path)
    path.symlink_to("../way/outside")
    refused(f"{name} is a link that leads out of it")
    path.symlink_to(tmp_path / "nowhere")
    refused(f"{name} is a broken link, or not a regular file")
    path.symlink_to(path)
    refused(r"not a regular file|could not be read")
    path.symlink_to("/dev/zero")
    refused(f"{name} is a broken link, or not a regular file")
    os.mkfifo(path)
    refused(f"{name} is a broken link, or not a regular file")
    (folder / "inside").write_bytes(outside.read_bytes())
    path.symlink_to("inside")
    load_model(folder)
    (tmp_path / "alias").symlink_to(folder)
    load_model(tmp_path / "alias")


@pytest.mark.skipif(os.name != "posix", reason="devices of POSIX")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_devices_are_no_models(path: str) -> None:
    with pytest.raises(
        WeightsError, match=r"is neither a model directory nor a file|is not a checkpoint"
    ):
        load_model(path)


def test_a_snapshot_of_the_hubs_cache_is_a_directory_of_links(tiny: MDHR, tmp_path: Path) -> None:
    repo = tmp_path / "models--user--repo"
    save_model(tiny, repo / "blobs")
    snapshot = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert load_model(snapshot).config == tiny.config
    (snapshot / "config.json").unlink()
    (tmp_path / "config.json").write_bytes((repo / "blobs" / "config.json").read_bytes())
    (snapshot / "config.json").symlink_to("../../../config.json")
    with pytest.raises(WeightsError, match="a link that leads out of it"):
        load_model(snapshot)


def test_official_tensors_that_claim_a_size_that_they_have_not(
    parity: Path, tmp_path: Path, allocations: list[int]
) -> None:
    state = cheap_state(shapes(parity)["disfa_swin"])
    claims = {
        "LRM.class_linears.2.fc.weight": torch.zeros(1).expand(2**20, 2**20),
        "TCN.temporal_cnn.0.weight": torch.zeros(1).expand(2**30, 1, 1, 5),
        "MFD.weight.weight": torch.zeros(1).expand(4, 2**31, 1, 1),
        "global_linear.fc.bias": torch.sparse_coo_tensor(
            torch.zeros(1, 0), torch.zeros(0), (512,), check_invariants=True
        ),
    }
    path = official_checkpoint(tmp_path / "a.pth", state | claims)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(WeightsError, match="shapes do not fit") as caught:
        load_model(path)
    assert all(key in str(caught.value) for key in claims)
    assert allocations == []


# Networks by name


def test_a_network_is_known_by_the_name_it_is_registered_by(
    tiny: MDHR, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another kind of network needs an entry, and no change of the store."""

    class Other(MDHR):
        pass

    def read(text: str, origin: str) -> MDHRConfig:
        record = json.loads(text)
        assert record.pop("depth") == 3
        return MDHRConfig.from_json(json.dumps(record | {"network": "mdhr"}), origin)

    change_config(folder, network="graph", depth=3)
    with pytest.raises(
        ConfigError, match=r"unknown network 'graph', expected one of \[.*'mdhr'.*\]"
    ):
        load_model(folder)
    other = Network(read, Other, lambda state: None, NETWORKS["mdhr"].from_official, "graphs")
    monkeypatch.setitem(NETWORKS, "graph", other)
    loaded = load_model(folder)
    assert type(loaded) is Other
    assert torch.equal(loaded.classifier, tiny.classifier)


# Hashes


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The files that are read for their hash, with a memory that is empty."""
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "memory"))
    read: list[Path] = []
    monkeypatch.setattr(
        hashes, "file_sha256", lambda path: (read.append(path), file_sha256(path))[1]
    )
    return read


def grow_old(path: Path) -> None:
    """A file that was just written is not remembered: it could change again within the clock's
    resolution.
    """
    while time.time() - path.stat().st_ctime < 0.1:
        time.sleep(0.02)


def test_a_hash_is_worked_out_once(folder: Path, tmp_path: Path, reads: list[Path]) -> None:
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    grow_old(weights)
    assert [open_model(folder).sha256 for _ in range(3)] == [digest] * 3
    assert reads == [weights]
    (tmp_path / "alias").symlink_to(folder)
    assert open_model(tmp_path / "alias").sha256 == digest
    assert len(reads) == 1
    assert remembered_sha256(weights, again=True) == digest
    assert len(reads) == 2
    for junk in (
        "",
        "[]",
        "{",
        json.dumps({str(weights): 3}),
        json.dumps({str(weights): [1, 2, 3, 4, 5, None]}),
    ):
        (tmp_path / "memory" / "hashes.json").write_text(junk)
        assert open_model(folder).sha256 == digest
    assert len(reads) == 7


def test_a_file_that_changes_is_read_again(folder: Path, reads: list[Path]) -> None:
    weights = folder / "model.safetensors"
    grow_old(weights)
    first = open_model(folder).sha256
    before = weights.stat()
    data = weights.read_bytes()
    with weights.open("r+b") as stream:  # the same size, place and time of change
        stream.write(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = open_model(folder).sha256
    assert second == hashlib.sha256(weights.read_bytes()).hexdigest() != first
    weights.write_bytes(data)
    for _ in range(3):  # fresh, and so never trusted
        assert remembered_sha256(weights) == first
        weights.write_bytes(data[::-1])
        assert remembered_sha256(weights) == hashlib.sha256(data[::-1]).hexdigest()
        weights.write_bytes(data)


def test_without_a_place_to_remember_files_are_read(
    folder: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "file" / "below"))
    grow_old(folder / "model.safetensors")
    assert open_model(folder).sha256 == open_model(folder).sha256
    assert len(reads) == 2


def test_the_memory_stays_small(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "_REMEMBERED", 3)
    paths = [tmp_path / str(i) for i in range(5)]
    for path in paths:
        path.write_text(path.name)
    grow_old(paths[-1])
    for path in paths:
        remembered_sha256(path)
    assert json.loads((tmp_path / "memory" / "hashes.json").read_text()).keys() == {
        str(p) for p in paths[2:]
    }


def test_loading_does_not_load_the_compiler() -> None:
    code = "import sys, pyfau; pyfau.load_model(); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_negative_variances_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"norm\.running_var holds negative numbers"):
        check_finite({"norm.running_var": torch.tensor([1.0, -1.0])}, "some")
