"""The training commands run from prepared crops to a model directory that loads, on a miniature data set made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyfau import AUDetector

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # its modules import each other by their names

from data import held_back

ROOT = Path(__file__).parents[1]
N = 16
# As many blendshapes as the teacher has, with all that the stand-ins for AU6 and AU9 are made of.
SHAPES = [
    stem + side
    for stem in ("eyeSquint", "mouthSmile", "browDown", "mouthUpperUp", *(f"other{i}" for i in range(22)))
    for side in ("Left", "Right")
]


def write(folder: Path, name: str, runs: list[tuple[str, int]], **columns: np.ndarray) -> None:
    """Crops of noise in runs of consecutive frames; each run belongs to one split."""
    rng = np.random.default_rng(len(name))
    count = sum(length for _, length in runs)
    targets = rng.random((count, N)).astype(np.float32)
    if name != "rendered":
        targets[:, [3, 5]] = np.nan  # no AU6 and AU9
    arrays = {"targets": targets, "split": np.concatenate([np.full(n, split) for split, n in runs])}
    if name != "rendered":
        arrays["blendshapes"] = rng.random((count, len(SHAPES))).astype(np.float16)
        arrays["blendshape_names"] = np.array(SHAPES)
    if name != "clips":
        arrays["landmarks"] = rng.uniform(20, 100, (count, 68 if name == "rendered" else 478, 2)).astype(np.float16)
        arrays["yaw"] = rng.uniform(-0.7, 0.7, count).astype(np.float32)
    if name != "faces":
        arrays["clip"] = np.concatenate([np.full(n, f"run{i}") for i, (_, n) in enumerate(runs)])
        arrays["frame"] = np.concatenate([np.arange(n) for _, n in runs])
    np.savez(folder / f"{name}.npz", **arrays, **columns)
    np.save(folder / f"{name}_crops.npy", rng.integers(0, 256, (count, 128, 128, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    splits = ("train", "validation", "test")
    people = [held_back()[0], "somebody", "somebody else", "a third"]
    write(folder, "clips", [(split, 40) for split in ("train", *splits)], person=np.repeat(people, 40))
    write(folder, "rendered", [(split, 16) for split in splits for _ in range(3)])
    write(folder, "animated", [("train", 4) for _ in range(6)])
    write(
        folder,
        "faces",
        [(split, 12) for split in splits],
        index=np.arange(36),
        emotion=np.tile(["neutral", "happiness"], 18),
        lip_gap=np.tile([0.0, 0.1], 18),
    )
    return folder


def run(script: str, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, str(ROOT / "training" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_pictures_of_a_second_process_count(prepared: Path, tmp_path: Path) -> None:
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    steps = ("--frame-steps", 1, "--window-steps", 1)
    run("train.py", "--data", prepared, "--out", tmp_path / "two", *steps, launcher=two)
    run("train.py", "--data", prepared, "--out", tmp_path / "one", *steps)
    two_processes, one = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one"))
    assert len(two_processes) == len(one) == 2  # one of the processes writes
    states = [torch.load(tmp_path / name / "final.pt", weights_only=True)["state"] for name in ("two", "one")]
    assert not torch.equal(states[0]["classifier"], states[1]["classifier"])  # the other's batches count


@pytest.mark.slow
def test_train_resume_evaluate_export(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    out = tmp_path / "run"
    steps = ("--frame-steps", 2, "--window-steps")
    run("train.py", "--data", prepared, "--out", out, *steps, 1)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 3
    (out / "final.pt").unlink()
    run("train.py", "--data", prepared, "--out", out, *steps, 2)  # resumes
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in log] == [
        (2, "frames"),
        (3, "windows"),
        (4, "windows"),
    ]
    state = torch.load(out / "final.pt", weights_only=True)["state"]
    assert state["dynamics.output.norm.weight"].unique().numel() > 1  # it learns: it began with one value for all
    ablation = tmp_path / "ablation"
    none = ("--frame-steps", 0, "--window-steps", 1, "--hold-back")
    run("train.py", "--data", prepared, "--out", ablation, "--init", out / "frames.pt", "--without", "dynamics", *none)
    state = torch.load(ablation / "final.pt", weights_only=True)["state"]
    assert not state["dynamics.output.norm.weight"].any()
    model = out / "final.pt"
    calibration, figures, sheets = tmp_path / "calibration.json", tmp_path / "figures.json", tmp_path / "sheets"
    common = ("evaluate.py", "--data", prepared, "--model", model, "--split")
    run(*common, "validation", "--calibrate", "--out", calibration)
    manifest = tmp_path / "manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    folder = tmp_path / "mdhr-new"
    run("export.py", "--model", model, "--calibration", calibration, "--out", folder, "--manifest", manifest)
    run("evaluate.py", "--data", prepared, "--model", folder, "--split", "test", "--out", figures, "--sheets", sheets)
    report = json.loads(figures.read_text())
    assert len(report["calibrated"]["aus"]) == len(report["occurrence"]) == N
    assert len(list(sheets.glob("*.png"))) == 2 * N
    assert np.isfinite(report["head"]["summary"]["rendered_within_r"])
    detector = AUDetector(folder, device="cpu")
    assert len(detector.aus) == N
    chosen = json.loads(calibration.read_text())
    for au, threshold, fit in zip(detector.aus, detector.thresholds, detector.model.config.calibration, strict=True):
        assert threshold == pytest.approx(chosen[au]["threshold"])
        assert fit == pytest.approx((chosen[au]["slope"], chosen[au]["offset"]))
    entry = json.loads(manifest.read_text())["models"]["mdhr-lite"]
    assert entry["bytes"] == (folder / "model.safetensors").stat().st_size
    assert detector.detect_image(np.zeros((64, 64, 3), np.uint8)).metadata["model_sha256"] == entry["sha256"]


def test_motion_is_told_from_rest() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from evaluate import Scored, correlation, moved, within

    rng = np.random.default_rng(0)
    runs = np.repeat([0, 1, 2], [40, 60, 40])
    targets = rng.normal(0, 0.2, (140, 1))
    targets[runs == 2] *= 0.01  # hardly moves
    targets[5] = np.nan
    rest = np.array([0.0, 2.0, -1.0])[runs, None]  # somebody looks as if they did it all the time
    noise = rng.normal(0, 0.01, (140, 1))
    scored = Scored(targets + rest + noise, targets, runs, np.arange(140))
    assert moved(scored, 0) > 0.99
    assert within(scored, 0) > 0.99
    assert correlation(scored.scores[:, 0], targets[:, 0]) < 0.3
    assert moved(Scored(-scored.scores, targets, runs, scored.index), 0) < -0.99
