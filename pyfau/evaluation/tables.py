"""Anyone's own labels: a CSV of frame (or time, or file), face and AU columns, matched with pyfau's rows."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError, OptionError
from pyfau.evaluation.lists import IGNORED
from pyfau.result import TABLES, AUResult
from pyfau.types import FloatArray, au_name

if TYPE_CHECKING:
    import pandas as pd

_KEYS = {
    "frame": ("frame", "frame_number", "frame_index", "frame_id", "framenumber", "frameid"),
    "time": ("time_s", "time", "timestamp", "seconds", "time_sec"),
    "file": ("file", "filename", "file_name", "image", "picture", "path"),
}
_FACES = ("face_id", "face", "faceid")
_AU_COLUMN = re.compile(r"(?:au[ _-]?)?0*([1-9][0-9]?)(_c)?", re.IGNORECASE)
_MISSING = ("", "nan", "na", "n/a", "none", "null", "-")
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(slots=True)
class LabelTable:
    """A table of labels.

    Attributes:
        path: The file.
        kind: What names the frames: "frame", "time" or "file".
        keys: R frame numbers, seconds or file names.
        faces: R ids of faces, None where the table gives none.
        aus: The K action units, such as "AU12".
        labels: (R, K) int8, 1 present, 0 absent, -1 ignored.
        unused: Columns that were passed over.
    """

    path: Path
    kind: str
    keys: list[Any]
    faces: list[int | None]
    aus: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    unused: list[str]


@dataclass(slots=True)
class Matched:
    """Labels and scores side by side.

    Attributes:
        aus: The K action units that both tables have.
        labels: (M, K) int8.
        scores: (M, K) float32.
        active: (M, K) bool, pyfau's own answer.
        label_rows: Rows of the label table.
        unmatched: Why rows of labels have no score, with their number.
        unlabelled: Scored rows without a label.
        notes: What else did not match, in words.
    """

    aus: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    scores: FloatArray
    active: npt.NDArray[np.bool_]
    label_rows: int
    unmatched: dict[str, int]
    unlabelled: int
    notes: list[str] = field(default_factory=list)


def read_labels(path: Path, present: float | None = None) -> LabelTable:
    """Read a table of labels.

    The frame is named by a column `frame` (whole numbers), or `time_s` (seconds), or `file`; the face by `face_id`, if
    there is such a column. An action unit's column is called AU12, AU12_c (which wins where both are there) or 12, in
    any case. A label is 1, 0, or empty, -1 or 9 where it is not known. Fields are separated by commas, semicolons or
    tabs. In a table with OpenFace's `timestamp`, `confidence` and `success`, labels where `success` is 0 are not known.

    Args:
        path: The file.
        present: The labels are intensities, and those of at least this one count as present.

    Raises:
        InputError: The file cannot be read, has no such columns, or a label is none; the error names file and line.
    """
    table = _read_text(path)
    names = {str(name).strip(): name for name in table.columns}
    lower = {name.casefold(): name for name in names}
    kind, column = next(
        ((kind, lower[name]) for kind, options in _KEYS.items() for name in options if name in lower), ("", "")
    )
    if not kind:
        raise InputError(
            f"{path} has no column that names the frame: expected frame, time_s or file, got {', '.join(names)}"
        )
    face_column = next((lower[name] for name in _FACES if name in lower), None)
    chosen: dict[str, str] = {}
    unused = []
    for name in names:
        match = _AU_COLUMN.fullmatch(name)
        if match is None:
            if name not in (column, face_column):
                unused.append(name)
            continue
        au = au_name(int(match[1]))
        other = chosen.get(au)
        if other is not None and bool(match[2]) == other.casefold().endswith("_c"):
            raise InputError(f"{path} has two columns for {au}: {other} and {name}")
        if other is None or match[2]:
            unused += [other] if other else []
            chosen[au] = name
        else:
            unused.append(name)
    if not chosen:
        raise InputError(f"{path} has no column of an action unit: expected names such as AU12, got {', '.join(names)}")
    columns = [_label_column(table[names[name]], path, name, present) for name in chosen.values()]
    if lower.keys() >= {"timestamp", "confidence", "success"}:  # OpenFace, which writes zeros where it found no face
        success = lower["success"]
        unused.remove(success)
        failed = np.array([value == 0 for value in _numbers(table[names[success]], path, success, whole=True)], bool)
        columns = [np.where(failed, np.int8(-1), labels) for labels in columns]
    keys: list[Any] = table[names[column]].str.strip().tolist()
    if kind != "file":
        keys = _numbers(table[names[column]], path, column, whole=kind == "frame")
        if None in keys:
            raise InputError(f"{path}:{keys.index(None) + 2}: {column} is empty; expected a number")
    faces: list[int | None] = [None] * len(table)
    if face_column is not None:
        faces = _numbers(table[names[face_column]], path, face_column, whole=True)
    return LabelTable(path, kind, keys, faces, tuple(chosen), np.stack(columns, axis=1), unused)


def match(labels: LabelTable, result: AUResult, name: str, first_frame: int = 0) -> Matched:
    """Put labels beside the scores of the same frame and face.

    A label without a face id belongs to the only face of its frame. A time belongs to the frame nearest to it, at most
    half the usual distance of frames away; of several labels for one frame the nearest counts.

    Args:
        labels: The labels.
        result: What pyfau wrote.
        name: What to call the result in errors.
        first_frame: The number that the labels give to the first frame, which pyfau calls 0.

    Raises:
        InputError: Nothing matches, or a frame is labelled twice.
        OptionError: `first_frame` is given for labels that do not count frames.
    """
    aus = tuple(au for au in result.aus if au in labels.aus)
    if not aus:
        raise InputError(
            f"{labels.path} labels {', '.join(labels.aus)} and {name} scores {', '.join(result.aus)}: none in common"
        )
    if first_frame and labels.kind != "frame":
        raise OptionError(f"--first-frame is for labels that count frames; {labels.path} names them by {labels.kind}")
    table = result.to_dataframe()
    frames = table["frame"].to_numpy()
    success = table["success"].to_numpy().astype(bool)
    ids = table["face_id"].fillna(-1).astype(np.int64).to_numpy()
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, frame in enumerate(frames.tolist()):
        rows_of[frame].append(row)
    wanted, distances = _frames_of(labels, table, first_frame, name)
    unmatched: Counter[str] = Counter()
    label_of: dict[int, int] = {}
    for i, (frame, face) in enumerate(zip(wanted, labels.faces, strict=True)):
        there = rows_of.get(frame, []) if frame is not None else []
        rows = [row for row in there if success[row]]
        fitting = [row for row in rows if ids[row] == face] if face is not None else rows
        if not there:
            unmatched[f"no such {labels.kind} among the scores"] += 1
        elif not rows:
            unmatched["no face was found in the frame"] += 1
        elif not fitting:
            unmatched["no face with that id in the frame"] += 1
        elif len(fitting) > 1:
            unmatched["several faces in the frame and no face_id in the labels"] += 1
        elif fitting[0] not in label_of:
            label_of[fitting[0]] = i
        elif labels.kind == "time":
            unmatched["another label is nearer to the frame"] += 1
            if distances[i] < distances[label_of[fitting[0]]]:
                label_of[fitting[0]] = i
        else:
            raise InputError(
                f"{labels.path}:{i + 2}: {labels.kind} {labels.keys[i]} is labelled a second time, after line "
                f"{label_of[fitting[0]] + 2}"
            )
    if not label_of:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in unmatched.items())
        column = "time_s" if labels.kind == "time" else labels.kind
        raise InputError(
            f"no row of {labels.path} matches one of {name} ({reasons}). The labels' {labels.kind}s run from "
            f"{_span(labels.keys)}, the scores' from {_span(table[column].dropna().tolist())}; the labels' faces are "
            f"{_some_ids(labels.faces)}, the scores' {_some_ids(ids[success].tolist())}"
        )
    rows = sorted(label_of)
    columns = [labels.aus.index(au) for au in aus]
    notes = []
    for who, missing in (
        ("not scored by the model", [au for au in labels.aus if au not in aus]),
        ("without labels", [au for au in result.aus if au not in aus]),
        ("columns of the labels that were passed over", labels.unused),
    ):
        notes += [f"{who}: {', '.join(missing)}"] if missing else []
    if labels.kind == "frame" and not first_frame and min(labels.keys) == 1 and max(labels.keys) == max(frames) + 1:
        notes.append("labels count frames from 1, scores from 0: if that is the same frame, give --first-frame 1")
    return Matched(
        aus,
        labels.labels[[label_of[row] for row in rows]][:, columns],
        result.scores[rows][:, [result.aus.index(au) for au in aus]],
        table[[f"{au}_c" for au in aus]].iloc[rows].to_numpy(np.int64) != 0,
        len(labels.keys),
        dict(unmatched),
        int(success.sum()) - len(rows),
        notes,
    )


def pairs_of(labels: Path, scores: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of labels and of scores that belong together.

    Args:
        labels: A .csv file, or a folder of such.
        scores: A .csv, .parquet or .jsonl file of pyfau, or a folder of such; files in folders go together by name.

    Returns:
        The pairs, and notes on files without a partner.

    Raises:
        InputError: There is no pair.
    """
    for path in (labels, scores):
        try:
            path.stat()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; expected a table or a folder of tables") from None
    if labels.is_dir() != scores.is_dir():
        raise InputError(f"expected two files or two folders, got {labels} and {scores}")
    if not labels.is_dir():
        return [(labels, scores)], []

    def tables(folder: Path, *suffixes: str) -> dict[str, Path]:
        return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}

    left, right = tables(labels, ".csv", ".tsv", ".txt"), tables(scores, *TABLES)
    pairs = [(left[stem], right[stem]) for stem in left if stem in right]
    if not pairs:
        raise InputError(f"{labels} and {scores} have no file name in common, such as clip.csv in both")
    notes = [f"{left[stem]}: labels without scores" for stem in left.keys() - right.keys()]
    notes += [f"{right[stem]}: scores without labels" for stem in right.keys() - left.keys()]
    return pairs, sorted(notes)


