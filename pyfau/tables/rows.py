"""Rows of scores, stored by column."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyfau.errors import InputError
from pyfau.files import escape_text
from pyfau.tables.ids import FaceIds
from pyfau.types import (
    BOX,
    MEASURES,
    MESH,
    NO_MEASURES,
    NO_MESH,
    AURow,
    FaceMeasures,
    FaceMesh,
    Failure,
    FloatArray,
    mesh_from,
    mesh_values,
    split_mesh,
)

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self


_NO_FACE = -1  # the face_id that is stored for a frame without a face
_FIRST_ROWS = 256  # rows that the storage has room for when it grows for the first time


class AURows:
    """The rows of one input, stored by column: a sequence of `AURow`.

    `pyfau.AUResult` describes the arguments and attributes, and adds the operations on rows.
    """

    def __init__(
        self,
        aus: Sequence[str],
        metadata: Mapping[str, Any],
        files: bool = False,
        raw: bool = False,
        intensity: bool = False,
        measures: bool = False,
        landmarks: bool = False,
    ) -> None:
        self.warnings: list[str] = []
        self.failures: list[Failure] = []
        self._aus = tuple(aus)
        self._metadata = dict(metadata)
        self._with_file = files
        self._with_raw = raw
        self._with_intensity = intensity
        self._with_measures = measures
        self._with_mesh = landmarks
        self._files: list[str | None] = []
        self._table = np.empty(0, _row_type(len(self._aus), raw, intensity, measures, landmarks))
        self._count = 0

    def append(self, row: AURow) -> None:
        """Add a row.

        Raises:
            InputError: The row scores other action units than these rows.
        """
        check_aus(row, self._aus)
        if self._count == len(self._table):
            self._reserve(max(_FIRST_ROWS, self._count + self._count // 4))
        arrays = [row.box_xyxy, row.landmarks, row.scores, row.active]
        if self._with_raw:
            arrays.append(raw_scores_of(row))
        if self._with_intensity:
            arrays.append(intensity_of(row))
        if self._with_measures:
            arrays.append(np.array(measures_of(row), np.float32))
        if self._with_mesh:
            arrays.append(mesh_values(mesh_of(row)))
        self._table[self._count] = (
            row.frame,
            row.time_s,
            _NO_FACE if row.face_id is None else row.face_id,
            row.success,
            row.confidence,
            *arrays,
        )
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
        if i < 0:
            i += self._count
        if not 0 <= i < self._count:
            raise IndexError(f"row {index} of {self._count}")
        stored = self._table[i]
        face_id = int(stored["face_id"])
        return AURow(
            frame=int(stored["frame"]),
            time_s=float(stored["time_s"]),
            face_id=None if face_id == _NO_FACE else face_id,
            success=bool(stored["success"]),
            confidence=float(stored["confidence"]),
            box_xyxy=stored["box"].copy(),
            landmarks=stored["landmarks"].copy(),
            scores=stored["scores"].copy(),
            active=stored["active"].copy(),
            aus=self._aus,
            file=self._files[i],
            raw_scores=stored["raw_scores"].copy() if self._with_raw else None,
            intensity=stored["intensity"].copy() if self._with_intensity else None,
            measures=FaceMeasures(*stored["measures"].tolist()) if self._with_measures else None,
            mesh=mesh_from(stored["mesh"]) if self._with_mesh else None,
        )

    def __iter__(self) -> Iterator[AURow]:
        return (self[i] for i in range(self._count))

    def __repr__(self) -> str:
        parts = [_counted(self._count, "row"), _counted(len(self.face_ids), "face")]
        parts.append(_counted(len(self._aus), "AU"))
        if self._metadata.get("source") is not None:
            source = str(self._metadata["source"])
            parts.append(Path(source).name or source)
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def aus(self) -> tuple[str, ...]:
        """The N column names of the scores."""
        return self._aus

    @property
    def metadata(self) -> dict[str, Any]:
        """The origin of the rows. This is the dict itself: changes are kept."""
        return self._metadata

    @property
    def scores(self) -> FloatArray:
        """(R, N) float32 occurrence scores in [0, 1], NaN without a face; a read-only view."""
        return self._column("scores")

    @property
    def raw_scores(self) -> FloatArray:
        """(R, N) float32 scores of the network, before `baseline`; a read-only view."""
        return self._column("raw_scores" if self._with_raw else "scores")

    @property
    def intensities(self) -> FloatArray | None:
        """(R, N) float32 FACS intensities in [0, 5], NaN without a face; a read-only view.

        None where the model has no intensity. Experimental; see `AURow.intensity`.
        """
        return self._column("intensity") if self._with_intensity else None

    @property
    def measures(self) -> FloatArray | None:
        """(R, 8) float32, the values of `FaceMeasures`, NaN without a face; a read-only view.

        None where they were left out.
        """
        return self._column("measures") if self._with_measures else None

    @property
    def landmarks(self) -> FloatArray | None:
        """(R, 68, 2) float32, x and y of the landmarks in pixels; a read-only view.

        NaN without a face, and where the landmark network does not see one. None where they were
        not requested. docs/landmarks.md lists the points.
        """
        if not self._with_mesh:
            return None
        return split_mesh(self._column("mesh"))[0]

    @property
    def irises(self) -> FloatArray | None:
        """(R, 2, 2) float32, x and y of the iris centres in pixels; a read-only view.

        The eye on the left of an upright face comes first. NaN and None as for `landmarks`.
        """
        if not self._with_mesh:
            return None
        return split_mesh(self._column("mesh"))[1]

    @property
    def eye_openness(self) -> FloatArray | None:
        """(R, 2) float32 from 0 (closed) to 1 (open), eyes as in `irises`; a read-only view.

        NaN and None as for `landmarks`.
        """
        if not self._with_mesh:
            return None
        return split_mesh(self._column("mesh"))[2]

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """(R, N) bool, score >= threshold; all False without a face; a read-only view."""
        return self._column("active")

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """(R,) int64, the frame of each row; a read-only view."""
        return self._column("frame")

    @property
    def face_ids(self) -> tuple[int, ...]:
        """The faces of these rows: each id once, in ascending order.

        The face of each row is in `face_id_column`.
        """
        return FaceIds(self.face_id_column)

    @property
    def face_id_column(self) -> list[int | None]:
        """The face of each of the R rows; None for a frame without a face."""
        ids = self._column("face_id").tolist()
        return [None if face_id == _NO_FACE else face_id for face_id in ids]

    @property
    def nbytes(self) -> int:
        """Memory of the rows in bytes, without the text of file names."""
        return self._table.nbytes + 8 * self._count

    def strongest(self, n: int = 5) -> list[tuple[str, float]]:
        """The `n` action units with the highest mean score over all rows with a face.

        The highest comes first.
        """
        success = self._column("success")
        if not success.any():
            return []
        means = self.scores[success].mean(axis=0, dtype=np.float64)
        order = [i for i in np.argsort(-means, kind="stable") if not np.isnan(means[i])]
        return [(self._aus[i], float(means[i])) for i in order[: max(n, 0)]]

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a table, with the metadata in `attrs["pyfau"]`.

        Returns:
            These columns, in this order:

            - frame, time_s, face_id, success, confidence, x1, y1, x2, y2
            - "AU01" ...: the score of each action unit
            - "AU01_c" ...: whether it is active, 0 or 1; missing where there is no score
            - "AU01_r" ...: its intensity in [0, 5], where the model has intensities
            - "AU01_raw" ...: its raw score, in results of `baseline`
            - pitch, yaw, roll, eye_distance, sharpness, inside, covered, quality: how the face
              appears, unless it was left out; see `pyfau.types.FaceMeasures`
            - x_0 ... x_67, y_0 ... y_67, iris_left_x, iris_left_y, iris_right_x, iris_right_y,
              eye_openness_left, eye_openness_right, landmarks_visible: only if landmarks were
              requested
            - file, for image files

            Whole numbers that can be missing are Int64. Other numbers are float64, with NaN where
            there is no value.
        """
        import pandas as pd

        success, face_id = self._column("success"), self._column("face_id")
        active = self._column("active")
        columns: dict[str, Any] = {
            "frame": self._column("frame").copy(),
            "time_s": self._column("time_s").copy(),
            "face_id": _integers(face_id, face_id == _NO_FACE),
            "success": success.astype(np.int64),
            "confidence": self._column("confidence").copy(),
        }
        columns |= _floats(BOX, self._column("box"))
        columns |= _floats(self._aus, self.scores)
        # A network that gives only the intensity of an AU has no score for its occurrence.
        unknown = ~success[:, None] | np.isnan(self.scores)
        for i, au in enumerate(self._aus):
            columns[f"{au}_c"] = _integers(active[:, i], unknown[:, i])
        if self._with_intensity:
            columns |= _floats(intensity_columns(self._aus), self._column("intensity"))
        if self._with_raw:
            columns |= _floats(raw_columns(self._aus), self.raw_scores)
        if self._with_measures:
            columns |= _floats(MEASURES, self._column("measures"))
        if self._with_mesh:
            columns |= _floats(MESH, self._column("mesh"))
        if self._with_file:
            files = [file and escape_text(file).decode() for file in self._files]
            columns["file"] = pd.array(files, dtype="string")
        table: pd.DataFrame = pd.DataFrame(columns)
        table.attrs["pyfau"] = dict(self._metadata)
        return table

    @classmethod
    def from_dataframe(cls, table: pd.DataFrame, metadata: Mapping[str, Any]) -> Self:
        """The rows of a table such as `to_dataframe` makes.

        The five landmarks of the rows are NaN: the table does not have them.
        """
        names = set(table.columns)
        aus = [name for name in table.columns if f"{name}_c" in names]
        raw, intensity = raw_columns(aus), intensity_columns(aus)
        with_raw = bool(aus) and names.issuperset(raw)
        with_intensity = bool(aus) and names.issuperset(intensity)
        with_measures = names.issuperset(MEASURES)
        with_mesh = names.issuperset(MESH)
        made = cls(
            aus, metadata, "file" in names, with_raw, with_intensity, with_measures, with_mesh
        )
        made._reserve(len(table))
        rows = made._table
        for name in ("frame", "time_s", "success", "confidence"):
            rows[name] = table[name].to_numpy()
        rows["face_id"] = table["face_id"].fillna(_NO_FACE).to_numpy()
        rows["box"] = table[list(BOX)].to_numpy(np.float32)
        rows["landmarks"] = np.nan
        if aus:
            rows["scores"] = table[aus].to_numpy(np.float32)
            active = table[[f"{au}_c" for au in aus]].fillna(0).to_numpy(np.float64)
            rows["active"] = active != 0
        if with_raw:
            rows["raw_scores"] = table[raw].to_numpy(np.float32)
        if with_intensity:
            rows["intensity"] = table[intensity].to_numpy(np.float32)
        if with_measures:
            rows["measures"] = table[list(MEASURES)].to_numpy(np.float32)
        if with_mesh:
            rows["mesh"] = table[list(MESH)].to_numpy(np.float32)
        made._files = [None] * len(table)
        if "file" in names:
            files = table["file"].tolist()
            made._files = [file if isinstance(file, str) else None for file in files]
        made._count = len(table)
        return made

    def adjusted(
        self,
        scores: FloatArray,
        active: npt.NDArray[np.bool_],
        raw: bool,
        intensities: FloatArray | None = None,
    ) -> Self:
        """A copy with other scores.

        Args:
            scores: (R, N) float32 in [0, 1].
            active: (R, N) bool.
            raw: Whether the copy keeps the raw scores as well.
            intensities: (R, N) float32 in [0, 5]; None for a copy without intensities.
        """
        with_intensity = intensities is not None
        copy = type(self)(
            self._aus,
            self._metadata,
            self._with_file,
            raw,
            with_intensity,
            self._with_measures,
            self._with_mesh,
        )
        copy.warnings += self.warnings
        copy.failures += self.failures
        copy._reserve(self._count)
        kept = ["frame", "time_s", "face_id", "success", "confidence", "box", "landmarks"]
        if self._with_measures:
            kept.append("measures")
        if self._with_mesh:
            kept.append("mesh")
        for name in kept:
            copy._table[name] = self._column(name)
        copy._table["scores"] = scores
        copy._table["active"] = active
        if raw:
            copy._table["raw_scores"] = self.raw_scores
        if with_intensity:
            copy._table["intensity"] = intensities
        copy._files = list(self._files)
        copy._count = self._count
        return copy

    def record(self) -> dict[str, Any]:
        """The metadata for a file: with warnings and failures, where there are some."""
        record = dict(self._metadata)
        if self.warnings:
            record["warnings"] = list(self.warnings)
        if self.failures:
            record["failures"] = [
                {"source": failure.source, "error": str(failure.error)} for failure in self.failures
            ]
        return record

    @property
    def has_files(self) -> bool:
        """Whether tables of these rows have a column `file`."""
        return self._with_file

    @property
    def has_raw(self) -> bool:
        """Whether raw scores are stored with the adjusted ones."""
        return self._with_raw

    @property
    def has_intensity(self) -> bool:
        """Whether intensities are stored with the scores."""
        return self._with_intensity

    @property
    def has_measures(self) -> bool:
        """Whether measures of the face are stored with the scores."""
        return self._with_measures

    @property
    def has_landmarks(self) -> bool:
        """Whether 68 landmarks are stored with the scores."""
        return self._with_mesh

    def _column(self, name: str) -> npt.NDArray[Any]:
        view = self._table[name][: self._count]
        view.flags.writeable = False
        return view

    def _reserve(self, rows: int) -> None:
        # A new array, because callers may still use views of the old one.
        grown = np.empty(rows, self._table.dtype)
        grown[: self._count] = self._table[: self._count]
        self._table = grown


