"""Grades, strips, events, baseline and a second recording in a report."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import chromium, complaints
from selenium.webdriver.common.by import By
from test_blinks import AUS, FRAMES, eyes
from test_result import face_row

from pyfau import AUResult
from pyfau.cli import main
from pyfau.errors import InputError
from pyfau.report.extras import (
    MOST_EVENTS,
    compare_recordings,
    grade_bands,
    list_events,
    quality_strips,
)
from pyfau.report.html import write_report
from pyfau.types import FaceMeasures

LIMITS = {"AU12": 0.5, "AU43": 0.5}


def measured(frames: int = 120) -> AUResult:
    """A face with intensities, head pose and quality; AU12 rises to 0.9 in the middle."""
    about = {"fps": 30.0, "thresholds": LIMITS, "grade_offsets": {au: [1.0, -1.0] for au in AUS}}
    result = AUResult(AUS, about, intensity=True, measures=True)
    for i in range(frames):
        scores = np.array([0.9 if 40 <= i < 80 else 0.3, 0.1], np.float32)
        row = replace(face_row(i), aus=AUS, scores=scores, active=scores >= 0.5)
        grades = np.array([2.5 if 40 <= i < 80 else 0.0, 0.0], np.float32)
        measures = FaceMeasures(5.0, 40.0 if i < 30 else 0.0, -3.0, 60.0, 1.0, 1.0, 0.0, 0.9)
        result.append(replace(row, time_s=i / 30, intensity=grades, measures=measures))
    return result


def test_shares_of_grades() -> None:
    rows = pd.DataFrame({"AU12_r": [0.0, 0.0, 0.5, 1.0, 1.5, 2.5, 3.5, 4.5, np.nan]})
    bands = dict(grade_bands(rows, ("AU12", "AU43"))["AU12"])
    assert bands == pytest.approx(
        {"": 2 / 8, "A": 2 / 8, "B": 1 / 8, "C": 1 / 8, "D": 1 / 8, "E": 1 / 8}
    )
    assert grade_bands(rows.assign(AU12_r=np.nan), ("AU12",)) == {}


def test_strips_of_what_the_table_has() -> None:
    rows = measured().to_dataframe()
    strips = {strip.name: strip for strip in quality_strips(rows, True)}
    assert set(strips) == {"yaw", "pitch", "roll", "quality"}
    assert strips["yaw"].outside == pytest.approx(30 / 120)
    assert strips["yaw"].high == 40
    assert strips["quality"].outside == 0
    assert strips["yaw"].path.count("L") == 119
    assert quality_strips(eyes(FRAMES).to_dataframe(), True) == []
    assert quality_strips(rows.iloc[:0], True) == []
    (single,) = [s for s in quality_strips(rows.iloc[:1], True) if s.name == "roll"]
    assert single.path.startswith("M0.0")


def test_strips_of_long_recordings_are_short_and_keep_peaks() -> None:
    rows = pd.DataFrame({"time_s": np.arange(54_000) / 30, "yaw": np.zeros(54_000)})
    rows.loc[31_234, "yaw"] = 60.0
    rows.loc[100:200, "yaw"] = np.nan
    (strip,) = quality_strips(rows, True)
    assert len(strip.path) < 40_000
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", strip.path)]
    assert min(heights) == 0.0


def test_listed_events() -> None:
    found = pd.DataFrame(
        {
            "au": ["AU12"] * 600,
            "onset_frame": range(600),
            "onset_s": 0.0,
            "offset_s": 1.0,
            "peak": 0.9,
        }
    )
    assert len(list_events(found)) == MOST_EVENTS
    assert list_events(None) == list_events(found.iloc[:0]) == []


def test_two_recordings() -> None:
    pairs = {pair["label"][:4]: pair for pair in compare_recordings(measured(), eyes(FRAMES))}
    assert pairs["AU12"]["share"] == pytest.approx([40 / 120, 1.0])
    assert pairs["AU43"]["share"][0] == 0
    empty = compare_recordings(measured(), AUResult(AUS, {}))
    assert math.isnan(empty[0]["share"][1])
    with pytest.raises(InputError, match="score both with one model"):
        compare_recordings(measured(), AUResult(("AU01",), {}))


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    result = measured().baseline(quantile=0.5)
    page = write_report(result, tmp_path / "page.html", compare=eyes(FRAMES))
    with chromium(tmp_path / "profile", size=(1200, 900)) as browser:
        browser.get(page.as_uri())
        assert len(browser.find_elements(By.CSS_SELECTOR, "svg.strip")) == 4
        assert len(browser.find_elements(By.CSS_SELECTOR, ".bands tbody tr")) == 2
        assert "Two recordings" in browser.page_source
        highest = "return Math.max(...document.getElementById('timeline').data[0].y)"
        lowest = "return Math.min(...document.getElementById('timeline').data[0].y)"
        adjusted = browser.execute_script(lowest)
        box = browser.find_element(By.ID, "baseline")
        box.send_keys(" ")  # with the keyboard
        assert not box.is_selected()
        assert browser.execute_script(lowest) == pytest.approx(0.3, abs=1e-3)
        assert adjusted < 0.1
        assert browser.execute_script(highest) == pytest.approx(0.9, abs=1e-3)
        summary = browser.find_element(By.CSS_SELECTOR, "details summary")
        summary.send_keys("\n")
        button = browser.find_element(By.CSS_SELECTOR, "details button[data-onset]")
        assert button.is_displayed()
        button.send_keys("\n")
        assert "AU12" in browser.find_element(By.ID, "readout").text
        browser.save_screenshot(str(tmp_path / "page.png"))
        assert complaints(browser) == []


def test_the_command(tmp_path: Path) -> None:
    table, other = tmp_path / "one.csv", tmp_path / "two.csv"
    measured().to_csv(table)
    eyes(FRAMES).to_csv(other)
    page = tmp_path / "page.html"
    command = ["report", str(table), "-o", str(page), "--quiet", "--baseline", "0.5"]
    assert main([*command, "--compare", str(other)]) == 0
    text = page.read_text("utf-8")
    assert 'id="baseline"' in text
    assert "Two recordings" in text


def test_no_switch_for_a_baseline_that_changed_nothing(tmp_path: Path) -> None:
    switch = 'id="baseline"'
    calm = measured().baseline(quantile=0.5)
    assert switch in write_report(calm, tmp_path / "a.html").read_text("utf-8")
    restless = measured(20).baseline("auto")  # too short for a face at rest
    assert restless.has_raw
    assert switch not in write_report(restless, tmp_path / "b.html").read_text("utf-8")


def test_no_table_is_cut_off_on_paper(tmp_path: Path) -> None:
    """At the width of A4 with the margins of a browser, with all columns and names."""
    result = measured()
    page = write_report(result, tmp_path / "page.html", compare=measured())
    with chromium(tmp_path / "profile", size=(717, 900)) as browser:
        media = {"width": 717, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", media)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        browser.get(page.as_uri())
        browser.execute_script(
            "for (const d of document.querySelectorAll('details')) d.open = true"
        )
        tables = browser.find_elements(By.CSS_SELECTOR, ".scroll")
        assert len(tables) >= 4
        for table in tables:
            assert table.value_of_css_property("overflow-x") == "visible"
            wide = "return arguments[0].scrollWidth - arguments[0].clientWidth"
            assert browser.execute_script(wide, table) <= 0, table.text[:80]
