from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.result import AUResult, read_result
from pyfau.tables.metadata import is_complete
from pyfau.tables.writers import CSVWriter, JSONLinesWriter, ParquetWriter, open_writer
from pyfau.types import AURow, Failure

AUS = ("AU01", "AU06", "AU12", "AU25")
META = {"source": "/somewhere/clip.mp4", "model": "mdhr-é", "fps": 29.97, "aus": list(AUS)}
WRITE = {".csv": AUResult.to_csv, ".parquet": AUResult.to_parquet, ".jsonl": AUResult.to_jsonl}


def face_row(
    frame: int, face_id: int = 0, seed: int | None = None, file: str | None = None
) -> AURow:
    rng = np.random.default_rng(frame if seed is None else seed)
    scores = rng.random(len(AUS), dtype=np.float32)
    box = (rng.random(4, dtype=np.float32) * 700).astype(np.float32)
    points = rng.random((5, 2), dtype=np.float32) * 700
    return AURow(
        frame, frame / 29.97, face_id, True, 0.987654, box, points, scores, scores >= 0.5, AUS, file
    )


def empty_row(frame: int, file: str | None = None) -> AURow:
    def nan(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan, np.float32)

    nothing = np.zeros(len(AUS), bool)
    return AURow(
        frame, math.nan, None, False, 0.0, nan(4), nan(5, 2), nan(len(AUS)), nothing, AUS, file
    )