def raw_columns(aus: Iterable[str]) -> list[str]:
    """The columns of raw scores, such as "AU12_raw"."""
    return [f"{au}_raw" for au in aus]


def intensity_columns(aus: Iterable[str]) -> list[str]:
    """The columns of intensities, such as "AU12_r"."""
    return [f"{au}_r" for au in aus]


def raw_scores_of(row: AURow) -> FloatArray:
    """The raw scores of a row; a row that was not adjusted has no others than its scores."""
    return row.scores if row.raw_scores is None else row.raw_scores


def intensity_of(row: AURow) -> FloatArray:
    """The intensities of a row; NaN for a row without them."""
    return np.full_like(row.scores, np.nan) if row.intensity is None else row.intensity


def measures_of(row: AURow) -> FaceMeasures:
    """The measures of a row; NaN for a row without them."""
    return NO_MEASURES if row.measures is None else row.measures


def mesh_of(row: AURow) -> FaceMesh:
    """The landmarks of a row; NaN for a row without them."""
    return NO_MESH if row.mesh is None else row.mesh


def check_aus(row: AURow, aus: tuple[str, ...]) -> None:
    """Raise InputError if a row scores other action units than `aus`."""
    if row.aus != aus:
        raise InputError(
            f"a row with scores for {', '.join(row.aus)} does not fit among {', '.join(aus)}"
        )


