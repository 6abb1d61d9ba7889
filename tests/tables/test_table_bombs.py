"""Small tables that stand for gigabytes, read with 1.5 GB of address space and in 5 seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_hostile_formats import BOMB, EAF, QUADRATIC
from test_limits import result_of

from pyfau.errors import ConfigError, InputError
from pyfau.evaluation.labels import read_labels
from pyfau.evaluation.protocol import read_record
from pyfau.formats.bids import read_bids_events
from pyfau.limits import Limits
from pyfau.models.config import read_config
from pyfau.tables.metadata import is_complete, is_foreign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
SECONDS = 10  # of CPU time; a busy machine needs twice the 5 seconds of a quiet one
DEEP = "[" * 20_000_000

PROGRAM = """
import resource, sys, time
from pathlib import Path
import pandas, pyarrow.parquet
from pyfau import read_result
from pyfau.batch.plan import expand
from pyfau.errors import PyfauError
from pyfau.evaluation.labels import read_labels
from pyfau.formats.bids import read_bids_events
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat
readers = {
    "bids": read_bids_events, "events": read_events, "openface": read_openface,
    "pyfeat": read_pyfeat, "list": lambda path: expand([f"@{path}"]), "eaf": read_elan,
    "labels": lambda path: read_labels(Path(path)),
}
def reader_of(path):
    return Path(path).parent.name if Path(path).parent.name in readers else path.split(".")[-1]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 1500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    started = time.process_time()
    try:
        readers.get(reader_of(path), read_result)(path)
    except PyfauError as error:
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


# The name of a file, in a folder with the name of its reader.
NAMES = {
    "table": ("a.csv", "a.jsonl", "a.parquet"),
    "bids": ("a_events.tsv",),
    "events": ("a.csv",),
    "openface": ("a.csv",),
    "pyfeat": ("a.csv",),
    "list": ("a.txt",),
    "elan": ("a.eaf",),
}


def assert_refused(paths: list[Path], texts: list[list[str]]) -> None:
    """Check that each table is refused at once, with one of its texts."""
    answers = [line.split(" ", 2) for line in read_within_limits(*map(str, paths))]
    for path, answer, expected in zip(paths, answers, texts, strict=True):
        assert answer[0] == "refused", (path, answer)
        assert float(answer[1]) < SECONDS, (path, answer)
        assert any(text in answer[2] for text in expected), (path, answer)


def in_folders(folder: Path) -> list[Path]:
    paths = [folder / kind / name for kind, names in NAMES.items() for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True, parents=True)
    return paths


def test_sparse_files_devices_and_pipes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    sparse, devices, pipes = (in_folders(tmp_path / name) for name in ("sparse", "zero", "pipe"))
    for path in sparse:
        path.touch()
        try:
            os.truncate(path, 10 << 40)
        except OSError:
            pytest.skip("no files of 10 TB here")
    for path in devices:
        path.symlink_to("/dev/zero")
    for path in pipes:
        os.mkfifo(path)
    for name in ("csv", "jsonl"):  # a sidecar of a good table
        path = getattr(result_of(1), f"to_{name}")(tmp_path / f"a.{name}")
        sidecar = path.with_name(f"{path.name}.json")
        sidecar.unlink()
        sidecar.symlink_to("/dev/zero")
        devices.append(path)
    size = "it has 10995116277760 bytes: expected at most"
    broken = "Parquet magic bytes not found"
    message = "it is a device, a pipe or a socket: expected a file"
    texts = [[size, broken]] * len(sparse) + [[message]] * len(devices + pipes)
    assert_refused([*sparse, *devices, *pipes], texts)


def test_other_files_of_text(tmp_path: Path) -> None:
    sparse = tmp_path / "predictions.json"
    sparse.touch()
    try:
        os.truncate(sparse, 10 << 40)
    except OSError:
        pytest.skip("no files of 10 TB here")
    with pytest.raises(InputError, match="it has 10995116277760 bytes: expected at most 16000000"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="it has 10995116277760 bytes: expected at most"):
        read_labels(sparse)
    with pytest.raises(ConfigError, match="has 10995116277760 bytes"):
        read_config(sparse)
    device = tmp_path / "config.json"
    device.symlink_to("/dev/null")
    with pytest.raises(ConfigError, match=r"could not be read: it is a device"):
        read_config(device)
    with pytest.raises(InputError, match="it is a device"):
        read_labels(device)


def test_work_grows_with_the_size_of_a_file(tmp_path: Path) -> None:
    """Not with its square, and not with rows that hold nothing."""
    names = ",".join(f'"name {i}":0' for i in range(60_000))
    table = result_of(1).to_csv(tmp_path / "a.csv")
    table.with_name("a.csv.json").write_text(f'{{{names},"name 59999":0}}')
    labels = tmp_path / "labels" / "a.csv"
    labels.parent.mkdir()
    labels.write_text("frame,AU12\n" + ",\n" * 200_000)
    texts = [["the name 'name 59999' is repeated"], ["holds no rows of labels"]]
    assert_refused([table, labels], texts)


def test_a_bomb_in_the_place_of_a_table_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kilobyte can hold as many rows as one likes to count."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    limits = Limits(table_bytes=1000)
    record = {"complete": True, "table": {"rows": 100_000}}
    rows = pa.table({"x": pa.repeat(pa.scalar(0, pa.int32()), 100_000)})
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("it was decoded"))
    pq.write_table(rows, path)
    assert is_foreign(path, limits)
    pq.write_table(rows.replace_schema_metadata({"pyfau": json.dumps(record)}), path)
    assert not is_complete(path, limits=limits)


@pytest.mark.parametrize("read", [read_bids_events, read_labels])
@pytest.mark.parametrize(
    "header", ["\t" * 19_999_999, "\t".join(map(str, range(100_000)))], ids=["empty", "named"]
)
def test_many_columns(tmp_path: Path, read: Callable[[Path], object], header: str) -> None:
    """Of labels and events of BIDS; `header.csv` above is a table."""
    path = tmp_path / "wide.tsv"
    path.write_text(header + "\n")
    count = header.count("\t") + 1
    started = time.process_time()
    with pytest.raises(InputError, match=f"it has {count} columns: expected at most 10000; raise"):
        read(path)
    assert time.process_time() - started < SECONDS


def test_a_good_table_is_read_within_limits(tmp_path: Path) -> None:
    path = result_of(2).to_csv(tmp_path / "good.csv")
    assert read_within_limits(str(path))[0].startswith("read ")
