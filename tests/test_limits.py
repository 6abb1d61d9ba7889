"""The limits of what is decoded: one record, one option, for every reader."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_result import AUS, face_row

import pyfau.evaluation.protocol
from pyfau import AUDetector, AUResult, read_result
from pyfau.analysis.features import summarize_tables
from pyfau.batch.plan import expand
from pyfau.cli import _parser, main
from pyfau.commands.options import make_limits
from pyfau.errors import InputError, MediaError, OptionError
from pyfau.evaluation.labels import read_labels
from pyfau.evaluation.protocol import read_aligned
from pyfau.evaluation.run import ListOptions, TableOptions
from pyfau.formats.bids import read_bids_events
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat
from pyfau.limits import LIMITS, Limits, parse_limits
from pyfau.media.readers import read_frames

DOCS = Path(__file__).resolve().parents[1] / "docs"
# Commands that read media or tables.
READING = {
    "detect": ["a.mp4", "-o", "b.csv"],
    "demo": [],
    "evaluate": ["--data", "csv"],
    "live": [],
    "report": ["a.csv", "-o", "b.html"],
    "serve": [],
    "summary": ["a.csv", "-o", "b.csv"],
    "table": ["a.csv", "-o", "b.csv"],
}


def result_of(faces: int) -> AUResult:
    result = AUResult(AUS, {})
    for i in range(faces):
        result.append(dataclasses.replace(face_row(i), face_id=i))
    return result


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("L", (100, 100)).save(path)
    return path


@pytest.mark.parametrize("command", READING)
def test_every_command_that_reads_has_the_option(command: str) -> None:
    options = ["--limit", "image_pixels=2e8", "--limit", "table-faces=7"]
    args = _parser().parse_args([command, *READING[command], *options])
    assert make_limits(args) == Limits(image_pixels=200_000_000, table_faces=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_pixel=1", "Did you mean 'image_pixels'?"),
        ("x=1", "Expected one of image_pixels, frame_pixels"),
        ("image_pixels", "expected a whole number above 0, got ''"),
        ("image_pixels=0", "above 0, got '0'"),
        ("image_pixels=-1", "above 0"),
        ("image_pixels=1.5", "whole number"),
        ("image_pixels=nan", "whole number"),
        ("image_pixels=inf", "whole number"),
        ("image_pixels=1e400", "whole number"),
    ],
)
def test_wrong_limits_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_limits([text])


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None, float("nan")])
def test_wrong_values_in_python(value: Any) -> None:
    with pytest.raises(OptionError, match="limit image_pixels: expected a whole number above 0"):
        Limits(image_pixels=value)
    with pytest.raises(OptionError, match="limits must be a"):
        AUDetector(limits=value)


def test_images_and_stills(image: Path, tmp_path: Path, capsys: Any) -> None:
    low = Limits(image_pixels=9_999)
    detector = AUDetector(device="cpu", limits=low)
    for source in (image, [image], tmp_path):
        with pytest.raises(MediaError, match="expected at most 9999; raise the limits"):
            list(read_frames(source, limits=low))
        with pytest.raises(MediaError, match="expected at most 9999"):
            list(detector.iter_frames(source))
    for score in (detector.detect_image, detector.detect_images):
        with pytest.raises(MediaError, match="expected at most 9999"):
            score(image)
    with pytest.raises(MediaError, match="expected at most 9999"):
        read_aligned(image, 100, limits=low)
    assert read_aligned(image, 100).shape == (100, 100, 3)

    # The command line, where the same option raises the limit again.
    out = tmp_path / "out.csv"
    command = ["detect", str(image), "-o", str(out), "--quiet", "--limit"]
    assert main([*command, "image_pixels=9999"]) == 1
    assert "expected at most 9999" in capsys.readouterr().err
    assert main([*command, "image_pixels=10_000"]) == 0
    page = ["report", str(out), "-o", str(tmp_path / "a.html"), "--video", str(image), "--quiet"]
    assert main([*page, "--limit", "image_pixels=9999"]) == 1
    assert "expected at most 9999" in capsys.readouterr().err
    assert main(page) == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_and_faces_of_tables(tmp_path: Path, kind: str, capsys: Any) -> None:
    path = tmp_path / f"a.{kind}"
    getattr(result_of(9), f"to_{kind}")(path)
    assert len(read_result(path)) == 9
    columns = len(result_of(1).to_dataframe().columns)
    for low, message in (
        (Limits(table_columns=columns - 1), f"it has {columns} columns: expected at most"),
        (Limits(table_faces=8), "it has 9 faces: expected at most 8; raise the limits to read it"),
    ):
        with pytest.raises(InputError, match=message):
            read_result(path, low)
        with pytest.raises(InputError, match=message):
            getattr(AUResult, f"read_{kind}")(path, low)
        with pytest.raises(InputError, match=message):
            summarize_tables([path], limits=low)
    command = ["table", str(path), "-o", str(tmp_path / "b.jsonl"), "--limit", "table_faces=8"]
    assert main(command) == 1
    assert "it has 9 faces" in capsys.readouterr().err
    assert main([*command[:-1], "table_faces=9"]) == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bytes_of_text_files(tmp_path: Path, kind: str, capsys: Any) -> None:
    path = getattr(result_of(3), f"to_{kind}")(tmp_path / f"a.{kind}")
    size, about = path.stat().st_size, path.with_name(f"{path.name}.json").stat().st_size
    command = ["table", str(path), "-o", str(tmp_path / f"b.{kind}"), "--limit"]
    for name, most in (("file_bytes", size), ("metadata_bytes", max(about, size))):
        too_low = min(most, about if name == "metadata_bytes" else size) - 1
        with pytest.raises(InputError, match=f"expected at most {too_low}; raise the limits"):
            read_result(path, Limits(**{name: too_low}))
        assert main([*command, f"{name}={too_low}"]) == 1
        assert f"expected at most {too_low}" in capsys.readouterr().err
        assert main([*command, f"{name}={most}"]) == 0


def test_bytes_of_labels_events_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "a_events.tsv"
    path.write_text("onset\tAU12\n1\t1\n2\t0\n", encoding="utf-8")
    size = path.stat().st_size
    low = Limits(file_bytes=size - 1)
    message = f"it has {size} bytes: expected at most {size - 1}; raise the limits to read it"
    for read in (read_bids_events, read_elan, read_events, read_openface, read_pyfeat):
        with pytest.raises(InputError, match=message):
            read(path, low)
    assert len(read_bids_events(path, Limits(file_bytes=size))) == 2
    with pytest.raises(InputError, match=message):
        read_labels(path, limits=low)
    with pytest.raises(OptionError, match=message):
        expand([f"@{path}"], Limits(metadata_bytes=size - 1))
    for read in (read_bids_events, partial(read_labels, present=None)):
        with pytest.raises(InputError, match="it has 2 columns: expected at most 1"):
            read(path, limits=Limits(table_columns=1))


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    path = result_of(1).to_jsonl(tmp_path / "a.jsonl")
    path.write_text("[" + "[]," * 10_000 + "[]]\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: it has 30005 bytes: expected at most 30000"):
        read_result(path, Limits(metadata_bytes=30_000))


def test_a_table_that_decodes_to_much_more(tmp_path: Path) -> None:
    """Some kilobytes of Parquet that stand for a gigabyte in memory."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = result_of(2).to_parquet(tmp_path / "a.parquet")
    row = pq.read_table(path).slice(0, 1)
    count = LIMITS.table_bytes // (8 * row.num_columns) + 1
    columns = [pa.repeat(row.column(name)[0], count) for name in row.schema.names]
    pq.write_table(pa.table(columns, schema=row.schema), path, row_group_size=count)
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match=r"it decodes to \d+ bytes: expected at most 256000000"):
        read_result(path)


