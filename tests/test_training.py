"""The training commands run from prepared crops to a model directory that loads, on a miniature data set made here."""

from __future__ import annotations

import json
import os
import re
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
    if name == "rendered":
        targets[np.cumsum([0, *(length for _, length in runs[:-1])])] = 0  # they begin at rest
    else:
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


def run(script: str, *arguments: object, launcher: tuple[str, ...] = (), fails: bool = False) -> str:
    """What a script prints: its output, or its errors where it is to fail."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, str(ROOT / "training" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


ONE_STEP = ("--alone-steps", 1, "--together-steps", 1, "--windows-steps", 1)


@pytest.mark.slow
def test_the_pictures_of_a_second_process_count(prepared: Path, tmp_path: Path) -> None:
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run("train.py", "--data", prepared, "--out", tmp_path / "two", *ONE_STEP, "--plain", 2, launcher=two)
    run("train.py", "--data", prepared, "--out", tmp_path / "one", *ONE_STEP)
    two_processes, one = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one"))
    assert len(two_processes) == len(one) == 3  # one of the processes writes
    plain, same = (torch.load(tmp_path / name / "plain-0.pt", weights_only=True) for name in ("two", "one"))
    torch.testing.assert_close(plain, same, atol=1e-2, rtol=1e-2)
    assert [len(list((tmp_path / name).glob("plain-*.pt"))) for name in ("two", "one")] == [2, 1]
    states = [torch.load(tmp_path / name / "final.pt", weights_only=True)["state"] for name in ("two", "one")]
    assert not torch.equal(states[0]["classifier"], states[1]["classifier"])  # the other's batches count


@pytest.mark.slow
def test_train_resume_evaluate_export(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    out = tmp_path / "run"
    steps = ("--alone-steps", 2, "--together-steps", 1, "--windows-steps")
    run("train.py", "--data", prepared, "--out", out, *steps, 1)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
    (out / "final.pt").unlink()
    run("train.py", "--data", prepared, "--out", out, *steps, 2)  # resumes
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in log] == [
        (2, "alone"),
        (3, "together"),
        (4, "windows"),
        (5, "windows"),
    ]
    state = torch.load(out / "final.pt", weights_only=True)["state"]
    assert state["dynamics.output.norm.weight"].unique().numel() > 1  # it learns: it began with one value for all
    ablation = tmp_path / "ablation"
    again = ("train.py", "--data", prepared, "--out", ablation, "--stages", "windows", "--windows-steps", 1)
    options = ("--without", "dynamics", "--hold-back")
    run(*again, "--init", out / "together.pt", *options)
    state = torch.load(ablation / "final.pt", weights_only=True)["state"]
    assert not state["dynamics.output.norm.weight"].any()
    other = torch.load(out / "alone.pt", weights_only=True)
    config = json.loads(other["config"])
    config["template"][0][0] += 0.01
    torch.save(other | {"config": json.dumps(config)}, tmp_path / "other.pt")
    elsewhere = ("train.py", "--data", prepared, "--out", tmp_path / "none", "--stages", "windows")
    for refused, why in (
        (elsewhere, "--init"),
        ((*elsewhere, "--init", tmp_path / "other.pt"), "another template"),
        ((*elsewhere, "--init", out / "alone.pt", "--learn-from", out / "alone.pt"), "'together', which is not run"),
        (("train.py", "--data", prepared, "--out", tmp_path / "none", "--alone-steps", 0), "--init"),
        (("train.py", "--data", prepared, "--out", out, *steps[:2], "--together-steps", 2), "of stages that end at"),
        (("train.py", "--data", prepared, "--out", out, *steps, 2, "--seed", 1), "of a run with"),
        ((*elsewhere, "--init", tmp_path / "nothing.pt"), "is not a network of train.py"),
        ((*elsewhere, "--init", out / "plain-0.pt"), "is a plain network"),
        ((*elsewhere, "--init", out / "checkpoint.pt"), "is not a network of train.py"),
        ((*elsewhere, "--init", out / "alone.pt", "--windows-steps", 0), "no stage has a step"),
        ((*elsewhere, "--init", out / "alone.pt", "--windows-steps", -1), "expected 0 or more, got -1"),
        (
            ("export.py", "--data", prepared, "--model", out / "plain-0.pt", "--out", tmp_path / "none"),
            "expected final",
        ),
    ):
        assert why in run(*refused, fails=True)
        assert not (tmp_path / "none").exists()
    figures, sheets = tmp_path / "figures.json", tmp_path / "sheets"
    manifest = tmp_path / "manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    folder = tmp_path / "mdhr-new"
    written = ("--out", folder, "--manifest", manifest)
    run("export.py", "--data", prepared, "--model", out / "final.pt", *written)
    run("evaluate.py", "--data", prepared, "--model", folder, "--out", figures, "--sheets", sheets)
    report = json.loads(figures.read_text())
    assert len(report["calibrated"]["aus"]) == len(report["occurrence"]) == N
    assert len(list(sheets.glob("*.png"))) == 2 * N
    assert np.isfinite(report["head"]["summary"]["rendered_within_r"])
    detector = AUDetector(folder, device="cpu")
    assert len(detector.aus) == N
    chosen = json.loads((folder / "calibration.json").read_text())
    for au, threshold, fit in zip(detector.aus, detector.thresholds, detector.model.config.calibration, strict=True):
        assert threshold == pytest.approx(chosen[au]["threshold"])
        assert fit == pytest.approx((chosen[au]["slope"], chosen[au]["offset"]))
    entry = json.loads(manifest.read_text())["models"]["mdhr-lite"]
    assert entry["bytes"] == (folder / "model.safetensors").stat().st_size
    assert detector.detect_image(np.zeros((64, 64, 3), np.uint8)).metadata["model_sha256"] == entry["sha256"]


@pytest.mark.slow
def test_the_network_to_beat_trains_is_kept_and_compared(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    plain, bundled = tmp_path / "plain.pt", ROOT / "pyfau/assets/mdhr-lite"
    command = ("baseline.py", "--data", prepared, "--weights", plain)
    printed = run(*command, "--passes", 30).splitlines()
    assert [line.split(":")[0] for line in printed[-2:]] == ["validation", "test"]
    assert all(np.isfinite(float(x)) for x in re.findall(r"[ -](\d\.\d+|nan)", printed[-1]))
    again = run(*command, "--against", bundled).splitlines()
    assert again[0] == printed[-2]  # nothing is trained a second time
    assert [re.split("[,:]", line)[0] for line in again[1:]] == ["validation", "test", "test", "both"]


@pytest.mark.slow
def test_other_networks_are_learnt_from(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    first = tmp_path / "first"
    run("train.py", "--data", prepared, "--out", first, *ONE_STEP, "--stages", "alone")

    def weights(file: Path, key: str = "state", name: str = "classifier") -> torch.Tensor:
        return torch.load(file, weights_only=True)[key][name]

    commands, states = {}, {}
    for name, more in (("itself", []), ("again", []), ("plain", ["--plain", 1])):
        again = ("--init", first / "alone.pt", "--stages", "together", "--plain", 0, *more)
        commands[name] = ("train.py", "--data", prepared, "--out", tmp_path / name, *ONE_STEP, *again)
        run(*commands[name])
        states[name] = weights(tmp_path / name / "together.pt")
    own, without = (states["itself"] - states[name] for name in ("again", "plain"))
    assert without.abs().max() > 10 * own.abs().max()
    # what is kept is the mean of before and after, once, also by a run that was stopped before it could write it
    after = weights(tmp_path / "plain/checkpoint.pt", "model", "mdhr.classifier")
    torch.testing.assert_close(states["plain"], (weights(first / "alone.pt") + after) / 2)
    assert not torch.equal(states["plain"], after)
    (tmp_path / "plain/together.pt").unlink()
    run(*commands["plain"])
    assert torch.equal(weights(tmp_path / "plain/together.pt"), states["plain"])


def test_a_committee_has_the_mean_opinion_and_mixes_faces_in_groups(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from baseline import KNOWN, Plain
    from committee import Committee, consult, load_member
    from data import AUS
    from sampling import POINTS, Batch
    from train import CONFIG, save

    from pyfau.models.mdhr import MDHR

    torch.manual_seed(0)
    nets = {"mdhr": MDHR(CONFIG).eval(), "plain": Plain().eval()}
    save(nets["mdhr"], tmp_path / "mdhr.pt")
    torch.save(nets["plain"].state_dict(), tmp_path / "plain.pt")
    one, other, both = (
        Committee([load_member(tmp_path / f"{name}.pt") for name in names], torch.device("cpu"))
        for names in (["mdhr"], ["plain"], ["mdhr", "plain"])
    )
    crops = torch.randint(0, 256, (3, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        alone = nets["plain"](crops).sigmoid()
    asked, plain, mean = (committee.ask(crops.float()) for committee in (one, other, both))
    unknown = [i for i in range(len(AUS)) if i not in KNOWN]
    torch.testing.assert_close(plain[:, KNOWN], alone[:, KNOWN], atol=0.02, rtol=0)  # in bfloat16
    assert plain[:, unknown].isnan().all()
    torch.testing.assert_close(mean[:, unknown], asked[:, unknown])
    bundled = Committee([load_member(ROOT / "pyfau/assets/mdhr-lite")], torch.device("cpu"))
    assert bundled.members[0].slope.eq(1).all()  # it is asked for what training has for targets, before calibration
    torch.testing.assert_close(mean[:, KNOWN].logit(), (asked.logit() + plain.logit())[:, KNOWN] / 2)

    length, group, real, drawn = 2, 2, 16, 3
    targets = torch.rand(real + drawn, length, len(AUS))
    targets[::3, :, 0] = torch.nan
    shape = (real + drawn, length)
    batch = Batch(
        torch.randint(0, 256, (*shape, 3, 112, 112), dtype=torch.uint8),
        targets,
        torch.rand(*shape, 52),
        torch.rand(*shape, POINTS, 2),
    )
    kept = [x.clone() for x in (batch.crops, batch.targets, batch.shapes, batch.points)]
    told = consult(both, batch, real, group, np.random.default_rng(1))
    for mine, original, before in zip(
        (told.crops, told.targets, told.shapes, told.points), vars(batch).values(), kept, strict=True
    ):
        torch.testing.assert_close(original, before, equal_nan=True)
        torch.testing.assert_close(mine[real:], before[real:], equal_nan=True)
    moved = (told.crops != batch.crops).flatten(1).any(1)[:real]
    assert 0 < moved.sum() < real
    assert (moved[::group] == moved[1::group]).all()
    opinion = both.ask(told.crops[:real].flatten(0, 1).float()).unflatten(0, (real, length))
    pure = ~moved[:, None, None] & ~targets[:real].isnan()
    expected = torch.where(pure, (targets[:real] + opinion) / 2, opinion)
    torch.testing.assert_close(told.targets[:real], expected, atol=0.02, rtol=0)  # crops were rounded
    for auxiliary in (told.shapes, told.points):
        assert (auxiliary[:real].isnan().flatten(1).all(1) == moved).all()
    k = int(moved.nonzero()[0, 0])  # the first of its group: it lies between its own face and the first of another
    mixture, own = told.crops[k].float(), batch.crops[k].float()
    found = []
    for partner in (batch.crops[i].float() for i in range(0, real, group) if i != k):
        share = float(((mixture - own) * (partner - own)).sum() / (partner - own).square().sum())
        found.append((float((mixture - torch.lerp(own, partner, share)).abs().max()), share))
    off, share = min(found)
    assert off < 1.5
    assert 0 < share <= 0.5


def test_the_mean_of_two_networks() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from train import CONFIG, halve

    from pyfau.models.mdhr import MDHR

    first, second = MDHR(CONFIG), MDHR(CONFIG)
    names = [name for name in first.state_dict() if name.endswith(("running_mean", "num_batches_tracked"))]
    for net, value in ((first, 1), (second, 4)):
        for name in names:
            net.state_dict()[name].fill_(value)
    expected = {name: (value + second.state_dict()[name]) / 2 for name, value in first.state_dict().items()}
    halve(second, first)
    for name, value in second.state_dict().items():
        torch.testing.assert_close(value, expected[name] if value.is_floating_point() else torch.tensor(4))
    assert any(value.is_floating_point() for name, value in expected.items() if name in names)


def test_motion_is_told_from_rest(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from evaluate import Scored, correlation, moved, within

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


def test_faces_are_told_apart_with_their_baseline() -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from data import AUS
    from evaluate import Scored, with_baseline

    runs = np.repeat([0, 1], 5)
    targets = np.tile([[0.02], [0.1], [0.2], [0.5], [0.9]], (2, len(AUS)))
    odds = 4 * targets + np.array([-2.5, 1.5])[runs, None]  # how a face is built
    odds[runs == 0, 0] -= 2  # at rest scored under 0.05, which is not raised
    figures = with_baseline(Scored(1 / (1 + np.exp(-odds)), targets, runs, np.arange(10)), [0.5] * len(AUS))
    assert figures["frames"] == 8
    assert figures["AU02"] == [0.75, 1.0]
    assert figures["AU01"] == [0.75, 0.938]  # one pair of 16 is still the wrong way round


def test_a_face_at_rest_is_taken_off(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from evaluate import Scored, besides_rest

    runs = np.repeat([0, 1, 2], [6, 6, 4])
    targets = rng.uniform(0.1, 1, (16, 2))
    targets[[0, 1, 8]] = 0.05  # at rest; the third person never is
    odds = 4 * targets + np.array([-3.0, 1.0, 0.0])[runs, None]  # how a face is built
    mine, change = besides_rest(Scored(1 / (1 + np.exp(-odds)), targets, runs, np.arange(16)))
    assert list(mine) == [2, 3, 4, 5, 6, 7, 9, 10, 11]
    np.testing.assert_allclose(change, 4 * (targets[mine] - 0.05), atol=1e-6)


def test_figures_say_who_decides_them_and_who_leads(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from baseline import join, lead
    from data import JUDGED
    from evaluate import Scored, by_people

    people = np.repeat(list("abcdef"), 40)
    runs = np.repeat(np.arange(6), 40)
    targets = rng.random((240, N))
    good = targets + 0.1 * rng.normal(size=targets.shape)
    worse = targets + 0.6 * rng.normal(size=targets.shape)
    worse[people == "c"] = 1 - targets[people == "c"]
    ours, theirs = (Scored(scores, targets, runs, np.arange(240)) for scores in (good, worse))
    figures = by_people(theirs, people)
    assert set(figures) == {f"AU{au:02d}" for au in (*JUDGED, 14, 15, 43)} | {"judged"}
    for figure in figures.values():
        low, high = figure["interval"]
        assert figure["without"] == "c"
        assert low < figure["r_without"] - 0.05
        assert low < high <= 1
    for name in ("over", "within"):
        difference, low, high = lead(ours, theirs, people)[name]
        assert 0 < low < difference < high
        assert lead(theirs, ours, people)[name] == [-difference, -high, -low]
        assert lead(ours, ours, people)[name] == [0, 0, 0]
    both = join([ours, theirs])
    assert len(np.unique(both.runs)) == 12
    np.testing.assert_array_equal(both.scores, np.concatenate([good, worse]))


def test_a_person_counts_as_so_many_pictures_however_long_the_clip(rng: np.random.Generator) -> None:
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    from data import AUS, PRESENT, PRESENT_RENDERED
    from evaluate import MOST_PICTURES, SOURCES, Scored, choose, labelled

    def crops(count: int) -> tuple[np.ndarray, np.ndarray]:
        targets = rng.random((count, N)).astype(np.float32)
        scores = (targets * 0.6 + 0.3 * rng.random((count, N))).clip(0.01, 0.99)
        targets[rng.random((count, N)) < 0.05] = np.nan
        return scores, targets

    def scored(clip: tuple[np.ndarray, np.ndarray]) -> dict[str, Scored]:
        sources = dict(zip(SOURCES, (clip, faces, drawn), strict=True))
        return {name: Scored(*s, np.zeros(len(s[0]), int), np.arange(len(s[0]))) for name, s in sources.items()}

    faces, drawn = crops(200), crops(50)
    half = MOST_PICTURES // 2
    short = crops(2 * half)  # two people, each with half as many frames as count at most
    short[1][:] = np.nan_to_num(short[1], nan=0.5)
    people = np.repeat(["a", "b"], half)
    neutral = np.arange(200) < 50
    once = choose(scored(short), people, neutral)
    # ten times the frames of one of them: they count as twice as many, and no more
    long = tuple(np.concatenate([v[:half]] * 10 + [v[half:]]) for v in short)
    twice = tuple(np.concatenate([v[:half]] * 2 + [v[half:]]) for v in short)
    many = choose(scored(long), np.repeat(["a", "b"], [10 * half, half]), neutral)
    two = choose(scored(twice), np.repeat(["a", "b"], [2 * half, half]), neutral)
    for au in once:
        for figure in ("slope", "offset", "threshold", "precision", "recall"):
            assert many[au][figure] == pytest.approx(two[au][figure], abs=2e-3)
    assert any(once[au]["slope"] != two[au]["slope"] for au in once)
    for column, au in enumerate(AUS):
        values, present = labelled(scored(short), column, au)
        np.testing.assert_array_equal(values[: 2 * half], short[0][:, column])
        np.testing.assert_array_equal(present[: 2 * half], short[1][:, column] > PRESENT[au])
        if au == 9:
            known = ~np.isnan(drawn[1][:, column])
            np.testing.assert_array_equal(present[-known.sum() :], drawn[1][known, column] > PRESENT_RENDERED)
