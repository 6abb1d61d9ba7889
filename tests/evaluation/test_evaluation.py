"""`pyfau evaluate` on miniatures of BP4D and DISFA in the official file formats."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import Miniature
from PIL import Image

from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.evaluation import ListOptions, evaluate_lists
from pyfau.evaluation.comparison import add_summary, paper_row, render
from pyfau.evaluation.lists import FrameList, cut_clips, find_images, read_list
from pyfau.evaluation.protocol import Predictions, Store, predict, read_aligned
from pyfau.models.config import MDHRConfig, Region
from pyfau.models.mdhr import MDHR
from pyfau.models.paper import DATA_SETS
from pyfau.types import Failure
from pyfau.weights.store import load_model, save_model

pytest.importorskip("sklearn", reason="figures need scikit-learn")


def tiny_config(data: str, name: str) -> MDHRConfig:
    """As the small network, in a size that tests run in no time."""
    record = DATA_SETS[data]
    return MDHRConfig(
        name=name,
        backbone="small",
        aus=record.aus,
        regions=record.regions,
        project_regions=record.project_regions,
        template=record.template,
        thresholds=(0.3,) * len(record.aus),
        input_size=112,
        width=16,
        dynamic_channels=16,
        backbone_options={"widths": [16, 16, 16, 16], "blocks": [1, 1, 1, 1]},
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network with random weights for each data set."""
    folders = {}
    for seed, data in enumerate(("bp4d", "disfa")):
        torch.manual_seed(seed)
        folders[data] = tmp_path_factory.mktemp("models") / data
        save_model(MDHR(tiny_config(data, f"tiny-{data}")), folders[data])
    return folders


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Miniature]:
    return {data: Miniature(tmp_path_factory.mktemp(data), data) for data in ("bp4d", "disfa")}


@pytest.fixture
def bp4d(originals: dict[str, Miniature], tmp_path: Path) -> Miniature:
    """A copy that a test may spoil."""
    return copy(originals["bp4d"], tmp_path / "mini")


def copy(mini: Miniature, folder: Path) -> Miniature:
    shutil.copytree(mini.root.parent, folder)
    changed = object.__new__(Miniature)
    changed.__dict__ = {
        **mini.__dict__,
        "root": folder / mini.root.name,
        "lists": folder / mini.lists.name,
    }
    return changed


def run(mini: Miniature, model: Path | str, folder: Path, *more: object) -> int:
    options = [
        "--root",
        mini.root,
        "--lists",
        mini.lists,
        "--model",
        model,
        "--predictions",
        folder,
    ]
    options += ["--report", folder.parent / "report.json", "--device", "cpu", "--quiet", *more]
    return main(["evaluate", "--data", mini.data, *map(str, options)])


def report(folder: Path) -> dict:
    return json.loads((folder.parent / "report.json").read_text())


# --- lists


def test_lists_of_bp4d(originals: dict[str, Miniature]) -> None:
    mini = originals["bp4d"]
    frames = read_list("bp4d", mini.lists, 1)
    assert frames.paths[0] == "F001/T1/2440.jpg"
    assert (frames.videos[0], frames.numbers[0]) == ("F001/T1", 2440)
    assert frames.aus == (
        "AU01",
        "AU02",
        "AU04",
        "AU06",
        "AU07",
        "AU10",
        "AU12",
        "AU14",
        "AU15",
        "AU17",
        "AU23",
        "AU24",
    )
    assert np.array_equal(frames.labels, mini.labels["F001"])
    train = read_list("bp4d", mini.lists, 1, "train")
    assert {video.split("/")[0] for video in train.videos} == {"F002", "F003"}
    assert find_images(frames, mini.root) == mini.root / "img"
    assert find_images(frames, mini.root / "img") == mini.root / "img"


