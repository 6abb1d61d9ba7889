"""A Parquet table on a full disk: pyfau keeps the rows that the disk has room for.

A Parquet file cannot be read without its end. Arrow cannot write the end after an error.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from pyfau.tables.metadata import import_pyarrow

_SHARE = 0.8  # share of the rows that should fit, then of the rows of the previous attempt


class SpillFile(io.RawIOBase):
    """The file that Arrow writes to. After the first error, it stores the data in memory.

    Args:
        file: The file on the disk, which is empty.

    Attributes:
        fault: The first error; None if there was none.
        size: Bytes that are on the disk.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.fault: OSError | None = None
        self.size = 0
        self._file = file
        self._spilled = io.BytesIO()

    def writable(self) -> bool:
        """Whether the file can be written: always True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes to the disk, or to memory after an error."""
        data = bytes(data)
        if self.fault is None:
            try:
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                self.fault = error
        if self.fault is None:
            self.size += len(data)
        else:
            self._spilled.write(data)
        return len(data)

    def tell(self) -> int:
        """Number of bytes that were written."""
        return self.size + self._spilled.tell()

    def check(self) -> None:
        """Raise the first error of the disk, if there was one."""
        if self.fault is not None:
            raise self.fault

    def read_all(self, on_disk: BinaryIO) -> bytes:
        """All bytes that were written: those on the disk, then those in memory."""
        return on_disk.read(self.size) + self._spilled.getvalue()


def cut_table(data: bytes, rows: int, metadata: dict[str, str]) -> bytes:
    """Make a Parquet file of the first rows of a Parquet file.

    Args:
        data: The complete file.
        rows: Number of rows to keep.
        metadata: Metadata of the schema.
    """
    _, pq = import_pyarrow()
    source = pq.ParquetFile(io.BytesIO(data))
    sink = io.BytesIO()
    schema = source.schema_arrow.remove_metadata()
    options = {"store_schema": False, "write_page_checksum": True}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for number in range(source.num_row_groups):
            if rows > 0:
                group = source.read_row_group(number).slice(0, rows)
                writer.write_table(group.replace_schema_metadata(None))
                rows -= len(group)
        writer.add_key_value_metadata(metadata)
    return sink.getvalue()


def fewer_rows(rows: int, size: int, room: int) -> Iterator[int]:
    """Yield smaller and smaller numbers of rows to try on a disk that has no room for all rows.

    Args:
        rows: Number of all rows.
        size: Bytes of the file with all rows.
        room: Number of these bytes that the disk had room for.
    """
    count = int(rows * min(1.0, room / size) * _SHARE)
    while count > 0:
        yield count
        count = int(count * _SHARE)
