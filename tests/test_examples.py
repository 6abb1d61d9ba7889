"""The examples run, on a clip and images made here."""

from __future__ import annotations

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from made import load, write_clip

from pyfau.demo import demo_frames, write_demo_clip

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_demo_clip(folder / "clip.mp4")
    (folder / "images").mkdir()
    for i, frame in enumerate(demo_frames()[::25]):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    (folder / "images" / "broken.jpg").write_bytes(b"not an image")
    return folder


def run(script: str, *arguments: str | Path) -> str:
    """What a script prints; it runs in this process, which has torch already."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return printed.getvalue()


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert {p.name for p in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize(
    "script", [p.name for p in sorted(EXAMPLES.glob("*.py")) if "argparse" in p.read_text("utf-8")]
)
def test_without_arguments_the_usage_is_shown(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(script)
    assert capsys.readouterr().err.startswith("usage:")


def test_score_video(inputs: Path, tmp_path: Path) -> None:
    out = run("score_video.py", inputs / "clip.mp4", tmp_path)
    assert "a face in 75 of 75 rows" in out
    assert (tmp_path / "scores.csv").read_text().count("\n") == 76
    assert (tmp_path / "overlay.mp4").stat().st_size > 10_000


def test_score_images(inputs: Path) -> None:
    out = run("score_images.py", inputs / "images")
    assert out.count(".png") == 3
    assert "could not read" in out
    assert "broken.jpg" in out


def test_stream_frames(inputs: Path) -> None:
    lines = run("stream_frames.py", inputs / "clip.mp4").splitlines()
    assert len(lines) == 8
    assert all("smile" in line for line in lines)


def test_network_tensors() -> None:
    out = run("network_tensors.py")
    assert "clip (1, 16, 20) inner (1, 10, 20)" in out


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two conditions of three people, all of them the portrait of the demo."""
    folder = tmp_path_factory.mktemp("recordings")
    frames = demo_frames()
    for i, person in enumerate(("p01", "p02", "p03")):
        write_clip(folder / f"{person}-film.mp4", frames[10 * i : 10 * i + 8])
        write_clip(folder / f"{person}-rest.mp4", frames[10 * i + 40 : 10 * i + 48])
    return folder


def test_score_folder(recordings: Path, tmp_path: Path) -> None:
    (recordings / "broken.mp4").write_bytes(b"not a video")
    out = run("score_folder.py", recordings, tmp_path)
    assert "skipped:" in out
    assert "broken.mp4" in out
    table = pd.read_csv(tmp_path / "summary.csv")
    assert table.recording.tolist() == sorted(p.name for p in recordings.glob("p*.mp4"))
    assert (table.face_share == 1).all()
    assert table.filter(like="_active_share").to_numpy().max() <= 1
    before = (tmp_path / "p01-film.mp4.csv").stat().st_mtime_ns
    run("score_folder.py", recordings, tmp_path)
    assert (tmp_path / "p01-film.mp4.csv").stat().st_mtime_ns == before, (
        "what is done is not scored again"
    )


def test_compare_conditions(recordings: Path) -> None:
    black = [np.zeros((64, 64, 3), np.uint8)] * 3
    faceless = [
        write_clip(recordings / f"p04-{condition}.mp4", black) for condition in ("film", "rest")
    ]
    out = run("compare_conditions.py", recordings, "film", "rest")
    for clip in faceless:
        assert f"left out, no face was found: {clip.stem}" in out
        clip.unlink()
    assert "film minus rest, over 3 people" in out
    assert "The least p that 3 people can give is 0.25." in out


def test_the_comparison_finds_what_is_there_and_nothing_else() -> None:
    compare = load(EXAMPLES / "compare_conditions.py").compare
    rng = np.random.default_rng(0)
    people, noise = 12, rng.normal(0, 0.05, (2, 12))
    person = [f"p{i}" for i in range(people)] * 2
    level = np.tile(np.linspace(0.2, 0.6, people), 2)  # people differ more than conditions do
    film = np.repeat([1.0, 0.0], people)
    table = pd.DataFrame({"person": person, "condition": np.where(film, "film", "rest")})
    table["AU12"] = level + 0.1 * film + noise.ravel()
    table["AU04"] = level + noise[::-1].ravel()
    result = compare(table, "film", "rest")
    difference = 0.1 + noise[0] - noise[1]
    assert result.difference["AU12"] == pytest.approx(difference.mean())
    assert result.cohens_d["AU12"] == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert result.p["AU12"] < 0.01
    assert result.p["AU04"] > 0.05
    assert result.p_holm["AU12"] == pytest.approx(2 * result.p["AU12"])
    assert result.p_holm["AU04"] == pytest.approx(max(result.p["AU04"], result.p_holm["AU12"]))


def test_sklearn_pipeline(recordings: Path) -> None:
    out = run("sklearn_pipeline.py", recordings)
    assert "of 6 clips" in out
    assert re.search(r"by person: p01 \d+%, p02 \d+%, p03 \d+%", out)