def test_lists_of_disfa_and_of_me_graphau(originals: dict[str, Miniature], tmp_path: Path) -> None:
    mini = originals["disfa"]
    frames = read_list("disfa", mini.lists, 2)
    assert frames.paths[1] == "SN002/SN002_1.png"
    assert (frames.videos[1], frames.numbers[1]) == ("SN002", 1)
    assert find_images(frames, mini.root) == mini.root / "img_o"
    # ME-GraphAU: in a folder `list`, DISFA_test_img_path_fold2.txt, SN002/1.png.
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "DISFA_test_img_path_fold2.txt").write_text("SN002/0.png\nSN002/1.png\n")
    (tmp_path / "list" / "DISFA_test_label_fold2.txt").write_text(
        "0 1 0 1 0 1 0 1\n1 0 1 0 1 0 1 -1\n"
    )
    other = read_list("disfa", tmp_path, 2)
    assert (other.videos, other.numbers.tolist()) == (("SN002", "SN002"), [0, 1])
    assert other.labels[1].tolist() == [1, 0, 1, 0, 1, 0, 1, -1]


def test_clips_break_with_video_and_number_and_after_16(originals: dict[str, Miniature]) -> None:
    # T1 of the miniature: 23 frames, a jump, 17 frames; T2: 20 frames.
    frames = read_list("bp4d", originals["bp4d"].lists, 1)
    clips = cut_clips(frames)
    assert [len(clip) for clip in clips] == [16, 7, 16, 1, 16, 4]
    assert [position for clip in clips for position in clip] == list(range(60))
    assert [frames.numbers[clip.start] for clip in clips] == [2440, 2456, 2470, 2486, 1, 17]


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, 0, 1, 5])), max_size=8))
def test_clips_of_any_list(runs: list[tuple[int, int]]) -> None:
    """Runs of frames, each followed by a jump (or by another video, where the jump is 0)."""
    videos, numbers, video, number = [], [], 0, 0
    for length, jump in runs:
        videos += [f"V{video}"] * length
        numbers += range(number, number + length)
        number += length + jump
        video += jump == 0
    count = len(videos)
    labels = np.zeros((count, 12), np.int8)
    frames = FrameList(
        "bp4d", 1, Path("list"), ("p",) * count, tuple(videos), np.array(numbers, np.int64), labels
    )
    lengths = [len(clip) for clip in cut_clips(frames)]
    expected = [
        [16] * (length // 16) + ([length % 16] if length % 16 else []) for length, _ in runs
    ]
    assert lengths == [n for run in expected for n in run]


@settings(deadline=None)  # the first example loads what the others find
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_as_lists(paths: bytes, labels: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "BP4D_test_img_path_fold1.txt").write_bytes(paths)
        (Path(folder) / "BP4D_test_label_fold1.txt").write_bytes(labels)
        with pytest.raises(InputError):
            read_list("bp4d", Path(folder), 1)


def test_crlf_bom_backslashes_floats_and_blank_ends(bp4d: Miniature) -> None:
    plain = read_list("bp4d", bp4d.lists, 1)
    paths = bp4d.list_file(1).read_text().replace("/", "\\").replace("\n", "\r\n")
    bp4d.list_file(1).write_bytes(b"\xef\xbb\xbf" + paths.encode() + b"\r\n\r\n")
    np.savetxt(bp4d.label_file(1), bp4d.labels["F001"])  # numpy's own 0.000000000000000000e+00
    again = read_list("bp4d", bp4d.lists, 1)
    assert again.paths == plain.paths
    assert np.array_equal(again.labels, plain.labels)


def test_unknown_labels_of_bp4d_are_ignored(bp4d: Miniature) -> None:
    lines = bp4d.label_file(1).read_text().splitlines()
    lines[3] = "9 -1 1 0 0 0 0 0 0 0 0 9"
    bp4d.label_file(1).write_text("\n".join(lines))
    assert read_list("bp4d", bp4d.lists, 1).labels[3].tolist() == [-1, -1, 1, *[0] * 8, -1]


@pytest.mark.parametrize(
    ("which", "line", "text", "message"),
    [
        (
            "list",
            2,
            "0 1 0 0",
            r"path_fold1.txt:2: '0 1 0 0' is no image of a video.*F001/T1/2440.jpg",
        ),
        ("list", 1, "2440.jpg", r":1: .*no image of a video"),
        ("list", 5, "../../F001/T1/1.jpg", r":5: .*below the image folder"),
        ("list", 5, "/etc/F001/1.jpg", r":5: "),
        ("list", 5, "C:/F001/T1/1.jpg", r":5: "),
        ("list", 5, "F001/T1/face.jpg", r":5: .*frame number"),
        ("list", 5, "F001/T1/1.txt", r":5: "),
        ("list", 4, "", r":4: the line is empty"),
        (
            "label",
            3,
            "0 1 0",
            r"label_fold1.txt:3: 3 labels, expected 12: one for each of AU 1 2 4 6",
        ),
        ("label", 7, "0 0 0 0 0 0 0 0 0 0 0 2", r":7: the label '2'; expected 0, 1, or -1"),
        ("label", 7, "0 0 0 0 0 0 0 0 0 0 0 x", r":7: the label 'x'"),
        ("label", 7, "0 0 0 0 0 0 0 0 0 0 0 nan", r":7: the label 'nan'"),
    ],
)
def test_wrong_lines_are_named(
    bp4d: Miniature, which: str, line: int, text: str, message: str
) -> None:
    file = bp4d.list_file(1) if which == "list" else bp4d.label_file(1)
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        read_list("bp4d", bp4d.lists, 1)


def test_wrong_files_are_named(
    bp4d: Miniature, originals: dict[str, Miniature], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"holds no DISFA_test_img_path_fold1.txt or DISFA_test_path_fold1.txt"
    ):
        read_list("disfa", bp4d.lists, 1)
    with pytest.raises(
        InputError, match=r"not a folder: expected one that holds BP4D_test_img_path_fold1.txt"
    ):
        read_list("bp4d", tmp_path / "nowhere", 1)
    with pytest.raises(OptionError, match="the folds are 1, 2 and 3, got 4"):
        read_list("bp4d", bp4d.lists, 4)
    with pytest.raises(OptionError, match="unknown data set 'bp5d'"):
        read_list("bp5d", bp4d.lists, 1)
    lines = bp4d.label_file(1).read_text().splitlines()
    bp4d.label_file(1).write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match=r"has 60 images and .*label_fold1.txt 59 lines of labels"):
        read_list("bp4d", bp4d.lists, 1)
    bp4d.list_file(1).write_bytes(b"\xff\xd8\xff\xe0 an image")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_list("bp4d", bp4d.lists, 1)
    bp4d.list_file(1).write_text("\n\n")
    with pytest.raises(InputError, match="is empty"):
        read_list("bp4d", bp4d.lists, 1)
    with bp4d.list_file(1).open("wb") as stream:
        stream.truncate(10_000_000_000)  # takes no room on the disk
    with pytest.raises(InputError, match="10000000000 bytes: too large"):
        read_list("bp4d", bp4d.lists, 1)
    with pytest.raises(
        InputError, match=r"none of the 60 images of .* is there: looked for .*F002/T1/2440.jpg"
    ):
        find_images(read_list("bp4d", bp4d.lists, 2), originals["disfa"].root)


