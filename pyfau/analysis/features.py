"""Features of many tables: one row per table and face, for statistics."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.analysis.summary import summarize
from pyfau.errors import InputError, OptionError, PyfauError
from pyfau.files import (
    check_is_other,
    escape_text,
    has_content,
    is_folder,
    natural_key,
    open_plain,
)
from pyfau.limits import LIMITS, Limits
from pyfau.messages import progress_bar
from pyfau.tables.cells import guard_cell
from pyfau.tables.metadata import read_metadata, write_whole
from pyfau.tables.readers import read_table
from pyfau.tables.rows import AURows
from pyfau.tables.writers import TABLES
from pyfau.types import Failure, StrPath

if TYPE_CHECKING:
    import pandas as pd

_FEATURES_START = b"table,source,face_id"  # of the CSV file that `pyfau summary` writes
# Written by a run on a cluster next to the tables: a list of its inputs, not a table of rows.
_INPUTS_TABLE = "_inputs.csv"
_SHOWN_NAMES = 3


@dataclass(slots=True)
class Features:
    """The features of many tables.

    Attributes:
        table: One row per table and face, in the order of the tables. The columns are table (its
            path), source (the video or other input that the table is of), face_id (Int64), and
            those of `AUResult.summary`. A table without any face has one row without face_id.
        failures: Tables that could not be read or summarised, with the reason.
        warnings: Facts that matter for the interpretation of the features, for example that the
            tables were made by different models.
        count: Number of tables that were given.
    """

    table: pd.DataFrame
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    count: int = 0

    def to_csv(self, path: StrPath) -> Path:
        """Write the features as a CSV file, with six decimals.

        Names that a spreadsheet would take for a formula get an apostrophe in front.

        Raises:
            OptionError: The file cannot be written.
        """
        table = self.table.round(6)
        for name in ("table", "source"):
            table[name] = table[name].map(guard_cell, na_action="ignore")
        text = table.to_csv(index=False, lineterminator="\n")
        return write_whole(path, text)


def check_features(output: Path, overwrite: bool = False) -> None:
    """Check the file that features will be written to.

    Args:
        output: The file.
        overwrite: Whether it may be a file that pyfau did not write.

    Raises:
        OptionError: It is not a .csv file, is a folder, or must not be replaced.
    """
    if output.suffix.lower() != ".csv" or output.is_dir():
        raise OptionError(f"features are written to a .csv file, got {output}")
    if overwrite or not has_content(output):
        return
    if not _is_features(output) and not _is_table(output):
        raise OptionError(
            f"{output} exists and is not a table of features; --overwrite replaces it"
        )


def find_tables(inputs: Iterable[StrPath], output: StrPath | None = None) -> list[Path]:
    """Find the tables of a list of inputs.

    Args:
        inputs: Tables, folders of tables, or glob patterns. Folders in folders are not searched.
        output: File that the features will be written to. It does not count as an input.

    Returns:
        The paths; those of a folder in natural order, img2 before img10. Files that do not exist
        stay, so that they can be reported.

    Raises:
        InputError: A folder or pattern has no tables.
        OptionError: `output` would replace a table.
    """
    found: list[Path] = []
    for text in inputs:
        if not os.fspath(text):
            raise InputError("an input is empty text: expected a table or a folder of tables")
        path = Path(text)
        if is_folder(path):
            found += _tables_in(path, output)
        elif glob.has_magic(os.fspath(text)) and not path.exists():
            found += _matching(os.fspath(text))
        else:
            found.append(path)
    if output is not None:
        _check_output(Path(output), found)
    return list(dict.fromkeys(found))


def summarize_tables(
    paths: Sequence[StrPath], *, progress: bool = False, limits: Limits = LIMITS
) -> Features:
    """Summarise many tables that pyfau wrote.

    A table that cannot be read is reported in `failures`, and the others are summarised.

    Args:
        paths: .csv, .parquet or .jsonl files.
        progress: Show a progress bar on standard error.
        limits: Larger tables are refused.

    Raises:
        InputError: No table could be summarised.
    """
    import pandas as pd

    parts: list[pd.DataFrame] = []
    failures: list[Failure] = []
    warnings: list[str] = []
    made_by: dict[str, list[str]] = defaultdict(list)
    thresholds: dict[str, list[str]] = defaultdict(list)
    tables_of: dict[str, list[str]] = defaultdict(list)
    for path in progress_bar(paths, unit="table", disable=not progress):
        name = os.fspath(path)
        try:
            rows = read_table(path, AURows, limits)
            parts.append(_features(rows, name))
        except PyfauError as error:
            failures.append(Failure(name, str(error)))
            continue
        warnings += [_about(name, warning) for warning in rows.warnings]
        made_by[_model(rows)].append(name)
        thresholds[repr(rows.metadata.get("thresholds"))].append(name)
        if rows.metadata.get("source") is not None:
            tables_of[str(rows.metadata["source"])].append(name)
    if not parts:
        reasons = [failure.error for failure in failures[:_SHOWN_NAMES]]
        raise InputError(f"no table could be summarised: {'; '.join(reasons) or 'none was given'}")
    if len(made_by) > 1:
        groups = [f"{model} ({_some(names)})" for model, names in made_by.items()]
        warnings.append(f"the tables were made by different models: {', '.join(groups)}")
    elif len(thresholds) > 1:
        groups = [_some(names) for names in thresholds.values()]
        warnings.append(f"the tables have different thresholds: {' / '.join(groups)}")
    for source, names in tables_of.items():
        if len(names) > 1:
            warnings.append(f"{source} has several tables: {_some(names)}")
    table = pd.concat(parts, ignore_index=True)
    return Features(table, failures, warnings, len(paths))


def _tables_in(folder: Path, output: StrPath | None) -> list[Path]:
    """The tables of a folder, without the features that an earlier run wrote there."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        hidden = path.name.startswith(".") or path.name == _INPUTS_TABLE
        if hidden or path.suffix.lower() not in TABLES or not path.is_file():
            continue
        if output is not None and _is_same(path, output) and not _is_table(path):
            continue
        if _is_features(path):
            continue
        found.append(path)
    if not found:
        raise InputError(
            f"{folder} has no tables ({', '.join(TABLES)}): expected a folder that pyfau detect "
            f"wrote, as with `pyfau detect {folder} -o scores`"
        )
    return found


