"""Lab Streaming Layer: an outlet and an inlet in one process."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_result import AUS, empty_row, face_row

from pyfau.cli import main
from pyfau.errors import DependencyError, OptionError, PyfauError
from pyfau.live import Labels, play
from pyfau.types import FaceMeasures, Frame

pylsl: Any = pytest.importorskip("pylsl", exc_type=ImportError)
from pyfau.lsl import LSLOutlet, LSLStream, MarkerInlet  # noqa: E402

POSE = FaceMeasures(10.0, -20.0, 3.0, 60.0, 1.0, 1.0, 0.0, 0.9)


def inlet_of(name: str) -> Any:
    found = pylsl.resolve_byprop("name", name, 1, 10.0)
    assert found, "no stream"
    inlet = pylsl.StreamInlet(found[0])
    inlet.open_stream(10.0)
    return inlet


def graded(row: Any) -> Any:
    return replace(row, intensity=np.full(len(AUS), 2.5, np.float32), measures=POSE)


def test_a_recording_has_labels_units_values_and_capture_times() -> None:
    with LSLOutlet("pyfau-test-labels", AUS, intensity=True, pose=True) as outlet:
        inlet = inlet_of("pyfau-test-labels")
        info = inlet.info(10.0)
        child = info.desc().child("channels").child("channel")
        labels, units = [], []
        while not child.empty():
            labels.append(child.child_value("label"))
            units.append(child.child_value("unit"))
            child = child.next_sibling("channel")
        assert labels == ["face_id", "confidence", "pitch", "yaw", "roll", *AUS] + [
            f"{au}_r" for au in AUS
        ]
        assert units == [channel.unit for channel in outlet.channels]
        assert units[5] == "probability"
        assert info.type() == "AU"
        came = time.monotonic() - 0.25  # captured a quarter of a second ago
        outlet.push([graded(face_row(0, 3)), graded(face_row(0, 4))], came)
        outlet.push([empty_row(1)], came + 0.04)
        samples, stamps = [], []
        while len(samples) < 3:
            sample, stamp = inlet.pull_sample(10.0)
            assert sample is not None
            samples.append(sample)
            stamps.append(stamp)
        assert samples[0][:5] == pytest.approx([3, 0.987654, 10, -20, 3])
        assert samples[0][5:9] == pytest.approx(face_row(0, 3).scores.tolist())
        assert samples[0][9:] == [2.5] * 4
        assert samples[1][0] == 4
        assert stamps[0] == stamps[1]
        assert stamps[2] - stamps[0] == pytest.approx(0.04, abs=0.03)
        age = pylsl.local_clock() - stamps[0] - (time.monotonic() - came)
        assert age == pytest.approx(0, abs=0.1)  # the capture was .25 s before
        assert math.isnan(samples[2][0])
        assert samples[2][1] == 0.0
        assert all(math.isnan(value) for value in samples[2][2:])


class Scripted:
    """A stream that returns the rows of a frame two frames later."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.count = 0

    def push(self, frame: Any, time_s: float | None = None) -> list[Any]:
        self.waiting.append(face_row(self.count))
        self.count += 1
        return [self.waiting.pop(0)] if len(self.waiting) > 2 else []

    def flush(self) -> list[Any]:
        rest, self.waiting = self.waiting, []
        return rest


def test_late_rows_have_the_times_of_their_frames() -> None:
    with LSLOutlet("pyfau-test-late", AUS) as outlet:
        inlet = inlet_of("pyfau-test-late")
        stream = LSLStream(Scripted(), outlet)  # type: ignore[arg-type]
        start = time.monotonic()
        rows = [row for i in range(6) for row in stream.push(None, came_s=start + i / 10)]
        rows += stream.flush()
        assert [row.frame for row in rows] == list(range(6))
        stamps = [inlet.pull_sample(10.0)[1] for _ in range(6)]
        assert np.diff(stamps).tolist() == pytest.approx([0.1] * 5, abs=0.03)


def test_codes_of_stimuli_come_in() -> None:
    info = pylsl.StreamInfo("pyfau-test-codes", "Markers", 1, 0, pylsl.cf_string, "codes")
    outlet = pylsl.StreamOutlet(info)
    with MarkerInlet("pyfau-test-codes", 10.0) as inlet:
        assert inlet.pull() == []
        sent = time.monotonic()
        outlet.push_sample(["film"])
        found: list[Any] = []
        while not found:
            assert time.monotonic() < sent + 10
            found = inlet.pull()
        assert found[0].code == "film"
        assert found[0].came_s == pytest.approx(sent, abs=0.2)


def test_without_a_stream_or_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PyfauError, match="no LSL stream has the name 'pyfau-test-none'"):
        MarkerInlet("pyfau-test-none", 0.2)
    with pytest.raises(OptionError, match="must be text, got ''"):
        LSLOutlet("", AUS)
    outlet = LSLOutlet("pyfau-test-closed", AUS)
    outlet.close()
    with pytest.raises(OptionError, match="closed"):
        outlet.push([face_row(0)])
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(DependencyError, match=r"pip install 'pyfau\[lsl\]'"):
        LSLOutlet("x", AUS)


class Everything:
    """A detector, a stream and a display in one: each frame has one face."""

    all_aus = False

    def stream(self, latency: int) -> Everything:
        return self

    def settings(self) -> dict[str, int]:
        return {"max_gap": 15}

    def push(self, rgb: Any, time_s: float) -> list[Any]:
        return [replace(face_row(0), time_s=time_s)]

    def show(self, image: Any) -> None:
        pass

    def is_open(self) -> bool:
        return True


def test_the_live_view_sends_rows_and_notes_codes() -> None:
    info = pylsl.StreamInfo("pyfau-test-view-codes", "Markers", 1, 0, pylsl.cf_string, "c2")
    codes = pylsl.StreamOutlet(info)
    image = np.zeros((64, 64, 3), np.uint8)

    def frames() -> Any:
        for i in range(20):
            if i == 10:
                codes.push_sample(["film"])
            time.sleep(0.02)
            yield Frame(i, i * 0.02, image), time.monotonic()

    with (
        LSLOutlet("pyfau-test-view", AUS) as outlet,
        MarkerInlet("pyfau-test-view-codes", 10.0) as inlet,
    ):
        recorded = inlet_of("pyfau-test-view")
        labels = Labels(outlet, inlet)
        double: Any = Everything()
        played = play(double, frames(), double, labels=labels)
        assert played.frames == 20
        samples = []
        while len(samples) < 20:
            sample, _ = recorded.pull_sample(10.0)
            assert sample is not None
            samples.append(sample)
    (found,) = labels.markers
    assert found.code == "film"
    assert found.onset_s == pytest.approx(0.2, abs=0.1)


def test_codes_join_a_table_as_a_column(tmp_path: Path) -> None:
    from test_blinks import FRAMES, eyes

    table = eyes(FRAMES).to_csv(tmp_path / "clip.csv")
    codes = tmp_path / "clip_events.tsv"
    codes.write_text("onset\tduration\ttrial_type\n0.1\tn/a\tfilm\n")
    out = tmp_path / "marked.csv"
    command = ["table", str(table), "-o", str(out), "--format", "csv"]
    assert main([*command, "--markers", str(codes)]) == 0
    marked = pd.read_csv(out).dropna(subset=["marker"])
    assert marked["frame"].tolist() == [3]
    assert marked["marker"].tolist() == ["film"]
    other = [*command[:-1], "openface", "--markers", str(codes)]
    assert main(other) == 1
