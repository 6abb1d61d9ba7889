"""The distinct face ids of a result."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

_MOVED = (
    "result.face_ids has each face once; the face of each row is in result.face_id_column. Before, "
    "face_ids had one entry for each row"
)


class FaceIds(tuple[int, ...]):
    """The face ids of a result: a tuple of int in ascending order, each once.

    Before version 0.1, `AUResult.face_ids` was a list with one entry for each row. Three uses that
    fit only such a list still work and give a DeprecationWarning: comparison with a list, `None in
    face_ids`, and an index beyond the last id.

    Args:
        column: The face of each row, None for a frame without a face.
    """

    _column: list[int | None]

    def __new__(cls, column: Iterable[int | None]) -> FaceIds:
        """Make the distinct ids of a column."""
        rows = list(column)
        ids = super().__new__(cls, sorted({face_id for face_id in rows if face_id is not None}))
        ids._column = rows
        return ids

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list):
            _warn()
            return self._column == other
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()

    def __contains__(self, face_id: object) -> bool:
        if face_id is None:
            _warn()
            return None in self._column
        return super().__contains__(face_id)

    def __getitem__(self, index: Any) -> Any:
        beyond = isinstance(index, int) and len(self) <= index < len(self._column)
        if beyond:
            _warn()
            return self._column[index]
        return super().__getitem__(index)

    def __reduce__(self) -> tuple[Any, ...]:
        return FaceIds, (self._column,)


def _warn() -> None:
    warnings.warn(_MOVED, DeprecationWarning, stacklevel=3)
