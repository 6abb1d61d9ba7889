"""The rows of one input: kept in memory, turned into a DataFrame, written to and read from files."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.types import AURow, Failure, FloatArray, UInt8Array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from typing_extensions import Self

    from pyfau.baseline import Baseline


StrPath = str | os.PathLike[str]

_BOX = ("x1", "y1", "x2", "y2")
_COLUMNS = ("frame", "time_s", "face_id", "success", "confidence", *_BOX)
_ROW_GROUP = 16384
TABLES = (".csv", ".parquet", ".jsonl")  # the suffixes that results are written in while the work runs


class AUResult:
    """The rows of one input, one per face and frame, and one per frame without a face.

    A score is occurrence in [0, 1]: how surely the action unit is present. It is NOT its intensity.

    A result behaves as a sequence of `AURow`. Rows are stored by column, in about 200 bytes each.

    Args:
        aus: The N column names of the scores, for example "AU12".
        metadata: What made the rows (source, model, versions ...); must be expressible in JSON to be written.
        files: Whether the input was picture files, so that tables get a column `file`.
        raw: Whether rows hold raw scores beside adjusted ones, so that tables get columns such as "AU12_raw".

    Attributes:
        warnings: What went wrong without stopping the work, in words.
        failures: Inputs that could not be read; each has a `source` and an `error`.
    """

    def __init__(self, aus: Sequence[str], metadata: Mapping[str, Any], files: bool = False, raw: bool = False) -> None:
        self.warnings: list[str] = []
        self.failures: list[Failure] = []
        self._aus = tuple(aus)
        self._metadata = dict(metadata)
        self._with_file = files
        self._with_raw = raw
        self._files: list[str | None] = []
        n = len(self._aus)
        # As in AURow; face_id is -1 without a face.
        fields: list[Any] = [
            ("frame", "i8"),
            ("time_s", "f8"),
            ("face_id", "i8"),
            ("success", "?"),
            ("confidence", "f8"),
        ]
        fields += [("box", "f4", 4), ("landmarks", "f4", (5, 2)), ("scores", "f4", (n,)), ("active", "?", (n,))]
        fields += [("raw_scores", "f4", (n,))] if raw else []
        self._table = np.empty(0, np.dtype(fields, align=True))
        self._count = 0

    def append(self, row: AURow) -> None:
        """Add a row.

        Raises:
            InputError: The row scores other action units than this result.
        """
        _check_aus(row, self._aus)
        if self._count == len(self._table):
            self._reserve(max(256, self._count + self._count // 4))
        face_id = -1 if row.face_id is None else row.face_id
        arrays = [row.box_xyxy, row.landmarks, row.scores, row.active]
        if self._with_raw:
            arrays.append(row.scores if row.raw_scores is None else row.raw_scores)
        self._table[self._count] = (row.frame, row.time_s, face_id, row.success, row.confidence, *arrays)
        self._files.append(row.file)
        self._count += 1

    def extend(self, rows: Iterable[AURow]) -> None:
        """Add rows; see `append`."""
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> AURow:
        i = operator.index(index)
        i += self._count if i < 0 else 0
        if not 0 <= i < self._count:
            raise IndexError(f"row {index} of {self._count}")
        frame, time_s, face_id, success, confidence, *arrays = self._table[i].item()
        box, landmarks, scores, active, *raw = (array.copy() for array in arrays)
        face_id = None if face_id < 0 else face_id
        rest = (box, landmarks, scores, active, self._aus, self._files[i], *raw)
        return AURow(frame, time_s, face_id, success, confidence, *rest)

    def __iter__(self) -> Iterator[AURow]:
        return (self[i] for i in range(self._count))

    def __repr__(self) -> str:
        ids = self._column("face_id")
        counts = [(self._count, "row"), (len(np.unique(ids[ids >= 0])), "face"), (len(self._aus), "AU")]
        parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
        if self._metadata.get("source") is not None:
            source = str(self._metadata["source"])
            parts.append(Path(source).name or source)
        return f"AUResult({', '.join(parts)})"

    @property
    def aus(self) -> tuple[str, ...]:
        """The N column names of the scores."""
        return self._aus

    @property
    def metadata(self) -> dict[str, Any]:
        """What made the rows. The dict itself: changes are kept."""
        return self._metadata

    @property
    def scores(self) -> FloatArray:
        """(R, N) float32 occurrence scores in [0, 1], NaN without a face; a read-only view."""
        return self._column("scores")

    @property
    def raw_scores(self) -> FloatArray:
        """(R, N) float32, the scores that the network gave, whatever `baseline` made of them; a read-only view."""
        return self._column("raw_scores" if self._with_raw else "scores")

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """(R, N) bool, whether each action unit is active; all False without a face; a read-only view."""
        return self._column("active")

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """(R,) int64, the frame of each row; a read-only view."""
        return self._column("frame")

    @property
    def face_ids(self) -> list[int | None]:
        """The face of each row, R in all; None for a frame without a face."""
        return [None if face_id < 0 else face_id for face_id in self._column("face_id").tolist()]

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, without the text of file names."""
        return self._table.nbytes + 8 * self._count

    def strongest(self, n: int = 5) -> list[tuple[str, float]]:
        """The `n` action units with the highest mean score over all rows with a face, highest first."""
        success = self._column("success")
        if not success.any():
            return []
        means = self.scores[success].mean(axis=0, dtype=np.float64)
        return [(self._aus[i], float(means[i])) for i in np.argsort(-means, kind="stable")[: max(n, 0)]]

    def draw(self, rgb: UInt8Array, frame: int = 0, *, all_aus: bool = False) -> UInt8Array:
        """Draw the faces of a frame, and in grey those that are missing in it but were seen a moment ago.

        Args:
            rgb: The picture of the frame, (H, W, 3) uint8, RGB.
            frame: Its index.
            all_aus: Draw all action units, not the active ones alone; see `pyfau.draw_overlay`.

        Returns:
            (H, W, 3) uint8, RGB, a new picture. A result that was read from a file has no landmarks to draw.

        Raises:
            InputError: `rgb` is no such picture, or there is no row of that frame.
        """
        from pyfau.overlay import LastFaces, draw_overlay

        hold = 0 if self._metadata.get("independent") else int(self._metadata.get("max_gap") or 0)
        frames = self.frames
        rows = [self[i] for i in np.flatnonzero(frames == frame).tolist()]
        if not rows:
            raise InputError(f"there is no row of frame {frame!r}")
        faces = LastFaces(hold)
        faces.missing(
            (self[i] for i in np.flatnonzero((frames >= frame - hold) & (frames < frame)).tolist()), rgb.shape
        )
        return draw_overlay(rgb, [*rows, *faces.missing(rows, rgb.shape)], all_aus=all_aus)

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a table, with the metadata in `attrs["pyfau"]`.

        Returns:
            Columns frame, time_s, face_id, success, confidence, x1, y1, x2, y2, a score for each action unit ("AU01",
            float), whether it is active ("AU01_c", 0 or 1), after `baseline` the raw scores ("AU01_raw"), and, for
            picture files, file. Whole numbers that can be missing are Int64, other numbers float64 with NaN where
            there is none.
        """
        import pandas as pd

        def integers(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> Any:
            return pd.arrays.IntegerArray(values.astype(np.int64), missing.copy())

        success, face_id = self._column("success"), self._column("face_id")
        box, scores, active = (self._column(name) for name in ("box", "scores", "active"))
        columns: dict[str, Any] = {
            "frame": self._column("frame").copy(),
            "time_s": self._column("time_s").copy(),
            "face_id": integers(face_id, face_id < 0),
            "success": success.astype(np.int64),
            "confidence": self._column("confidence").copy(),
        }
        columns |= {name: box[:, i].astype(np.float64) for i, name in enumerate(_BOX)}
        columns |= {au: scores[:, i].astype(np.float64) for i, au in enumerate(self._aus)}
        columns |= {f"{au}_c": integers(active[:, i], ~success) for i, au in enumerate(self._aus)}
        if self._with_raw:
            raw = self.raw_scores
            columns |= {f"{au}_raw": raw[:, i].astype(np.float64) for i, au in enumerate(self._aus)}
        if self._with_file:
            columns["file"] = pd.array([file and _escaped(file).decode() for file in self._files], dtype="string")
        table: pd.DataFrame = pd.DataFrame(columns)
        table.attrs["pyfau"] = dict(self._metadata)
        return table

    def summary(self, per: str = "face") -> pd.DataFrame:
        """Features of a clip for further models, such as scikit-learn's: one row of numbers.

        Args:
            per: "face": a row a face, by face_id. "clip": one row, of the rows of all faces together.

        Returns:
            float64 columns, the same for every result of a model: frames (scored rows), seconds (that they take; NaN
            without times and fps), face_share (of the frames that show the face, or any), confidence_mean, and for
            each action unit AU12_mean, AU12_std (population), AU12_p10, AU12_p50, AU12_p90 (of the scores,
            probabilities of presence), AU12_active_share (of the scored frames), AU12_onsets_per_min (of scored time;
            only onsets that were seen) and AU12_event_mean_s (of all events; see `pyfau.events`). NaN where nothing
            was scored, where there are no times, where there is no event, and for rates of independent pictures.

        Raises:
            OptionError: `per` is something else.
        """
        from pyfau.summary import summarize

        return summarize(self, per)

    def baseline(
        self,
        source: Baseline | Mapping[int, Baseline] | None = None,
        *,
        per_face: bool = True,
        quantile: float = 0.1,
        mode: str = "subtract",
    ) -> AUResult:
        """Adjust the scores to what each face is scored at rest: a new result. See docs/baseline.md.

        What a face at rest is scored over 0.05 (or half the threshold of the AU, if that is less) counts as the
        person's own: by so much in log-odds, for each AU, either the scores fall or the threshold rises. No score
        rises, and none leaves [0, 1]. The active flags are the same with both modes. It always starts from the raw
        scores, also on a result that was adjusted before.

        Args:
            source: What a face at rest is scored: a `Baseline` of the one person in this result, or one for some faces
                by face_id, the others staying as they are. None: the `quantile` of the result's own scored frames,
                which is right only if the face is at rest in that share of them.
            per_face: Whether each face has a quantile of its own, or all share one.
            quantile: In [0, 1]. A face (or all together) with fewer than 30 scored frames gets none, and a warning.
            mode: "subtract" changes the scores, and keeps the raw ones beside them (`raw_scores`, columns AU12_raw).
                "threshold" changes the active flags alone; the thresholds are in the metadata.

        Returns:
            The same rows. Its metadata says under "baseline" what was done, and is written to files with the rows.

        Raises:
            OptionError: An option has a value that it does not take.
            InputError: The result has no thresholds in its metadata; or several faces in a frame and one Baseline; or a
                baseline is of another model.
        """
        from pyfau.baseline import adjust

        return adjust(self, source, per_face=per_face, quantile=quantile, mode=mode)

    def to_csv(self, path: StrPath) -> Path:
        """Write a CSV file, and the metadata beside it in JSON; see `CSVWriter`."""
        return self._write(CSVWriter, path)

    def to_parquet(self, path: StrPath) -> Path:
        """Write a Parquet file that holds the metadata too; see `ParquetWriter`."""
        return self._write(ParquetWriter, path)

    def to_jsonl(self, path: StrPath) -> Path:
        """Write JSON Lines, and the metadata beside it in JSON; see `JSONLinesWriter`."""
        return self._write(JSONLinesWriter, path)

    def to_openface(self, path: StrPath) -> Path:
        """Write a CSV as OpenFace 2 does: frame (from 1), face_id, timestamp, confidence, success, AU01_c ...

        There are no columns AU01_r, because scores are no intensities, and so no scores. A frame without a face has
        zeros, as in OpenFace. Read it with `pyfau.formats.openface.read_openface`.
        """
        from pyfau.formats.openface import write_openface

        return write_openface(self, path)

    def to_pyfeat(self) -> pd.DataFrame:
        """The rows under py-feat's names.

        Returns:
            Columns frame, time_s, FaceRectX, FaceRectY, FaceRectWidth, FaceRectHeight, FaceScore, AU01 ... (scores),
            Identity ("Person_0" for face_id 0: a track, not a recognised person) and input (the picture file, or the
            source). A frame without a face has NaN. `pyfau.formats.pyfeat.read_pyfeat` reads a CSV of it.
        """
        from pyfau.formats.pyfeat import to_pyfeat

        return to_pyfeat(self)

    def to_events(self, path: StrPath, *, min_frames: int = 1, join_frames: int = 0) -> Path:
        """Write a CSV of the events, one a line: face_id, au, onset, offset, peak; see `pyfau.events.events`.

        Read it with `pyfau.formats.events.read_events`.
        """
        from pyfau.formats.events import write_events

        return write_events(self, path, min_frames=min_frames, join_frames=join_frames)

    def to_elan(self, path: StrPath, *, min_frames: int = 1, join_frames: int = 0) -> Path:
        """Write the events as an .eaf file for ELAN: a tier for each AU of each face, "AU12 face 0".

        An annotation is an event; its text is the highest score. Read it with `pyfau.formats.elan.read_elan`.

        Raises:
            InputError: The rows have no times.
        """
        from pyfau.formats.elan import write_elan

        return write_elan(self, path, min_frames=min_frames, join_frames=join_frames)

    def plot(self, face_id: int | None = None, kind: str = "lines") -> Figure:
        """Plot the scores of one face over time. Nothing is shown: use `savefig`, or leave it to the notebook.

        Args:
            face_id: The face (default: the one in most frames; of independent pictures, all of them).
            kind: "lines", a row for each AU with its threshold, active frames shaded; or "heatmap".

        Raises:
            InputError: There is no face to plot.
            OptionError: There is no such face or kind.
            DependencyError: matplotlib is not installed.
        """
        from pyfau.report.plot import plot_result

        return plot_result(self, face_id, kind)

    def report(self, path: StrPath, video: StrPath | None = None, **options: Any) -> Path:
        """Write a page of HTML with timelines, summary, stills and player; see `pyfau.report.write_report`."""
        from pyfau.report import write_report

        return write_report(self, path, video=video, **options)

    @classmethod
    def read_csv(cls, path: StrPath) -> Self:
        """Read what `to_csv` or a `CSVWriter` wrote. Landmarks are not stored, and come back as NaN.

        If the run that wrote the file did not finish, that is said in `warnings`, and a torn last line is dropped.

        Raises:
            InputError: There is no such file, or it is not of this kind.
        """
        import pandas as pd

        path = Path(path)
        data, record = _read_lines(path)
        try:
            columns = pd.read_csv(io.BytesIO(data), nrows=0, encoding="utf-8-sig").columns
            _check_columns(columns, path)
            types: dict[Any, Any] = {name: str if name == "file" else np.float64 for name in columns}
            table = pd.read_csv(
                io.BytesIO(data), dtype=types, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
            )
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"cannot read {path}: expected a table that pyfau wrote ({error})") from None
        return cls._from_dataframe(table, record, path)

    @classmethod
    def read_jsonl(cls, path: StrPath) -> Self:
        """Read what `to_jsonl` or a `JSONLinesWriter` wrote; otherwise as `read_csv`.

        A file without rows has the action units that its metadata names, if any.

        Raises:
            InputError: There is no such file, or it is not of this kind.
        """
        import pandas as pd

        path = Path(path)
        data, record = _read_lines(path)
        try:
            objects = map(json.loads, io.BytesIO(data))
            rows = list(islice(objects, _ROW_GROUP))
            columns = list(rows[0]) if rows else [*_COLUMNS, *record.get("aus", ())]
            columns += [] if rows else [f"{au}_c" for au in record.get("aus", ())]
            types = {name: np.float64 for name in columns if name != "file"}
            parts = [pd.DataFrame(columns=columns).astype(types)]
            while rows:  # in groups, because a row takes ten times more memory as a dict
                if any(row.keys() != set(columns) for row in rows):
                    raise ValueError("expected objects with the same names on all lines")
                parts.append(pd.DataFrame.from_records(rows, columns=columns).astype(types))
                rows = list(islice(objects, _ROW_GROUP))
            table = pd.concat(parts[1:] or parts, ignore_index=True)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"cannot read {path}: {error}") from None
        return cls._from_dataframe(table, record, path)

    @classmethod
    def read_parquet(cls, path: StrPath) -> Self:
        """Read what `to_parquet` or a `ParquetWriter` wrote. Landmarks are not stored, and come back as NaN.

        Raises:
            InputError: There is no such file, or it is not of this kind.
            DependencyError: pyarrow is not installed.
        """
        pa, pq = _pyarrow()
        path = Path(path)
        try:
            table = pq.read_table(path).to_pandas()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"cannot read {path}: {error}") from None
        return cls._from_dataframe(table, _read_record(path), path)

    @classmethod
    def _from_dataframe(cls, table: pd.DataFrame, record: dict[str, Any], path: Path) -> Self:
        aus = [name for name in table.columns if f"{name}_c" in table.columns]
        _check_columns(table.columns, path)
        complete = record.pop("complete", True)
        warnings, failures = record.pop("warnings", []), record.pop("failures", [])
        raw = [f"{au}_raw" for au in aus]
        result = cls(aus, record, "file" in table.columns, bool(aus) and set(raw) <= set(table.columns))
        result.warnings += warnings
        if failures:
            result.failures += [Failure(failure["source"], failure["error"]) for failure in failures]
        if not complete:
            result.warnings.append(f"{path} is incomplete: the run that wrote it did not finish")
        result._reserve(len(table))
        rows = result._table
        for name in ("frame", "time_s", "success", "confidence"):
            rows[name] = table[name].to_numpy()
        rows["face_id"] = table["face_id"].fillna(-1).to_numpy()
        rows["box"] = table[list(_BOX)].to_numpy(np.float32)
        rows["landmarks"] = np.nan
        if aus:
            rows["scores"] = table[aus].to_numpy(np.float32)
            rows["active"] = table[[f"{au}_c" for au in aus]].fillna(0).to_numpy(np.float64) != 0
        if result._with_raw:
            rows["raw_scores"] = table[raw].to_numpy(np.float32)
        files = table["file"].tolist() if "file" in table.columns else [None] * len(table)
        result._files = [file if isinstance(file, str) else None for file in files]
        result._count = len(table)
        return result

    def _adjusted(self, scores: FloatArray, active: npt.NDArray[np.bool_], raw: bool) -> Self:
        """A copy with other scores; `raw`: the raw ones are kept beside them."""
        copy = type(self)(self._aus, self._metadata, self._with_file, raw)
        copy.warnings += self.warnings
        copy.failures += self.failures
        copy._reserve(self._count)
        for name in ("frame", "time_s", "face_id", "success", "confidence", "box", "landmarks"):
            copy._table[name] = self._column(name)
        copy._table["scores"], copy._table["active"] = scores, active
        if raw:
            copy._table["raw_scores"] = self.raw_scores
        copy._files = list(self._files)
        copy._count = self._count
        return copy

    def _column(self, name: str) -> npt.NDArray[Any]:
        view = self._table[name][: self._count]
        view.flags.writeable = False
        return view

    def _reserve(self, rows: int) -> None:
        # A new array, because views of the old one may be held outside.
        grown = np.empty(rows, self._table.dtype)
        grown[: self._count] = self._table[: self._count]
        self._table = grown

    def _record(self) -> dict[str, Any]:
        record = dict(self._metadata)
        if self.warnings:
            record["warnings"] = list(self.warnings)
        if self.failures:
            record["failures"] = [{"source": f.source, "error": str(f.error)} for f in self.failures]
        return record

    def _write(self, kind: type[ResultWriter], path: StrPath) -> Path:
        rows = iter(self)
        with kind(path, self._aus, self._record(), self._with_file, self._with_raw) as writer:
            while some := list(islice(rows, 4096)):
                writer.write(some)
        return writer.path


class ResultWriter(ABC):
    """Writes rows to a file while the work runs: a context manager.

    Leaving the `with` block by an exception keeps the rows written so far, and marks the file as incomplete.

    Args:
        path: The file to write; folders on the way are created, an existing file is replaced.
        aus: The N column names of the scores.
        metadata: What made the rows; must be expressible in JSON.
        files: Whether to write a column `file`.
        raw: Whether to write the raw scores of adjusted rows.

    Attributes:
        path: The file.
        metadata: A copy of `metadata`, which may be added to until `close`.

    Raises:
        OptionError: The file cannot be written.
    """

    def __init__(
        self,
        path: StrPath,
        aus: Sequence[str],
        metadata: Mapping[str, Any],
        files: bool = False,
        raw: bool = False,
    ) -> None:
        self.path = Path(path)
        self.metadata = dict(metadata)
        self._aus = tuple(aus)
        self._with_file = files
        self._with_raw = raw
        self._closed = False
        with _writing(self.path):
            _make_room(self.path)
            self._open()

    def write(self, rows: Iterable[AURow]) -> None:
        """Add rows.

        Raises:
            InputError: A row scores other action units than this file.
            OptionError: The file cannot be written, for example because the disk is full.
        """
        rows = list(rows)
        for row in rows:
            _check_aus(row, self._aus)
        if self._closed:
            raise OptionError(f"cannot write {self.path}: it is closed")
        with _writing(self.path):
            self._write(rows)

    def close(self, complete: bool = True) -> None:
        """Finish the file. Calling it again does nothing.

        Args:
            complete: False notes that rows are missing; see `is_complete`.
        """
        if not self._closed:
            self._closed = True
            with _writing(self.path):
                self._close(_plain({**self.metadata, "complete": complete}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, rows: list[AURow]) -> None: ...

    @abstractmethod
    def _close(self, record: dict[str, Any]) -> None: ...


class _LinesWriter(ResultWriter):
    """Writes a line a row.

    Every `write` reaches the file at once and in whole lines, so that a run that is killed leaves a valid file. The
    metadata goes to a second file, the path + ".json", with "complete": false until `close`.
    """

    def _open(self) -> None:
        # In this order the file beside never calls an unfinished file complete.
        _write_json(_sidecar(self.path), _plain({**self.metadata, "complete": False}))
        self._file = self.path.open("wb")

    def _write(self, rows: list[AURow]) -> None:
        self._put([self._line(row) for row in rows])

    def _close(self, record: dict[str, Any]) -> None:
        self._file.close()
        _write_json(_sidecar(self.path), record)

    def _put(self, lines: list[str]) -> None:
        if lines:
            self._file.write(_escaped("\n".join(lines) + "\n"))
            self._file.flush()

    @abstractmethod
    def _line(self, row: AURow) -> str: ...


class CSVWriter(_LinesWriter):
    """Writes CSV: UTF-8, "\\n" line ends, empty fields for what is missing.

    Every `write` reaches the file at once and in whole lines, so that a run that is killed leaves a valid file. The
    metadata goes to a second file, the path + ".json", with "complete": false until `close`.
    """

    def _open(self) -> None:
        super()._open()
        names = [*_COLUMNS, *self._aus, *(f"{au}_c" for au in self._aus)]
        names += [f"{au}_raw" for au in self._aus] if self._with_raw else []
        self._put([",".join(names + ["file"] * self._with_file)])

    def _line(self, row: AURow) -> str:
        fields = [
            str(row.frame),
            _decimal(row.time_s, 6),
            "" if row.face_id is None else str(row.face_id),
            "1" if row.success else "0",
            _decimal(row.confidence, 6),
        ]
        fields += [_decimal(value, 3) for value in row.box_xyxy.tolist()]
        fields += [_decimal(value, 6) for value in row.scores.tolist()]
        fields += ["1" if value else "0" for value in row.active.tolist()] if row.success else [""] * len(self._aus)
        if self._with_raw:
            raw = row.scores if row.raw_scores is None else row.raw_scores
            fields += [_decimal(value, 6) for value in raw.tolist()]
        if self._with_file:
            file = row.file or ""
            # As the csv module quotes; before Python 3.13 it leaves a bare "\r" unquoted.
            fields.append('"' + file.replace('"', '""') + '"' if any(c in file for c in ',"\r\n') else file)
        return ",".join(fields)


class JSONLinesWriter(_LinesWriter):
    """Writes JSON Lines: UTF-8, a line for each row, an object with the names of the CSV and null for what is missing.

    Otherwise as `CSVWriter`: whole lines at once, and the metadata in a second file, the path + ".json".
    """

    def _line(self, row: AURow) -> str:
        if self._with_raw != (row.raw_scores is not None):
            row = dataclasses.replace(row, raw_scores=row.scores if self._with_raw else None)
        record = row.to_dict()
        for name, value in record.items():
            if isinstance(value, float):
                record[name] = round(value, 3 if name in _BOX else 6) if math.isfinite(value) else None
        if self._with_file:
            record["file"] = row.file and _escaped(row.file).decode()
        return json.dumps(record, ensure_ascii=False, allow_nan=False)


class ParquetWriter(ResultWriter):
    """Writes Parquet, with the metadata as JSON in the schema metadata under the key b"pyfau".

    Parquet can be read only once it is closed, so the rows go to a hidden file beside it that takes the name in the
    end. Needs pyarrow.

    Raises:
        DependencyError: pyarrow is not installed.
    """

    def _open(self) -> None:
        self._pa, pq = _pyarrow()
        self._schema = self._pa.Schema.from_pandas(self._buffer_table(), preserve_index=False)
        self._part = self.path.with_name(f".{self.path.name}.part")
        # A stored Arrow schema would hide the metadata that is added at the end.
        self._writer = pq.ParquetWriter(self._part, self._schema, store_schema=False)

    def _write(self, rows: list[AURow]) -> None:
        for row in rows:
            self._buffer.append(row)
            if len(self._buffer) >= _ROW_GROUP:
                self._flush()

    def _close(self, record: dict[str, Any]) -> None:
        try:
            if len(self._buffer):
                self._flush()
            pandas = self._schema.metadata[b"pandas"].decode()  # brings Int64 columns back as such
            self._writer.add_key_value_metadata({"pyfau": json.dumps(record), "pandas": pandas})
        finally:
            self._writer.close()
        self._part.replace(self.path)

    def _flush(self) -> None:
        table = self._pa.Table.from_pandas(self._buffer.to_dataframe(), schema=self._schema, preserve_index=False)
        self._writer.write_table(table)
        self._buffer_table()

    def _buffer_table(self) -> pd.DataFrame:
        self._buffer = AUResult(self._aus, {}, self._with_file, self._with_raw)
        table = self._buffer.to_dataframe()
        table.attrs.clear()
        return table


_WRITERS: dict[str, type[ResultWriter]] = {".csv": CSVWriter, ".parquet": ParquetWriter, ".jsonl": JSONLinesWriter}


def open_writer(path: StrPath, aus: Sequence[str], metadata: Mapping[str, Any], files: bool = False) -> ResultWriter:
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
    return _WRITERS[suffix](path, aus, metadata, files)


def read_result(path: StrPath) -> AUResult:
    """Read a table that pyfau wrote, Parquet or JSON Lines by its suffix, otherwise CSV.

    Raises:
        InputError: There is no such file, or it is not of this kind.
        DependencyError: pyarrow is not installed, and the suffix is .parquet.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        return AUResult.read_parquet(path)
    if suffix == ".jsonl":
        return AUResult.read_jsonl(path)
    return AUResult.read_csv(path)


