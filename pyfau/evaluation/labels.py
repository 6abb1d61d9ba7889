"""Your own labels: a CSV with columns for frame, face and AUs, matched with rows of pyfau."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.aus import au_name
from pyfau.errors import InputError, OptionError
from pyfau.evaluation.lists import IGNORED
from pyfau.files import read_file
from pyfau.limits import LIMITS, Limits
from pyfau.tables.rows import AURows
from pyfau.tables.schema import check_header
from pyfau.tables.writers import TABLES
from pyfau.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd


_KEYS = {
    "frame": ("frame", "frame_number", "frame_index", "frame_id", "framenumber", "frameid"),
    "time": ("time_s", "time", "timestamp", "seconds", "time_sec"),
    "file": ("file", "filename", "file_name", "image", "picture", "path"),
}
_FACES = ("face_id", "face", "faceid")
# The number, the side of the face (left or right) if there is one, and the kind of label.
_AU_COLUMN = re.compile(r"(?:au[ _-]?)?0*([1-9][0-9]?)([lr]?)(|_c|_r)", re.IGNORECASE)
_SIDES = {"": "", "l": "left", "r": "right"}
# If an action unit has several columns, that with the later suffix is used.
_OCCURRENCE_SUFFIXES = ("", "_c")
_INTENSITY_SUFFIXES = ("", "_c", "_r")
_OPENFACE = {"timestamp", "confidence", "success"}
_MISSING = ("", "nan", "na", "n/a", "none", "null", "-")
_UNKNOWN = (-1.0, 9.0)
_WORDS = {"true": 1.0, "false": 0.0}
_LABEL_SUFFIXES = (".csv", ".tsv", ".txt")
_SHOWN_IDS = 5


@dataclass(slots=True)
class LabelTable:
    """A table of labels.

    Attributes:
        path: The file.
        kind: What names the frames: "frame", "time" or "file".
        keys: R frame numbers, seconds or file names.
        faces: R ids of faces, None where the table has none.
        aus: The K action units, such as "AU12".
        labels: (R, K) int8, 1 present, 0 absent, -1 ignored.
        unused: Columns that were not used.
        grades: (R, K) float32, the labels as intensities, NaN where unknown; None if they are
            occurrences.
    """

    path: Path
    kind: str
    keys: list[Any]
    faces: list[int | None]
    aus: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    unused: list[str]
    grades: FloatArray | None = None


@dataclass(slots=True)
class Matched:
    """Labels and scores of the same frames and faces.

    Attributes:
        aus: The K action units that both tables have.
        labels: (M, K) int8, 1 present, 0 absent, -1 ignored.
        scores: (M, K) float32 in [0, 1].
        active: (M, K) bool, whether the table of scores says that the unit is active.
        label_rows: Number of rows of the label table.
        unmatched: Reasons why rows of labels have no score, with the number of rows.
        unlabelled: Number of scored rows without a label.
        notes: Other things that did not match, in words.
        grades: (M, K) float32, the labels as intensities; None if they are occurrences.
        intensities: (M, K) float32, FACS intensities of the table of scores; None if it has none.
    """

    aus: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    scores: FloatArray
    active: npt.NDArray[np.bool_]
    label_rows: int
    unmatched: dict[str, int]
    unlabelled: int
    notes: list[str] = field(default_factory=list)
    grades: FloatArray | None = None
    intensities: FloatArray | None = None


def read_labels(path: Path, present: float | None = None, limits: Limits = LIMITS) -> LabelTable:
    """Read a table of labels.

    Fields are separated by commas, semicolons or tabs. The columns, in any case of letters:

    - `frame` (whole numbers), or `time_s` (seconds), or `file` names the frame.
    - `face_id` names the face. It can be left out.
    - AU12, AU12_c or 12 has the labels of an action unit; AU12_c is used if there are several. If
      the labels are intensities, AU12_r is used before both. AU12L and AU12R are the two sides.

    A label is 1 or 0, or an intensity; empty, -1 or 9 means that it is unknown. OpenFace writes
    zeros where it found no face. In its tables (with `timestamp`, `confidence` and `success`),
    labels are unknown where `success` is 0.

    Args:
        path: The file.
        present: The labels are intensities, and those of at least this one count as present.
        limits: Larger tables are refused.

    Raises:
        InputError: The file cannot be read, lacks these columns, or has a field that is not a
            label; the error names file and line.
    """
    import pandas as pd

    table = _read_text(path, limits)
    names = [str(name).strip() for name in table.columns]
    if len(set(names)) < len(names):
        raise InputError(f"{path} has two columns of one name: {', '.join(names)}")
    table.columns = pd.Index(names)
    lower = {name.casefold(): name for name in names}
    kind, key_column = _key_column(lower, path)
    face_column = next((lower[name] for name in _FACES if name in lower), None)
    graded = present is not None
    suffixes = _INTENSITY_SUFFIXES if graded else _OCCURRENCE_SUFFIXES
    chosen, unused = _au_columns(names, (key_column, face_column), suffixes, path)
    columns = [_label_column(table[name], path, name, present) for name in chosen.values()]
    values = np.stack(columns, axis=1)
    if lower.keys() >= _OPENFACE:
        success = lower["success"]
        unused.remove(success)
        found = _numbers(table[success], path, success, whole=True)
        values[[number == 0 for number in found]] = np.nan
    keys = _keys(table[key_column], path, kind)
    faces: list[int | None] = [None] * len(table)
    if face_column is not None:
        faces = _numbers(table[face_column], path, face_column, whole=True)
    labels = np.full(values.shape, IGNORED, np.int8)
    known = ~np.isnan(values)
    labels[known] = values[known] >= (1.0 if present is None else present)
    grades = values.astype(np.float32) if graded else None
    return LabelTable(path, kind, keys, faces, tuple(chosen), labels, unused, grades)


def _key_column(lower: Mapping[str, str], path: Path) -> tuple[str, str]:
    """The kind and the name of the column that names the frame."""
    for kind, options in _KEYS.items():
        for name in options:
            if name in lower:
                return kind, lower[name]
    raise InputError(
        f"{path} has no column that names the frame: expected frame, time_s or file, got "
        f"{', '.join(lower.values())}"
    )


def _keys(column: pd.Series[str], path: Path, kind: str) -> list[Any]:
    """The frame numbers, seconds or file names of a column."""
    if kind == "file":
        names: list[Any] = column.str.strip().tolist()
        return names
    keys = _numbers(column, path, str(column.name), whole=kind == "frame")
    if None in keys:
        line = keys.index(None) + 2
        raise InputError(f"{path}:{line}: {column.name} is empty; expected a number")
    return keys


def _au_columns(
    names: Sequence[str], others: Collection[str | None], suffixes: Sequence[str], path: Path
) -> tuple[dict[str, str], list[str]]:
    """The column of each action unit, and the columns that are not used.

    Args:
        names: All columns.
        others: Columns that have another use.
        suffixes: Suffixes of columns that can be used, the best last.
        path: The file, for errors.
    """
    chosen: dict[str, str] = {}
    ranks: dict[str, int] = {}
    unused = []
    for name in names:
        found = _AU_COLUMN.fullmatch(name)
        if found is None or found[3].casefold() not in suffixes:
            if name not in others:
                unused.append(name)
            continue
        au = au_name(int(found[1]), _SIDES[found[2].casefold()])
        rank = suffixes.index(found[3].casefold())
        earlier = chosen.get(au)
        if earlier is not None and rank == ranks[au]:
            raise InputError(f"{path} has two columns for {au}: {earlier} and {name}")
        if earlier is not None and rank < ranks[au]:
            unused.append(name)
            continue
        if earlier is not None:
            unused.append(earlier)
        chosen[au] = name
        ranks[au] = rank
    if not chosen:
        raise InputError(
            f"{path} has no column of an action unit: expected names such as AU12, got "
            f"{', '.join(names)}"
        )
    return chosen, unused


def match(labels: LabelTable, result: AURows, name: str, first_frame: int = 0) -> Matched:
    """Match labels with the scores of the same frame and face.

    A label without a face id belongs to the only face of its frame. A time belongs to the nearest
    frame, at most half the usual distance of frames away. If several labels belong to one frame,
    the nearest counts.

    Args:
        labels: The labels.
        result: The scores.
        name: Name of the scores in errors.
        first_frame: The number that the labels give to the first frame, which is 0 in pyfau.

    Raises:
        InputError: Nothing matches, or a frame is labelled twice.
        OptionError: `first_frame` is given for labels that do not count frames.
    """
    aus = tuple(au for au in result.aus if au in labels.aus)
    if not aus:
        raise InputError(
            f"{labels.path} labels {', '.join(labels.aus)} and {name} scores "
            f"{', '.join(result.aus)}: none in common"
        )
    if first_frame and labels.kind != "frame":
        raise OptionError(
            f"--first-frame is for labels that count frames; {labels.path} names them by "
            f"{labels.kind}"
        )
    table = result.to_dataframe()
    scored = _ScoredRows(table)
    wanted, distances = _frames_of(labels, table, first_frame, name)
    label_of, unmatched = _assign(labels, scored, wanted, distances)
    if not label_of:
        raise _nothing_matches(labels, table, scored, name, unmatched)
    rows = sorted(label_of)
    label_rows = [label_of[row] for row in rows]
    label_columns = [labels.aus.index(au) for au in aus]
    score_columns = [result.aus.index(au) for au in aus]
    return Matched(
        aus,
        labels=labels.labels[label_rows][:, label_columns],
        scores=result.scores[rows][:, score_columns],
        active=result.active[rows][:, score_columns],
        label_rows=len(labels.keys),
        unmatched=dict(unmatched),
        unlabelled=int(scored.success.sum()) - len(rows),
        notes=_notes(labels, result, first_frame),
        grades=_chosen(labels.grades, label_rows, label_columns),
        intensities=_chosen(result.intensities, rows, score_columns),
    )


def _chosen(
    values: FloatArray | None, rows: Sequence[int], columns: Sequence[int]
) -> FloatArray | None:
    if values is None:
        return None
    return values[list(rows)][:, list(columns)]


class _ScoredRows:
    """The rows of a table of scores, by frame."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.success = table["success"].to_numpy().astype(bool)
        self.ids = table["face_id"].fillna(-1).astype(np.int64).to_numpy()
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        for row, frame in enumerate(table["frame"].tolist()):
            self._rows_of[frame].append(row)

    def find(self, frame: int | None, face: int | None, kind: str) -> int | str:
        """The row of a face in a frame, or the reason why there is none.

        Args:
            frame: The frame; None for one that does not exist.
            face: The id of the face; None for the only face of the frame.
            kind: What names the frames, for the reason.
        """
        rows = [] if frame is None else self._rows_of.get(frame, [])
        if not rows:
            return f"no such {kind} among the scores"
        rows = [row for row in rows if self.success[row]]
        if not rows:
            return "no face was found in the frame"
        if face is not None:
            rows = [row for row in rows if self.ids[row] == face]
        if not rows:
            return "no face with that id in the frame"
        if len(rows) > 1:
            return "several faces in the frame and no face_id in the labels"
        return rows[0]