def _is_features(path: Path) -> bool:
    """Whether a file contains the features of an earlier `pyfau summary`."""
    if path.suffix.lower() != ".csv":
        return False
    with open_plain(path) as file:
        start = file.read(len(_FEATURES_START))
    return start == _FEATURES_START


def _matching(pattern: str) -> list[Path]:
    # pathlib does not support absolute patterns.
    names = sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207
    paths = [Path(name) for name in names]
    found = [path for path in paths if path.suffix.lower() in TABLES]
    if not found:
        raise InputError(f"no table ({', '.join(TABLES)}) matches {pattern}")
    return found


def _check_output(output: Path, tables: Sequence[Path]) -> None:
    for table in tables:
        check_is_other(output, table)
    if _is_table(output):
        raise OptionError(f"{output} would replace a table of scores: give another --output")


def _is_same(path: Path, other: StrPath) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _is_table(path: Path) -> bool:
    """Whether pyfau wrote this file as a table of rows: those have metadata."""
    return "complete" in read_metadata(path)


def _features(rows: AURows, name: str) -> pd.DataFrame:
    """The summary of one table, with columns that say where each row is from."""
    import pandas as pd

    summary = summarize(rows)
    faces: Any = summary.index.to_numpy()
    if not len(summary):
        # A video in which no face was found still gets a row, so that it is not overlooked.
        summary = summarize(rows, per="clip")
        faces = [pd.NA]
    source = rows.metadata.get("source")
    table: pd.DataFrame = summary.reset_index(drop=True)
    table.insert(0, "table", _text(name))
    table.insert(1, "source", None if source is None else _text(str(source)))
    table.insert(2, "face_id", pd.array(faces, dtype="Int64"))
    return table


def _text(name: str) -> str:
    """A name that can be written as UTF-8: file names can contain bytes that are not text."""
    return escape_text(name).decode()


def _model(rows: AURows) -> str:
    """A name that differs between models of the same name."""
    name = rows.metadata.get("model")
    digest = rows.metadata.get("model_sha256")
    if name is None:
        return "an unknown model"
    return str(name) if digest is None else f"{name} {str(digest)[:12]}"


def _about(name: str, warning: str) -> str:
    return warning if name in warning else f"{name}: {warning}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