def assert_same(a: AURow, b: AURow, exact: bool = True) -> None:
    """`exact` False compares to the precision of CSV, and leaves out the landmarks."""
    for name in ("frame", "face_id", "success", "aus", "file"):
        left, right = getattr(a, name), getattr(b, name)
        assert left == right, name
        assert type(left) is type(right), name
    fine, box = (0, 0) if exact else (1e-6, 1e-3)
    np.testing.assert_allclose(a.time_s, b.time_s, rtol=0, atol=fine)
    np.testing.assert_allclose(a.confidence, b.confidence, rtol=0, atol=fine)
    np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=fine)
    np.testing.assert_allclose(a.box_xyxy, b.box_xyxy, rtol=1e-6, atol=box)
    np.testing.assert_array_equal(a.active, b.active)
    if exact:
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
    else:
        assert np.isnan(b.landmarks).all()
    for name in ("box_xyxy", "landmarks", "scores", "active"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert getattr(a, name).shape == getattr(b, name).shape


def result_of(rows: list[AURow], files: bool = False) -> AUResult:
    result = AUResult(AUS, META, files)
    result.extend(rows)
    return result


ROWS = [face_row(0), face_row(0, 3, 99), empty_row(1), face_row(2)]


def test_rows_come_back_as_they_went_in():
    rows = [
        face_row(i) if i % 5 else empty_row(i) for i in range(700)
    ]  # the storage grows several times
    result = result_of(rows)
    assert len(result) == 700
    for given_row, row in zip(rows, result, strict=True):
        assert_same(given_row, row)
    assert_same(rows[-1], result[-1])
    assert_same(rows[3], result[np.int64(3)])
    for index in (700, -701):
        with pytest.raises(IndexError, match="700"):
            result[index]


def test_rows_and_views_do_not_share_memory_with_later_rows():
    result = result_of([face_row(0)])
    row, scores = result[0], result.scores
    kept = scores.copy()
    row.scores[:] = 7
    result.extend(face_row(i) for i in range(1, 2000))
    np.testing.assert_array_equal(result[0].scores, kept[0])
    np.testing.assert_array_equal(scores, kept)
    with pytest.raises(ValueError, match="read-only"):
        result.scores[0, 0] = 1


def test_columns():
    result = result_of(ROWS)
    assert result.aus == AUS
    assert result.scores.shape == (4, 4)
    assert result.scores.dtype == np.float32
    assert result.frames.tolist() == [0, 0, 1, 2]
    assert result.face_id_column == [0, 3, None, 0]
    assert result.face_ids == (0, 3)
    assert result.metadata == META
    assert AUResult(AUS, {}).scores.shape == (0, 4)


def test_rows_of_another_model_are_refused():
    row = face_row(0)
    with pytest.raises(InputError, match="AU01, AU06, AU12, AU25 does not fit among AU01"):
        AUResult(("AU01",), {}).append(row)


def test_half_an_hour_of_video_is_small():
    row = face_row(0)
    wide = AURow(
        **{name: getattr(row, name) for name in row.__slots__}
        | {
            "aus": tuple(f"AU{i:02d}" for i in range(26)),
            "scores": np.zeros(26, np.float32),
            "active": np.zeros(26, bool),
        }
    )
    result = AUResult(wide.aus, {})
    result.extend(wide for _ in range(54_000))
    assert result.nbytes < 16e6


def test_repr():
    assert repr(result_of(ROWS)) == "AUResult(4 rows, 2 faces, 4 AUs, clip.mp4)"
    assert repr(AUResult(("AU12",), {})) == "AUResult(0 rows, 0 faces, 1 AU)"
    assert repr(result_of(ROWS[:1])) == "AUResult(1 row, 1 face, 4 AUs, clip.mp4)"


def test_strongest():
    result = result_of(ROWS)
    means = dict(zip(AUS, np.mean([ROWS[i].scores for i in (0, 1, 3)], axis=0), strict=True))
    best = result.strongest(2)
    assert [au for au, _ in best] == sorted(means, key=lambda au: -means[au])[:2]
    assert best[0][1] == pytest.approx(means[best[0][0]])
    assert len(result.strongest()) == 4
    assert result_of([empty_row(0)]).strongest() == []
    assert AUResult(AUS, {}).strongest() == []


@pytest.mark.parametrize("files", [False, True])
def test_dataframe(files: bool):
    rows = [face_row(0, file="a.jpg"), empty_row(1, file="b, c.jpg"), face_row(2, file=None)]
    table = result_of(rows, files).to_dataframe()
    names = ["frame", "time_s", "face_id", "success", "confidence", "x1", "y1", "x2", "y2", *AUS]
    names += [f"{au}_c" for au in AUS] + ["file"] * files
    assert list(table.columns) == names
    kinds = dict.fromkeys(names, "float64") | {
        "frame": "int64",
        "face_id": "Int64",
        "success": "int64",
    }
    kinds |= {f"{au}_c": "Int64" for au in AUS}
    assert {name: str(table[name].dtype) for name in names if name != "file"} == {
        name: kind for name, kind in kinds.items() if name != "file"
    }
    assert table["success"].tolist() == [1, 0, 1]
    assert table["face_id"].isna().tolist() == [False, True, False]
    assert table["AU12_c"].isna().tolist() == [False, True, False]
    assert table["AU12"].isna().tolist() == [False, True, False]
    assert table["AU12_c"][0] == int(rows[0].scores[2] >= 0.5)
    assert table["AU12"][2] == rows[2]["AU12"]
    assert table.attrs["pyfau"] == META
    assert type(table) is pd.DataFrame
    if files:
        assert table["file"].tolist()[:2] == ["a.jpg", "b, c.jpg"]
        assert pd.isna(table["file"][2])


def test_dataframe_without_rows_has_the_same_types():
    full, empty = result_of(ROWS, True).to_dataframe(), AUResult(AUS, {}, True).to_dataframe()
    pd.testing.assert_series_equal(full.dtypes, empty.dtypes)


def test_csv_is_what_a_row_says_of_itself(tmp_path: Path):
    rows = [face_row(0, file="a.jpg"), empty_row(1, file="b.jpg")]
    path = result_of(rows, True).to_csv(tmp_path / "new" / "folder" / "clip.csv")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for row, line in zip(rows, lines, strict=True):
        record = row.to_dict()
        assert list(line) == list(record)
        for name, value in record.items():
            if value is None or isinstance(value, str):
                assert line[name] == (value or "")
            else:
                assert float(line[name]) == pytest.approx(
                    value, abs=6e-4 if name[0] in "xy" else 6e-7
                )
    text = path.read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"\n")
    written = {"bytes": len(text), "rows": 2, "sha256": hashlib.sha256(text).hexdigest()}
    assert json.loads((tmp_path / "new" / "folder" / "clip.csv.json").read_text("utf-8")) == {
        **META,
        "complete": True,
        "table": written,
    }


