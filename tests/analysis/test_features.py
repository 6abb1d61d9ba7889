"""`pyfau summary` and `pyfau.analysis.features`: many tables to one row per video and face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyfau import AUResult, AURow, InputError, OptionError
from pyfau.analysis.features import find_tables, summarize_tables
from pyfau.cli import main

AUS = ("AU01", "AU12")
NAN4, NAN52 = np.full(4, np.nan, np.float32), np.full((5, 2), np.nan, np.float32)


def result(faces: list[list[int]], source: str = "clip.mp4", **metadata: Any) -> AUResult:
    """Frames with the faces of these ids; face i scores AU12 with 0.2 (i + 1)."""
    record = {"source": source, "fps": 10.0, "model": "lite", "model_sha256": "ab" * 32}
    record["thresholds"] = {"AU01": 0.5, "AU12": 0.5}
    made = AUResult(AUS, record | metadata)
    for frame, ids in enumerate(faces):
        for i in ids:
            scores = np.array([0.6, 0.2 * (i + 1)], np.float32)
            place = (frame, frame / 10, i, True, 0.9, NAN4, NAN52)
            made.append(AURow(*place, scores, scores >= 0.5, AUS))
        if not ids:
            nothing = np.full(2, np.nan, np.float32)
            place = (frame, frame / 10, None, False, 0.0, NAN4, NAN52)
            made.append(AURow(*place, nothing, np.zeros(2, bool), AUS))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tables of three kinds; clip2 has two faces, clip10 has none in some frames."""
    made = tmp_path / "scores"
    result([[0], [0], []], "clip10.mp4").to_csv(made / "clip10.csv")
    result([[0, 1], [0, 1]], "clip2.mp4").to_jsonl(made / "clip2.jsonl")
    result([[], []], "empty.mp4").to_csv(made / "empty.csv")
    return made


def summary(*arguments: Any) -> int:
    return main(["summary", *map(str, arguments), "--quiet"])