def write_whole(path: StrPath, text: str) -> Path:
    """Write a file of UTF-8 text in one step; folders on the way are created, an existing file is replaced.

    If that is a table of pyfau's, the metadata beside it goes too: it would vouch for a table that is no longer there.

    Raises:
        OptionError: The file cannot be written.
    """
    path = Path(path)
    with _writing(path):
        _make_room(path)
        if "complete" in read_metadata(path):
            _sidecar(path).unlink(missing_ok=True)
        _replace(path, _escaped(text))
    return path


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata of a table, with "complete"; empty where there is none to be read."""
    path = Path(path)
    try:
        return _read_record(path) if path.is_file() else {}
    except (InputError, OSError):
        return {}


def is_complete(path: StrPath, expected: Mapping[str, Any] | None = None) -> bool:
    """Whether a table is there and its writer finished it without a failure.

    Args:
        path: The table.
        expected: Metadata that it must have besides, such as the model's sha256.
    """
    record = read_metadata(path)
    wanted = _plain(expected or {})
    whole = record.get("complete") is True and not record.get("failures")
    return whole and all(record.get(key) == value for key, value in wanted.items())


def _check_aus(row: AURow, aus: tuple[str, ...]) -> None:
    if row.aus != aus:
        raise InputError(f"a row with scores for {', '.join(row.aus)} does not fit among {', '.join(aus)}")


def _check_columns(columns: Iterable[str], path: Path) -> None:
    if missing := set(_COLUMNS) - set(columns):
        raise InputError(f"{path} was not written by pyfau: there is no column {', '.join(sorted(missing))}")


def _decimal(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _escaped(text: str) -> bytes:
    """UTF-8. File names can hold bytes that are no text; Python keeps these as lone surrogates."""
    return text.encode(errors="backslashreplace")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DependencyError("Parquet needs the package pyarrow: pip install 'pyfau[parquet]'") from None
    return pyarrow, pyarrow.parquet


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error of ours that names the file."""
    try:
        yield
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error


def _read_lines(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The whole lines of a file that a `_LinesWriter` wrote, and its metadata."""
    record = _read_record(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return data[: data.rfind(b"\n") + 1] if record.get("complete") is False else data, record


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_json(path: Path, record: dict[str, Any]) -> None:
    _replace(path, _escaped(json.dumps(record, indent=2, ensure_ascii=False) + "\n"))


def _make_room(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)


def _replace(path: Path, data: bytes) -> None:
    """Write in one step: a reader sees the old file or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _read_record(path: Path) -> dict[str, Any]:
    """The metadata that belongs to a table, "complete" included; empty where there is none."""
    try:
        if path.suffix.lower() == ".parquet":
            pa, pq = _pyarrow()
            try:
                text = (pq.read_schema(path).metadata or {}).get(b"pyfau", b"{}")
            except pa.ArrowException as error:
                raise ValueError(str(error)) from None
        else:
            text = _sidecar(path).read_bytes()
        record = json.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the metadata of {path}: {error}") from None
    return record if isinstance(record, dict) else {}


def _plain(value: Any) -> Any:
    """What JSON can express: numpy values as numbers and lists, paths and other things as text, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