# --- scores


def test_scores_are_those_of_separate_filled_clips(
    originals: dict[str, Miniature], models: dict[str, Path]
) -> None:
    """Compare with clips made by hand: frames encoded again, 16 at a time, the last repeated."""
    frames = read_list("bp4d", originals["bp4d"].lists, 1)
    model = load_model(models["bp4d"])
    images = originals["bp4d"].root / "img"
    encode, encoded = model.encode, []

    def counted(x: torch.Tensor) -> Any:
        encoded.append(len(x))
        return encode(x)

    model.encode = counted  # type: ignore[method-assign]
    for batch_size in (1, 32, 512):
        encoded.clear()
        ours = predict(model, frames, images, batch_size=batch_size)
        assert sum(encoded) == len(frames), "each frame once, filled frames not at all"
        assert not ours.failures
        for clip in cut_clips(frames):
            crops = []
            for position in [*clip] + [clip[-1]] * (16 - len(clip)):
                with Image.open(images / frames.paths[position]) as image:
                    small = image.convert("RGB").resize((112, 112), Image.Resampling.BILINEAR)
                crops.append(np.asarray(small))
            with torch.inference_mode():
                expected = model(model.preprocess(np.stack(crops))[None])[0, : len(clip)].numpy()
            np.testing.assert_allclose(ours.scores[clip.start : clip.stop], expected, atol=1e-6)


