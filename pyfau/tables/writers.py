"""Writers of tables: rows are written during the work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.errors import OptionError
from pyfau.files import (
    create_file,
    escape_text,
    lock_file,
    locked,
    make_room,
    move_file,
    part_name,
    real_path,
    remove_file,
    remove_parts,
    replace_file,
    sync_file,
    writing,
)
from pyfau.tables.cells import guard_cell
from pyfau.tables.metadata import import_pyarrow, plain, sidecar, write_json
from pyfau.tables.rows import (
    AURows,
    check_aus,
    intensity_columns,
    intensity_of,
    measures_of,
    mesh_of,
    raw_columns,
    raw_scores_of,
)
from pyfau.tables.spill import SpillFile, cut_table, fewer_rows
from pyfau.types import BOX, COLUMNS, MEASURES, MESH, AURow, FloatArray, StrPath, mesh_values

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self


ROW_GROUP = 16384  # rows of a Parquet table that are compressed together
_MEASURE_DIGITS = 4
_MESH_DIGITS = 2
# Decimals in files of text; 6 for all other columns.
_DIGITS = dict.fromkeys(BOX, 3) | dict.fromkeys(MEASURES, _MEASURE_DIGITS)
_DIGITS |= dict.fromkeys(MESH, _MESH_DIGITS)
TABLES = (".csv", ".parquet", ".jsonl")  # the suffixes of tables that grow during the work


def write_table(rows: AURows, kind: type[ResultWriter], path: StrPath) -> Path:
    """Write all rows to a file, with a writer of the class `kind`."""
    left = iter(rows)
    with kind(
        path,
        rows.aus,
        rows.record(),
        rows.has_files,
        rows.has_raw,
        rows.has_intensity,
        rows.has_measures,
        rows.has_landmarks,
    ) as writer:
        while some := list(islice(left, 4096)):
            writer.write(some)
    return writer.path


def rewrite_table(rows: AURows, path: StrPath) -> Path:
    """Replace a table that `open_writer` wrote by one with other rows, in the same format.

    The old table stays until the new one is complete.

    Raises:
        OptionError: The new table cannot be written, for example because the disk is full.
    """
    path = real_path(path)
    with locked(path), writing(path):
        part = part_name(path)
        try:
            write_table(rows, _WRITERS[path.suffix.lower()], part)
            move_file(part, path)
            if sidecar(part).exists():  # Parquet files contain their metadata
                move_file(sidecar(part), sidecar(path))
        except OptionError as error:
            raise OptionError(f"{path} stays as it was: {error}") from error
        finally:
            remove_file(part)
            remove_file(sidecar(part))
    return path


class ResultWriter(ABC):
    """Writes rows to a file while the work runs: a context manager.

    An exception in the `with` block keeps the rows written so far, and marks the file as
    incomplete. Until `close`, no other writer can write the file, in this process or another one.

    Args:
        path: The file to write. Missing folders are created; an existing file is replaced.
        aus: The N column names of the scores.
        metadata: The origin of the rows; must be expressible in JSON.
        files: Whether to write a column `file`.
        raw: Whether to write the raw scores of adjusted rows.
        intensity: Whether to write intensities, in columns such as "AU12_r".
        measures: Whether to write the columns of `pyfau.types.FaceMeasures`.
        landmarks: Whether to write the columns of `pyfau.types.FaceMesh`.

    Attributes:
        path: The file.
        metadata: A copy of `metadata`. Changes until `close` are written.

    Raises:
        OptionError: The file cannot be written, or another process is writing it.
    """

    def __init__(
        self,
        path: StrPath,
        aus: Sequence[str],
        metadata: Mapping[str, Any],
        files: bool = False,
        raw: bool = False,
        intensity: bool = False,
        measures: bool = False,
        landmarks: bool = False,
    ) -> None:
        self.path = Path(path)
        self.metadata = dict(metadata)
        self._aus = tuple(aus)
        self._with_file = files
        self._with_raw = raw
        self._with_intensity = intensity
        self._with_measures = measures
        self._with_mesh = landmarks
        self._closed = False
        self._rows = 0
        with writing(self.path):
            make_room(self.path)
            self._lock = lock_file(self.path)
            try:
                if self._lock.stale:
                    remove_parts(sidecar(self.path))
                self._open()
            except BaseException:
                self._lock.release()
                raise

    def write(self, rows: Iterable[AURow]) -> None:
        """Add rows.

        Raises:
            InputError: A row scores other action units than this file.
            OptionError: The file cannot be written, for example because the disk is full.
        """
        rows = list(rows)
        for row in rows:
            check_aus(row, self._aus)
        if self._closed:
            raise OptionError(f"cannot write {self.path}: it is closed")
        with writing(self.path):
            self._write(rows)
        self._rows += len(rows)

    def close(self, complete: bool = True) -> None:
        """Finish the file. Calling it again does nothing.

        Args:
            complete: False notes that rows are missing; see `is_complete`.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with writing(self.path):
                self._close(plain({**self.metadata, "complete": complete}))
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(complete=kind is None)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, rows: list[AURow]) -> None: ...

    @abstractmethod
    def _close(self, record: dict[str, Any]) -> None: ...


