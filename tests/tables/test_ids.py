"""`AURows.face_ids` has each face once; uses of the former column still work, with a warning."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from test_result import AUS, META, empty_row, face_row, result_of

from pyfau import AUResult

ROWS = [face_row(0, 3), face_row(1, 3), face_row(1, 0), empty_row(2), face_row(3, 7)]
COLUMN = [3, 3, 0, None, 7]


def test_each_face_once_and_the_face_of_each_row() -> None:
    result = result_of(ROWS)
    assert result.face_ids == (0, 3, 7)
    assert isinstance(result.face_ids, tuple)
    assert result.face_id_column == COLUMN
    assert result.face_ids[0] == 0
    assert result.face_ids[-1] == 7
    assert result.face_ids[1:] == (3, 7)
    assert 3 in result.face_ids
    assert 4 not in result.face_ids
    assert hash(result.face_ids) == hash((0, 3, 7))
    assert AUResult(AUS, META).face_ids == ()
    assert result_of([empty_row(0)]).face_ids == ()


@pytest.mark.parametrize(
    ("use", "value"),
    [
        (lambda ids: ids == COLUMN, True),
        (lambda ids: ids != COLUMN, False),
        (lambda ids: None in ids, True),
        (lambda ids: ids[4], 7),
        (lambda ids: ids[3], None),
    ],
)
def test_uses_of_the_former_column_work_and_warn(use: Callable[[Any], Any], value: Any) -> None:
    ids = result_of(ROWS).face_ids
    with pytest.warns(DeprecationWarning, match="the face of each row is in result.face_id_column"):
        assert use(ids) == value


def test_an_index_beyond_the_rows_is_an_error() -> None:
    with pytest.raises(IndexError):
        result_of(ROWS).face_ids[5]


def test_ids_can_be_copied_and_pickled() -> None:
    ids = result_of(ROWS).face_ids
    for made in (copy.copy(ids), copy.deepcopy(ids), pickle.loads(pickle.dumps(ids))):
        assert made == (0, 3, 7)
        with pytest.warns(DeprecationWarning, match="face_id_column"):
            assert made[4] == 7
