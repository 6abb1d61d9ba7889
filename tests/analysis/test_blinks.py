"""Closures of the eyes under half a second are blinks: AU45 instead of AU43."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_result import empty_row, face_row

from pyfau import AUResult
from pyfau.analysis.events import find_blinks, find_events
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events

AUS = ("AU12", "AU43")
OPEN, SHUT = [0.0], [0.9]


def eyes(closed: list[float], fps: float | None = 30.0, aus: tuple[str, ...] = AUS) -> AUResult:
    """A face with the scores of the last AU frame by frame; AU12 is always active."""
    result = AUResult(aus, {} if fps is None else {"fps": fps})
    for i, score in enumerate(closed):
        scores = np.array([0.9, score], np.float32)
        row = replace(face_row(i), aus=aus, scores=scores, active=scores >= 0.5)
        result.append(replace(row, time_s=math.nan if fps is None else i / fps))
    return result


# 4 frames, 14 frames, 15 frames (0.5 s: not shorter), then one that the end of the track cuts.
FRAMES = OPEN * 10 + SHUT * 4 + OPEN * 10 + SHUT * 14 + OPEN * 10 + SHUT * 15 + OPEN * 10 + SHUT * 2


def test_short_closures_are_blinks() -> None:
    result = eyes(FRAMES)
    blinks = find_blinks(result)
    assert blinks["au"].tolist() == ["AU45", "AU45"]
    assert blinks["onset_frame"].tolist() == [10, 24]
    assert blinks["onset_s"].tolist() == pytest.approx([10 / 30, 24 / 30])
    assert (blinks["offset_s"] - blinks["onset_s"]).tolist() == pytest.approx([4 / 30, 14 / 30])
    assert len(find_blinks(result, longest_s=0.51)) == 3
    assert len(find_blinks(result, longest_s=0.2)) == 1
    listed = find_events(result, blinks=True)
    assert listed["au"].tolist() == ["AU12", "AU45", "AU45", "AU43", "AU43"]
    assert find_events(result)["au"].tolist() == ["AU12"] + ["AU43"] * 4
    assert list(listed.dtypes) == list(find_events(result).dtypes) == list(blinks.dtypes)


def test_figures_in_a_summary() -> None:
    row = eyes(FRAMES).summary().iloc[0]
    assert row["blinks"] == 2
    assert row["blinks_per_min"] == pytest.approx(2 / (len(FRAMES) / 30) * 60)
    assert row["blink_mean_s"] == pytest.approx(9 / 30)
    none = eyes(OPEN * 30).summary("clip").iloc[0]
    assert none["blinks"] == none["blinks_per_min"] == 0
    assert math.isnan(none["blink_mean_s"])


def test_several_faces_have_their_own_blinks() -> None:
    result = eyes(FRAMES)
    result.extend(replace(row, face_id=4) for row in eyes(OPEN * len(FRAMES)))
    assert result.summary()["blinks"].tolist() == [2, 0]
    assert result.summary("clip")["blinks"].tolist() == [2]


def test_a_lost_face_cuts_a_closure() -> None:
    result = AUResult(AUS, {"fps": 30.0})
    rows = list(eyes(OPEN * 5 + SHUT * 3 + OPEN * 5))
    nothing = np.full(2, np.nan, np.float32)
    gap = replace(empty_row(6), aus=AUS, scores=nothing, active=np.zeros(2, bool))
    result.extend([*rows[:6], gap, *rows[7:]])
    assert len(find_blinks(result)) == 0


def test_frames_count_where_times_are_missing() -> None:
    result = eyes(OPEN * 5 + SHUT * 3 + OPEN * 5, fps=None)
    assert len(find_blinks(result)) == 0  # the length is unknown
    assert result.summary()[["blinks", "blinks_per_min"]].isna().all(axis=None)
    result.metadata["fps"] = 30.0
    assert len(find_blinks(result)) == 1


def test_a_model_with_its_own_blinks() -> None:
    result = eyes(OPEN * 5 + SHUT * 3 + OPEN * 5, aus=("AU43", "AU45"))
    assert len(find_blinks(result)) == 1
    assert find_events(result, blinks=True)["au"].tolist() == ["AU43", "AU45"]


def test_bad_input() -> None:
    without = AUResult(("AU12", "AU25"), {})
    with pytest.raises(InputError, match="AU43 or AU45, and these rows have AU12, AU25"):
        find_blinks(without)
    with pytest.raises(InputError, match="AU43 or AU45"):
        find_events(without, blinks=True)
    for wrong in (0, -1, math.nan, math.inf, "short", None, True):
        with pytest.raises(OptionError, match="longest_s"):
            find_blinks(eyes(OPEN), longest_s=wrong)  # type: ignore[arg-type]
    assert "blinks" not in without.summary("clip")
    assert len(find_blinks(AUResult(AUS, {}))) == 0


def test_files_for_other_programs(tmp_path: Path) -> None:
    table = eyes(FRAMES).to_csv(tmp_path / "clip.csv")
    events, elan = tmp_path / "events.csv", tmp_path / "clip.eaf"
    for path, kind in ((events, "events"), (elan, "elan")):
        assert main(["table", str(table), "-o", str(path), "--format", kind, "--blinks"]) == 0
    assert read_events(events)["au"].value_counts()["AU45"] == 2
    assert (read_elan(elan)["au"] == "AU45").sum() == 2
    assert main(["table", str(table), "-o", str(events), "--format", "openface", "--blinks"]) == 1