class _LinesWriter(ResultWriter):
    """Writes one line for each row.

    Every `write` passes whole lines to the operating system, so the rows written so far survive a
    crash of the process. The metadata goes to a second file, the path + ".json". "complete" is
    false there until `close`.

    The order of the writes survives a loss of power: each step is on the disk before the next one
    begins. The metadata says "complete" only together with the size and the sha256 of a table that
    is on the disk.
    """

    def _open(self) -> None:
        # The metadata comes first: an old "complete" must be removed before the old table.
        write_json(sidecar(self.path), plain({**self.metadata, "complete": False}))
        self._file = create_file(self.path)
        self._bytes = 0
        self._hash = hashlib.sha256()

    def _write(self, rows: list[AURow]) -> None:
        self._put([self._line(row) for row in rows])

    def _close(self, record: dict[str, Any]) -> None:
        try:
            sync_file(self._file, self.path)
        finally:
            self._file.close()
        table = {"bytes": self._bytes, "rows": self._rows, "sha256": self._hash.hexdigest()}
        write_json(sidecar(self.path), record | {"table": table})

    def _put(self, lines: list[str]) -> None:
        if lines:
            data = escape_text("\n".join(lines) + "\n")
            self._file.write(data)
            self._file.flush()
            self._bytes += len(data)
            self._hash.update(data)

    @abstractmethod
    def _line(self, row: AURow) -> str: ...


class CSVWriter(_LinesWriter):
    """Writes CSV: UTF-8, "\\n" line ends, empty fields for missing values.

    Every `write` passes whole lines to the operating system, so the rows written so far survive a
    crash of the process. The metadata goes to a second file, the path + ".json". "complete" is
    false there until `close`.

    Names of files that a spreadsheet would take for a formula get an apostrophe in front, which
    `read_csv` removes; see `pyfau.tables.cells`.
    """

    def _open(self) -> None:
        super()._open()
        names = [*COLUMNS, *self._aus, *(f"{au}_c" for au in self._aus)]
        if self._with_intensity:
            names += intensity_columns(self._aus)
        if self._with_raw:
            names += raw_columns(self._aus)
        if self._with_measures:
            names += MEASURES
        if self._with_mesh:
            names += MESH
        if self._with_file:
            names.append("file")
        self._put([",".join(names)])

    def _line(self, row: AURow) -> str:
        fields = [
            str(row.frame),
            _decimal(row.time_s, 6),
            "" if row.face_id is None else str(row.face_id),
            "1" if row.success else "0",
            _decimal(row.confidence, 6),
        ]
        fields += _decimals(row.box_xyxy, 3)
        fields += _decimals(row.scores, 6)
        fields += _flags(row)
        if self._with_intensity:
            fields += _decimals(intensity_of(row), 6)
        if self._with_raw:
            fields += _decimals(raw_scores_of(row), 6)
        if self._with_measures:
            fields += [_decimal(value, _MEASURE_DIGITS) for value in measures_of(row)]
        if self._with_mesh:
            fields += _decimals(mesh_values(mesh_of(row)), _MESH_DIGITS)
        if self._with_file:
            fields.append(_quoted(guard_cell(row.file or "")))
        return ",".join(fields)


def _flags(row: AURow) -> list[str]:
    """1 or 0 for each AU; empty without a face, and for an AU without a score."""
    if not row.success:
        return [""] * len(row.aus)
    flags = ["1" if active else "0" for active in row.active.tolist()]
    missing = np.isnan(row.scores)
    if not missing.any():
        return flags
    return ["" if gone else flag for flag, gone in zip(flags, missing, strict=True)]


class JSONLinesWriter(_LinesWriter):
    """Writes JSON Lines in UTF-8: one object for each row.

    The names are those of the CSV; missing values are null. Whole lines and the second file are as
    in `CSVWriter`.
    """

    def _line(self, row: AURow) -> str:
        row = dataclasses.replace(
            row,
            raw_scores=raw_scores_of(row) if self._with_raw else None,
            intensity=intensity_of(row) if self._with_intensity else None,
            measures=measures_of(row) if self._with_measures else None,
            mesh=mesh_of(row) if self._with_mesh else None,
        )
        record = row.to_dict()
        for name, value in record.items():
            if isinstance(value, float):
                record[name] = _rounded(value, _DIGITS.get(name, 6))
        if self._with_file:
            record["file"] = row.file and escape_text(row.file).decode()
        return json.dumps(record, ensure_ascii=False, allow_nan=False)


