"""The metadata of a table: its origin, and whether it is complete."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyfau.errors import DependencyError, InputError
from pyfau.files import (
    escape_text,
    has_content,
    locked,
    open_plain,
    read_file,
    reason_of,
    remove_file,
    replace_file,
    writing,
)
from pyfau.limits import LIMITS, Limits
from pyfau.records import (
    BOOLEAN,
    NOTHING,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Kind,
    check_record,
    list_of,
    mapping_of,
    number_in,
    object_with,
    one_of,
    parse_json,
)
from pyfau.types import COLUMNS, StrPath


def _or_null(kind: Kind) -> Kind:
    return one_of(kind, NOTHING)


_FILE = object_with({"path": TEXT}, {})
_FAILURE = object_with({"source": TEXT, "error": TEXT}, {})
# The metadata that pyfau itself uses. Other names can have any value.
_FIELDS = {
    "complete": BOOLEAN,
    "warnings": list_of(TEXT),
    "failures": list_of(_FAILURE),
    "aus": list_of(TEXT),
    "source": _or_null(TEXT),
    "model": _or_null(TEXT),
    "model_sha256": _or_null(TEXT),
    "input": _or_null(_FILE),
    "overlay": _or_null(_FILE),
    "fps": _or_null(NUMBER),
    "independent": _or_null(BOOLEAN),
    "max_gap": _or_null(WHOLE),
    "stream": _or_null(WHOLE),
    "thresholds": _or_null(mapping_of(_or_null(number_in(0, 1)))),
    "grade_offsets": _or_null(mapping_of(list_of(NUMBER, 2))),
    "baseline": _or_null(OBJECT),
    "table": object_with({"rows": WHOLE}, {"bytes": WHOLE, "sha256": TEXT}),
}
_VALUE_BYTES = 8  # of a decoded number
_INFLATION = 50  # tables of pyfau decode to less than this many times their size
_HEAD_BYTES = 65_536  # enough for the first line of a table


def write_whole(path: StrPath, text: str) -> Path:
    """Write a file of UTF-8 text in one step.

    Missing folders are created; an existing file is replaced. If the existing file is a table of
    pyfau, its metadata file is removed, because it describes the table that is replaced.

    Raises:
        OptionError: The file cannot be written, or another process is writing it.
    """
    path = Path(path)
    with writing(path), locked(path):
        if "complete" in read_metadata(path):
            remove_file(sidecar(path))
        replace_file(path, escape_text(text))
    return path


def read_metadata(path: StrPath, limits: Limits = LIMITS) -> dict[str, Any]:
    """The metadata of a table, with "complete"; empty if the metadata cannot be read."""
    path = Path(path)
    try:
        return read_record(path, limits) if path.is_file() else {}
    except (InputError, OSError, ValueError):
        return {}


def is_complete(
    path: StrPath, expected: Mapping[str, Any] | None = None, limits: Limits = LIMITS
) -> bool:
    """Whether a table was finished without a failure, and is still as it was written.

    CSV and JSON Lines must have the size and the sha256 that the metadata states. Parquet must
    have the stated number of rows, and correct checksums.

    Args:
        path: The table.
        expected: Metadata that the table must have, such as the model's sha256.
        limits: Larger tables do not count as complete.
    """
    path = Path(path)
    record = read_metadata(path, limits)
    if record.get("complete") is not True or record.get("failures"):
        return False
    wanted = plain(expected or {})
    if any(record.get(key) != value for key, value in wanted.items()):
        return False
    written = record.get("table")
    return isinstance(written, Mapping) and _is_unchanged(path, written, limits)


def is_foreign(path: StrPath, limits: Limits = LIMITS) -> bool:
    """Whether a file exists that pyfau did not write as a table. An empty file is not foreign."""
    path = Path(path)
    try:
        if not has_content(path):
            return False
        if "complete" in read_metadata(path, limits):
            return False
        with open_plain(path) as file:
            head = file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return False  # the writer reports why it cannot write
    if _is_parquet(path):
        # A damaged Parquet file may be one of pyfau. A readable one without pyfau's metadata is
        # not, nor is one that decodes to too much.
        try:
            return not head.startswith("PAR1") or _parquet_rows(path, limits) is not None
        except InputError:
            return True
    line = head.partition("\n")[0]
    if path.suffix.lower() == ".jsonl":
        return not all(f'"{name}":' in line for name in COLUMNS)
    return not line.startswith(",".join(COLUMNS))


def _is_unchanged(path: Path, written: Mapping[str, Any], limits: Limits) -> bool:
    """Whether a table is as its writer left it."""
    try:
        if _is_parquet(path):
            return _parquet_rows(path, limits) == written.get("rows")
        if path.stat().st_size != written.get("bytes"):
            return False
        return is_intact(read_file(path, limits.file_bytes), written)
    except (InputError, OSError):
        return False


def is_intact(data: bytes, written: Mapping[str, Any]) -> bool:
    """Whether the bytes of a table are those that its metadata describes under "table"."""
    return hashlib.sha256(data).hexdigest() == written.get("sha256")


def _parquet_rows(path: Path, limits: Limits) -> int | None:
    """The number of rows of a Parquet file; None if the file is damaged.

    Raises:
        InputError: It decodes to much more than its size.
    """
    pa, pq = import_pyarrow()
    try:
        check_inflated(pq.read_metadata(path), path, limits)
        # Reading checks the checksum of every page.
        texts = [name for name in pq.read_schema(path).names if name == "file"]
        file = pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)
        with file:
            return sum(int(batch.num_rows) for batch in file.iter_batches())
    except InputError:
        raise
    except (OSError, ValueError, pa.ArrowException):
        return None


def check_inflated(metadata: Any, path: Path, limits: Limits) -> None:
    """Refuse a Parquet file that decodes to much more than it has, before it is decoded.

    A few bytes can encode a million equal values.

    Args:
        metadata: As pyarrow reads it from the file.
        path: The file.
        limits: How much it may decode to.

    Raises:
        InputError: It decodes to more.
    """
    inflated = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # The limit is for values, not for rows: one row can contain a list of millions.
        values = sum(group.column(column).num_values for column in range(group.num_columns))
        inflated += max(0, group.total_byte_size) + _VALUE_BYTES * values
    if inflated > max(limits.table_bytes, _INFLATION * path.stat().st_size):
        raise InputError(
            f"cannot read {path}: it decodes to {inflated} bytes: expected at most "
            f"{limits.table_bytes}, or {_INFLATION} times its size; "
            "raise the limits to read it"
        )


def import_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet; raises DependencyError without them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DependencyError(
            "Parquet needs the package pyarrow: pip install 'pyfau[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet


def sidecar(path: Path) -> Path:
    """The file next to a table with its metadata."""
    return path.with_name(path.name + ".json")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, in one step."""
    replace_file(path, escape_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n"))


def read_record(path: Path, limits: Limits = LIMITS) -> dict[str, Any]:
    """The metadata of a table, "complete" included; empty if the table has none.

    Raises:
        InputError: The metadata cannot be read, or a value has the wrong type.
    """
    what = f"the metadata of {path}"
    try:
        if _is_parquet(path):
            text = _parquet_metadata(path, limits.metadata_bytes)
        else:
            text = read_file(sidecar(path), limits.metadata_bytes)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {what}: {reason_of(error)}") from None
    return check_record(parse_json(text, what), _FIELDS, what)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _parquet_metadata(path: Path, most: int) -> bytes:
    pa, pq = import_pyarrow()
    try:
        text: bytes = (pq.read_schema(path).metadata or {}).get(b"pyfau", b"{}")
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    if len(text) > most:
        raise ValueError(f"it has {len(text)} bytes: expected at most {most}")
    return text


def plain(value: Any) -> Any:
    """The value as JSON can express it.

    numpy values become numbers and lists, paths and other objects become text, NaN becomes null.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