def _assign(
    labels: LabelTable,
    scored: _ScoredRows,
    wanted: Sequence[int | None],
    distances: Sequence[float],
) -> tuple[dict[int, int], Counter[str]]:
    """Find the scored row of each label.

    Returns:
        The label of each row that has one, and reasons why labels have no row, with their number.
    """
    label_of: dict[int, int] = {}
    unmatched: Counter[str] = Counter()
    for i, (frame, face) in enumerate(zip(wanted, labels.faces, strict=True)):
        row = scored.find(frame, face, labels.kind)
        if isinstance(row, str):
            unmatched[row] += 1
            continue
        earlier = label_of.get(row)
        if earlier is None:
            label_of[row] = i
            continue
        if labels.kind != "time":
            raise InputError(
                f"{labels.path}:{i + 2}: {labels.kind} {labels.keys[i]} is labelled a second time, "
                f"after line {earlier + 2}"
            )
        unmatched["another label is nearer to the frame"] += 1
        if distances[i] < distances[earlier]:
            label_of[row] = i
    return label_of, unmatched


def _nothing_matches(
    labels: LabelTable,
    table: pd.DataFrame,
    scored: _ScoredRows,
    name: str,
    unmatched: Mapping[str, int],
) -> InputError:
    """The error for labels without any score. It shows how the two tables differ."""
    reasons = "; ".join(f"{reason}: {count}" for reason, count in unmatched.items())
    column = "time_s" if labels.kind == "time" else labels.kind
    scored_span = _span(table[column].dropna().tolist())
    scored_ids = _some_ids(scored.ids[scored.success].tolist())
    return InputError(
        f"no row of {labels.path} matches one of {name} ({reasons}). The labels' {labels.kind}s "
        f"run from {_span(labels.keys)}, the scores' from {scored_span}; the labels' faces are "
        f"{_some_ids(labels.faces)}, the scores' {scored_ids}"
    )