class ParquetWriter(ResultWriter):
    """Writes Parquet, with the metadata as JSON in the schema metadata under the key b"pyfau".

    Needs pyarrow. A Parquet file can be read only after `close`. The rows therefore go to a hidden
    file in the same folder, which gets the name of the table on `close`. Ctrl-C, SIGTERM and errors
    close the file. On a full disk, it has the rows that the disk has room for. After SIGKILL or a
    loss of power, the rows of this run are lost, and a table of an earlier run under this name is
    still there. Write CSV or JSON Lines if rows must survive that.

    Raises:
        DependencyError: pyarrow is not installed.
    """

    def _open(self) -> None:
        self._pa, pq = import_pyarrow()
        self._schema = self._pa.Schema.from_pandas(self._buffer_table(), preserve_index=False)
        self._taken = 0
        self._part = part_name(self.path)
        self._file = create_file(self._part)
        self._sink = SpillFile(self._file)
        # With a stored Arrow schema, readers would not see the metadata that is added at the end.
        # The checksums of the pages reveal a table that was changed or damaged later.
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, store_schema=False, write_page_checksum=True
        )
        try:
            self._sink.check()
        except OSError:
            self._remove_part()
            raise

    def _write(self, rows: list[AURow]) -> None:
        for row in rows:
            self._buffer.append(row)
            self._taken += 1
            if len(self._buffer) >= ROW_GROUP:
                self._flush()
        self._sink.check()

    def _close(self, record: dict[str, Any]) -> None:
        try:
            if len(self._buffer):
                self._flush()
            self._writer.add_key_value_metadata(self._footer(record, self._taken))
            self._writer.close()
            if self._sink.fault is None:
                sync_file(self._file, self._part)
                self._file.close()
                move_file(self._part, self.path)
                return
            with self._part.open("rb") as on_disk:
                data = self._sink.read_all(on_disk)
        except BaseException:
            self._remove_part()
            raise
        self._remove_part()
        self._rescue(data, record)

    def _footer(self, record: dict[str, Any], rows: int) -> dict[str, str]:
        # "pandas" brings Int64 columns back as such.
        pandas = self._schema.metadata[b"pandas"].decode()
        return {"pyfau": json.dumps(record | {"table": {"rows": rows}}), "pandas": pandas}

    def _rescue(self, data: bytes, record: dict[str, Any]) -> None:
        """Write as many rows as the full disk has room for.

        Raises:
            OSError: Rows are missing.
        """
        try:
            replace_file(self.path, data)
        except OSError:
            for rows in fewer_rows(self._taken, len(data), self._sink.size):
                with suppress(OSError):
                    footer = self._footer(record | {"complete": False}, rows)
                    replace_file(self.path, cut_table(data, rows, footer))
                    break
            raise

    def _remove_part(self) -> None:
        with suppress(OSError):  # text that the disk has no room for
            self._file.close()
        remove_file(self._part)

    def _flush(self) -> None:
        table = self._pa.Table.from_pandas(
            self._buffer.to_dataframe(), schema=self._schema, preserve_index=False
        )
        self._writer.write_table(table)
        self._buffer_table()

    def _buffer_table(self) -> pd.DataFrame:
        self._buffer = AURows(
            self._aus,
            {},
            self._with_file,
            self._with_raw,
            self._with_intensity,
            self._with_measures,
            self._with_mesh,
        )
        table = self._buffer.to_dataframe()
        table.attrs.clear()
        return table


_WRITERS: dict[str, type[ResultWriter]] = {
    ".csv": CSVWriter,
    ".parquet": ParquetWriter,
    ".jsonl": JSONLinesWriter,
}


def open_writer(
    path: StrPath,
    aus: Sequence[str],
    metadata: Mapping[str, Any],
    files: bool = False,
    intensity: bool = False,
    measures: bool = False,
    landmarks: bool = False,
) -> ResultWriter:
    """Make the writer for a path's suffix; the arguments are those of `ResultWriter`.

    Raises:
        OptionError: The suffix is none of .csv, .parquet and .jsonl, or the file cannot be written.
        DependencyError: pyarrow is not installed, and the suffix is .parquet.
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"results are written to a path, got {type(path).__name__}")
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise OptionError(f"results are written as {', '.join(TABLES)}, got {os.fspath(path)!r}")
    kind = _WRITERS[suffix]
    return kind(
        path,
        aus,
        metadata,
        files,
        intensity=intensity,
        measures=measures,
        landmarks=landmarks,
    )


def _decimal(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _decimals(values: FloatArray, digits: int) -> list[str]:
    return [_decimal(value, digits) for value in values.tolist()]


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _quoted(text: str) -> str:
    """A CSV field. The csv module leaves a bare "\\r" unquoted before Python 3.13."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
