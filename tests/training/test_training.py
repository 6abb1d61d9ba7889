"""The training commands run from prepared crops to a model directory, on a small set made here."""

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

# The modules of training/ import each other by their names.
sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "pyfau/assets/mdhr-lite"
STAGES = ("--stages", "coded", "student", "windows")
# bfloat16, the default, takes eight times as long on a CPU without instructions for it.
PRECISION = ("--precision", "float32")
STEPS = (*STAGES, *PRECISION, "--coded-steps", 3, "--student-steps", 3, "--windows-steps", 2)


def write(folder: Path, name: str, split: np.ndarray, **columns: np.ndarray) -> None:
    """Crops of noise with random grades."""
    from data import AUS, MOST_CODERS

    rng = np.random.default_rng(len(name))
    count = len(split)
    grades = rng.choice([0.0, 0.5, 1.0, 2.0], (count, MOST_CODERS, len(AUS))).astype(np.float32)
    grades[rng.random(grades.shape) < 0.05] = np.nan
    if name == "rendered":
        columns["intensity"] = rng.random((count, len(AUS))).astype(np.float32)
        grades[:] = np.nan
    elif name == "clips":
        grades[1::2] = np.nan  # every second frame is coded
    shapes = rng.random((count, 52)).astype(np.float16)
    np.savez(folder / f"{name}.npz", split=split, grades=grades, shapes=shapes, **columns)
    crops = rng.integers(0, 256, (count, 128, 128, 3), dtype=np.uint8)
    np.save(folder / f"{name}_crops.npy", crops)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from evaluate import CHANNELS

    folder = tmp_path_factory.mktemp("prepared")
    splits = np.array(["train", "validation", "test"])
    channels = dict.fromkeys(name for names in CHANNELS.values() for name in names)
    other = [f"other{i}{side}" for i in range(26) for side in ("Left", "Right")]
    (folder / "blendshapes.txt").write_text("\n".join([*channels, *other][:52]))
    emotion = np.tile(["neutral", "happiness"], 18)
    people = np.array([f"person {i}" for i in range(36)])
    write(folder, "faces", np.repeat(splits, 12), emotion=emotion, person=people)
    clip = np.repeat(["a", "b", "c"], 24)
    frames = {"clip": clip, "frame": np.tile(np.arange(24), 3), "person": clip}
    write(folder, "clips", np.repeat(splits, 24), **frames)
    write(folder, "rendered", np.repeat("train", 16), **{k: v[:16] for k, v in frames.items()})
    images = np.array([f"canada_{i:04d}.jpg" for i in (0, 1, 2, 20, 21, 22)])
    write(folder, "stills", np.repeat("test", 6), picture=images)
    return folder


