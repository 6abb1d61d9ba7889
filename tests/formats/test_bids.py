"""Events in the style of BIDS."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_blinks import FRAMES, eyes
from test_result import AUS, META, face_row

from pyfau import AUResult
from pyfau.analysis.events import find_events
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.formats.bids import read_bids_events


def test_events_and_their_description(tmp_path: Path) -> None:
    result = eyes(FRAMES)
    path = result.to_bids(tmp_path / "sub-01_task-film_events.tsv", blinks=True)
    raw = pd.read_csv(path, sep="\t", na_values=["n/a"])
    assert list(raw.columns[:3]) == ["onset", "duration", "trial_type"]
    assert raw["onset"].is_monotonic_increasing
    found = find_events(result, blinks=True)
    assert sorted(raw["onset"]) == pytest.approx(sorted(found["onset_s"]), abs=1e-6)
    assert raw["duration"].sum() == pytest.approx(
        (found["offset_s"] - found["onset_s"]).sum(), abs=1e-5
    )
    sidecar = json.loads((tmp_path / "sub-01_task-film_events.json").read_text("utf-8"))
    assert set(raw.columns) <= set(sidecar)
    assert sidecar["onset"]["Units"] == "s"
    assert set(raw["trial_type"]) <= set(sidecar["trial_type"]["Levels"])
    assert sidecar["trial_type"]["Levels"]["AU45"] == "AU45 blink"


def test_reading_back_and_stimulus_files(tmp_path: Path) -> None:
    path = eyes(FRAMES).to_bids(tmp_path / "a_events.tsv")
    back = read_bids_events(path)
    assert list(back.columns[:3]) == ["onset_s", "duration_s", "code"]
    assert set(back["code"]) == {"AU12", "AU43"}
    stimuli = tmp_path / "stimuli.tsv"
    stimuli.write_text("onset\tduration\tvalue\n1.5\tn/a\t7\n0.5\t2\t3\n")
    read = read_bids_events(stimuli)
    assert read["code"].tolist() == ["7", "3"]
    assert math.isnan(read["duration_s"][0])
    stimuli.write_text("onset\tduration\n1.5\t1\n")
    assert read_bids_events(stimuli)["code"].tolist() == ["marker"]


def test_the_command(tmp_path: Path) -> None:
    table = eyes(FRAMES).to_csv(tmp_path / "clip.csv")
    out = tmp_path / "clip_events.tsv"
    assert main(["table", str(table), "-o", str(out), "--blinks"]) == 0
    assert (read_bids_events(out)["code"] == "AU45").sum() == 2
    assert main(["table", str(table), "-o", str(tmp_path / "clip.tsv")]) == 1


def test_what_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\*_events.tsv, got 'events.csv'"):
        eyes(FRAMES).to_bids(tmp_path / "events.csv")
    untimed = AUResult(AUS, META)
    untimed.append(replace(face_row(0), time_s=math.nan, active=np.ones(4, bool)))
    with pytest.raises(InputError, match="BIDS needs times"):
        untimed.to_bids(tmp_path / "x_events.tsv")
    hostile = ("onset\tcode\n1\ta\n", "onset\n1\t2\t3\n", "onset\n" + "9" * 400 + "\n", "\0")
    for text in ("duration\n1\n", "onset\nsoon\n", "onset\nn/a\n", "", *hostile):
        (tmp_path / "bad.tsv").write_text(text)
        with pytest.raises(InputError, match="as events of BIDS"):
            read_bids_events(tmp_path / "bad.tsv")
    with pytest.raises(InputError, match="as events of BIDS"):
        read_bids_events(tmp_path / "none.tsv")
    packed = tmp_path / "x_events.tsv.gz"
    packed.write_bytes(gzip.compress(b"onset\n1\n"))
    with pytest.raises(InputError, match="as events of BIDS"):
        read_bids_events(packed)
    empty = AUResult(AUS, META).to_bids(tmp_path / "none_events.tsv")
    assert len(read_bids_events(empty)) == 0
