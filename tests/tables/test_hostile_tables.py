"""Tables, metadata and lists that someone else made: one error each, and a batch that goes on."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_jobs import jobs_for
from test_result import AUS, WRITE, face_row

from pyfau import AUDetector, AUResult, read_result
from pyfau.batch.plan import expand
from pyfau.batch.ray import INPUTS_TABLE, _InputsTable
from pyfau.batch.run import JobOptions, run_job
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.messages import printable, say
from pyfau.records import TEXT, check_record, parse_json
from pyfau.tables.metadata import is_complete, read_metadata

META = {"source": "clip.mp4", "fps": 30.0, "thresholds": dict.fromkeys(AUS, 0.5)}


@pytest.fixture
def result() -> AUResult:
    result = AUResult(AUS, META)
    result.extend(face_row(frame) for frame in range(3))
    return result


DEEP = "[" * 100_000
SIDECARS: list[Any] = [
    DEEP,
    '{"a":' * 100_000,
    "[]",
    "1",
    "null",
    '"text"',
    "{",
    "\0",
    "\xff",
    '{"complete": 1}',
    '{"complete": true, "complete": true}',
    '{"warnings": 5}',
    '{"warnings": [5]}',
    '{"failures": [1]}',
    '{"failures": [{"source": "a"}]}',
    '{"failures": {"source": "a", "error": "b"}}',
    '{"input": []}',
    '{"input": {"path": 3}}',
    '{"overlay": "text"}',
    '{"fps": NaN}',
    '{"fps": 1e999}',
    '{"fps": "30"}',
    '{"aus": 5}',
    '{"aus": [[]]}',
    '{"thresholds": {"AU01": 7}}',
    '{"thresholds": [1]}',
    '{"grade_offsets": {"AU01": [1]}}',
    '{"max_gap": ' + "9" * 5000 + "}",
    '{"table": {"rows": -1}}',
    '{"source": {}}',
    '{"baseline": 1}',
]


@pytest.mark.parametrize("text", SIDECARS, ids=range(len(SIDECARS)))
def test_hostile_metadata_is_one_input_error(result: AUResult, tmp_path: Path, text: str) -> None:
    path = result.to_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"cannot read the metadata of .*a\.csv") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert read_metadata(path) == {}
    assert not is_complete(path)
    result.to_csv(path)  # and it can be replaced
    assert is_complete(path)


CELLS = [
    ("frame", "nan"),
    ("frame", ""),
    ("frame", "1e300"),
    ("frame", "-1"),
    ("frame", "1.5"),
    ("frame", "inf"),
    ("time_s", "inf"),
    ("face_id", "0.5"),
    ("face_id", "-2"),
    ("face_id", ""),
    ("success", "2"),
    ("success", ""),
    ("confidence", "1.5"),
    ("confidence", "-inf"),
    ("x1", "1e30"),
    ("AU12", "1.01"),
    ("AU12", "-0.5"),
    ("AU12", "inf"),
    ("AU12", "text"),
    ("AU12_c", "0.5"),
    ("AU12_c", "7"),
    ("AU12_c", ""),
    ("AU12_r", "5.5"),
]


@pytest.mark.parametrize(("column", "cell"), CELLS)
@pytest.mark.parametrize("suffix", WRITE)
def test_a_wrong_value_is_one_input_error(
    result: AUResult, tmp_path: Path, column: str, cell: str, suffix: str
) -> None:
    table = result.to_dataframe()
    for au in AUS:
        table[f"{au}_r"] = 1.0
    path = tmp_path / f"a{suffix}"
    texts = table.astype(str)
    texts.loc[1, column] = cell
    if suffix == ".csv":
        texts.to_csv(path, index=False)
    elif suffix == ".jsonl":
        rows = table.astype(float).to_dict("records")
        rows[1][column] = None if cell in ("", "nan") else cell
        if cell not in ("text", "", "nan"):
            rows[1][column] = float(cell)
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        values = texts[column] if cell == "text" else texts[column].replace("", "nan").astype(float)
        table[column] = values
        table.to_parquet(path)
    with pytest.raises(InputError, match=r"cannot read .*a\."):
        read_result(path)


def damaged(lines: list[str], kind: str) -> list[str]:
    if kind == "short":
        lines[2] = lines[2].rsplit(",", 2)[0]
    elif kind == "long":
        lines[2] += ",1"
    elif kind == "all long":
        lines[1:] = [line + ",1" for line in lines[1:]]
    elif kind == "doubled":
        lines[0] = lines[0].replace("AU06", "AU01", 1)
    elif kind == "control":
        lines[0] = lines[0].replace("AU06", "AU\x1b[31m06").replace("AU06_c", "AU\x1b[31m06_c")
    elif kind == "empty name":
        lines = [line + "," for line in lines]
        lines[0] += ","
    elif kind == "nul":
        lines[2] = "\0" + lines[2]
    elif kind == "quote":
        lines[2] = '"' + lines[2]
    elif kind == "huge field":
        lines[2] = "1" * 200_000 + lines[2]
    return lines


@pytest.mark.parametrize(
    "kind",
    ["short", "long", "all long", "doubled", "control", "empty name", "nul", "quote", "huge field"],
)
def test_a_damaged_csv_is_one_input_error(result: AUResult, tmp_path: Path, kind: str) -> None:
    path = result.to_csv(tmp_path / "a.csv")
    lines = damaged(path.read_text().splitlines(), kind)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"a\.csv"):
        read_result(path)


@pytest.mark.parametrize(
    "line",
    [DEEP, "{}", "[]", "1", '{"frame": 1}', '{"frame": NaN}', "\0", '{"frame": 1, "frame": 1}'],
    ids=range(8),
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_damaged_jsonl_is_one_input_error(
    result: AUResult, tmp_path: Path, line: str, at: int
) -> None:
    path = result.to_jsonl(tmp_path / "a.jsonl")
    lines = path.read_text().splitlines()
    lines[at] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl"):
        read_result(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b'"' + b"x" * 200_000])
def test_a_damaged_list_of_done_inputs_is_one_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / INPUTS_TABLE).write_bytes(data)
    with pytest.raises(InputError, match=INPUTS_TABLE):
        _InputsTable(tmp_path, resume=True)
    assert (tmp_path / INPUTS_TABLE).read_bytes() == data
    with _InputsTable(tmp_path, resume=False):
        pass


@pytest.mark.parametrize("data", [b"a.mp4\n\0b.mp4\n", b"\xff\xfe\n"])
def test_a_damaged_list_of_inputs_is_one_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(OptionError, match=r"list\.txt"):
        expand([f"@{tmp_path / 'list.txt'}"])
    with pytest.raises(OptionError, match="NUL"):
        expand(["a\0.mp4"])


def test_records() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}', "x") == {"a": [1, 2.5, None, "x"]}
    assert check_record({"a": "x", "b": 1}, {"a": TEXT, "c": TEXT}, "x") == {"a": "x", "b": 1}
    with pytest.raises(InputError, match="cannot read x: a must be text, got list of 2"):
        check_record({"a": [1, 2]}, {"a": TEXT}, "x")


# ---- batches


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.mark.parametrize("text", SIDECARS[::4], ids=range(len(SIDECARS[::4])))
def test_a_hostile_sidecar_does_not_end_a_batch(
    detector: AUDetector, media: Path, tmp_path: Path, text: str
) -> None:
    (job,) = jobs_for([str(media / "single_face.jpg")], tmp_path)
    job.table.with_name(job.table.name + ".json").write_text(text, encoding="latin-1")
    for resume in (False, True):
        report = run_job(detector, job, JobOptions(resume=resume))
        assert report.status in ("done", "skipped"), report.complaints
    assert is_complete(job.table)


class BrokenDetector(AUDetector):
    def __init__(self) -> None:
        pass

    def settings(self) -> dict[str, Any]:
        return {}

    def detect_image(self, *_: Any, **__: Any) -> AUResult:
        raise ZeroDivisionError("a bug\nwith two lines")


def test_a_bug_is_a_failed_input(media: Path, tmp_path: Path, capsys: Any) -> None:
    (job,) = jobs_for([str(media / "single_face.jpg")], tmp_path)
    report = run_job(BrokenDetector(), job, JobOptions())
    assert report.status == "failed"
    assert report.complaints == [f"pyfau: {job.source}: ZeroDivisionError: a bug with two lines"]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.csv", "notes.jsonl", "notes.parquet"])
def test_a_file_of_someone_else_is_not_overwritten(
    media: Path, tmp_path: Path, capsys: Any, name: str
) -> None:
    notes = tmp_path / name
    if name.endswith(".parquet"):
        pd.DataFrame({"a": [1]}).to_parquet(notes)
    else:
        notes.write_text('participant,note\n1,"left early"\n')
    before = notes.read_bytes()
    command = ["detect", str(media / "single_face.jpg"), "-o", str(notes), "--quiet"]
    assert main(command) == 1
    assert f"{name} exists and is not a table of pyfau; --overwrite replaces it" in (
        capsys.readouterr().err
    )
    assert notes.read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert len(read_result(notes)) == 1
    assert main(command) == 0  # a table of pyfau is replaced as before
    if name.endswith(".csv"):
        (tmp_path / "notes.csv.json").unlink()
        assert main(command) == 0  # also without its metadata


def test_an_overlay_and_a_summary_replace_no_file_of_someone_else(
    media: Path, tmp_path: Path, capsys: Any
) -> None:
    picture = str(media / "single_face.jpg")
    table, film, notes = (tmp_path / name for name in ("a.csv", "holiday.png", "notes.csv"))
    overlay = ["detect", picture, "-o", str(table), "--overlay", str(film), "--quiet"]
    summary = ["summary", str(table), "-o", str(notes), "--quiet"]
    both = ["detect", picture, "-o", str(table), "--summary", str(notes), "--quiet"]
    film.write_bytes(b"a picture of someone else")
    notes.write_text('participant,note\n1,"left early"\n')
    before = film.read_bytes(), notes.read_bytes()
    assert main(overlay) == 1
    assert "holiday.png exists and is not the overlay of" in capsys.readouterr().err
    assert not table.exists()
    assert main(both) == 1
    assert "notes.csv exists and is not a table of features" in capsys.readouterr().err
    assert main([*overlay[:4], "--quiet"]) == 0
    assert main(summary) == 1
    assert "notes.csv exists and is not a table of features" in capsys.readouterr().err
    assert (film.read_bytes(), notes.read_bytes()) == before
    for command in (overlay, summary):
        assert main([*command, "--overwrite"]) == 0
        assert main(command) == 0  # what pyfau wrote is replaced as before
    assert main(both) == 0


# ---- messages


def test_messages_have_no_characters_that_a_terminal_obeys() -> None:
    text = printable("a\x1b[31mb\nc\rd\x07\u202ee\udcff é 🙂")
    assert text == "a\\x1b[31mb\\nc\\rd\\x07\\u202ee\\udcff é 🙂"
    assert printable(InputError("x\ny")) == "x\\ny"


def test_names_of_files_are_escaped_on_the_terminal(tmp_path: Path, capsys: Any) -> None:
    name = "a\x1b[2Jb\nc.mp4"
    assert main(["detect", str(tmp_path / name), "-o", str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "a\\x1b[2Jb\\nc.mp4" in error.replace("\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_does_not_stop_scoring(media: Path, tmp_path: Path) -> None:
    program = "import sys; from pyfau.cli import main; sys.exit(main())"
    images = [media / "single_face.jpg", tmp_path / "b.jpg"]
    images[1].write_bytes(images[0].read_bytes())
    command = [sys.executable, "-c", program, "detect", *map(str, images), "--quiet"]
    for number, target in enumerate(["/dev/full", "closed"]):
        out = tmp_path / f"out{number}"
        if target == "closed":
            reading, writing = os.pipe()
            os.close(reading)
        else:
            writing = os.open(target, os.O_WRONLY)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [*command, "-o", str(out)], stdout=writing, stderr=subprocess.PIPE, env=environment
        )
        os.close(writing)
        # A reader that left loses messages only; a full disk is a failure in any case.
        assert done.returncode == int(target == "/dev/full")
        assert b"Traceback" not in done.stderr
        assert is_complete(out / "single_face.csv")
        assert is_complete(out / "b.csv")


def test_a_closed_stream_is_no_error(tmp_path: Path) -> None:
    file = (tmp_path / "a.txt").open("w")
    assert say("one\ntwo", file)
    file.close()
    assert not say("three", file)
    assert (tmp_path / "a.txt").read_text() == "one\\ntwo\n"


def test_quoting_is_that_of_the_csv_module(tmp_path: Path) -> None:
    names = ["=1+1.png", 'a"b.png', "a,b.png", "a\nb.png", "-x.png"]
    result = AUResult(AUS, META, files=True)
    result.extend(face_row(number, file=name) for number, name in enumerate(names))
    path = result.to_csv(tmp_path / "a.csv")
    with path.open(newline="") as file:
        fields = [row["file"] for row in csv.DictReader(file)]
    assert fields == ["'=1+1.png", *names[1:4], "'-x.png"]  # see test_cells.py
    assert [row.file for row in read_result(path)] == names