_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
_name_or_none = (
    st.none()
    | _names
    | st.sampled_from(["NA", "nan", 'a,"b".png', "x\r\ny.png", "x\ry.png", " é 🙂.jpg"])
)
_scores = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)


@st.composite
def _row(draw: st.DrawFn) -> AURow:
    frame, file = draw(st.integers(0, 10**9)), draw(_name_or_none)
    if draw(st.booleans()):
        return empty_row(frame, file)
    array = np.float32(draw(_scores))
    box = np.float32(draw(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4)))
    active = np.array(draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    time_s, confidence = draw(st.floats(0, 1e6) | st.just(math.nan)), draw(st.floats(0, 1))
    face_id = draw(st.integers(0, 10**9))
    return AURow(
        frame,
        time_s,
        face_id,
        True,
        confidence,
        box,
        np.zeros((5, 2), np.float32),
        array,
        active,
        AUS,
        file,
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(_row(), max_size=8))
def test_round_trips(rows: list[AURow]):
    result = result_of(rows, files=True)
    with tempfile.TemporaryDirectory() as folder:
        back = AUResult.read_csv(result.to_csv(Path(folder) / "r.csv"))
        lines = AUResult.read_jsonl(result.to_jsonl(Path(folder) / "r.jsonl"))
        exact = AUResult.read_parquet(result.to_parquet(Path(folder) / "r.parquet"))
    for copy in (back, lines, exact):
        assert copy.aus == AUS
        assert copy.metadata == META
        assert copy.warnings == []
        for a, b in zip(rows, copy, strict=True):
            assert_same(a, b, exact=False)
    np.testing.assert_array_equal(exact.scores, result.scores)
    pd.testing.assert_frame_equal(exact.to_dataframe(), result.to_dataframe())


def test_parquet_for_others(tmp_path: Path):
    pq = pytest.importorskip("pyarrow.parquet")
    result = result_of([*ROWS, *(face_row(i) for i in range(20_000))])
    path = result.to_parquet(tmp_path / "deep" / "r.parquet")
    assert json.loads(pq.read_schema(path).metadata[b"pyfau"]) == {
        **META,
        "complete": True,
        "table": {"rows": 20_004},
    }
    assert pq.ParquetFile(path).num_row_groups == 2
    assert is_complete(path)
    table = pd.read_parquet(path)
    pd.testing.assert_frame_equal(table, result.to_dataframe())
    assert [p.name for p in path.parent.iterdir()] == ["r.parquet"]


def test_warnings_and_failures_are_written_too(tmp_path: Path):
    for suffix, write in WRITE.items():
        result = result_of(ROWS)
        result.warnings.append("frame 7 was damaged")
        result.failures.append(Failure("b.jpg", "not an image"))
        path = tmp_path / f"r{suffix}"
        write(result, path)
        back = read_result(path)
        assert back.warnings == result.warnings
        assert back.failures == result.failures
        assert back.metadata == META


def test_metadata_becomes_plain_json(tmp_path: Path):
    odd = {
        "a": np.float32(0.5),
        "b": math.nan,
        "c": Path("x"),
        "d": (1, np.arange(2)),
        "e": {2: {None}},
        "f": "\udcff",
    }
    path = AUResult(AUS, odd).to_csv(tmp_path / "r.csv")
    assert AUResult.read_csv(path).metadata == {
        "a": 0.5,
        "b": None,
        "c": "x",
        "d": [1, [0, 1]],
        "e": {"2": [None]},
        "f": "\udcff",
    }


@pytest.mark.parametrize("suffix", WRITE)
def test_file_names_that_are_no_text(tmp_path: Path, suffix: str):
    result = result_of([face_row(0, file="a\udcff.jpg")], files=True)
    assert read_result(WRITE[suffix](result, tmp_path / f"r{suffix}"))[0].file == r"a\udcff.jpg"


@pytest.mark.parametrize("kind", [CSVWriter, JSONLinesWriter])
def test_writers_of_lines_flush_and_mark(tmp_path: Path, kind: type[CSVWriter | JSONLinesWriter]):
    suffix, header = (".csv", 1) if kind is CSVWriter else (".jsonl", 0)
    path = tmp_path / f"clip{suffix}"
    with kind(path, AUS, META) as writer:
        assert path.read_text().count("\n") == header
        writer.write(ROWS[:2])
        assert path.read_text().count("\n") == header + 2
        writer.write([])
        writer.write(iter(ROWS[2:]))
        assert path.read_text().count("\n") == header + 4
        assert not is_complete(path)
        assert read_result(path).warnings == [
            f"{path} is incomplete: the run that wrote it did not finish"
        ]
        writer.metadata["frames"] = 3
    writer.close()
    assert is_complete(path)
    assert len(read_result(path)) == 4
    assert read_result(path).metadata == {**META, "frames": 3}
    with pytest.raises(OptionError, match=rf"clip\{suffix}: it is closed"):
        writer.write(ROWS)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


def test_a_line_of_json_is_what_a_row_says_of_itself(tmp_path: Path):
    rows = [face_row(0, file='a "b"\n.jpg'), empty_row(1, file="é.jpg"), empty_row(2)]
    path = result_of(rows, True).to_jsonl(tmp_path / "new" / "clip.jsonl")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(lines) == 3
    for row, line in zip(rows, lines, strict=True):
        record = {"file": None, **row.to_dict()}
        assert line.keys() == record.keys()
        assert {name: line[name] for name in line if not isinstance(line[name], float)} == {
            name: value for name, value in record.items() if not isinstance(value, float)
        }
        assert {k: v for k, v in line.items() if isinstance(v, float)} == pytest.approx(
            {k: v for k, v in record.items() if isinstance(v, float)}, abs=6e-4
        )
        assert line["AU12"] == (None if not row.success else round(row["AU12"], 6))
    assert "é" in path.read_text("utf-8")


def test_json_lines_that_are_not_ours(tmp_path: Path):
    good = result_of(ROWS).to_jsonl(tmp_path / "good.jsonl").read_text().splitlines()
    path = tmp_path / "bad.jsonl"
    renamed, text = (
        good[1].replace("success", "sucess"),
        good[0].replace('"time_s": 0.0', '"time_s": "x"'),
    )
    for lines in (
        ["[1]"],
        ["{}"],
        ["no"],
        [*good, "{}"],
        [*good, ""],
        [good[0], renamed],
        ['{"frame": {}}'],
        [text],
    ):
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=r"bad\.jsonl"):
            AUResult.read_jsonl(path)
    with pytest.raises(InputError, match=r"none\.jsonl"):
        AUResult.read_jsonl(tmp_path / "none.jsonl")
    path.write_text("")
    assert read_result(path).aus == ()  # without metadata nothing says more