def _frames_of(
    labels: LabelTable, table: pd.DataFrame, first_frame: int, name: str
) -> tuple[list[int | None], list[float]]:
    """The frame that each label means, and for times how far it is away."""
    nowhere = [0.0] * len(labels.keys)
    if labels.kind == "frame":
        return [int(key) - first_frame for key in labels.keys], nowhere
    if labels.kind == "file":
        if "file" not in table:
            raise InputError(f"{labels.path} names frames by file, and {name} has no column file: it is of a video")
        frames: dict[str, set[int]] = defaultdict(set)
        for file, frame in zip(table["file"].fillna("").astype(str), table["frame"].tolist(), strict=True):
            for key in {file, _base(file)}:
                frames[key].add(frame)
        found = [frames.get(key) or frames.get(_base(key)) or set() for key in labels.keys]
        return [next(iter(some)) if len(some) == 1 else None for some in found], nowhere
    timed = table[["time_s", "frame"]].dropna().drop_duplicates("frame").sort_values("time_s")
    times, numbers = timed["time_s"].to_numpy(np.float64), timed["frame"].to_numpy()
    if len(times) < 2:
        raise InputError(
            f"{labels.path} names frames by time, and {name} holds no times: score with --fps, or use frame"
        )
    reach = float(np.median(np.diff(times))) / 2 + 1e-6
    wanted = np.asarray(labels.keys, np.float64)
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    nearest = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    distances = np.abs(times[nearest] - wanted)
    chosen = [
        int(numbers[i]) if distance <= reach else None for i, distance in zip(nearest, distances.tolist(), strict=True)
    ]
    return chosen, distances.tolist()


