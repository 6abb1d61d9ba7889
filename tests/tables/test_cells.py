"""Names of files that a spreadsheet would take for formulas."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_result import AUS, face_row

from pyfau import AUResult, read_result
from pyfau.analysis.features import summarize_tables
from pyfau.batch.ray import INPUTS_TABLE, _InputsTable
from pyfau.batch.run import Report
from pyfau.cli import main
from pyfau.errors import InputError
from pyfau.tables.cells import guard_cell, is_formula, read_cell

FORMULAS = [
    "=1+1.png",
    "+1.png",
    "-1.png",
    "@SUM(A1).png",
    '=HYPERLINK("http://a","b").png',
    "=cmd|'/C calc'!A0",
    "\t=1",
    "\uff1d1+1.png",
]
NAMES = [*FORMULAS, "'=1.png", "''+1.png", "'plain.png", "a.png", "a=b.png", "'", "''", "'\n=1"]


def result_of(names: list[str]) -> AUResult:
    result = AUResult(AUS, {"source": "=1+1"}, files=True)
    for i, name in enumerate(names):
        result.append(dataclasses.replace(face_row(i), file=name))
    return result


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert read_cell(guard_cell(text)) == text
    assert not is_formula(guard_cell(text))


@given(st.text("'=+-@\t\ra", max_size=6))
def test_texts_of_special_characters_come_back(text: str) -> None:
    assert read_cell(guard_cell(text)) == text
    assert not is_formula(guard_cell(text))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_of_files_in_tables(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    getattr(result_of(NAMES), f"to_{kind}")(path)
    read = read_result(path)
    assert [row.file for row in read] == NAMES
    # Also after reading and writing a second time.
    getattr(read, f"to_{kind}")(path)
    assert [row.file for row in read_result(path)] == NAMES


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    path = result_of(NAMES).to_csv(tmp_path / "a.csv")
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[-1] for row in csv.reader(file)]
    assert not [cell for cell in cells if is_formula(cell)]
    assert "'=1+1.png" in cells
    assert "a=b.png" in cells


def test_tables_for_other_programs(tmp_path: Path) -> None:
    path = result_of(NAMES).to_csv(tmp_path / "a.csv")
    out = tmp_path / "pyfeat.csv"
    assert main(["table", str(path), "-o", str(out), "--format", "pyfeat"]) == 0
    written = pd.read_csv(out, keep_default_na=False)["input"].tolist()
    assert not [cell for cell in written if is_formula(cell)]
    # The data frame is guarded too, because people write it as CSV with pandas.
    result = result_of(NAMES)
    assert result.to_pyfeat()["input"].tolist() == written
    assert [read_cell(cell) for cell in written] == [name.replace("\r", r"\r") for name in NAMES]
    video = AUResult(AUS, {"source": "=1+1.mp4"})
    video.append(face_row(0))
    assert video.to_pyfeat()["input"].tolist() == ["'=1+1.mp4"]
    assert AUResult(AUS, {}).to_pyfeat()["input"].dtype == "string"


def test_codes_of_markers(tmp_path: Path) -> None:
    path = result_of(NAMES).to_csv(tmp_path / "a.csv")
    markers = tmp_path / "stimuli_events.tsv"
    markers.write_text("onset\tduration\ttrial_type\n0\t1\t=cmd|'/C calc'!A0\n")
    out = tmp_path / "marked.csv"
    assert main(["table", str(path), "-o", str(out), "--markers", str(markers)]) == 0
    written = pd.read_csv(out, keep_default_na=False)
    assert written["marker"][0] == "'=cmd|'/C calc'!A0"
    assert [read_cell(cell) for cell in written["file"]] == NAMES
    assert not [cell for cell in written["file"] if is_formula(cell)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_features_and_lists_of_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result_of(["a.png"]).to_csv(Path("=1+1.csv"))
    features = summarize_tables(["=1+1.csv"])
    features.to_csv("features.csv")
    read = pd.read_csv("features.csv", keep_default_na=False)
    assert (read["table"][0], read["source"][0]) == ("'=1+1.csv", "'=1+1")

    table = _InputsTable(tmp_path, resume=False)
    with table:
        table.add(Report("=1+1.mp4", Path("=1+1.csv"), "done"))
    before = (tmp_path / INPUTS_TABLE).read_bytes()
    assert b"\n'=1+1.mp4,done,'=1+1.csv" in before
    with _InputsTable(tmp_path, resume=True):
        pass
    assert (tmp_path / INPUTS_TABLE).read_bytes() == before


def test_a_column_that_is_a_formula_is_refused(tmp_path: Path) -> None:
    path = result_of(["a.png"]).to_csv(tmp_path / "a.csv")
    path.write_text(path.read_text().replace(AUS[0], "=1+1"))
    with pytest.raises(InputError, match=r"'=1\+1' is not a name of a column"):
        read_result(path)