def _notes(labels: LabelTable, result: AURows, first_frame: int) -> list[str]:
    """Facts about the two tables that matter for the interpretation of the figures."""
    unscored = [au for au in labels.aus if au not in result.aus]
    unlabelled = [au for au in result.aus if au not in labels.aus]
    lists = {
        "not scored by the model": unscored,
        "without labels": unlabelled,
        "columns of the labels that were not used": labels.unused,
    }
    notes = [f"{title}: {', '.join(names)}" for title, names in lists.items() if names]
    if labels.kind == "frame" and not first_frame:
        last = int(max(result.frames))
        if min(labels.keys) == 1 and max(labels.keys) == last + 1:
            notes.append(
                "labels count frames from 1, scores from 0: if that is the same frame, give "
                "--first-frame 1"
            )
    return notes


def pairs_of(labels: Path, scores: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of labels and of scores that belong together.

    Args:
        labels: A .csv file, or a folder of such.
        scores: A .csv, .parquet or .jsonl file of pyfau, or a folder of such; files in folders go
            together by name.

    Returns:
        The pairs, and notes on files without a partner.

    Raises:
        InputError: There is no pair.
    """
    for path in (labels, scores):
        try:
            path.stat()
        except OSError as error:
            raise InputError(
                f"{path}: {error.strerror}; expected a table or a folder of tables"
            ) from None
    if labels.is_dir() != scores.is_dir():
        raise InputError(f"expected two files or two folders, got {labels} and {scores}")
    if not labels.is_dir():
        return [(labels, scores)], []
    left = _by_stem(labels, _LABEL_SUFFIXES)
    right = _by_stem(scores, TABLES)
    pairs = [(left[stem], right[stem]) for stem in left if stem in right]
    if not pairs:
        raise InputError(
            f"{labels} and {scores} have no file name in common, such as clip.csv in both"
        )
    notes = [f"{left[stem]}: labels without scores" for stem in left.keys() - right.keys()]
    notes += [f"{right[stem]}: scores without labels" for stem in right.keys() - left.keys()]
    return pairs, sorted(notes)


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The files of a folder by name without suffix."""
    files = sorted(folder.iterdir())
    return {path.stem: path for path in files if path.suffix.lower() in suffixes}


def _frames_of(
    labels: LabelTable, table: pd.DataFrame, first_frame: int, name: str
) -> tuple[list[int | None], list[float]]:
    """The frame of each label, or None, and the distance in seconds of labels with a time."""
    if labels.kind == "time":
        return _frames_at(labels, table, name)
    nowhere = [0.0] * len(labels.keys)
    if labels.kind == "file":
        return _frames_of_files(labels, table, name), nowhere
    return [int(key) - first_frame for key in labels.keys], nowhere


def _frames_of_files(labels: LabelTable, table: pd.DataFrame, name: str) -> list[int | None]:
    """The frame of each file: the file with this path, or the only file with this name."""
    if "file" not in table:
        raise InputError(
            f"{labels.path} names frames by file, and {name} has no column file: it is of a video"
        )
    frames: dict[str, set[int]] = defaultdict(set)
    files = table["file"].fillna("").astype(str)
    for file, frame in zip(files, table["frame"].tolist(), strict=True):
        frames[file].add(frame)
        frames[_base(file)].add(frame)
    found: list[int | None] = []
    for key in labels.keys:
        some = frames.get(key) or frames.get(_base(key)) or set()
        found.append(next(iter(some)) if len(some) == 1 else None)
    return found


def _frames_at(
    labels: LabelTable, table: pd.DataFrame, name: str
) -> tuple[list[int | None], list[float]]:
    """The nearest frame of each time, and its distance in seconds."""
    timed = table[["time_s", "frame"]].dropna().drop_duplicates("frame").sort_values("time_s")
    times = timed["time_s"].to_numpy(np.float64)
    numbers = timed["frame"].to_numpy()
    if len(times) < 2:
        raise InputError(
            f"{labels.path} names frames by time, and {name} has no times: score with --fps, or "
            "use frame"
        )
    # A time between two frames belongs to the nearer one. The 1e-6 allows for rounding.
    reach = float(np.median(np.diff(times))) / 2 + 1e-6
    wanted = np.asarray(labels.keys, np.float64)
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    nearest = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    distances: list[float] = np.abs(times[nearest] - wanted).tolist()
    chosen = [
        int(numbers[i]) if distance <= reach else None
        for i, distance in zip(nearest, distances, strict=True)
    ]
    return chosen, distances


def _base(file: str) -> str:
    return PureWindowsPath(file).name  # it splits at both kinds of slash


def _read_text(path: Path, limits: Limits) -> pd.DataFrame:
    import pandas as pd

    try:
        data = read_file(path, limits.file_bytes)
        head = data.split(b"\n", 1)[0]
        separator = max((",", ";", "\t"), key=lambda mark: head.count(mark.encode()))
        check_header(data, separator, path, limits)
        with warnings.catch_warnings():
            # pandas would only warn, and drop the fields that are too many.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table: pd.DataFrame = pd.read_csv(
                io.BytesIO(data),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
                skip_blank_lines=False,
            )
    except InputError:
        raise
    except pd.errors.ParserWarning:
        raise InputError(
            f"cannot read {path} as a table of labels: its rows have more fields than its header"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"cannot read {path} as a table of labels: {reason}") from None
    table = table.fillna("")
    table = table.iloc[: _filled_rows(table)]
    if not len(table):
        raise InputError(f"{path} holds no rows of labels")
    return table


