"""Small tables that stand for gigabytes, read with 1.5 GB of address space and in 5 seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_hostile_formats import BOMB, EAF, QUADRATIC
from test_limits import result_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
SECONDS = 10  # of CPU time; a busy machine needs twice the 5 seconds of a quiet one
DEEP = "[" * 20_000_000

PROGRAM = """
import resource, sys, time
from pathlib import Path
import pandas, pyarrow.parquet
from pyfau import read_result
from pyfau.errors import InputError
from pyfau.formats.elan import read_elan
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 1500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    started = time.process_time()
    try:
        (read_elan if path.endswith(".eaf") else read_result)(path)
    except InputError as error:
        print("refused", round(time.process_time() - started, 2), str(error)[:200].splitlines()[0])
    else:
        print("read", round(time.process_time() - started, 2))
"""


def read_within_limits(*paths: str) -> list[str]:
    """For each table one line of `PROGRAM`: whether it was refused, the seconds and the error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stdout + done.stderr[-2000:]
    return lines


def many_rows(path: Path) -> None:
    """One row 80 million times: some gigabytes in memory."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = pq.read_table(result_of(2).to_parquet(path)).slice(0, 1)
    count = 2_000_000
    columns = [pa.repeat(row.column(name)[0], count) for name in row.schema.names]
    part = pa.table(columns, schema=row.schema)
    with pq.ParquetWriter(path, row.schema) as writer:
        for _ in range(40):
            writer.write_table(part, row_group_size=count)


def many_faces(path: Path) -> None:
    """A list of 400 million numbers in one cell."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(result_of(1).to_parquet(path))
    values = pa.repeat(pa.scalar(0.5, pa.float32()), 400_000_000)
    column = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(table.append_column("x", column), path)


def test_bombs_are_refused_within_limits(tmp_path: Path) -> None:
    many_rows(tmp_path / "rows.parquet")
    many_faces(tmp_path / "list.parquet")
    for name in ("sidecar.csv", "header.csv", "lines.jsonl"):
        getattr(result_of(1), f"to_{name.split('.')[1]}")(tmp_path / name)
    (tmp_path / "sidecar.csv.json").write_text(DEEP)
    (tmp_path / "header.csv").write_text("," * 20_000_000 + "\n")
    lines = (tmp_path / "lines.jsonl").read_text().splitlines()
    (tmp_path / "lines.jsonl").write_text("\n".join([lines[0], DEEP]))
    start = "<ANNOTATION_DOCUMENT>"
    (tmp_path / "laughs.eaf").write_text(EAF.replace(start, f"{BOMB}{start}&l9;"))
    (tmp_path / "square.eaf").write_text(
        EAF.replace(start, f"{QUADRATIC}{start}{'&l0;' * 100_000}")
    )
    names = ("rows.parquet", "list.parquet", "sidecar.csv", "header.csv", "lines.jsonl")
    paths = [str(tmp_path / name) for name in (*names, "laughs.eaf", "square.eaf")]
    answers = [line.split(" ", 2) for line in read_within_limits(*paths)]
    for path, answer in zip(paths, answers, strict=True):
        assert answer[0] == "refused", (path, answer)
        assert Path(path).name in answer[2], (path, answer)
        assert float(answer[1]) < SECONDS, (path, answer)


def test_a_good_table_is_read_within_limits(tmp_path: Path) -> None:
    path = result_of(2).to_csv(tmp_path / "good.csv")
    assert read_within_limits(str(path))[0].startswith("read ")
