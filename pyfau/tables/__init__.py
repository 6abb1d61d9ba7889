"""Tables of scores: rows in memory, writers, readers and metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.tables.metadata import is_complete, read_metadata
    from pyfau.tables.rows import AURows
    from pyfau.tables.writers import (
        TABLES,
        CSVWriter,
        JSONLinesWriter,
        ParquetWriter,
        ResultWriter,
        open_writer,
    )

__all__ = [
    "AURows",
    "ResultWriter",
    "CSVWriter",
    "JSONLinesWriter",
    "ParquetWriter",
    "open_writer",
    "TABLES",
    "is_complete",
    "read_metadata",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AURows": "rows",
        "ResultWriter": "writers",
        "CSVWriter": "writers",
        "JSONLinesWriter": "writers",
        "ParquetWriter": "writers",
        "open_writer": "writers",
        "TABLES": "writers",
        "is_complete": "metadata",
        "read_metadata": "metadata",
    },
)
