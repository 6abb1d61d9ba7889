"""The command line, called in process where that shows the same as a process of its own."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from made import write_clip
from PIL import Image

from pyfau import AUResult, __version__, read_result
from pyfau.cli import main
from pyfau.demo import demo_frames
from pyfau.errors import OptionError
from pyfau.models.devices import resolve_device
from pyfau.types import MEASURES
from pyfau.weights.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = read_manifest()
LITE = MANIFEST["mdhr-lite"].record
AUS = [f"AU{number:02d}" for number in LITE["aus"]]
COLUMNS = ["frame", "time_s", "face_id", "success", "confidence", "x1", "y1", "x2", "y2", *AUS]
COLUMNS += [f"{au}_c" for au in AUS]
COLUMNS += [f"{au}_r" for au in AUS]
COLUMNS += MEASURES
FRAMES, FPS, SIZE = 5, 12.5, (320, 240)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before, opencv = torch.get_num_threads(), cv2.getNumThreads()
    # Two threads that share one core with other work are many times slower than one.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    cv2.setNumThreads(opencv)


@pytest.fixture(scope="session")
def portrait() -> list[np.ndarray]:
    """Frames with one face, RGB."""
    return [
        cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA) for frame in demo_frames()[:FRAMES]
    ]


@pytest.fixture(scope="session")
def clip_file(portrait: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", portrait, FPS)


@pytest.fixture
def clip(clip_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(clip_file, tmp_path / "clip.mp4"))


@pytest.fixture
def images(portrait: list[np.ndarray], tmp_path: Path) -> Path:
    """Names whose alphabetic order is not the natural one; frame k is p(k + 8)."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for k, frame in enumerate(portrait[:3]):
        Image.fromarray(frame).save(folder / f"p{k + 8}.png")
    return folder