@pytest.mark.parametrize("suffix", WRITE)
def test_an_exception_keeps_the_rows_and_stays_incomplete(tmp_path: Path, suffix: str):
    path = WRITE[suffix](result_of(ROWS), tmp_path / f"clip{suffix}")
    assert is_complete(path)

    def interrupted() -> None:
        with open_writer(path, AUS, META) as writer:
            writer.write(ROWS[:3])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_complete(path)
    back = read_result(path)
    assert len(back) == 3
    assert "incomplete" in back.warnings[0]
    assert not list(tmp_path.glob(".*"))


def test_parquet_takes_its_name_only_when_closed(tmp_path: Path):
    path = tmp_path / "clip.parquet"
    writer = ParquetWriter(path, AUS, META)
    writer.write(ROWS)
    assert not path.exists()
    assert not is_complete(path)
    writer.close()
    writer.close()
    assert is_complete(path)


_CHILD = """
import signal, sys
from test_result import AUS, face_row
from pyfau.result import CSVWriter
# Tests in the background have inherited SIGINT as ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with CSVWriter(sys.argv[1], AUS, {"source": "x"}) as writer:
    for i in range(10**9):
        writer.write([face_row(i), face_row(i, 1)])
        print(2 * i + 2, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("sign", ["SIGKILL", "SIGINT"])
def test_a_killed_run_leaves_all_rows_it_wrote(tmp_path: Path, sign: str):
    path = tmp_path / "clip.csv"
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    command = [sys.executable, "-c", _CHILD, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
    ) as child:
        assert child.stdout is not None
        said = [next(child.stdout) for _ in range(300)]
        child.send_signal(getattr(signal, sign))
        said += list(child.stdout)
    written = max(int(line) for line in said if line.endswith("\n"))
    assert child.returncode != 0
    result = AUResult.read_csv(path)
    assert written <= len(result) <= written + 2
    for i, row in enumerate(result):
        assert_same(face_row(i // 2, i % 2), row, exact=False)
    assert path.read_bytes().endswith(b"\n")
    assert not is_complete(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, suffix: str):
    path = tmp_path / f"clip{suffix}"
    writer = open_writer(path, AUS, META)
    writer.write(ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_result(path)) == 3
    writer.close()


def test_is_complete_needs_both_files(tmp_path: Path):
    path = result_of(ROWS).to_csv(tmp_path / "clip.csv")
    side = tmp_path / "clip.csv.json"
    assert is_complete(path)
    assert is_complete(str(path))
    text = side.read_text()
    for bad in (text[:10], "[]", '{"complete": "yes"}', "{}"):
        side.write_text(bad)
        assert not is_complete(path)
    side.unlink()
    assert not is_complete(path)
    assert len(AUResult.read_csv(path)) == 4  # readable still
    side.write_text(text)
    path.unlink()
    assert not is_complete(path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    assert not is_complete(tmp_path / "bad.parquet")


def test_targets_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    result = result_of(ROWS)
    for suffix in (".csv", ".parquet"):
        for path in (tmp_path / f"folder{suffix}", tmp_path / "file" / f"r{suffix}"):
            with pytest.raises(OptionError, match="cannot write") as caught:
                open_writer(path, AUS, META)
            assert str(path) in str(caught.value)
    with pytest.raises(OptionError, match="folder"):
        result.to_csv(tmp_path / "folder.csv")
    with pytest.raises(OptionError, match=r"\.csv, \.parquet, \.jsonl.*r\.xlsx"):
        open_writer(tmp_path / "r.xlsx", AUS, META)
    with pytest.raises(OptionError, match=r"\.csv, \.parquet, \.jsonl"):
        open_writer(tmp_path / "r", AUS, META)
    with open_writer(tmp_path / "R.CSV", AUS, META) as writer:
        assert isinstance(writer, CSVWriter)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] in "rf.") == [
        "file",
        "folder.csv",
        "folder.parquet",
    ]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_permission_denied(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OptionError, match=r"r\.csv: Permission denied"):
        open_writer(tmp_path / "r.csv", AUS, META)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_disk_full(tmp_path: Path):
    (tmp_path / "r.csv").symlink_to("/dev/full")
    with pytest.raises(OptionError, match=r"r\.csv: No space left"):
        CSVWriter(tmp_path / "r.csv", AUS, META)


def test_reading_what_is_not_there_or_not_ours(tmp_path: Path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.csv").write_text("frame,time_s\nhello,you\n")
    (tmp_path / "other.parquet").write_bytes(b"not parquet")
    for name in ("other.csv", "empty.csv", "text.csv", "none.csv"):
        with pytest.raises(InputError, match=name):
            AUResult.read_csv(tmp_path / name)
    (tmp_path / "events.csv").write_text("face_id,au\n0,AU12\n")
    with pytest.raises(
        InputError,
        match=r"events\.csv was not written by pyfau: there is no column confidence, frame,",
    ):
        AUResult.read_csv(tmp_path / "events.csv")
    for name in ("other.parquet", "none.parquet"):
        with pytest.raises(InputError, match=name):
            AUResult.read_parquet(tmp_path / name)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'pyfau\[parquet\]'"):
        result_of(ROWS).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(DependencyError, match="pyarrow"):
        AUResult.read_parquet(tmp_path / "r.parquet")
    assert not list(tmp_path.iterdir())
    result_of(ROWS).to_csv(tmp_path / "r.csv")


def test_import_is_light():
    code = (
        "import sys, pyfau.result; print({'torch', 'cv2', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.strip() == "set()"