def test_a_list_of_millions_in_one_row(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = result_of(1).to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(path)
    count = LIMITS.table_bytes // 8 + 1
    values = pa.repeat(pa.scalar(0.5, pa.float64()), count)
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)
    pq.write_table(table.append_column("x", column), path)
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match=r"it decodes to \d+ bytes"):
        read_result(path)


def test_one_long_name_of_many_rows(tmp_path: Path) -> None:
    """A name of a megabyte that 500 rows have takes a megabyte."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    result = AUResult(AUS, {}, files=True)
    for i in range(500):
        result.append(dataclasses.replace(face_row(i), file="x"))
    path = result.to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(path)
    name = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), ["y" * 1_000_000])
    index = table.schema.get_field_index("file")
    pq.write_table(table.set_column(index, "file", name), path)
    before = pa.default_memory_pool().max_memory()
    read = read_result(path)
    assert pa.default_memory_pool().max_memory() - before < 200_000_000
    assert len(read) == 500
    assert {row.file for row in read} == {"y" * 1_000_000}


def test_the_limits_reach_the_evaluation(tmp_path: Path) -> None:
    assert TableOptions().limits == ListOptions().limits == LIMITS
    signature = inspect.signature(pyfau.evaluation.protocol.predict)
    assert signature.parameters["limits"].default is LIMITS


def test_the_page_has_all_limits() -> None:
    page = (DOCS / "video.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.M))
    documented = {name: int(value.replace(",", "")) for name, value in rows.items()}
    assert documented == dataclasses.asdict(LIMITS)
    assert json.dumps(documented)