def _base(file: str) -> str:
    return PureWindowsPath(file).name  # which knows both kinds of slash


def _read_text(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        data = path.read_bytes()
        head = data.split(b"\n", 1)[0]
        separator = max((",", ";", "\t"), key=lambda mark: head.count(mark.encode()))
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop fields
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
    except pd.errors.ParserWarning:
        raise InputError(
            f"cannot read {path} as a table of labels: its rows have more fields than its header"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"cannot read {path} as a table of labels: {reason}") from None
    table = table.fillna("")
    while len(table) and not table.iloc[-1].str.strip().any():
        table = table.iloc[:-1]
    if not len(table):
        raise InputError(f"{path} holds no rows of labels")
    return table


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


def _label_column(column: pd.Series[str], path: Path, name: str, present: float | None) -> npt.NDArray[np.int8]:
    texts = column.str.strip().str.casefold()
    codes: dict[str, int | None] = {}
    for text in texts.unique().tolist():
        codes[text] = _code(text, present)
        if codes[text] is None:
            line = texts.tolist().index(text) + 2
            hint = (
                "a number from 0, or empty or -1 where it is not known"
                if present is not None
                else "0, 1, or empty or -1 where it is not known; intensities need --present"
            )
            raise InputError(f"{path}:{line}: {name} is {text!r}; expected {hint}")
    return texts.map(codes).to_numpy(np.int8)


def _code(text: str, present: float | None) -> int | None:
    """1, 0 or ignored; None if this is no label."""
    if text in _MISSING:
        return IGNORED
    try:
        value = _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        return None
    if value in (-1.0, 9.0):
        return IGNORED
    if present is not None:
        return int(value >= present) if 0 <= value < np.inf else None
    return int(value) if value in (0.0, 1.0) else None


def _span(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None and value == value]
    return f"{min(known)} to {max(known)}" if known else "nothing to nothing"


def _some_ids(faces: Sequence[int | None]) -> str:
    known = sorted({face for face in faces if face is not None})
    return ", ".join(map(str, known[:5])) + (" ..." if len(known) > 5 else "") if known else "without an id"
