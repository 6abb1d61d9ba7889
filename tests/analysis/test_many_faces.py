"""Tables with thousands of faces: the time grows with the rows, not with their square."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_result import AUS, face_row

from pyfau import AUResult
from pyfau.analysis.events import find_events

META = {"fps": 30.0, "thresholds": dict.fromkeys(AUS, 0.5)}
WORK: dict[str, Callable[[AUResult, Path], object]] = {
    "events": lambda result, _: find_events(result),
    "summary": lambda result, _: result.summary(),
    "elan": lambda result, folder: result.to_elan(folder / "a.eaf"),
    "baseline": lambda result, _: result.baseline(per_face=False),
}


def crowd(faces: int, frames: int = 2) -> AUResult:
    result = AUResult(AUS, META)
    for frame in range(frames):
        for face_id in range(faces):
            row = face_row(frame, face_id, seed=face_id % 50 + frame)
            result.append(dataclasses.replace(row, time_s=frame / 30))
    return result


@pytest.mark.parametrize("name", WORK)
def test_three_thousand_faces(name: str, tmp_path: Path) -> None:
    """Before, summary took 47 s and ELAN more than 60 s."""
    result = crowd(3000)
    start = time.process_time()
    WORK[name](result, tmp_path)
    assert time.process_time() - start < 20.0


def test_each_face_of_many_is_as_if_it_were_alone() -> None:
    result = crowd(40, 12)
    events, summary = find_events(result), result.summary()
    for face_id in (0, 7, 39):
        alone = AUResult(AUS, META)
        alone.extend(row for row in result if row.face_id == face_id)
        own = events[events["face_id"] == face_id].reset_index(drop=True)
        assert own.equals(find_events(alone))
        row = summary.loc[[face_id]]
        assert (row - alone.summary()).abs().max(axis=None) < 1e-12