def run(script: str, *arguments: object, fails: bool = False) -> str:
    """What a script prints: its output, or its errors where it is to fail."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "training" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.mark.slow
def test_train_export_evaluate(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from data import AUS

    out = tmp_path / "run"
    train = ("train.py", "--data", prepared, prepared, "--init", BUNDLED, "--out", out, *STEPS)
    run(*train)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in log] == [
        ("coded", 3),
        ("student", 3),
        ("windows", 2),
    ]
    assert all(np.isfinite(line["loss"]) for line in log)
    states = {
        name: torch.load(out / f"{name}.pt", weights_only=True)["state"]
        for name in ("coded", "student", "windows")
    }
    stem = "mdhr.backbone.stem.weight"
    assert not torch.equal(states["coded"][stem], states["student"][stem])
    for name, value in states["student"].items():  # the last stage learns time alone
        if not name.startswith(("mdhr.dynamics.", "mdhr.temporal.")):
            assert torch.equal(value, states["windows"][name]), name
    dynamics = "mdhr.dynamics.output.norm.weight"
    assert not states["student"][dynamics].any()
    assert states["windows"][dynamics].any()

    (out / "windows.pt").unlink()
    run(*train)  # only the last stage is run again
    assert len((out / "log.jsonl").read_text().splitlines()) == 4

    folder, manifest = tmp_path / "mdhr-new", tmp_path / "manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    written = ("--model", out / "windows.pt", "--out", folder, "--manifest", manifest)
    run("export.py", "--data", prepared, *written)
    chosen = json.loads((folder / "calibration.json").read_text())
    detector = AUDetector(folder, device="cpu")
    config = detector.model.config
    assert config.aus == AUS
    assert config.has_intensity
    for i, au in enumerate(detector.aus):
        assert detector.thresholds[i] == pytest.approx(chosen[au]["threshold"])
        assert config.calibration[i] == pytest.approx((chosen[au]["slope"], chosen[au]["offset"]))
        assert config.grade_offsets[i] == pytest.approx((chosen[au]["trace"], chosen[au]["strong"]))
    entry = json.loads(manifest.read_text())["models"]["mdhr-lite"]
    assert entry["aligner"] == config.aligner
    assert entry["bytes"] == (folder / "model.safetensors").stat().st_size
    blank = detector.detect_image(np.zeros((64, 64, 3), np.uint8))
    assert blank.metadata["model_sha256"] == entry["sha256"]

    figures = tmp_path / "figures.json"
    run("evaluate.py", "--data", prepared, "--model", folder, "--out", figures)
    report = json.loads(figures.read_text())
    assert len(report["faces"]["aus"]) == len(report["frames"]["aus"]) == len(AUS)
    for name in ("r", "auc", "f1", "ece", "coder_r", "mediapipe_r", "intensity_icc"):
        assert np.isfinite(report["frames"]["mean"][name])
    assert report["rest"]["studio women"]["pictures"] == 3
    assert set(report["time"]) >= {"whole", "without both"}


@pytest.mark.slow
def test_what_cannot_be_begun_from_is_refused(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    command = ("train.py", "--data", prepared, "--out", tmp_path / "none", *STEPS)
    printed = run(*command, "--init", tmp_path / "other.pt", fails=True)
    assert "is not a network of train.py" in printed
    assert not (tmp_path / "none/coded.pt").exists()


def test_weights_of_another_set_of_units_are_taken_over() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    import dataclasses

    from network import CONFIG, Trainee, adopt, head_odds

    from pyfau.models.config import Region
    from pyfau.models.mdhr import MDHR

    torch.manual_seed(0)
    regions = (Region("up", (0, 3), (4, 1)), Region("down2", (4, 7), (25, 17)))
    small = dataclasses.replace(
        CONFIG, aus=(1, 4, 17, 25), regions=regions, thresholds=(0.5,) * 4, calibration=()
    )
    old, new = MDHR(small).eval(), Trainee().mdhr.eval()
    adopt(new, old)
    tokens = torch.rand(3, 49, CONFIG.width)
    with torch.no_grad():
        units, others = old.relate_units(tokens)[0], new.relate_units(tokens)[0]
    places = [CONFIG.aus.index(au) for au in small.aus]
    assert torch.equal(new.classifier[places], old.classifier)
    # Without the relations between regions the features of a unit are the same.
    for region, other in ((new.regions[0], old.regions[0]), (new.regions[3], old.regions[1])):
        with torch.no_grad():
            mine, its = region(tokens)[0], other(tokens)[0]
        assert mine.shape[-1] == its.shape[-1]
    first = CONFIG.regions[0].aus.index(4)
    with torch.no_grad():
        torch.testing.assert_close(
            new.regions[0](tokens)[0][:, first], old.regions[0](tokens)[0][:, 0]
        )
    assert head_odds(old, units).shape == (3, 4)
    assert head_odds(new, others).shape == (3, 20)


def test_weights_of_the_same_set_of_units_are_all_taken_over(rng: np.random.Generator) -> None:
    from network import SEES_TIME, leave_out, load_trainee
    from scoring import image_odds

    from pyfau.weights.store import load_model

    model = load_model(BUNDLED)
    leave_out(model, SEES_TIME)
    crops = rng.integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    trainee = load_trainee(BUNDLED)
    np.testing.assert_array_equal(image_odds(trainee.mdhr, crops), image_odds(model, crops))


def test_the_levels_are_in_order() -> None:
    from network import Trainee

    net = Trainee()
    with torch.no_grad():
        net.offsets.normal_(0, 5)
        levels = net.levels(torch.randn(7, 20))
    assert levels.shape == (7, 20, 3)
    assert (levels[..., :-1] >= levels[..., 1:]).all()


def test_one_frame_scores_the_same_alone_and_in_a_still_window() -> None:
    """Before the windows stage the temporal parts change nothing."""
    from network import Trainee

    torch.manual_seed(0)
    net = Trainee().eval()
    crops = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        alone = net.frames(crops)[0]
        still = net.windows(crops[:, None].expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(still, alone[:, None].expand(-1, 4, -1, -1), atol=1e-4, rtol=1e-4)


def test_a_student_is_a_mean_of_before_and_after() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from network import Trainee
    from train import STUDENT_SHARE, finish_student

    before, after = Trainee(), Trainee()
    name = "mdhr.backbone.stem.weight"
    states = [net.state_dict()[name].clone() for net in (before, after)]
    finish_student(after, before)
    expected = (1 - STUDENT_SHARE) * states[0] + STUDENT_SHARE * states[1]
    torch.testing.assert_close(after.state_dict()[name], expected)
    taps = after.mdhr.temporal.weight.detach()
    torch.testing.assert_close(taps.sum(0), torch.ones_like(taps[0]))
    assert (taps[1:4] > 0).all()


def test_mixup_mixes_crops_and_targets_alike(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from sampling import Batch
    from train import mix

    values = torch.tensor([0.0, 100.0, 200.0])
    crops = values.view(3, 1, 1, 1, 1).expand(-1, 1, 3, 4, 4).to(torch.uint8)
    targets = (values / 200).view(3, 1, 1, 1).expand(-1, 1, 20, 3)
    mixed = mix(Batch(crops, targets, torch.zeros(3, 1, 52)), rng)
    torch.testing.assert_close(mixed.crops[:, 0, 0, 0, 0] / 200, mixed.targets[:, 0, 0, 0])


def test_a_loss_in_bfloat16_is_near_the_one_in_float32(prepared: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from network import Trainee
    from sampling import Batch, Source, shrink
    from train import STAGES, loss_of

    torch.manual_seed(0)
    net = Trainee().eval()
    faces = Source.load(prepared, "faces")
    crops = shrink(faces.crops[:4])[:, None]
    targets = torch.from_numpy(faces.targets[:4]).float()[:, None]
    shapes = torch.from_numpy(faces.shapes[:4]).float()[:, None]
    losses = {}
    for precision in ("bfloat16", "float32"):
        net.zero_grad()
        loss = loss_of(net, Batch(crops, targets, shapes), STAGES["coded"], precision)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
        losses[precision] = loss.item()
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_an_opinion_fills_what_nobody_graded(prepared: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from network import Trainee
    from sampling import Source
    from train import opinion, teach

    torch.manual_seed(0)
    net = Trainee().eval()
    sources = {name: Source.load(prepared, name) for name in ("faces", "clips")}
    before = sources["faces"].targets.copy()
    before[0] = sources["faces"].targets[0] = np.nan
    told = opinion([net], sources["faces"].crops[:12])
    teach([sources], [net], 0.25)
    after = sources["faces"].targets
    np.testing.assert_allclose(after[0], told[0], atol=1e-2)
    known = ~np.isnan(before[1:12])
    expected = 0.75 * before[1:12] + 0.25 * told[1:12]
    np.testing.assert_allclose(after[1:12][known], expected[known], atol=1e-2)
    np.testing.assert_array_equal(after[12:], before[12:])  # of people who are not trained on


def test_a_mean_of_weights_lies_between_the_networks() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from network import Trainee
    from train import NEIGHBOUR, mean_of

    torch.manual_seed(1)
    one, two = Trainee(), Trainee()
    name = "mdhr.backbone.stem.weight"
    expected = 0.75 * one.state_dict()[name] + 0.25 * two.state_dict()[name]
    mean = mean_of([one, two], [3.0, 1.0])
    torch.testing.assert_close(mean.state_dict()[name], expected)
    weight = mean.mdhr.temporal.weight
    middle = len(weight) // 2
    expected = NEIGHBOUR / (1 - 2 * NEIGHBOUR) * weight[middle]
    torch.testing.assert_close(weight[middle - 1], expected)


def test_a_fit_finds_the_scale_of_the_scores(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import fit_presence

    odds = rng.normal(0, 3, 4000)
    latent = 1.4 * odds - 0.8 + rng.logistic(size=4000)
    grades = np.where(latent > 0, 1.0, 0.0)[:, None]
    assert fit_presence(odds, grades, np.ones(4000)) == pytest.approx((1.4, -0.8), abs=0.12)


def test_many_images_of_one_person_do_not_outweigh_others() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import fit_presence, person_weights

    weights = person_weights(np.array(["a", "b", "b", "b", "b"]))
    np.testing.assert_allclose(weights, [1, 0.5, 0.5, 0.5, 0.5])
    odds = np.repeat([2.0, 2.0], 100)
    grades = np.repeat([0.0, 1.0], 100)[:, None]
    one_person = np.where(grades[:, 0] > 0, 0.1, 1.0)
    _, equal = fit_presence(odds, grades, np.ones(200))
    _, fewer = fit_presence(odds, grades, one_person)
    assert fewer < equal - 1


def test_a_fit_finds_the_steps_between_levels(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import fit_step

    log_odds = rng.normal(0, 3, 4000)
    latent = log_odds[:, None] + rng.logistic(size=(4000, 2))
    grades = np.select([latent > 3.0, latent > 0.0, latent > -1.5], [2.0, 1.0, 0.5], 0.0)
    weights = np.ones(4000)
    assert fit_step(log_odds, grades, weights, 0.5, 1.0) == pytest.approx(1.5, abs=0.2)
    assert fit_step(log_odds, grades, weights, 2.0, -2.5) == pytest.approx(-3.0, abs=0.3)


def test_a_rare_unit_keeps_the_scale_of_training() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import fit_one

    fit = fit_one(np.full(5, -20.0), np.zeros((5, 2)), np.ones(5), 1.0, -2.5)
    assert (fit.slope, fit.offset) == pytest.approx((1.0, 0.0), abs=0.02)
    assert (fit.trace, fit.strong) == pytest.approx((1.0, -2.5), abs=0.02)


def test_a_threshold_has_the_best_f1_and_few_false_alarms(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import MOST_FALSE_ALARMS, choose_threshold

    present = rng.random(1000) < 0.2
    scores = np.where(present, rng.uniform(0.4, 1.0, 1000), rng.uniform(0.0, 0.5, 1000))
    grades = present.astype(float)[:, None]
    nobody = np.zeros(1000, bool)
    threshold = choose_threshold(scores, grades, nobody)
    assert 0.42 < threshold < 0.55
    assert choose_threshold(scores, grades, present) > 0.9  # as if they were faces at rest
    noisy = np.where(present, scores, rng.uniform(0.0, 0.8, 1000))
    assert (noisy[~present] >= choose_threshold(noisy, grades, nobody)).mean() <= MOST_FALSE_ALARMS


def test_false_alarms_of_lips_apart_are_not_limited(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import choose_threshold

    present = rng.random(1000) < 0.7
    scores = np.where(present, rng.uniform(0.3, 1.0, 1000), rng.uniform(0.0, 0.6, 1000))
    grades = present.astype(float)[:, None]
    limited = choose_threshold(scores, grades, np.zeros(1000, bool))
    assert choose_threshold(scores, grades, None) < limited - 0.1


def test_thresholds_rise_until_faces_at_rest_are_calm() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from calibration import MOST_ANY_AT_REST, calm_down

    scores = np.zeros((100, 2))
    scores[:4, 0] = 0.6
    scores[4:8, 1] = 0.55
    scores[50:, :] = 0.9  # present
    scores[50:60, 0] = 0.61  # the first unit would lose much
    resting = np.arange(100) < 50
    present = np.where(resting, 0.0, 1.0)[:, None].repeat(2, axis=1)
    start = np.array([0.5, 0.5])
    calm = calm_down(start, scores, present, resting)
    alarms = (scores[resting] >= calm).any(axis=1).mean()
    assert alarms <= MOST_ANY_AT_REST
    assert calm[1] > 0.55
    quiet = np.array([0.7, 0.7])
    np.testing.assert_array_equal(calm_down(quiet, scores, present, resting), quiet)


def test_contradictions_are_counted() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from data import AUS
    from evaluate import contradictions

    active = np.zeros((4, len(AUS)), bool)
    active[0, [AUS.index(24), AUS.index(25)]] = True
    active[1, [AUS.index(26), AUS.index(25)]] = True
    active[2, AUS.index(26)] = True
    found = contradictions(active)
    assert found["AU24 and AU25"] == 0.25
    assert found["AU26 without AU25"] == 0.25
    assert found["any"] == 0.5


def test_a_coder_is_compared_with_the_others() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from evaluate import coder_figures, facs_grade

    same = np.tile(np.array([0.0, 1.0, 2.0, 0.0])[:, None], (1, 3))
    assert coder_figures(same)["coder_r"] == pytest.approx(1.0)
    assert coder_figures(same)["coder_f1"] == 1.0
    np.testing.assert_array_equal(
        facs_grade(np.array([0, 0.5, 1, 2, np.nan])), [0, 1, 2.5, 4.5, np.nan]
    )


def test_models_without_some_units_can_be_judged() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from data import AUS
    from evaluate import aligned, thresholds

    from pyfau.models.mdhr import MDHR
    from pyfau.models.paper import paper_config

    net = MDHR(paper_config("disfa", "resnet50"))
    scores = aligned(net, np.zeros((2, 8)))
    known = [AUS.index(au) for au in net.config.aus]
    assert (scores[:, known] == 0.5).all()
    assert np.isnan(np.delete(scores, known, axis=1)).all()
    assert (np.delete(thresholds(net), known) > 1).all()