def _row_type(n: int, raw: bool, intensity: bool, measures: bool, landmarks: bool) -> np.dtype[Any]:
    """The layout of one stored row; the fields are those of `AURow`."""
    fields: list[Any] = [
        ("frame", "i8"),
        ("time_s", "f8"),
        ("face_id", "i8"),
        ("success", "?"),
        ("confidence", "f8"),
        ("box", "f4", 4),
        ("landmarks", "f4", (5, 2)),
        ("scores", "f4", (n,)),
        ("active", "?", (n,)),
    ]
    if raw:
        fields.append(("raw_scores", "f4", (n,)))
    if intensity:
        fields.append(("intensity", "f4", (n,)))
    if measures:
        fields.append(("measures", "f4", (len(MEASURES),)))
    if landmarks:
        fields.append(("mesh", "f4", (len(MESH),)))
    return np.dtype(fields, align=True)


def _counted(count: int, noun: str) -> str:
    """Such as "1 row" and "2 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _integers(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> Any:
    """Whole numbers as pandas' Int64, in which numbers can be missing."""
    import pandas as pd

    return pd.arrays.IntegerArray(values.astype(np.int64), missing.copy())


def _floats(names: Iterable[str], values: FloatArray) -> dict[str, npt.NDArray[np.float64]]:
    """One float64 column for each name."""
    return {name: values[:, i].astype(np.float64) for i, name in enumerate(names)}
