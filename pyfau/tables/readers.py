"""Readers of the tables that pyfau writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pyfau.errors import InputError
from pyfau.files import open_plain, read_file, reason_of
from pyfau.limits import LIMITS, Limits
from pyfau.records import NOTHING, NUMBER, TEXT, check_record, one_of, parse_json
from pyfau.tables.cells import read_cell
from pyfau.tables.metadata import check_inflated, import_pyarrow, is_intact, read_record
from pyfau.tables.rows import AURows
from pyfau.tables.schema import check_columns, check_count, check_names, check_values
from pyfau.tables.writers import ROW_GROUP
from pyfau.types import COLUMNS, Failure, StrPath

if TYPE_CHECKING:
    import pandas as pd


_NUMBER = one_of(NUMBER, NOTHING)
_TEXT = one_of(TEXT, NOTHING)
Rows = TypeVar("Rows", bound=AURows)


def read_table(path: StrPath, kind: type[Rows], limits: Limits = LIMITS) -> Rows:
    """Read a table that pyfau wrote: Parquet or JSON Lines by its suffix, otherwise CSV.

    Args:
        path: The table.
        kind: The class of the rows.
        limits: Larger tables are refused.

    Raises:
        InputError: The file does not exist or is no such table.
        DependencyError: pyarrow is not installed, and the suffix is .parquet.
    """
    readers = {".parquet": read_parquet, ".jsonl": read_jsonl}
    read = readers.get(Path(path).suffix.lower(), read_csv)
    return read(path, kind, limits)


def read_csv(path: StrPath, kind: type[Rows], limits: Limits = LIMITS) -> Rows:
    """Read what `to_csv` or a `CSVWriter` wrote. Landmarks are NaN.

    If the run that wrote the file did not finish, `warnings` says so, and a torn last line is left
    out.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    path = Path(path)
    data, record = _read_lines(path, limits)
    try:
        columns = read_fields(data, path, limits)
        check_columns(columns, path, limits)
        types: dict[Any, Any] = {name: str if name == "file" else np.float64 for name in columns}
        table = pd.read_csv(
            io.BytesIO(data),
            dtype=types,
            index_col=False,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except InputError:
        raise
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"cannot read {path}: expected a table that pyfau wrote ({reason_of(error)})"
        ) from None
    if "file" in table:
        table["file"] = table["file"].map(read_cell, na_action="ignore")
    return _with_record(table, record, path, kind, limits)


def read_fields(data: bytes, path: object, limits: Limits = LIMITS) -> list[str]:
    """The columns of a CSV, each of whose rows must have as many fields.

    Blanks after commas and around names do not count.

    Args:
        data: The CSV, in UTF-8.
        path: What is read, for errors.
        limits: Tables with more columns are refused.

    Raises:
        InputError: A row has another number of fields, there are too many columns, or their names
            are not those of columns.
        ValueError: It is not CSV.
    """
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    lines = csv.reader(text, skipinitialspace=True)
    columns = next(lines, [])
    check_count(columns, path, limits)
    columns = [name.strip() for name in columns]
    check_names(columns, path)
    for fields in lines:
        if fields and len(fields) != len(columns):
            raise InputError(
                f"cannot read {path}: line {lines.line_num} has {len(fields)} fields, expected "
                f"{len(columns)}"
            )
    return columns


def read_jsonl(path: StrPath, kind: type[Rows], limits: Limits = LIMITS) -> Rows:
    """Read what `to_jsonl` or a `JSONLinesWriter` wrote; otherwise as `read_csv`.

    A file without rows has the action units that its metadata names, if any.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    path = Path(path)
    data, record = _read_lines(path, limits)
    objects = _objects(data, path, limits)
    rows = list(islice(objects, ROW_GROUP))
    columns = _object_columns(rows, record, path)
    check_columns(columns, path, limits)
    kinds = {name: _TEXT if name == "file" else _NUMBER for name in columns}
    types = {name: np.float64 for name in columns if name != "file"}
    parts = [pd.DataFrame(columns=columns).astype(types)]
    while rows:  # in groups, because a row takes ten times more memory as a dict
        for row in rows:
            check_record(row, kinds, str(path))
            if row.keys() != kinds.keys():
                raise InputError(
                    f"cannot read {path}: expected objects with the same names on all lines"
                )
        parts.append(pd.DataFrame.from_records(rows, columns=columns).astype(types))
        rows = list(islice(objects, ROW_GROUP))
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    return _with_record(table, record, path, kind, limits)


def _objects(data: bytes, path: Path, limits: Limits) -> Iterator[Any]:
    """The values of the lines of a JSON Lines file."""
    for number, line in enumerate(io.BytesIO(data), 1):
        what = f"{path}, line {number}"
        if len(line) > limits.metadata_bytes:
            raise InputError(
                f"cannot read {what}: it has {len(line)} bytes: expected at most "
                f"{limits.metadata_bytes}; raise the limits to read it"
            )
        yield parse_json(line, what)


def _object_columns(rows: list[Any], record: dict[str, Any], path: Path) -> list[str]:
    """The names in the first row; in a file without rows, those that its metadata implies."""
    if rows:
        return list(check_record(rows[0], {}, str(path)))
    aus = record.get("aus", ())
    return [*COLUMNS, *aus, *(f"{au}_c" for au in aus)]


def read_parquet(path: StrPath, kind: type[Rows], limits: Limits = LIMITS) -> Rows:
    """Read what `to_parquet` or a `ParquetWriter` wrote. Landmarks are NaN.

    Raises:
        InputError: There is no such file, or it is not of this kind.
        DependencyError: pyarrow is not installed.
    """
    pa, pq = import_pyarrow()
    path = Path(path)
    try:
        open_plain(path).close()  # its error says more than pyarrow's
        check_inflated(pq.ParquetFile(path).metadata, path, limits)
        # As a dictionary, because a million rows can have the same long name.
        table = pq.read_table(path, read_dictionary=["file"]).to_pandas()
        if "file" in table:
            table["file"] = table["file"].astype(object)
    # LookupError and AttributeError: the notes of pandas about the columns are damaged.
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        pa.ArrowException,
    ) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from None
    return _with_record(table, read_record(path, limits), path, kind, limits)


def _with_record(
    table: pd.DataFrame, record: dict[str, Any], path: Path, kind: type[Rows], limits: Limits
) -> Rows:
    """The rows of a table with the metadata that were written with it."""
    check_columns(table.columns.tolist(), path, limits)
    check_values(table, path, limits)
    complete = record.pop("complete", True)
    record.pop("table", None)
    warnings = record.pop("warnings", [])
    failures = record.pop("failures", [])
    rows = kind.from_dataframe(table, record)
    rows.warnings += warnings
    for failure in failures or []:
        rows.failures.append(Failure(failure["source"], failure["error"]))
    if not complete:
        rows.warnings.append(f"{path} is incomplete: the run that wrote it did not finish")
    return rows


def _read_lines(path: Path, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    """The whole lines of a CSV or JSON Lines file, and its metadata.

    The last line of an unfinished file can be torn; it is left out.
    """
    record = read_record(path, limits)
    try:
        data = read_file(path, limits.file_bytes)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from None
    if record.get("complete") is False:
        return data[: data.rfind(b"\n") + 1], record
    written = record.get("table")
    if isinstance(written, dict) and not is_intact(data, written):
        record.setdefault("warnings", []).append(
            f"{path} was changed after it was written: its sha256 is not the one in its metadata"
        )
    return data, record
