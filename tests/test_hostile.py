"""Files from strangers: every reader answers with a result or a `PyfauError`.

A longer run with another seed: PYFAU_FUZZ_SEED=2 pytest tests/test_hostile.py --run-slow
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pyfau.errors import InputError
from pyfau.formats.events import read_events
from pyfau.result import AUResult
from pyfau.tables.readers import read_parquet

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
HOSTILE = ROOT / "tests" / "data" / "hostile"
CASES = 40  # damaged files for each reader
SECONDS = 170


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import fuzz
    finally:
        sys.path.remove(str(SCRIPTS))
    return fuzz


@pytest.mark.slow
def test_damaged_files_give_a_result_or_an_error_of_pyfau(tmp_path: Path) -> None:
    seed = os.environ.get("PYFAU_FUZZ_SEED", "1")
    options = ["--seed", seed, "--cases", str(CASES), "--seconds", str(SECONDS)]
    ran = subprocess.run(
        [sys.executable, str(SCRIPTS / "fuzz.py"), "run", *options, "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )
    print(ran.stdout)
    assert f"seed {seed}" in ran.stdout
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise ZeroDivisionError('no')", "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 11)", "crash: status -11"),
        ("b'x' * 300_000_000", "MiB of memory"),
        ("bytearray(10**12)", "fault: MemoryError"),
        (
            "from pyfau.errors import InputError\n    try: bytearray(10**12)\n"
            "    except MemoryError as e: raise InputError('no') from e",
            "out of memory",
        ),
        ("while True: pass", "hang"),
    ],
)
def test_every_kind_of_fault_is_found(
    fuzz: ModuleType, tmp_path: Path, body: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reader that fails on each damaged file."""
    for name in ("fuzz.py", "fuzz_readers.py"):
        (tmp_path / name).write_text((SCRIPTS / name).read_text())
    program = (tmp_path / "fuzz_readers.py").read_text()
    program = program.replace("parents[1]", f"parent / {str(ROOT)!r}")
    start, end = program.index("def _read_jobs"), program.index("def _read_config")
    # The first file is read once more before the cases, for its imports.
    broken = (
        "def _read_jobs(path):\n"
        "    if path.name != 'case.txt' or b'clip' not in path.read_bytes(): return\n"
        f"    {body}\n\n"
    )
    (tmp_path / "fuzz_readers.py").write_text(program[:start] + broken + program[end:])
    program = (tmp_path / "fuzz.py").read_text()
    limited = program.replace("LIMIT_BYTES = 1_500_000_000", "LIMIT_BYTES = 200_000_000")
    (tmp_path / "fuzz.py").write_text(limited)
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "fuzz.py"))
    monkeypatch.setattr(fuzz, "PATIENCE_S", 15.0)
    count, faults = fuzz.check_reader("jobs", seed=1, cases=0, most_s=60)
    assert count == len(fuzz.files_of("jobs"))
    assert [number for number, _ in faults] == [2]
    assert fault in faults[0][1]


def test_each_reader_has_files_and_one_that_it_accepts(fuzz: ModuleType) -> None:
    assert {path.name for path in HOSTILE.iterdir()} == set(fuzz.READERS)
    for name in fuzz.READERS:
        assert any(path.name.startswith("valid") for path in fuzz.files_of(name)), name


# Their bytes depend on versions of encoders, or they are copies of files that change.
COPIES = {"image", "frame", "video", "clip", "config", "manifest"}


def test_the_script_makes_the_files(tmp_path: Path) -> None:
    """Again and again the same ones, so that a case can be read again by its number."""
    command = [sys.executable, str(SCRIPTS / "make_hostile.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    names, made = (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for folder in (HOSTILE, tmp_path)
    )
    assert made == names
    for name in names:
        if Path(name).parts[0] not in COPIES and Path(name).suffix not in {".parquet", ".pth"}:
            assert (tmp_path / name).read_bytes() == (HOSTILE / name).read_bytes(), name


def test_a_new_seed_is_printed_and_differs(fuzz: ModuleType) -> None:
    assert fuzz._seed("7") == 7
    assert len({fuzz._seed("new") for _ in range(4)}) > 1


VALID = ("openface", "pyfeat", "events", "labels", "elan", "table", "bids", "config", "manifest")


@pytest.mark.parametrize("name", VALID)
def test_valid_files_are_valid(fuzz: ModuleType, name: str, tmp_path: Path) -> None:
    for path in fuzz.files_of(name):
        if path.name.startswith("valid"):
            copy = tmp_path / path.name
            copy.write_bytes(path.read_bytes())
            fuzz.READERS[name].read(copy)


def test_cases_depend_on_their_numbers_alone(fuzz: ModuleType) -> None:
    number = len(fuzz.files_of("table")) + 3
    assert fuzz.make_case("table", 1, number) == fuzz.make_case("table", 1, number)
    assert fuzz.make_case("table", 1, number) != fuzz.make_case("table", 2, number)
    source, data = fuzz.make_case("table", 1, 0)
    assert data == (HOSTILE / "table" / source).read_bytes()


def test_damage_changes_files(fuzz: ModuleType) -> None:
    rng = random.Random(0)
    data = bytes(range(256)) * 4
    damaged = [fuzz.mutate(data, rng, is_text=True) for _ in range(200)]
    assert len(set(damaged)) > 150
    assert fuzz.mutate(b"", rng, is_text=True) is not None


def test_huge_numbers_in_a_list_of_events_are_refused() -> None:
    with pytest.raises(InputError, match="as a list of events"):
        read_events(HOSTILE / "events" / "huge.csv")


def test_damaged_notes_of_pandas_in_a_parquet_table(tmp_path: Path) -> None:
    data = (HOSTILE / "table" / "valid.parquet").read_bytes()
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(data.replace(b"pandas_type", b"pandas_typX"))
    with pytest.raises(InputError, match="cannot read"):
        read_parquet(damaged, AUResult)


def test_the_hostile_files_are_small() -> None:
    files = [path for path in HOSTILE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_the_promises_in_security_md_name_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = text.split("## Promises")[1].split("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test is named: {row}"
        for file, test in named:
            path = ROOT / file
            assert path.is_file(), row
            assert re.search(rf"^def {test}\(", path.read_text(encoding="utf-8"), re.M), row
