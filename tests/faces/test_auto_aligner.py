"""`aligner="auto"`: the aligner that the config of the model names."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_models import tiny_model

from pyfau import AUDetector
from pyfau.batch.plan import Job
from pyfau.batch.run import JobOptions, run_job
from pyfau.choices import DEFAULT_ALIGNER
from pyfau.cli import main
from pyfau.errors import ConfigError, OptionError
from pyfau.faces.aligner import ALIGNER_NAMES, load_aligner, resolve_aligner
from pyfau.faces.mesh import MeshAligner
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.models.config import MDHRConfig, config_text, network_text
from pyfau.tables.metadata import read_metadata
from pyfau.weights.manifest import read_manifest
from pyfau.weights.quantise import _crops
from pyfau.weights.store import load_model, save_model

BLANK = np.zeros((64, 64, 3), np.uint8)


def save_with(folder: Path, aligner: str | None) -> Path:
    """A model directory whose config names an aligner; None for a config of an older pyfau."""
    model = tiny_model(5)
    model.config = dataclasses.replace(model.config, aligner=aligner or DEFAULT_ALIGNER)
    save_model(model, folder)
    if aligner is None:
        path = folder / "config.json"
        record = json.loads(path.read_text())
        del record["aligner"]
        path.write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_with(folder / str(name), name) for name in (None, "mtcnn", "mesh")}


def test_names_and_objects_are_kept() -> None:
    config = SimpleNamespace(aligner="mesh")
    assert resolve_aligner("auto", config) == "mesh"
    for name in ALIGNER_NAMES:
        assert resolve_aligner(name, config) == name
    own = MTCNNAligner()
    assert resolve_aligner(own, config) is own
    with pytest.raises(OptionError, match="unknown aligner 'dlib': expected one of auto, mtcnn"):
        resolve_aligner("dlib", config)


def test_without_a_model_there_is_no_auto() -> None:
    with pytest.raises(OptionError, match="unknown aligner 'auto'"):
        load_aligner("auto", torch.device("cpu"))


@pytest.mark.parametrize(
    ("named", "options", "used"),
    [
        ("mesh", {}, "mesh"),
        ("mesh", {"aligner": "auto"}, "mesh"),
        ("mesh", {"aligner": "mtcnn"}, "mtcnn"),
        ("mtcnn", {}, "mtcnn"),
        ("mtcnn", {"aligner": "mesh"}, "mesh"),
        (None, {}, "mtcnn"),
    ],
)
def test_the_detector_uses_the_aligner_of_its_model(
    models: dict[str | None, Path], named: str | None, options: dict[str, Any], used: str
) -> None:
    detector = AUDetector(models[named], device="cpu", **options)
    kind = {"mesh": MeshAligner, "mtcnn": MTCNNAligner}[used]
    for copy in (detector, pickle.loads(pickle.dumps(detector))):
        assert isinstance(copy._options.aligner, kind)
        assert copy.settings()["aligner"] == used
        assert copy.detect_image(BLANK).metadata["aligner"] == used


def test_options_go_to_the_aligner_of_the_model(models: dict[str | None, Path]) -> None:
    detector = AUDetector(models["mesh"], device="cpu", aligner_options={"min_face": 60})
    assert detector.settings()["aligner_options"] == {"min_face": 60}
    with pytest.raises(OptionError, match="aligner 'mesh' has no option 'flip'"):
        AUDetector(models["mesh"], device="cpu", aligner_options={"flip": True})


def test_quantise_takes_the_crops_of_the_aligner(
    models: dict[str | None, Path], media: Path
) -> None:
    faces = media / "multi_face.jpg"
    crops = {
        name: _crops(load_model(models["mesh"]), faces, name, 1)
        for name in ("auto", "mesh", "mtcnn")
    }
    assert {len(found) for found in crops.values()} == {5}
    assert np.array_equal(crops["auto"], crops["mesh"])
    assert not np.array_equal(crops["mesh"], crops["mtcnn"])


@pytest.mark.parametrize("aligner", ["fan", "mediapipe", "aligned", "auto", "", None, ["mesh"]])
def test_a_config_cannot_name_an_aligner_outside_the_package(aligner: Any) -> None:
    record = json.loads(tiny_model(5).config.to_json()) | {"aligner": aligner}
    with pytest.raises(ConfigError, match="aligner must be one of"):
        MDHRConfig.from_json(json.dumps(record))


def test_hashes_of_a_config_do_not_contain_the_aligner() -> None:
    config = tiny_model(5).config
    other = dataclasses.replace(config, aligner="mesh")
    assert config.to_json() != other.to_json()
    assert network_text(config) == network_text(other)
    # The text of a config before it had the field, for hashes that are stored in files.
    record = json.loads(config_text(config))
    assert list(record)[-1] == "aligner"
    del record["aligner"]
    assert network_text(config) == json.dumps(record, indent=2) + "\n"


def test_resume_goes_by_the_aligner_and_not_by_the_word(
    models: dict[str | None, Path], media: Path, tmp_path: Path
) -> None:
    job = Job(str(media / "single_face.jpg"), tmp_path / "a.csv")
    resume = JobOptions(resume=True)

    def status(named: str | None, **options: Any) -> str:
        return run_job(AUDetector(models[named], device="cpu", **options), job, resume).status

    # This table has the metadata that pyfau wrote before there was "auto".
    assert status("mtcnn", aligner="mtcnn") == "done"
    assert read_metadata(job.table)["aligner"] == "mtcnn"
    assert status("mtcnn") == status(None) == "skipped"
    assert status("mesh") == "done"
    assert read_metadata(job.table)["aligner"] == "mesh"
    assert status("mtcnn", aligner="mesh") == "skipped"


def test_the_command_line_states_the_aligner(
    models: dict[str | None, Path], media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, model = tmp_path / "a.csv", str(models["mesh"])
    command = ["detect", str(media / "single_face.jpg"), "-o", str(table), "--quiet"]
    assert main([*command, "--model", model, "--aligner", "auto", "--device", "cpu"]) == 0
    assert read_metadata(table)["aligner"] == "mesh"
    capsys.readouterr()
    assert main(["info", model]) == 0
    assert "aligner          mesh" in capsys.readouterr().out
    assert main(["info", "mdhr-swinb-disfa-fold3"]) == 0  # not on this machine
    assert "aligner          mtcnn" in capsys.readouterr().out
    bundled = read_manifest()["mdhr-lite"].aligner
    assert main(["models"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("mdhr-lite "))
    assert line.endswith(f", aligner {bundled}")
    assert main(["doctor", "--no-speed", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert next(c for c in checks if c["name"] == "aligner auto")["value"] == bundled