def test_missing_and_broken_images_are_reported_and_do_not_count(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, lost = bp4d.root / "img", ["F001/T1/2440.jpg", "F001/T1/2445.jpg", "F001/T1/2486.jpg"]
    (images / lost[0]).unlink()
    (images / lost[1]).write_bytes(b"no image")
    Image.new("RGB", (128, 100)).save(images / lost[2])  # the only frame of its clip
    assert run(bp4d, models["bp4d"], tmp_path / "kept", "--fold", 1) == 0
    seen = capsys.readouterr()
    assert "F001/T1/2440.jpg: no such file" in seen.err
    assert (
        "F001/T1/2486.jpg: 128 x 100 pixels; expected a square image of an aligned face" in seen.err
    )
    assert "fold 1: 3 of 60 images could not be scored and do not count" in seen.out
    found = report(tmp_path / "kept")
    assert list(found["failures"]["1"]) == lost
    assert {figures["frames"] for figures in found["folds"]["1"]["aus"].values()} == {57}
    # Neighbours stand in: frame 2441 before the first, 2444 for 2445.
    frames = read_list("bp4d", bp4d.lists, 1)
    model = load_model(models["bp4d"])
    order = [1, 1, 2, 3, 4, 4, *range(6, 16)]
    crops = np.stack([read_aligned(images / frames.paths[i], 112) for i in order])
    with torch.inference_mode():
        expected = model(model.preprocess(crops)[None])[0].numpy()
    scores = predict(model, frames, images).scores
    np.testing.assert_allclose(scores[6:16], expected[6:], atol=1e-6)
    assert np.isnan(scores[[0, 5, 39]]).all()


def test_all_images_broken(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    for file in (bp4d.root / "img" / "F001").rglob("*.jpg"):
        file.write_bytes(b"")
    assert run(bp4d, models["bp4d"], tmp_path / "kept", "--fold", 1) == 1
    assert "none of the 60 images of" in (err := capsys.readouterr().err)
    assert "F001/T1/2440.jpg: is empty (0 bytes)" in err


def test_raw_images_without_align(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    for file in (bp4d.root / "img" / "F001").rglob("*.jpg"):
        Image.new("RGB", (104, 139)).save(file)
    assert run(bp4d, models["bp4d"], tmp_path / "kept", "--fold", 1) == 1
    assert "F001/T1/2440.jpg: 104 x 139 pixels, and no square" in (err := capsys.readouterr().err)
    assert "for raw images, use --align" in err


def test_an_interrupted_run_goes_on(
    bp4d: Miniature,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    kept = tmp_path / "kept"
    assert run(bp4d, models["bp4d"], tmp_path / "whole" / "kept") == 0
    whole, table = report(tmp_path / "whole" / "kept"), capsys.readouterr().out
    real, saved = Store.save, []

    def save(self: Store, video: str, *rest: object) -> None:
        real(self, video, *rest)  # type: ignore[arg-type]
        saved.append(video)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", save)
        assert run(bp4d, models["bp4d"], kept) == 130
    assert saved == ["F001/T1", "F001/T2", "F002/T1"]
    assert {p.relative_to(kept).as_posix() for p in kept.rglob("*.npz")} == {
        "bp4d-fold1/F001/T1.npz",
        "bp4d-fold1/F001/T2.npz",
        "bp4d-fold2/F002/T1.npz",
    }
    shutil.rmtree(bp4d.root / "img" / "F001")  # what has been scored is not read again
    (bp4d.root / "img" / "F001").mkdir()
    for path in ("T1/2440.jpg",):  # find_images wants one
        (bp4d.root / "img" / "F001" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 128)).save(bp4d.root / "img" / "F001" / path)
    capsys.readouterr()
    assert run(bp4d, models["bp4d"], kept) == 0
    assert capsys.readouterr().out == table
    assert report(kept)["folds"] == whole["folds"]


def test_rescore_needs_neither_network_nor_images(
    bp4d: Miniature,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    kept = tmp_path / "kept"
    assert run(bp4d, models["bp4d"], kept) == 0
    first = capsys.readouterr().out
    shutil.rmtree(bp4d.root)
    monkeypatch.setattr("pyfau.weights.store.open_model", None)
    options = [
        "evaluate",
        "--data",
        "bp4d",
        "--lists",
        str(bp4d.lists),
        "--predictions",
        str(kept),
        "--rescore",
    ]
    assert main(options) == 0
    assert capsys.readouterr().out == first
    assert main([*options, "--more", "--threshold", "model"]) == 0
    assert " ICC " in capsys.readouterr().out
    (kept / "bp4d-fold2" / "F002" / "T2.npz").write_bytes(b"torn")
    assert main(options) == 1
    assert "holds no predictions for 1 of 2 videos" in (err := capsys.readouterr().err)
    assert "such as F002/T2" in err
    assert main([*options[:-2], str(tmp_path / "other"), "--rescore"]) == 1
    assert "holds no predictions: predictions.json: No such file" in capsys.readouterr().err
    assert main([*options, "--model", "mdhr-lite"]) == 1
    assert "--model cannot be used with --rescore" in capsys.readouterr().err
    record = kept / "bp4d-fold1" / "predictions.json"
    record.write_text(json.dumps({"aus": ["AU01"], "thresholds": [0.5]}))
    assert main(options) == 1
    assert "predictions.json lacks model, sha256" in capsys.readouterr().err


def test_evaluation_from_python(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    options = ListOptions(
        root=bp4d.root,
        model=str(models["bp4d"]),
        predictions=tmp_path / "kept",
        device="cpu",
    )
    found = evaluate_lists("bp4d", bp4d.lists, options)
    assert capsys.readouterr() == ("", "")
    assert run(bp4d, models["bp4d"], tmp_path / "kept") == 0
    assert found == report(tmp_path / "kept")
    again = evaluate_lists(
        "bp4d", str(bp4d.lists), ListOptions(rescore=True, predictions=tmp_path / "kept")
    )
    assert again == found
    with pytest.raises(OptionError, match="root is missing"):
        evaluate_lists("bp4d", bp4d.lists, ListOptions(model="mdhr-lite"))
    with pytest.raises(OptionError, match="model is missing"):
        evaluate_lists("bp4d", bp4d.lists, ListOptions(root=bp4d.root))


def test_another_model_is_not_mixed_in(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    kept = tmp_path / "kept"
    assert run(bp4d, models["bp4d"], kept, "--fold", 1) == 0
    assert run(bp4d, models["disfa"], kept, "--fold", 1) == 1
    assert "holds other predictions (aus " in (err := capsys.readouterr().err)
    assert "model 'tiny-bp4d', now 'tiny-disfa'" in err
    calibrated = dataclasses.replace(
        load_model(models["bp4d"]).config, calibration=((2.0, 0.0),) * 12
    )
    shutil.copytree(models["bp4d"], tmp_path / "calibrated")
    (tmp_path / "calibrated" / "config.json").write_text(calibrated.to_json())
    assert run(bp4d, tmp_path / "calibrated", kept, "--fold", 1) == 1, (
        "the same weights, other scores"
    )
    assert "holds other predictions (config_sha256 " in capsys.readouterr().err
    assert run(bp4d, models["bp4d"], kept, "--fold", 1, "--align") == 1
    assert "aligner None, now 'mtcnn'" in capsys.readouterr().err
    other = dataclasses.replace(load_model(models["bp4d"]).config, aligner="mesh")
    shutil.copytree(models["bp4d"], tmp_path / "meshed")
    (tmp_path / "meshed" / "config.json").write_text(other.to_json())
    assert run(bp4d, tmp_path / "meshed", kept, "--fold", 1) == 0, "of aligned images"
    assert run(bp4d, tmp_path / "meshed", kept, "--fold", 1, "--align") == 1
    assert "(aligner None, now 'mesh')" in capsys.readouterr().err


def test_a_image_that_was_missing_is_scored_when_it_is_there(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path
) -> None:
    image, kept = bp4d.root / "img" / "F001/T1/2443.jpg", tmp_path / "kept"
    aside = tmp_path / "aside.jpg"
    image.rename(aside)
    assert run(bp4d, models["bp4d"], kept, "--fold", 1) == 0
    assert report(kept)["failures"]["1"] == {"F001/T1/2443.jpg": "no such file"}
    aside.rename(image)
    assert run(bp4d, models["bp4d"], kept, "--fold", 1) == 0
    assert report(kept)["failures"]["1"] == {}
    assert report(kept)["folds"]["1"]["frames"] == 60


def test_store_keeps_scores_and_failures(tmp_path: Path) -> None:
    store = Store(tmp_path / "fold", {"aus": ["AU01", "AU02"], "thresholds": [0.5, 0.5]})
    scores = np.array([[0.1, np.nan], [1 / 3, 1.0]], np.float32)
    failures = [Failure("Gesicht-ä/T1/2.jpg", "no such file")]
    store.open()
    store.save(
        "Gesicht-ä/T1", ["Gesicht-ä/T1/1.jpg", "Gesicht-ä/T1/2.jpg"], Predictions(scores, failures)
    )
    again = store.load("Gesicht-ä/T1", ["Gesicht-ä/T1/1.jpg", "Gesicht-ä/T1/2.jpg"])
    assert again is not None
    np.testing.assert_array_equal(again.scores, scores)
    assert again.failures == failures
    assert store.load("Gesicht-ä/T1", ["Gesicht-ä/T1/1.jpg"]) is None, "another list"
    assert store.load("Gesicht-ä/T2", ["Gesicht-ä/T2/1.jpg"]) is None


def test_raw_images_are_aligned(
    media: Path, models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    """Score two sequences of a shifted photograph of a face, and one image without a face."""
    mini = Miniature(tmp_path / "mini", "disfa", frames=5)
    with Image.open(media / "single_face.jpg") as image:
        face = image.convert("RGB").resize((281, 281))
    for name in mini.paths:
        for i, path in enumerate(mini.paths[name]):
            canvas = Image.new("RGB", (400, 320), (90, 90, 90))
            if (name, i) != ("SN001", 2):
                canvas.paste(face, (40 + 4 * i, 20))
            canvas.save(mini.root / "img_o" / path)
    assert run(mini, models["disfa"], tmp_path / "kept", "--fold", 1, "--align") == 0
    assert "SN001/SN001_2.png: no face was found" in capsys.readouterr().err
    assert report(tmp_path / "kept")["folds"]["1"]["frames"] == 4
    assert report(tmp_path / "kept")["models"]["1"]["aligner"] == "mtcnn"
    from pyfau import AUDetector

    # The same crops and the same scores as the detector's own window of clips.
    files = [mini.root / "img_o" / path for path in mini.paths["SN002"]]
    expected = AUDetector(
        models["disfa"], device="cpu", window="clips", precision="float32"
    ).detect_images(files)
    frames = read_list("disfa", mini.lists, 2)
    from pyfau.faces.aligner import load_aligner

    aligner = load_aligner("mtcnn", torch.device("cpu"))
    ours = predict(load_model(models["disfa"]), frames, mini.root / "img_o", aligner=aligner)
    np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-6)


def test_a_store_that_cannot_be_written_is_found_at_once(
    originals: dict[str, Miniature],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("pyfau.evaluation.protocol.read_aligned", None)
    assert run(originals["disfa"], models["disfa"], tmp_path / "file") == 1
    assert "cannot write predictions to" in (err := capsys.readouterr().err)
    assert "Not a directory" in err


def test_a_model_without_the_aus(originals: dict[str, Miniature], tmp_path: Path, capsys) -> None:
    config = dataclasses.replace(
        tiny_config("disfa", "blink"),
        aus=(45,),
        regions=(Region("up", (0, 3), (45,)),),
        thresholds=(0.5,),
    )
    save_model(MDHR(config), tmp_path / "blink")
    assert run(originals["disfa"], tmp_path / "blink", tmp_path / "kept") == 1
    assert "scores AU45 and disfa has labels of AU01, AU02" in capsys.readouterr().err


def test_unicode_folders(
    originals: dict[str, Miniature], models: dict[str, Path], tmp_path: Path
) -> None:
    mini = copy(originals["disfa"], tmp_path / "Gesichter ß 顔")
    assert run(mini, models["disfa"], tmp_path / "ergebnis ü" / "kept", "--fold", 3) == 0
    assert report(tmp_path / "ergebnis ü" / "kept")["folds"]["3"]["frames"] == 40


# --- the report


def test_the_table_stands_beside_the_papers(
    originals: dict[str, Miniature], models: dict[str, Path], tmp_path: Path, capsys
) -> None:
    assert run(originals["bp4d"], models["bp4d"], tmp_path / "kept", "--more") == 0
    out = capsys.readouterr().out
    head, *rows = out.splitlines()
    assert head.split()[:8] == ["AU", "frames", "present", "fold", "1", "fold", "2", "fold"]
    found = report(tmp_path / "kept")
    au12 = found["over_folds"]["aus"]["AU12"]
    row = next(line for line in rows if "AU12" in line).split()
    f1 = [100 * found["folds"][fold]["aus"]["AU12"]["f1"] for fold in "123"]
    expected = [
        "AU12",
        "180",
        "60",
        *(f"{value:.1f}" for value in f1),
        f"{sum(f1) / 3:.1f}",
        "88.2",
    ]
    assert row[: len(expected)] == expected
    assert row[len(expected)] == f"{sum(f1) / 3 - 88.2:+.1f}"
    assert au12["f1"] == pytest.approx(sum(f1) / 300)
    assert found["paper"]["average_f1"] == 66.6
    assert found["difference"]["mean"] == pytest.approx(
        100 * found["over_folds"]["mean"]["f1"] - 66.6
    )
    assert "tiny-bp4d is not the paper's network on bp4d" in out
    assert "another crop" not in out
    assert found["models"]["2"]["sha256"] == found["models"]["1"]["sha256"]


@pytest.mark.parametrize(
    ("data", "backbone", "average", "au", "value"),
    [
        ("bp4d", "resnet50", 66.6, "AU24", 59.3),
        ("bp4d", "swin_b", 66.1, "AU24", 55.4),
        ("disfa", "resnet50", 64.9, "AU09", 48.3),
        ("disfa", "swin_b", 66.2, "AU26", 58.2),
    ],
)
def test_the_papers_rows(data: str, backbone: str, average: float, au: str, value: float) -> None:
    row = paper_row(data, backbone)
    assert row is not None
    assert (row["backbone"], row["average_f1"], row["f1"][au]) == (backbone, average, value)
    assert tuple(row["f1"]) == tuple(f"AU{au:02d}" for au in DATA_SETS[data].aus)
    assert abs(np.mean(list(row["f1"].values())) - average) < 0.06


def test_no_difference_for_a_mean_over_fewer_aus() -> None:
    aus = {
        f"AU{au:02d}": {"frames": 9, "present": 3, "f1": 0.5, "accuracy": 0.5}
        for au in DATA_SETS["disfa"].aus[:-1]
    }
    made = {
        "folds": {"1": {"frames": 9, "aus": aus, "mean": {"f1": 0.5, "accuracy": 0.5}}},
        "notes": [],
    }
    add_summary(made, paper_row("disfa", "resnet50"))
    assert made["difference"]["AU01"] == pytest.approx(50 - 61.4)
    assert made["difference"]["mean"] is None
    assert "this is fold 1 alone" in render(made)


def test_one_network_a_fold(originals: dict[str, Miniature], tmp_path: Path, capsys) -> None:
    for fold in (1, 2, 3):
        torch.manual_seed(fold)
        config = dataclasses.replace(tiny_config("bp4d", "x"), name=f"mdhr-small-bp4d-fold{fold}")
        save_model(MDHR(config), tmp_path / f"net-fold{fold}")
    mini, kept = originals["bp4d"], tmp_path / "kept"
    assert run(mini, f"{tmp_path}/net-fold{{fold}}", kept) == 0
    found = report(kept)
    assert [found["models"][fold]["model"][-5:] for fold in "123"] == ["fold1", "fold2", "fold3"]
    assert "same weights" not in capsys.readouterr().out
    assert run(mini, f"{tmp_path}/net-fold2", tmp_path / "two" / "kept") == 0, (
        "a model of one fold is for that fold"
    )
    assert list(report(tmp_path / "two" / "kept")["folds"]) == ["2"]
    capsys.readouterr()
    assert run(mini, f"{tmp_path}/net-fold2", tmp_path / "three" / "kept", "--fold", 1) == 1
    assert (
        "was trained on the test people of fold 1: expected the weights of fold 1"
        in capsys.readouterr().err
    )


def test_a_missing_model_is_found_before_any_work(
    bp4d: Miniature, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models["bp4d"], tmp_path / "net1")
    assert run(bp4d, tmp_path / "net{fold}", tmp_path / "kept") == 1
    assert "net2" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_networks_of_several_kinds_make_no_mean(
    originals: dict[str, Miniature], tmp_path: Path, capsys
) -> None:
    mini, kept = originals["disfa"], tmp_path / "kept"
    for fold, aus in ((1, (1, 2)), (2, (1, 4))):
        regions = (Region("up", (0, 3), aus),)
        config = dataclasses.replace(
            tiny_config("disfa", "some"), aus=aus, regions=regions, thresholds=(0.5, 0.5)
        )
        save_model(MDHR(config), tmp_path / f"some-{fold}")
        assert run(mini, tmp_path / f"some-{fold}", kept, "--fold", fold) == 0
    assert "not scored by the model, and not in the mean: AU02, AU06" in capsys.readouterr().out
    save_model(load_model(tmp_path / "some-1"), tmp_path / "some-3")
    assert run(mini, f"{tmp_path}/some-{{fold}}", kept.with_name("again")) == 1
    assert "differ in aus: expected one kind of network for all folds" in capsys.readouterr().err


def test_the_bundled_model_scores_a_wider_set(
    originals: dict[str, Miniature], tmp_path: Path, capsys
) -> None:
    assert (
        run(originals["disfa"], "mdhr-lite", tmp_path / "kept", "--fold", 2, "--threshold", "model")
        == 0
    )
    found = report(tmp_path / "kept")
    assert list(found["folds"]["2"]["aus"]) == [f"AU{au:02d}" for au in DATA_SETS["disfa"].aus]
    out = capsys.readouterr().out
    assert "mdhr-lite is not the paper's network" in out
    assert (
        "mdhr-lite is for another crop than that of the aligned images of disfa: see --align" in out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "bp4d"], "--data bp4d needs --root and --lists and --model"),
        (["--data", "bp4d", "--lists", "x", "--root", "x"], "needs --model"),
        (["--data", "bp4d", "--labels", "x"], "--labels is not for --data bp4d"),
        (["--data", "csv", "--root", "x"], "--root is not for --data csv"),
        (["--data", "csv", "--labels", "x"], "--data csv needs --scores"),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--threshold", "2"],
            "--threshold takes a number in",
        ),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--threshold", "half"],
            "or model, got 'half'",
        ),
        (
            ["--data", "csv", "--labels", "nowhere.csv", "--scores", "y"],
            "nowhere.csv: No such file",
        ),
        (["--data", "csv", "--labels", "x" * 300, "--scores", "y"], "name too long"),
        (
            ["--data", "bp4d", "--lists", "x" * 300, "--root", "y", "--model", "z"],
            "is not a folder",
        ),
        (
            ["--data", "disfa", "--lists", "a", "--root", "b", "--model", "c", "--batch-size", "0"],
            "at least 1, got 0",
        ),
        (["--data", "disfa", "--lists", "a", "--root", "b", "--model", "c"], "a is not a folder"),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--report", "."],
            "--report is a file to write",
        ),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--present", "nan"],
            "more than 0; got nan",
        ),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--present", "0"],
            "more than 0; got 0",
        ),
        (["--data", "bp4d", "--first-frame", "0"], "--first-frame is not for --data bp4d"),
        (
            ["--data", "bp4d", "--lists", "a", "--root", "b", "--model", "c", "--align", "aligned"],
            "--align is for raw",
        ),
        (
            ["--data", "csv", "--labels", "x", "--scores", "y", "--report", __file__],
            "is no report of pyfau evaluate",
        ),
    ],
)
def test_usage(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *options]) == 1
    assert message in capsys.readouterr().err
