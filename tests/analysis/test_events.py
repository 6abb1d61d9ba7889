from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau.analysis.events import find_events
from pyfau.errors import InputError, OptionError
from pyfau.result import AUResult
from pyfau.types import AURow

AUS = ("AU01", "AU12")


def row(
    frame: int, scores: tuple[float, float] | None, face: int = 0, fps: float | None = 10.0
) -> AURow:
    found = scores is not None
    values = np.array(scores if found else (np.nan, np.nan), np.float32)
    return AURow(
        frame,
        frame / fps if fps else np.nan,
        face if found else None,
        found,
        0.9 if found else 0.0,
        np.zeros(4, np.float32),
        np.zeros((5, 2), np.float32),
        values,
        values >= 0.5,
        AUS,
    )


def result(rows: list[AURow], **metadata: object) -> AUResult:
    made = AUResult(AUS, metadata)
    made.extend(rows)
    return made


def test_the_peak_of_joined_events_is_a_score() -> None:
    scores = [0.1, 0.6, float("nan"), 0.7, 0.1]
    (event,) = find_events(
        result([row(i, (0.0, score)) for i, score in enumerate(scores)]), join_frames=1
    ).to_dict("records")
    assert (event["peak"], event["peak_frame"]) == (pytest.approx(0.7), 3)


def test_runs_with_their_times_and_peaks() -> None:
    scores = [0.1, 0.6, 0.9, 0.7, 0.2, 0.8, 0.8]
    found = find_events(result([row(i, (0.0, score)) for i, score in enumerate(scores)]))
    first, second = found.to_dict("records")
    assert (first["face_id"], first["au"]) == (0, "AU12")
    assert (first["onset_frame"], first["offset_frame"], first["peak_frame"]) == (1, 3, 2)
    assert first["onset_s"] == pytest.approx(0.1)
    assert first["offset_s"] == pytest.approx(0.4)
    assert first["peak"] == pytest.approx(0.9)
    assert first["onset_seen"]
    assert first["offset_seen"]
    # The last frame lasts as long as the others, and the end of this one was not seen.
    assert second["offset_s"] == pytest.approx(0.7)
    assert second["onset_seen"]
    assert not second["offset_seen"]


def test_a_lost_face_and_a_missing_frame_end_a_run() -> None:
    on = (0.0, 0.9)
    rows = [row(0, on), row(1, on), row(2, None), row(3, on), row(5, on), row(6, on)]
    found = find_events(result(rows))
    assert found[["onset_frame", "offset_frame"]].values.tolist() == [[0, 1], [3, 3], [5, 6]]
    assert not found["onset_seen"].any()
    assert not found["offset_seen"].any()
    joined = find_events(result(rows), join_frames=1)
    assert joined[["onset_frame", "offset_frame"]].values.tolist() == [[0, 6]]
    assert find_events(result(rows), min_frames=2)["onset_frame"].tolist() == [0, 5]
    assert len(find_events(result(rows), join_frames=1, min_frames=7)) == 1
    assert len(find_events(result(rows), join_frames=1, min_frames=8)) == 0


def test_faces_are_apart_and_times_may_be_missing() -> None:
    rows = [row(i, (0.9, 0.0), face, fps=None) for i in range(3) for face in (0, 1)]
    found = find_events(result(rows))
    assert found[["face_id", "onset_frame", "offset_frame"]].values.tolist() == [
        [0, 0, 2],
        [1, 0, 2],
    ]
    assert found["onset_s"].isna().all()
    assert found["offset_s"].isna().all()


def test_uneven_times_are_those_of_the_frames() -> None:
    times = [0.0, 0.1, 0.3, 0.4]
    rows = [
        AURow(i, t, *_rest(row(i, (0.0, 0.9 if i in (1, 3) else 0.0)))) for i, t in enumerate(times)
    ]
    found = find_events(result(rows))
    assert found["onset_s"].tolist() == [0.1, 0.4]
    assert found["offset_s"].tolist() == pytest.approx([0.3, 0.5])
    # A missing frame ends an event, which does not reach into the next one although frames last 0.1
    # s otherwise.
    times = {0: 0.0, 1: 0.1, 3: 0.15, 4: 0.25}
    found = find_events(result([AURow(i, t, *_rest(row(i, (0.9, 0.0)))) for i, t in times.items()]))
    assert found["offset_s"].tolist() == pytest.approx([0.15, 0.35])


def _rest(row: AURow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in AURow.__slots__[2:])


def test_nothing_is_active() -> None:
    for rows in ([], [row(0, None)], [row(0, (0.0, 0.0))]):
        found = find_events(result(rows))
        assert len(found) == 0
        assert found["onset_frame"].dtype == np.int64
        assert found["onset_seen"].dtype == bool


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([None, 0.0, 0.4, 0.5, 0.9]), max_size=40), st.integers(0, 3))
def test_every_active_frame_is_in_just_one_event(scores: list[float | None], join: int) -> None:
    made = result(
        [row(i, None if score is None else (0.0, score)) for i, score in enumerate(scores)]
    )
    found = find_events(made, join_frames=join)
    inside = [
        i
        for a, b in found[["onset_frame", "offset_frame"]].values.tolist()
        for i in range(a, b + 1)
    ]
    active = [i for i, score in enumerate(scores) if score is not None and score >= 0.5]
    assert len(inside) == len(set(inside))
    assert set(active) <= set(inside)
    if not join:
        assert inside == active
    starts, ends = found["onset_frame"].to_numpy(), found["offset_frame"].to_numpy()
    assert (starts[1:] - ends[:-1] - 1 > join).all() or not join
    assert set(starts) | set(ends) | set(found["peak_frame"]) <= set(active)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="independently"):
        find_events(result([], independent=True))
    for options in ({"min_frames": 0}, {"min_frames": 1.5}, {"join_frames": -1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            find_events(result([]), **options)  # type: ignore[arg-type]