def test_one_row_per_table_and_face(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new" / "features.csv"
    assert summary(folder, "-o", out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 4 rows from 3 of 3 tables\n"
    assert said.err == ""
    table = pd.read_csv(out)
    one = result([[0], [0], []]).summary()
    assert list(table.columns) == ["table", "source", "face_id", *one.columns]
    assert table["table"].tolist() == [
        str(folder / name) for name in ("clip2.jsonl", "clip2.jsonl", "clip10.csv", "empty.csv")
    ]
    assert table["source"].tolist() == ["clip2.mp4", "clip2.mp4", "clip10.mp4", "empty.mp4"]
    assert table["face_id"].tolist()[:3] == [0, 1, 0]
    assert np.isnan(table["face_id"][3])
    assert table["AU12_mean"].tolist()[:3] == pytest.approx([0.2, 0.4, 0.2])
    assert table["AU01_active_share"].tolist()[:3] == [1, 1, 1]
    assert table["frames"].tolist() == [2, 2, 2, 0]
    assert table["face_share"].tolist() == pytest.approx([1, 1, 2 / 3, 0])
    for column in one.columns:
        assert table[column][2] == pytest.approx(one[column].iloc[0], abs=1e-6, nan_ok=True)


def test_parquet_tables_and_patterns(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    result([[0]]).to_parquet(folder / "p.parquet")
    assert [path.name for path in find_tables([folder / "*.parquet"])] == ["p.parquet"]
    features = summarize_tables(find_tables([f"{folder}/p.*", folder / "clip10.csv"]))
    assert [Path(name).name for name in features.table["table"]] == ["p.parquet", "clip10.csv"]
    assert features.failures == []


def test_a_bad_table_does_not_stop_the_others(folder: Path, tmp_path: Path, capsys: Any) -> None:
    (folder / "bad.csv").write_text("frame,AU12\n0,0.5\n")
    out = tmp_path / "features.csv"
    assert summary(folder, folder / "gone.csv", "-o", out) == 1
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first.startswith(f"pyfau: {folder / 'bad.csv'} was not written by pyfau")
    assert str(folder / "gone.csv") in second
    assert said.out == f"{out}: 4 rows from 3 of 5 tables\n"
    assert len(pd.read_csv(out)) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bad.csv").write_text("nothing\n")
    assert summary(tmp_path / "other", "-o", tmp_path / "none.csv") == 1
    assert "no table could be summarised" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


def test_tables_of_different_models_are_named(folder: Path, tmp_path: Path, capsys: Any) -> None:
    result([[0]], "x.mp4", model="swin", model_sha256="cd" * 32).to_csv(folder / "x.csv")
    assert summary(folder, "-o", tmp_path / "features.csv") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "made by different models: lite abababababab (" in line
    assert f"swin cdcdcdcdcdcd ({folder / 'x.csv'})" in line


def test_different_thresholds_and_several_tables_of_one_video(folder: Path) -> None:
    thresholds = {"AU01": 0.5, "AU12": 0.3}
    result([[0]], "clip2.mp4", thresholds=thresholds).to_csv(folder / "x.csv")
    first, second = summarize_tables(find_tables([folder])).warnings
    assert first.startswith("the tables have different thresholds: ")
    assert first.endswith(f" / {folder / 'x.csv'}")
    assert second == f"clip2.mp4 has several tables: {folder / 'clip2.jsonl'}, {folder / 'x.csv'}"


def test_what_a_table_warns_of_is_passed_on(folder: Path) -> None:
    sidecar = folder / "clip10.csv.json"
    sidecar.write_text(sidecar.read_text().replace('"complete": true', '"complete": false'))
    (warning,) = summarize_tables([folder / "clip10.csv"]).warnings
    assert warning.startswith(f"{folder / 'clip10.csv'} is incomplete")


def test_a_second_run_into_the_same_folder(folder: Path, capsys: Any) -> None:
    out = folder / "features.csv"
    assert summary(folder, "-o", out) == 0
    first = out.read_bytes()
    (folder / "_inputs.csv").write_text("source,status\n")
    (folder / ".hidden.csv").write_text("\n")
    assert summary(folder, "-o", out) == 0
    assert out.read_bytes() == first
    assert capsys.readouterr().err == ""


def test_a_table_of_scores_is_not_replaced(folder: Path, tmp_path: Path, capsys: Any) -> None:
    before = (folder / "clip10.csv").read_bytes()
    for arguments in (
        [folder, "-o", folder / "clip10.csv"],
        [folder / "empty.csv", "-o", folder / "clip10.csv"],
        [folder / "clip10.csv", "-o", folder / "clip10.csv"],
    ):
        assert summary(*arguments) == 1
        assert "would replace" in capsys.readouterr().err
    assert (folder / "clip10.csv").read_bytes() == before
    assert (folder / "clip10.csv.json").exists()


@pytest.mark.parametrize("name", ["features.xlsx", "features", "a.csv"])
def test_features_are_csv(name: str, folder: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.csv").mkdir()
    assert summary(folder, "-o", tmp_path / name) == 1
    assert "features are written to a .csv file, got" in capsys.readouterr().err


def test_a_folder_without_tables_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"no tables .*pyfau detect .* -o scores"):
        find_tables([tmp_path])
    with pytest.raises(InputError, match="matches"):
        find_tables([tmp_path / "*.csv"])
    with pytest.raises(InputError, match="none was given"):
        summarize_tables([])
    assert find_tables([tmp_path / "gone.csv"]) == [tmp_path / "gone.csv"]


def test_from_python(folder: Path) -> None:
    features = summarize_tables(find_tables([folder]))
    assert len(features.table) == 4
    with pytest.raises(OptionError, match="cannot write"):
        features.to_csv(folder)


def test_detect_writes_features_too(media: Path, tmp_path: Path, capsys: Any) -> None:
    clip = media / "single_face.mp4"
    out, features = tmp_path / "scores", tmp_path / "features.csv"
    options = [str(clip), "-o", str(out), "--quiet", "--threads", "1"]
    assert main(["detect", *options, "--summary", str(out / "single_face.csv")]) == 1
    assert "is also the table of an input" in capsys.readouterr().err
    assert main(["detect", *options, "--summary", str(tmp_path / "features.xlsx")]) == 1
    assert "features are written to a .csv file" in capsys.readouterr().err
    assert not out.exists()
    assert main(["detect", *options, "--summary", str(features)]) == 0
    own = AUResult.read_csv(out / "single_face.csv").summary()
    table = pd.read_csv(features)
    assert table["source"].tolist() == [str(clip)] * len(own)
    assert table["AU12_mean"].to_numpy() == pytest.approx(own["AU12_mean"], abs=1e-6)


def test_features_of_a_run_leave_out_inputs_that_failed(
    media: Path, tmp_path: Path, capsys: Any
) -> None:
    bad, clip = tmp_path / "bad.mp4", media / "single_face.mp4"
    bad.write_text("this is no video\n" * 20)
    out, features = tmp_path / "scores", tmp_path / "features.csv"
    # The table of another input of the same name, which is kept.
    result([[0]], "elsewhere/bad.mp4", input={"path": "elsewhere/bad.mp4"}).to_csv(out / "bad.csv")
    options = ["-o", str(out), "--quiet", "--threads", "1", "--summary", str(features)]
    assert main(["detect", str(bad), str(clip), *options]) == 1
    assert set(pd.read_csv(features)["source"]) == {str(clip)}
    features.unlink()
    assert main(["detect", str(bad), *options]) == 1
    assert not features.exists()
    # A table that is complete already counts.
    assert main(["detect", str(clip), *options, "--resume"]) == 0
    assert "done already" in capsys.readouterr().out
    assert set(pd.read_csv(features)["source"]) == {str(clip)}