def detect(*arguments: Any) -> int:
    return main(["detect", *map(str, arguments), "--quiet", "--threads", "1"])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sidecar(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def video_frames(path: Path) -> tuple[float, list[np.ndarray]]:
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened()
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        found, frame = capture.read()
        if not found:
            return rate, frames
        frames.append(frame)


def one_line(text: str) -> str:
    assert text.startswith("pyfau: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text


def environment(**more: str) -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OMP_"))
    }
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


def run_process(*arguments: Any, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyfau", *map(str, arguments)],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Tables


def test_a_video_becomes_a_table_and_its_metadata(clip: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new" / "folder" / "out.csv"
    assert detect(clip, "-o", out) == 0
    rows = table(out)
    assert list(rows[0]) == COLUMNS
    assert out.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    for row in rows:
        assert float(row["time_s"]) == pytest.approx(int(row["frame"]) / FPS, abs=1e-6)
        assert (row["success"], row["face_id"]) == ("1", "0")
        assert 0.6 <= float(row["confidence"]) <= 1
        assert -SIZE[0] < float(row["x1"]) < float(row["x2"]) < 2 * SIZE[0]
        assert -SIZE[1] < float(row["y1"]) < float(row["y2"]) < 2 * SIZE[1]
        assert all(0 <= float(row[au]) <= 1 for au in AUS)
    record = sidecar(out)
    assert record["complete"] is True
    assert record["pyfau_version"] == __version__
    assert (record["model"], record["model_sha256"]) == ("mdhr-lite", LITE["sha256"])
    assert (record["aligner"], record["window"]) == (LITE["aligner"], "continuous")
    assert record["fps"] == pytest.approx(FPS, abs=1e-9)
    assert record["source"] == str(clip)
    assert list(record["thresholds"]) == AUS
    for row in rows:
        for au in AUS:
            if abs(float(row[au]) - record["thresholds"][au]) > 2e-6:
                assert row[f"{au}_c"] == str(int(float(row[au]) >= record["thresholds"][au]))
    assert names_in(out.parent) == {"out.csv", "out.csv.json"}
    said = capsys.readouterr()
    assert said.out == f"{clip}: {FRAMES} rows, 1 face, {out}\n"
    assert said.err == ""


def test_parquet_holds_the_same_as_csv(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert detect(clip, "-o", tmp_path / "a.csv") == 0
    assert detect(clip, "-o", tmp_path / "b.parquet") == 0
    assert detect(clip, "-o", tmp_path / "out", "--format", "parquet") == 0
    assert names_in(tmp_path / "out") == {"clip.parquet"}
    text, binary = (
        AUResult.read_csv(tmp_path / "a.csv"),
        AUResult.read_parquet(tmp_path / "b.parquet"),
    )
    again = AUResult.read_parquet(tmp_path / "out" / "clip.parquet")
    assert len(text) == len(binary) == len(again) == FRAMES
    assert np.abs(text.scores - binary.scores).max() <= 1e-6
    assert np.array_equal(binary.scores, again.scores)
    assert binary.metadata["model_sha256"] == LITE["sha256"]


def test_several_inputs_give_a_table_each(
    clip: Path, images: Path, tmp_path: Path, capsys: Any
) -> None:
    other = Path(shutil.copy(clip, tmp_path / "other.mp4"))
    image = images / "p9.png"
    assert detect(clip, other, images, image, "-o", tmp_path / "out") == 0
    made = {"clip", "other", "walk", "p9"}
    assert names_in(tmp_path / "out") == {f"{n}.csv" for n in made} | {
        f"{n}.csv.json" for n in made
    }
    assert {n: len(table(tmp_path / "out" / f"{n}.csv")) for n in made} == {
        "clip": FRAMES,
        "other": FRAMES,
        "walk": 3,
        "p9": 1,
    }
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(p) for p in (clip, other, images, image)
    ]


def test_several_inputs_do_not_fit_into_one_file(clip: Path, tmp_path: Path, capsys: Any) -> None:
    other = Path(shutil.copy(clip, tmp_path / "other.mp4"))
    assert detect(clip, other, "-o", tmp_path / "out.csv") == 1
    assert "2 inputs need a folder as --output" in one_line(capsys.readouterr().err)
    assert detect(clip, other, "-o", tmp_path / "out", "--overlay", tmp_path / "o.mp4") == 1
    assert "2 inputs need a folder as --overlay" in one_line(capsys.readouterr().err)
    assert names_in(tmp_path) == {"clip.mp4", "other.mp4"}


def test_a_glob_is_as_many_inputs_in_natural_order(clip: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("take10.mp4", "take9.mp4", "note.txt", "[a].mp4"):
        shutil.copy(clip, tmp_path / name)
    assert detect(tmp_path / "take*.mp4", "-o", tmp_path / "out") == 0
    done = [Path(line.split(":")[0]).name for line in capsys.readouterr().out.splitlines()]
    assert done == ["take9.mp4", "take10.mp4"]
    # A file of that very name comes first.
    assert detect(tmp_path / "[a].mp4", "-o", tmp_path / "a.csv") == 0
    assert detect(tmp_path / "none*.mp4", "-o", tmp_path / "none.csv") == 1
    assert "none*.mp4" in one_line(capsys.readouterr().err)


def test_a_folder_of_videos_is_as_many_inputs(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "takes"
    folder.mkdir()
    for name in ("two.mp4", "one.MP4", ".hidden.mp4"):
        shutil.copy(clip, folder / name)
    (folder / "README.txt").write_text("not an input")
    assert detect(folder, "-o", tmp_path / "out") == 0
    assert {n for n in names_in(tmp_path / "out") if n.endswith(".csv")} == {"one.csv", "two.csv"}


def test_a_folder_of_images_is_one_sequence_in_natural_order(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert detect(images, "-o", out) == 0
    rows = table(out)
    assert list(rows[0]) == [*COLUMNS, "file"]
    assert [Path(row["file"]).name for row in rows] == ["p8.png", "p9.png", "p10.png"]
    assert [row["frame"] for row in rows] == ["0", "1", "2"]
    assert {row["time_s"] for row in rows} == {""}
    assert {row["face_id"] for row in rows} == {"0"}
    assert sidecar(out)["independent"] is False
    assert detect(images, "-o", out, "--fps", "10") == 0
    assert [float(row["time_s"]) for row in table(out)] == pytest.approx([0, 0.1, 0.2])


def test_independent_images_do_not_know_of_each_other(images: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out.csv", tmp_path / "alone.csv"
    assert detect(images, "-o", out, "--independent") == 0
    rows = table(out)
    assert sorted(row["face_id"] for row in rows) == ["0", "1", "2"]
    assert detect(images / "p9.png", "-o", alone) == 0
    for column in [*COLUMNS[4:]]:
        rounding = 2e-4 if column in MEASURES else 2e-5
        value = float(table(alone)[0][column])
        assert float(rows[1][column]) == pytest.approx(value, abs=rounding), column


def test_a_folder_of_videos_and_images_is_both(images: Path, clip: Path, tmp_path: Path) -> None:
    shutil.move(clip, images / "clip.mp4")
    assert detect(images, "-o", tmp_path / "out") == 0
    assert {n for n in names_in(tmp_path / "out") if n.endswith(".csv")} == {"walk.csv", "clip.csv"}
    assert len(table(tmp_path / "out" / "walk.csv")) == 3


def test_inputs_of_the_same_name_get_tables_of_their_own(
    portrait: list[np.ndarray], tmp_path: Path
) -> None:
    first, second = (
        write_clip(tmp_path / "a/clip.mp4", portrait),
        write_clip(tmp_path / "b/clip.mp4", portrait[:2]),
    )
    third, fourth = (
        write_clip(tmp_path / "b/clip.avi", portrait[:3]),
        write_clip(tmp_path / "c/clip.mp4", portrait[:1]),
    )
    assert detect(first, second, third, fourth, first, "-o", tmp_path / "out") == 0
    tables = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".csv"]
    assert sorted(len(table(path)) for path in tables) == [
        1,
        2,
        3,
        FRAMES,
    ]  # the input given twice is done once
    assert {sidecar(path)["source"] for path in tables} == {
        str(path) for path in (first, second, third, fourth)
    }


def test_a_progress_bar_on_request(clip: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["detect", str(clip), "-o", str(tmp_path / "out.csv"), "--threads", "1"]) == 0
    assert re.search(rf"clip\.mp4: 100%.*{FRAMES}/{FRAMES} \[.*frame/s", capsys.readouterr().err)


# Going on after failures


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_json_lines_as_csv(clip: Path, tmp_path: Path, capsys: Any, jobs: int) -> None:
    other, out = Path(shutil.copy(clip, tmp_path / "other.mp4")), tmp_path / "out"
    arguments = (clip, other, "-o", out, "--format", "jsonl", "--jobs", str(jobs))
    assert detect(*arguments) == 0
    assert names_in(out) == {"clip.jsonl", "clip.jsonl.json", "other.jsonl", "other.jsonl.json"}
    assert detect(clip, "-o", tmp_path / "clip.csv") == 0
    text, lines = AUResult.read_csv(tmp_path / "clip.csv"), read_result(out / "clip.jsonl")
    assert text.to_dataframe().equals(lines.to_dataframe())
    assert text.metadata == lines.metadata
    record = sidecar(out / "other.jsonl")
    (out / "other.jsonl.json").write_text(json.dumps(record | {"complete": False}))
    capsys.readouterr()
    assert detect(*arguments, "--resume") == 0
    said = sorted(capsys.readouterr().out.splitlines())
    assert said[0] == f"{clip}: done already, {out / 'clip.jsonl'}"
    assert said[1].startswith(f"{other}: {FRAMES} rows")
    assert sidecar(out / "other.jsonl") == record


def test_resume_skips_what_is_complete_and_redoes_the_rest(
    clip: Path, tmp_path: Path, capsys: Any
) -> None:
    other, third = (Path(shutil.copy(clip, tmp_path / name)) for name in ("other.mp4", "third.mp4"))
    out = tmp_path / "out"
    assert detect(clip, other, "-o", out) == 0
    before = (out / "clip.csv").stat().st_mtime_ns
    record = sidecar(out / "other.csv")
    (out / "other.csv").write_text((out / "other.csv").read_text()[:900])  # as a crash leaves it
    (out / "other.csv.json").write_text(json.dumps(record | {"complete": False}))
    capsys.readouterr()
    assert detect(clip, other, third, "-o", out, "--resume") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{clip}: done already, {out / 'clip.csv'}"
    assert [line.split(":")[0] for line in lines[1:]] == [str(other), str(third)]
    assert (out / "clip.csv").stat().st_mtime_ns == before
    assert len(table(out / "other.csv")) == len(table(out / "third.csv")) == FRAMES
    assert sidecar(out / "other.csv")["complete"] is True
    (out / "third.csv.json").unlink()  # a table that nobody vouches for
    assert detect(third, "-o", out, "--resume") == 0
    assert "done already" not in capsys.readouterr().out
    assert detect(clip, "-o", out) == 0  # without --resume it is done again
    assert (out / "clip.csv").stat().st_mtime_ns > before


def test_resume_does_again_what_was_done_in_another_way(
    clip: Path, tmp_path: Path, capsys: Any
) -> None:
    out, overlays = tmp_path / "out", tmp_path / "overlays"

    def skipped(*options: Any) -> bool:
        capsys.readouterr()
        assert detect(clip, "-o", out, "--resume", *options) == 0
        return "done already" in capsys.readouterr().out

    assert not skipped()
    assert skipped()
    assert (
        main(["table", str(out / "clip.csv"), "-o", str(out / "copy.csv"), "--baseline", "0.1"])
        == 0
    )
    for suffix in (".csv", ".csv.json"):
        (out / f"copy{suffix}").replace(out / f"clip{suffix}")
    assert not skipped(), "adjusted scores are not what was asked for"
    assert not skipped("--baseline", "auto")
    assert skipped("--baseline", "auto")
    assert not skipped("--threshold", "0.9")
    assert skipped("--threshold", "0.9")
    assert not skipped("--window", "clips")
    # The overlay is still to be made.
    assert not skipped("--window", "clips", "--overlay", overlays)
    assert skipped("--window", "clips", "--overlay", overlays)
    os.utime(clip, ns=(0, 0))  # another recording under the same name
    assert not skipped("--window", "clips")


def test_resume_notices_a_image_and_an_overlay_that_changed(
    images: Path, tmp_path: Path, capsys: Any
) -> None:
    out, overlay = tmp_path / "out.csv", tmp_path / "overlay.mp4"

    def skipped() -> bool:
        capsys.readouterr()
        assert detect(images, "-o", out, "--overlay", overlay, "--resume") == 0
        return "done already" in capsys.readouterr().out

    assert not skipped()
    assert skipped()
    image = min(images.iterdir())
    os.utime(image, ns=(0, 0))  # as an edit in place
    assert not skipped()
    assert skipped()
    overlay.write_bytes(overlay.read_bytes()[:1000])
    assert not skipped()
    assert skipped()


def test_a_table_is_complete_only_if_its_overlay_is(
    clip: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(self: Any) -> None:
        raise OptionError("cannot write the overlay: is the disk full?")

    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr("pyfau.outputs.OverlayWriter.close", close)
        assert detect(clip, "-o", out, "--overlay", tmp_path / "o.mp4") == 1
    assert "disk full" in one_line(capsys.readouterr().err)
    assert sidecar(out)["complete"] is False
    assert len(table(out)) == FRAMES


def test_a_file_in_an_overlay_folder_that_is_not_ours_is_kept(
    clip: Path, tmp_path: Path, capsys: Any
) -> None:
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    (overlays / "clip.mp4").write_bytes(b"somebody's recording")
    assert detect(clip, "-o", tmp_path / "out", "--overlay", overlays) == 1
    assert str(overlays / "clip.mp4") in one_line(capsys.readouterr().err)
    assert (overlays / "clip.mp4").read_bytes() == b"somebody's recording"
    (overlays / "clip.mp4").unlink()
    for _ in range(2):  # its own it may replace
        assert detect(clip, "-o", tmp_path / "out", "--overlay", overlays) == 0


def test_one_file_by_several_paths_is_one_input(clip: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    out = tmp_path / "out"
    assert (
        detect(clip, tmp_path / "link" / clip.name, tmp_path / "out" / ".." / clip.name, "-o", out)
        == 0
    )
    assert {path.name for path in out.glob("*.csv")} == {"clip.csv"}
    capsys.readouterr()
    assert detect(tmp_path / "link" / clip.name, "-o", out, "--resume") == 0
    assert "done already" in capsys.readouterr().out


def test_resume_tries_failures_again(images: Path, tmp_path: Path, capsys: Any) -> None:
    (images / "broken.jpg").write_bytes(b"no image")
    for _ in range(2):
        assert detect(images, "-o", tmp_path / "out", "--resume") == 1
        assert "broken.jpg" in capsys.readouterr().err
    (images / "broken.jpg").unlink()
    assert detect(images, "-o", tmp_path / "out", "--resume") == 0
    assert detect(images, "-o", tmp_path / "out", "--resume") == 0
    assert "done already" in capsys.readouterr().out


def test_a_finished_table_of_another_input_is_not_replaced(
    clip: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "b").mkdir()
    other = Path(shutil.copy(clip, tmp_path / "b" / clip.name))
    out = tmp_path / "out"
    assert detect(clip, "-o", out) == 0
    before = (out / "clip.csv").read_bytes()
    for options in ((), ("--resume",)):
        capsys.readouterr()
        assert detect(other, "-o", out, *options) == 1
        assert f"is the table of {clip}" in capsys.readouterr().err
        assert (out / "clip.csv").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "o.csv", "--seconds", "3"],
        ["-o", "o.csv", "--format", "parquet"],
        ["-o", "o.txt"],
        ["-o", "o.csv", "--revision", "main"],
        ["-o", "o.csv", "--aligner-option", "foo=1"],
        ["-o", "o.csv", "--aligner-option", "min_face"],
        ["-o", "o.csv", "--aligner-option", "min_face=small"],
    ],
)
def test_options_that_do_not_apply_are_refused(
    clip: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = names_in(tmp_path)
    assert detect(clip, *options) == 1
    assert one_line(capsys.readouterr().err).startswith("pyfau: ")
    assert names_in(tmp_path) == before


def test_aligner_options(clip: Path, tmp_path: Path) -> None:
    assert detect(clip, "-o", tmp_path / "o.csv", "--aligner-option", "min_face=60") == 0
    assert sidecar(tmp_path / "o.csv")["aligner_options"] == {"min_face": 60}


def test_a_bad_input_does_not_stop_the_others(clip: Path, tmp_path: Path, capsys: Any) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video\n" * 20)
    last = Path(shutil.copy(clip, tmp_path / "last.mp4"))
    out = tmp_path / "out"
    assert detect(clip, bad, tmp_path / "gone.mp4", last, "-o", out) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 2
    assert str(bad) in said.err.splitlines()[0]
    assert "not a video" in said.err.splitlines()[0]
    assert str(tmp_path / "gone.mp4") in said.err.splitlines()[1]
    assert "no such file" in said.err.splitlines()[1]
    assert len(said.out.splitlines()) == 2
    assert len(table(out / "clip.csv")) == len(table(out / "last.csv")) == FRAMES
    assert not (out / "bad.csv").exists()
    assert detect(clip, bad, last, "-o", out, "--resume") == 1  # the failed one is tried again


def test_a_bad_image_in_a_folder_is_reported(images: Path, tmp_path: Path, capsys: Any) -> None:
    torn = images / "p9.png"
    torn.write_bytes(torn.read_bytes()[:500])
    out = tmp_path / "out.csv"
    assert detect(images, "-o", out) == 1
    said = capsys.readouterr()
    assert str(torn) in one_line(said.err)
    assert f"{images}: 2 rows" in said.out
    assert [(row["frame"], Path(row["file"]).name) for row in table(out)] == [
        ("0", "p8.png"),
        ("2", "p10.png"),
    ]
    assert [failure["source"] for failure in sidecar(out)["failures"]] == [str(torn)]


def test_a_folder_without_anything_to_score_is_an_error(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    assert detect(folder, "-o", tmp_path / "out.csv") == 1
    assert str(folder) in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out.csv").exists()


def test_what_was_scored_before_a_failure_is_kept(
    clip: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(self: Any, rgb: np.ndarray, rows: Any, time_s: float) -> None:
        written.append(rows)
        if len(written) == 3:
            raise OptionError("cannot write overlay.mp4: the disk is full")

    monkeypatch.setattr("pyfau.outputs.OverlayWriter.write", write)
    other = Path(shutil.copy(clip, tmp_path / "other.mp4"))
    out = tmp_path / "out"
    assert detect(clip, other, "-o", out, "--overlay", tmp_path / "overlays") == 1
    kept = len(table(out / "clip.csv"))
    assert kept in (2, 3)
    assert sidecar(out / "clip.csv")["complete"] is False
    said = one_line(capsys.readouterr().err)
    assert f"the disk is full ({kept} rows before it are kept in {out / 'clip.csv'})" in said
    assert len(table(out / "other.csv")) == FRAMES
    assert sidecar(out / "other.csv")["complete"] is True


# Overlays


def test_an_overlay_file_shows_every_frame(clip: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "new" / "overlay.mp4"
    assert detect(clip, "-o", tmp_path / "out.csv", "--overlay", overlay, "--threshold", "0") == 0
    rate, frames = video_frames(overlay)
    assert rate == pytest.approx(FPS, abs=1e-3)
    _, plain = video_frames(clip)
    assert [frame.shape for frame in frames] == [frame.shape for frame in plain]
    for drawn, frame, row in zip(frames, plain, table(tmp_path / "out.csv"), strict=True):
        change = np.abs(drawn.astype(int) - frame).max(axis=2)
        x1, y1, x2, y2 = (round(float(row[name])) for name in ("x1", "y1", "x2", "y2"))
        assert np.median(change[max(y1, 0) : y2, x1 - 1 : x1 + 2]) > 25  # the left side of the box
        # Not the forehead.
        assert np.median(change[y1 + (y2 - y1) // 4 : y1 + (y2 - y1) // 3, x1 + 8 : x2 - 8]) < 25


def test_overlays_of_several_inputs_go_into_a_folder(
    clip: Path, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "overlays"
    assert detect(clip, images, "-o", tmp_path / "out", "--overlay", folder, "--fps", "5") == 0
    assert names_in(folder) == {"clip.mp4", "walk.mp4"}
    rate, frames = video_frames(folder / "clip.mp4")
    assert (rate, len(frames)) == (pytest.approx(FPS, abs=1e-3), FRAMES)
    rate, frames = video_frames(folder / "walk.mp4")
    assert (rate, len(frames)) == (pytest.approx(5, abs=1e-3), 3)


def test_the_overlay_of_a_image_is_a_image(images: Path, clip: Path, tmp_path: Path) -> None:
    image = images / "p9.png"
    assert detect(image, "-o", tmp_path / "out.csv", "--overlay", tmp_path / "drawn.jpg") == 0
    assert cv2.imread(str(tmp_path / "drawn.jpg")).shape == (SIZE[1], SIZE[0], 3)
    assert detect(image, clip, "-o", tmp_path / "out", "--overlay", tmp_path / "overlays") == 0
    assert names_in(tmp_path / "overlays") == {"p9.png", "clip.mp4"}
    drawn = cv2.imread(str(tmp_path / "overlays" / "p9.png"))
    assert drawn.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(drawn.astype(int) - cv2.imread(str(image))).max() > 100


# Options


def test_one_threshold_for_all(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert detect(clip, "-o", out, "--threshold", "0.4") == 0
    assert sidecar(out)["thresholds"] == dict.fromkeys(AUS, 0.4)
    for row in table(out):
        for au in AUS:
            if abs(float(row[au]) - 0.4) > 2e-6:
                assert row[f"{au}_c"] == str(int(float(row[au]) >= 0.4))
    assert detect(clip, "-o", out, "--threshold", "0") == 0
    assert {row[f"{au}_c"] for row in table(out) for au in AUS} == {"1"}


def test_a_threshold_of_one_unit_leaves_the_others(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert detect(clip, "-o", out) == 0
    own, rows = sidecar(out)["thresholds"], table(out)
    assert detect(clip, "-o", out, "--threshold", "AU12=0", "--threshold", "AU06 = 0.4") == 0
    assert sidecar(out)["thresholds"] == own | {"AU12": 0.0, "AU06": 0.4}
    for row, before in zip(table(out), rows, strict=True):
        assert row["AU12_c"] == "1"
        assert {au: row[f"{au}_c"] for au in AUS if au not in ("AU06", "AU12")} == {
            au: before[f"{au}_c"] for au in AUS if au not in ("AU06", "AU12")
        }


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (["often"], "takes a number or AU=NUMBER (AU12=0.4), got often"),
        (["AU12="], "got AU12="),
        (["AU12=high"], "got AU12=high"),
        (["AU12=0.4", "0.5"], "got AU12=0.4 0.5"),
        (["AU99=0.4"], "'AU99': the model scores AU01"),
        (["=0.4"], "the model scores AU01"),
        (["1.5"], "must be a number in [0, 1], got 1.5"),
        (["-0.1"], "must be a number in [0, 1], got -0.1"),
        (["nan"], "must be a number in [0, 1], got nan"),
        (["AU12=0.4", "AU15=inf"], "threshold of AU15 must be a number in [0, 1], got inf"),
    ],
)
def test_nonsense_thresholds(
    clip: Path, tmp_path: Path, capsys: Any, thresholds: list[str], message: str
) -> None:
    options = [f"--threshold={text}" for text in thresholds]
    assert detect(clip, "-o", tmp_path / "out.csv", *options) == 1
    assert message in one_line(capsys.readouterr().err)
    assert names_in(tmp_path) == {"clip.mp4"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "mdhr-resnet", "unknown model 'mdhr-resnet': did you mean mdhr-resnet50-"),
        ("--model", "mdhr-swinb-disfa-fold2", "best_model_fold2.pth"),
        ("--model", "missing.pth", "unknown model 'missing.pth'"),
        (
            "--aligner",
            "haar",
            "unknown aligner 'haar': expected one of auto, mtcnn, fan, mediapipe, aligned",
        ),
        ("--device", "abacus", "unknown device 'abacus': expected auto, cpu, cuda, cuda:N, mps"),
        ("--device", "cuda:99", "'cuda:99' is not available"),
        ("--window", "sliding", "unknown window 'sliding': expected one of continuous, clips"),
        ("--batch-size", "0", "batch_size must be a whole number of at least 1, got 0"),
        ("--detect-every", "0", "detect_every must be a whole number of at least 1, got 0"),
        ("--max-faces", "0", "max_faces must be a whole number of at least 1, got 0"),
        ("--max-gap", "-1", "max_gap must be a whole number of at least 0, got -1"),
    ],
)
def test_values_that_options_do_not_take(
    clip: Path, tmp_path: Path, capsys: Any, option: str, value: str, message: str
) -> None:
    assert detect(clip, "-o", tmp_path / "out.csv", f"{option}={value}") == 1
    assert message in one_line(capsys.readouterr().err)
    assert names_in(tmp_path) == {"clip.mp4"}


def test_threads_must_be_positive_and_are_set(clip: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["detect", str(clip), "-o", str(tmp_path / "out.csv"), "--quiet", "--threads"]
    assert main([*command, "0"]) == 1
    assert "--threads must be at least 1, got 0" in one_line(capsys.readouterr().err)
    torch.set_num_threads(2)
    assert main([*command, "1"]) == 0
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)


def test_fps_of_images_must_be_a_rate(images: Path, tmp_path: Path, capsys: Any) -> None:
    for rate in ("0", "-1", "nan", "inf"):
        assert detect(images, "-o", tmp_path / "out.csv", f"--fps={rate}") == 1
        assert "fps: expected a finite number above 0" in one_line(capsys.readouterr().err)


def test_windows_aligners_and_batches_can_be_chosen(images: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out.csv", tmp_path / "again.csv"
    assert (
        detect(
            images, "-o", out, "--window", "clips", "--aligner", "aligned", "--detect-every", "2"
        )
        == 0
    )
    record = sidecar(out)
    assert (record["window"], record["aligner"], record["detect_every"]) == ("clips", "aligned", 2)
    height = SIZE[1]
    for row in table(out):
        assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == [
            40,
            0,
            40 + height,
            height,
        ]
    assert (
        detect(
            images, "-o", again, "--window", "clips", "--aligner", "aligned", "--batch-size", "1"
        )
        == 0
    )
    for one, other in zip(table(out), table(again), strict=True):
        assert all(math.isclose(float(one[au]), float(other[au]), abs_tol=2e-5) for au in AUS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["score"],
        ["detect"],
        ["detect", "clip.mp4"],
        ["detect", "-o", "out.csv"],
        ["detect", "clip.mp4", "-o", "out.csv", "--format", "xlsx"],
        ["detect", "clip.mp4", "-o", "out.csv", "--batch-size", "many"],
        ["detect", "clip.mp4", "-o", "out.csv", "--nonsense"],
        ["models", "extra"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: pyfau")
    assert "error:" in said.err.splitlines()[-1]


# Where nothing can be written


@pytest.mark.parametrize("target", ["file/out.csv", "file", "file/deep/out.parquet"])
def test_a_table_that_cannot_be_written(
    clip: Path, tmp_path: Path, capsys: Any, target: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert detect(clip, "-o", tmp_path / target) == 1
    said = capsys.readouterr().err
    assert "cannot write" in one_line(said)
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(clip: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out.csv").symlink_to("/dev/full")
    assert detect(clip, "-o", tmp_path / "out.csv") == 1
    said = one_line(capsys.readouterr().err)
    assert "cannot write" in said
    assert str(tmp_path / "out.csv") in said
    assert sidecar(tmp_path / "out.csv")["complete"] is False


def test_an_overlay_that_cannot_be_written(clip: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    for overlay, reason in (
        ("file/o.mp4", "cannot write"),
        ("o.txt", "overlay video is written as .mp4"),
    ):
        assert detect(clip, "-o", tmp_path / "out.csv", "--overlay", tmp_path / overlay) == 1
        said = one_line(capsys.readouterr().err)
        assert reason in said
        assert str(tmp_path / overlay) in said
        assert not (tmp_path / "out.csv").exists()
    assert detect(clip, "-o", tmp_path / "out.csv") == 0
    before = (tmp_path / "out.csv").read_bytes()
    assert detect(clip, "-o", tmp_path / "out.csv", "--overlay", tmp_path / "o.txt") == 1
    assert (tmp_path / "out.csv").read_bytes() == before  # the table that was there does not suffer


@pytest.mark.parametrize("single", [True, False])
def test_an_overlay_never_replaces_an_input(
    clip: Path, tmp_path: Path, capsys: Any, single: bool
) -> None:
    before = clip.read_bytes()
    out, overlay = (tmp_path / "out.csv", clip) if single else (tmp_path, tmp_path)
    status = detect(clip, "-o", out, "--overlay", overlay)
    assert clip.read_bytes() == before
    assert status == 1
    assert str(clip) in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("single", [True, False])
def test_an_overlay_never_replaces_a_image(
    images: Path, tmp_path: Path, capsys: Any, single: bool
) -> None:
    image = images / "p9.png"
    before = image.read_bytes()
    status = detect(image, "-o", tmp_path / "out.csv", "--overlay", image if single else images)
    assert image.read_bytes() == before
    assert status == 1
    assert str(image) in one_line(capsys.readouterr().err)


def test_an_overlay_never_replaces_another_input(
    portrait: list[np.ndarray], tmp_path: Path
) -> None:
    first, second = (
        write_clip(tmp_path / "a/clip.mp4", portrait),
        write_clip(tmp_path / "b/clip.mp4", portrait[:2]),
    )
    before = second.read_bytes()
    detect(first, second, "-o", tmp_path / "out", "--overlay", tmp_path / "b")
    assert second.read_bytes() == before


def test_resume_does_not_take_another_inputs_table(
    portrait: list[np.ndarray], tmp_path: Path, capsys: Any
) -> None:
    first, second = (
        write_clip(tmp_path / "a/clip.mp4", portrait),
        write_clip(tmp_path / "b/clip.mp4", portrait[:2]),
    )
    assert detect(first, "-o", tmp_path / "out") == 0
    capsys.readouterr()
    detect(second, "-o", tmp_path / "out", "--resume")
    assert f"{second}: done already" not in capsys.readouterr().out


# Cameras


@pytest.mark.parametrize("name", ["97", "camera:97"])
def test_a_camera_that_does_not_exist(name: str, tmp_path: Path, capsys: Any) -> None:
    assert detect(name, "-o", tmp_path / "out.csv", "--seconds", "1") == 1
    assert "camera 97 could not be opened" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out.csv").exists()


def test_a_camera_is_named_by_its_number(tmp_path: Path, capsys: Any) -> None:
    assert detect("camera:front", "-o", tmp_path / "out.csv") == 1
    assert "camera:NUMBER, got 'camera:front'" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["²", "99999999999"])
def test_a_camera_number_that_is_none(name: str, tmp_path: Path, capsys: Any) -> None:
    assert detect(name, "-o", tmp_path / "out.csv") == 1
    assert name in one_line(capsys.readouterr().err)


class Camera:
    """Stands in for cv2.VideoCapture of a camera: frames without end, or one Ctrl-C."""

    def __init__(self, frames: list[np.ndarray], interrupt_at: int | None = None) -> None:
        self.frames, self.interrupt_at, self.count = frames, interrupt_at, 0

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray]:
        self.count += 1
        if self.count == self.interrupt_at:
            raise KeyboardInterrupt
        return True, self.frames[self.count % len(self.frames)]

    def release(self) -> None:
        pass


class Clock:
    """Stands in for the module time: every look at it takes a sixteenth of a second."""

    def __init__(self) -> None:
        self.now = 5.0

    def monotonic(self) -> float:
        self.now += 0.0625
        return self.now


def test_a_camera_stops_after_some_seconds(
    portrait: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyfau.media.readers.cv2.VideoCapture", lambda index: Camera(portrait))
    monkeypatch.setattr("pyfau.media.readers.time", Clock())
    out = tmp_path / "out.csv"
    assert detect("0", "-o", out, "--seconds", "0.25") == 0
    assert [float(row["time_s"]) for row in table(out)] == [0, 0.0625, 0.125, 0.1875, 0.25]
    assert sidecar(out)["complete"] is True
    assert sidecar(out)["source"] == "camera 0"


def test_ctrl_c_ends_a_camera_in_good_order(
    portrait: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pyfau.media.readers.cv2.VideoCapture", lambda index: Camera(portrait, interrupt_at=30)
    )
    out = tmp_path / "out.csv"
    assert detect("0", "-o", out) == 0
    frames = [int(row["frame"]) for row in table(out)]
    assert frames == list(range(len(frames)))
    assert 29 - 7 - 3 <= len(frames) <= 29  # a score is 7 frames late, and reading is ahead
    assert sidecar(out)["complete"] is True


# The other commands


def test_models_lists_the_manifest(capsys: Any) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split()[1] for line in lines[: len(MANIFEST)]}
    assert listed == {name: entry.status for name, entry in MANIFEST.items()}
    assert lines[0].split() == [
        "mdhr-lite",
        "bundled",
        "small",
        "on",
        "pyfau-lite,",
        str(len(AUS)),
        "AUs,",
        "aligner",
        LITE["aligner"],
    ]


def test_models_as_json_is_the_whole_manifest(capsys: Any) -> None:
    assert main(["models", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (
        printed
        == json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))["models"]
    )


def test_info_names_versions_devices_and_folders(capsys: Any) -> None:
    assert main(["info"]) == 0
    said = {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}
    assert said["pyfau"] == __version__
    assert said["torch"] == torch.__version__
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    assert said["numpy"] == np.__version__
    assert said["device auto"] == resolve_device("auto").type
    assert Path(said["hub cache"]).name == "hub"
    assert {
        "opencv-python",
        "face-alignment",
        "huggingface-hub",
        "cuda devices",
        "mps",
        "platform",
    } <= said.keys()


def test_demo_needs_no_network(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = tmp_path / "demo"
    assert main(["demo", "-o", str(folder), "--quiet", "--threads", "1"]) == 0
    assert names_in(folder) == {"demo.mp4", "demo.csv", "demo.csv.json", "demo-overlay.mp4"}
    rows = table(folder / "demo.csv")
    assert sorted({int(row["frame"]) for row in rows}) == list(range(75))
    assert {row["success"] for row in rows} == {"1"}
    for name in ("demo.mp4", "demo-overlay.mp4"):
        rate, frames = video_frames(folder / name)
        assert (rate, len(frames), frames[0].shape) == (pytest.approx(25), 75, (480, 640, 3))
    printed = capsys.readouterr().out
    assert f"{len(rows)} rows with mdhr-lite on " in printed
    strongest = re.findall(r"^  (AU\d\d)  ([01]\.\d\d)  \S.*$", printed, re.MULTILINE)
    assert len(strongest) == 5
    means = {au: np.mean([float(row[au]) for row in rows]) for au in AUS}
    assert [au for au, _ in strongest] == sorted(AUS, key=lambda au: -means[au])[:5]
    for au, score in strongest:
        assert float(score) == pytest.approx(means[au], abs=0.006)
    assert str(folder / "demo.csv") in printed
    assert str(folder / "demo-overlay.mp4") in printed


def test_demo_where_nothing_can_be_written(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", "-o", str(tmp_path / "file"), "--quiet"]) == 1
    assert str(tmp_path / "file") in one_line(capsys.readouterr().err)


# In a process of its own


def test_the_version_and_the_models_come_without_torch() -> None:
    done = run_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pyfau {__version__}\n", "")
    code = (
        "import sys, pyfau.cli as c; c.main(['models']); "
        "sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "mdhr-lite" in done.stdout


def test_an_error_in_a_process_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run_process("detect", tmp_path / "gone.mp4", "-o", tmp_path / "out.csv", "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{tmp_path / 'gone.mp4'}: no such file" in one_line(done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize(
    ("name", "status", "suffix"),
    [
        ("SIGINT", 130, ".csv"),
        ("SIGTERM", 143, ".csv"),
        pytest.param("SIGINT", 130, ".jsonl", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_keeps_a_valid_table_that_resume_redoes(
    portrait: list[np.ndarray], tmp_path: Path, capsys: Any, name: str, status: int, suffix: str
) -> None:
    total = 1500
    clip = write_clip(tmp_path / "long.mp4", [portrait[k % FRAMES] for k in range(total)])
    out = tmp_path / f"long{suffix}"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pyfau",
            "detect",
            clip,
            "-o",
            out,
            "--batch-size",
            "1",
            "--threads",
            "1",
            "--quiet",
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells make background jobs ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") > 20:
                process.send_signal(getattr(signal, name))
                break
            time.sleep(0.02)
        said, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said) == (status, "")
    if name == "SIGINT":
        assert "interrupted; the rows written so far are kept" in one_line(complaint)
    else:
        assert complaint == ""
    text = out.read_text(encoding="utf-8")
    assert text.endswith("\n")
    if suffix == ".csv":
        assert {line.count(",") for line in text.splitlines()} == {len(COLUMNS) - 1}
        rows = table(out)
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert 20 <= len(rows) < total
    assert [int(row["frame"]) for row in rows] == list(range(len(rows)))
    assert all(0 <= float(row[au]) <= 1 for row in rows for au in AUS)
    assert sidecar(out)["complete"] is False
    assert "incomplete" in " ".join(read_result(out).warnings)
    write_clip(clip, portrait)  # a short one, for the time's sake
    assert detect(clip, "-o", out, "--resume") == 0
    assert "done already" not in capsys.readouterr().out
    assert len(read_result(out)) == FRAMES
    assert sidecar(out)["complete"] is True


@pytest.mark.skipif(os.name != "posix", reason="pipes are closed differently")
def test_a_reader_that_goes_away_is_no_drama() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pyfau", "models"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) in (0, 1)
    complaint = process.stderr.read()
    process.stderr.close()
    assert complaint == ""


@pytest.mark.parametrize(
    ("name", "encoding"), [(b"caf\xc3\xa9.png", "ascii"), (b"caf\xe9.png", "utf-8")]
)
@pytest.mark.skipif(
    sys.platform != "linux", reason="needs a file system that takes any bytes as names"
)
def test_names_that_the_terminal_cannot_show(
    portrait: list[np.ndarray], tmp_path: Path, name: bytes, encoding: str
) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    Image.fromarray(portrait[0]).save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", path)  # noqa: PTH104 - a name in bytes
    done = subprocess.run(
        [sys.executable, "-m", "pyfau", "detect", path, "-o", tmp_path / "out.csv", "--quiet"],
        env=environment(PYTHONIOENCODING=f"{encoding}:strict"),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"1 rows, 1 face" in done.stdout


@pytest.mark.parametrize("which", ["input", "output", "model"])
def test_names_that_are_too_long(clip: Path, tmp_path: Path, capsys: Any, which: str) -> None:
    long = "n" * 300
    values: dict[str, Any] = {"input": clip, "output": tmp_path / "out.csv", "model": "mdhr-lite"}
    values[which] = {
        "input": f"{long}.mp4",
        "output": tmp_path / f"{long}.csv",
        "model": f"{long}.pth",
    }[which]
    assert detect(values["input"], "-o", values["output"], "--model", values["model"]) == 1
    assert long in one_line(capsys.readouterr().err)