def _filled_rows(table: pd.DataFrame) -> int:
    """The number of rows without the blank ones at the end, which can be most of the file."""
    rows = table.to_numpy()
    count = len(rows)
    while count and not any(text.strip() for text in rows[count - 1]):
        count -= 1
    return count


def _numbers(column: pd.Series[str], path: Path, name: str, whole: bool) -> list[Any]:
    """Numbers of a column, None where it is empty."""
    numbers: list[Any] = []
    for line, text in enumerate(column.str.strip().str.casefold().tolist(), 2):
        if text in _MISSING:
            numbers.append(None)
            continue
        try:
            number = float(text)
            if not np.isfinite(number) or (whole and number != int(number)):
                raise ValueError
        except ValueError:
            kind = "a whole number" if whole else "a number of seconds"
            raise InputError(f"{path}:{line}: {name} {text!r}; expected {kind}") from None
        numbers.append(int(number) if whole else number)
    return numbers


def _label_column(
    column: pd.Series[str], path: Path, name: str, present: float | None
) -> npt.NDArray[np.float64]:
    """The labels of a column as numbers, NaN where they are unknown."""
    texts = column.str.strip().str.casefold()
    values: dict[str, float] = {}
    for text in texts.unique().tolist():
        value = _value(text)
        if value is None or not _is_label(value, present):
            line = texts.tolist().index(text) + 2
            raise InputError(f"{path}:{line}: {name} is {text!r}; expected {_expected(present)}")
        values[text] = value
    return texts.map(values).to_numpy(np.float64)


def _is_label(value: float, present: float | None) -> bool:
    if np.isnan(value):
        return True
    if present is not None:
        return 0 <= value < np.inf
    return value in (0.0, 1.0)


def _expected(present: float | None) -> str:
    if present is not None:
        return "a number from 0, or empty or -1 where it is not known"
    return "0, 1, or empty or -1 where it is not known; intensities need --present"


def _value(text: str) -> float | None:
    """The number in a field, NaN if it means "unknown"; None if it is not a number."""
    if text in _MISSING:
        return float("nan")
    try:
        value = _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        return None
    return float("nan") if value in _UNKNOWN else value


def _span(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None and value == value]
    return f"{min(known)} to {max(known)}" if known else "nothing to nothing"


def _some_ids(faces: Sequence[int | None]) -> str:
    known = sorted({face for face in faces if face is not None})
    if not known:
        return "without an id"
    shown = ", ".join(map(str, known[:_SHOWN_IDS]))
    return f"{shown} ..." if len(known) > _SHOWN_IDS else shown
