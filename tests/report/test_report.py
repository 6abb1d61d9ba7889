from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pandas as pd
import pytest
from browser import chromium, complaints
from made import write_clip
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select, WebDriverWait

from pyfau import AUDetector
from pyfau.analysis.pairs import co_occurrence
from pyfau.cli import main
from pyfau.errors import DependencyError, InputError, OptionError, PyfauError
from pyfau.report.html import _player, write_report
from pyfau.report.stills import best_rows
from pyfau.report.tables import summarize_aus
from pyfau.result import AUResult
from pyfau.types import AURow, Failure

FPS = 10.0
HOSTILE = "<img src=x onerror='window.hacked=1'>%{x}</script><script>window.hacked=1</script>"
AUS = ("AU01", "AU12", HOSTILE)


def row(
    frame: int, scores: Any, face: int = 0, aus: tuple[str, ...] = AUS, **changes: Any
) -> AURow:
    values = np.asarray(scores, np.float32)
    fields: dict[str, Any] = {"confidence": 0.99, "time_s": frame / FPS, "file": None} | changes
    box = np.array([20, 20, 80, 80], np.float32)
    return AURow(
        frame,
        fields["time_s"],
        face,
        True,
        fields["confidence"],
        box,
        np.full((5, 2), np.nan, np.float32),
        values,
        values >= 0.5,
        aus,
        fields["file"],
    )


def nobody(frame: int) -> AURow:
    nan = np.full(4, np.nan, np.float32)
    scores = np.full(len(AUS), np.nan, np.float32)
    return AURow(
        frame,
        frame / FPS,
        None,
        False,
        0.0,
        nan,
        np.full((5, 2), np.nan, np.float32),
        scores,
        scores > 1,
        AUS,
    )


def two_faces() -> AUResult:
    """100 frames: face 0 with a gap at 40 to 49, face 1 in frames 60 to 64.

    AU12 of face 0 is its frame / 100.
    """
    result = AUResult(
        AUS,
        {
            "source": "a<b>.webm",
            "model": "<i>mdhr</i>",
            "model_sha256": "0" * 64,
            "fps": FPS,
            "aligner": "mtcnn",
            "thresholds": {"AU01": 0.5, "AU12": 0.5},
        },
    )
    for i in range(100):
        result.append(
            nobody(i) if 40 <= i < 50 else row(i, (0.9 if i == 7 else 0.1, i / 100, 0.25))
        )
        if 60 <= i < 65:
            result.append(row(i, (0.6, 0.2, 0.3), face=1))
    return result


def grey_clip(path: Path, frames: int = 100) -> Path:
    """Frame i is grey 2 i."""
    return write_clip(path, (np.full((120, 160, 3), 2 * i, np.uint8) for i in range(frames)), FPS)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_report(two_faces(), folder / "a.html", video=grey_clip(folder / "clip.webm"))


@pytest.fixture
def opened(browser: WebDriver, page: Path) -> WebDriver:
    open_page(browser, page)
    wait(browser, "return document.getElementById('video').readyState >= 1")
    return browser


# True when the timeline is drawn with all of its texts, or the page has none.
DRAWN = """
const timeline = document.getElementById("timeline");
if (!timeline) return true;
const texts = timeline.layout?.annotations.filter((text) => text.visible !== false);
return texts && timeline.querySelectorAll(".annotation-text").length >= texts.length;
"""


def open_page(browser: WebDriver, page: Path) -> None:
    complaints(browser)
    browser.get(page.as_uri())
    wait(browser, DRAWN)


def wait(browser: WebDriver, script: str, seconds: float = 60) -> Any:
    return WebDriverWait(browser, seconds, 0.05).until(lambda b: b.execute_script(script), script)


def wait_text(browser: WebDriver, element: str, part: str) -> str:
    """The text of an element, once it has a part. Pages answer to the mouse when they have time."""
    script = "return document.getElementById(arguments[0]).innerText.includes(arguments[1])"
    WebDriverWait(browser, 60, 0.05).until(
        lambda b: b.execute_script(script, element, part), f"{element}: {part}"
    )
    return browser.find_element(By.ID, element).text


def at(browser: WebDriver, time_s: float, au: int = 1) -> ActionChains:
    """The mouse at a time, over the middle of an AU's row."""
    browser.execute_script("document.getElementById('timeline').scrollIntoView()")
    place = browser.execute_script(
        "const l = document.getElementById('timeline')._fullLayout, y = l[arguments[1] ? "
        "`yaxis${arguments[1] + 1}` :"
        "'yaxis'], box = document.getElementById('timeline').getBoundingClientRect();"
        "return [box.left + l.xaxis._offset + l.xaxis.l2p(arguments[0]), box.top + y._offset + "
        "y._length / 2]",
        time_s,
        au,
    )
    actions = ActionChains(browser, duration=50)
    actions.w3c_actions.pointer_action.move_to_location(*map(round, place))
    return actions


def drawn(browser: WebDriver, trace: int, column: str) -> list[Any]:
    return browser.execute_script(
        "return Array.from(document.getElementById('timeline').data[arguments[0]][arguments[1]])",
        trace,
        column,
    )


def test_nothing_is_fetched_and_nothing_is_complained_about(opened: WebDriver, page: Path) -> None:
    assert len(opened.find_elements(By.CSS_SELECTOR, "#timeline .cartesianlayer .subplot")) >= len(
        AUS
    )
    assert opened.find_elements(By.CSS_SELECTOR, "#together .heatmaplayer image")
    fetched = opened.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith(("blob:", "data:"))] == []
    assert complaints(opened) == []
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(
                value or ""
                for name, value in attrs
                if name in ("src", "href", "srcset", "action", "data")
            )

    Links().feed(page.read_text())
    assert links
    assert all(link.startswith("data:") for link in links)
    policy = opened.find_element(By.CSS_SELECTOR, "meta[http-equiv]").get_attribute("content") or ""
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "http" not in policy
    # The policy holds: nothing can be sent, and no program can be added.
    opened.execute_script("fetch('http://127.0.0.1:9/').catch(() => { window.refused = true })")
    wait(opened, "return window.refused")
    opened.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'added = 1'}))"
    )
    assert opened.execute_script("return window.added") is None
    complaints(opened)


def test_no_button_sends_the_data_away(opened: WebDriver) -> None:
    buttons = opened.find_elements(By.CSS_SELECTOR, "#timeline .modebar-btn")
    assert sorted(button.get_attribute("data-title") or "" for button in buttons) == [
        "Download plot as a PNG",
        "Pan",
        "Reset axes",
        "Zoom",
        "Zoom in",
        "Zoom out",
    ]


def test_what_files_hold_is_shown_as_it_is(opened: WebDriver) -> None:
    at(opened, 2.0, au=2).perform()
    wait(opened, "return document.querySelector('.hoverlayer .hovertext')?.textContent")
    assert opened.execute_script("return window.hacked") is None
    assert not opened.find_elements(By.CSS_SELECTOR, "img[src=x]")
    assert opened.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext").text.startswith(HOSTILE)
    labels = [
        label.text for label in opened.find_elements(By.CSS_SELECTOR, "#timeline .annotation-text")
    ]
    assert labels == ["AU01 inner brow raiser", "AU12 lip corner puller", HOSTILE]
    assert opened.find_element(By.TAG_NAME, "h1").text == "a<b>.webm"
    assert "<i>mdhr</i>" in opened.find_element(By.TAG_NAME, "footer").text
    assert complaints(opened) == []


def test_hover_shows_the_values(opened: WebDriver) -> None:
    at(opened, 7.25).perform()  # frame 72 is shown from 7.2 to 7.3 s
    readout = wait_text(opened, "readout", "7.200 s")
    wait(opened, "return document.querySelector('.hoverlayer .hovertext')")
    shown = opened.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext").text
    assert re.match(r"AU12 0\.7[23]0\s*7\.[23]00 s, frame 7[23]$", shown)
    assert readout == "7.200 s, frame 72. Active: AU12 0.72"
    at(opened, 4.5).perform()
    assert "not found" in wait_text(opened, "readout", "4.5")


def test_thresholds_gaps_and_active_parts(opened: WebDriver) -> None:
    assert drawn(opened, 2, "x")[38:42] == pytest.approx([3.8, 3.9, None, 5.0], nan_ok=True)
    assert drawn(opened, 2, "y")[38:42] == [
        pytest.approx(0.38, abs=1e-4),
        pytest.approx(0.39, abs=1e-4),
        None,
        pytest.approx(0.5, abs=1e-4),
    ]
    # AU01 in frame 7 alone.
    assert drawn(opened, 1, "x") == pytest.approx([0.7, 0.8, None], nan_ok=True)
    assert drawn(opened, 3, "x") == pytest.approx([5.0, 10.0, None], nan_ok=True)
    shapes = opened.execute_script(
        "return document.getElementById('timeline').layout.shapes.map((s) => [s.yref, s.y0])"
    )
    assert shapes == [
        ["paper", 0],
        ["y", 0.5],
        ["y2", 0.5],
    ]  # the cursor, and of the third AU it is not known


def test_each_face_has_its_own_thresholds_after_a_baseline(
    browser: WebDriver, tmp_path: Path
) -> None:
    aus = ("AU01", "AU12")
    result = AUResult(aus, {"fps": FPS, "thresholds": dict.fromkeys(aus, 0.5)})
    for i in range(80):
        for face, rest in ((0, 0.4), (1, 0.01)) if i < 40 else ((0, 0.4),):
            result.append(row(i, (0.8 if i % 10 == 9 else rest, 0.01), face, aus))
    raised = result.baseline(quantile=0.1, mode="threshold")
    page = tmp_path / "a.html"
    raised.to_jsonl(tmp_path / "a.jsonl")
    assert main(["report", str(tmp_path / "a.jsonl"), "-o", str(page)]) == 0
    open_page(browser, page)
    limits = {}
    for face in (0, 1):
        Select(browser.find_element(By.ID, "face")).select_by_value(str(face))
        shapes = browser.execute_script(
            "return document.getElementById('timeline').layout.shapes.map((s) => s.y0)"
        )
        cells = browser.find_elements(
            By.CSS_SELECTOR, "section.face:not([hidden]) .summary tbody tr td:nth-child(2)"
        )
        assert [cell.text for cell in cells] == [f"{limit:.3f}" for limit in shapes[1:]]
        axes = raised.plot(face_id=face).axes
        assert [ax.lines[1].get_ydata()[0] for ax in axes] == shapes[1:]
        limits[face] = shapes[1:]
    assert limits == {
        0: [pytest.approx(0.9268, abs=1e-4), 0.5],
        1: [0.5, 0.5],
    }  # odds of 2/3 over those of 1/19
    assert "thresholds raised to each face at rest (0.1 quantile)" in page.read_text()
    assert complaints(browser) == []


def test_a_click_seeks_the_video_and_the_cursor_follows_it(opened: WebDriver) -> None:
    at(opened, 7.25).click().perform()
    wait(
        opened,
        "return !document.getElementById('video').seeking && "
        "document.getElementById('video').currentTime > 0",
    )
    assert opened.execute_script(
        "return document.getElementById('video').currentTime"
    ) == pytest.approx(7.25, abs=0.02)
    # Which frame is shown? Frame i is grey 2 i.
    grey = opened.execute_script(
        "const c = document.createElement('canvas').getContext('2d');"
        "c.drawImage(document.getElementById('video'), 0, 0);"
        "return c.getImageData(50, 50, 1, 1).data[0]"
    )
    assert grey == pytest.approx(144, abs=5)
    cursor = "return document.getElementById('timeline').layout.shapes[0].x0"
    wait(opened, f"{cursor} > 7")
    assert opened.execute_script(cursor) == pytest.approx(7.25, abs=0.03)
    at(opened, 4.5).click().perform()  # where the face is missing
    wait(opened, "return Math.abs(document.getElementById('video').currentTime - 4.5) < 0.03")
    opened.execute_script("return document.getElementById('video').play()")
    wait(opened, f"{cursor} > 5.2")
    opened.execute_script("document.getElementById('video').pause()")
    opened.find_element(
        By.CSS_SELECTOR, "section.face:not([hidden]) button[data-time='0.7']"
    ).click()
    wait(opened, "return Math.abs(document.getElementById('video').currentTime - 0.75) < 0.03")
    assert complaints(opened) == []


def test_frames_of_a_varying_rate_last_until_the_next(browser: WebDriver, tmp_path: Path) -> None:
    result = AUResult(AUS, {"fps": FPS, "thresholds": {}})
    times = [0.0, 0.1, 0.2, 0.7, 0.8, 0.9]
    for i, time_s in enumerate(times):
        result.append(row(i, (0.1, 0.9, 0.1), time_s=time_s))
    open_page(browser, result.report(tmp_path / "a.html"))
    assert drawn(browser, 3, "x") == pytest.approx([0.0, 1.0, None], nan_ok=True)  # one bar
    for time_s, frame in ((0.4, 2), (0.6, 3), (0.95, 5)):
        at(browser, time_s).click().perform()
        text = f"{times[frame]:.3f} s, frame {frame}. Active: AU12"
        assert wait_text(browser, "readout", text).startswith(text), time_s
    assert complaints(browser) == []


def test_drag_zooms_and_double_click_shows_all(opened: WebDriver) -> None:
    at(opened, 2.0).click_and_hold().perform()
    at(opened, 3.0).release().perform()
    limits = "return document.getElementById('timeline').layout.xaxis.range"
    wait(opened, f"{limits}[1] < 4")
    assert opened.execute_script(limits) == pytest.approx([2.0, 3.0], abs=0.05)
    assert (
        opened.execute_script("return document.getElementById('timeline').data[0].mode")
        == "lines+markers"
    )
    at(opened, 2.5).double_click().perform()
    wait(opened, f"{limits}[1] > 9")
    assert len(drawn(opened, 0, "x")) == 91


def test_one_face_is_shown_at_a_time(opened: WebDriver) -> None:
    choice = Select(opened.find_element(By.ID, "face"))
    assert [option.text for option in choice.options] == [
        "Face 0: 0:00.0 to 0:09.9, 90 frames",
        "Face 1: 0:06.0 to 0:06.4, 5 frames",
    ]
    assert (
        opened.find_element(By.TAG_NAME, "optgroup").get_attribute("label")
        == "Seen in fewer than 30 frames"
    )
    choice.select_by_index(1)
    shown = [s for s in opened.find_elements(By.CSS_SELECTOR, "section.face") if s.is_displayed()]
    assert [section.get_attribute("data-face") for section in shown] == ["1"]
    assert drawn(opened, 0, "y") == pytest.approx([0.6] * 5, abs=1e-4)
    lines = shown[0].find_elements(By.CSS_SELECTOR, "tbody tr")
    # Not seen to begin.
    assert lines[0].text == "AU01 inner brow raiser 0.500 100.0 % 0.60 0.60 0 0.50 s"
    assert complaints(opened) == []


def test_the_heat_map_has_three_measures(opened: WebDriver) -> None:
    choice = Select(opened.find_element(By.ID, "measure"))
    cell = "return document.getElementById('together').data[0].z[0][1]"
    assert opened.execute_script(cell) == 0
    choice.select_by_value("correlation")
    frames = np.r_[0:40, 50:100]
    expected = np.corrcoef(np.where(frames == 7, 0.9, 0.1), frames / 100)[0, 1]
    assert opened.execute_script(cell) == pytest.approx(expected, abs=1e-4)
    # Never changes.
    assert (
        opened.execute_script("return document.getElementById('together').data[0].z[2][1]") is None
    )
    choice.select_by_value("both")
    assert opened.execute_script(
        "return document.getElementById('together').data[0].z[1][1]"
    ) == pytest.approx(50 / 90, abs=1e-4)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_width(opened: WebDriver, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        open_page(opened, page)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        assert (
            opened.execute_script("return document.getElementById('timeline')._fullLayout.width")
            <= width
        )
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_stills_are_of_the_frames_with_the_highest_score(page: Path) -> None:
    text = page.read_text()
    images = re.findall(r'<figure><img src="data:image/jpeg;base64,([^"]+)"', text)
    greys = [np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))).mean() for image in images]
    # Face 0: AU01 in frame 7, AU12 in 99, the third the first of many; face 1: the first of equal
    # ones.
    assert greys == pytest.approx([14, 198, 0, 120, 120, 120], abs=4)


def test_a_still_is_of_a_face_that_was_found_surely() -> None:
    result = AUResult(("AU12",), {})
    for i in range(10):
        result.append(row(i, [i / 10], aus=("AU12",), confidence=0.95 if i < 8 else 0.4))
    table = result.to_dataframe()
    assert best_rows(table, ("AU12",)) == {"AU12": 7}
    table["confidence"] = np.linspace(0.5, 0.3, 10)  # an aligner that is never so sure
    assert best_rows(table, ("AU12",)) == {"AU12": 4}


def test_a_long_recording_stays_responsive(browser: WebDriver, tmp_path: Path) -> None:
    """30 minutes at 30 frames a second, 16 AUs; the figures are in docs/report.md."""
    rng = np.random.default_rng(0)
    aus = tuple(f"AU{i:02d}" for i in range(1, 17))
    # Noise is the worst there is to draw.
    scores = rng.random((54_000, 16)).astype(np.float32) * 0.4
    scores[30_001, 3] = 0.9  # one frame
    result = AUResult(aus, {"fps": 30.0, "thresholds": dict.fromkeys(aus, 0.5)})
    for i, values in enumerate(scores):
        if 40_010 < i < 43_000:
            continue  # the face is away
        result.append(row(i, values, aus=aus, time_s=i / 30))
    page = write_report(result, tmp_path / "long.html")
    assert page.stat().st_size < 12e6
    open_page(browser, page)
    timeline = "document.getElementById('timeline')"
    points = f"return {timeline}.data.reduce((n, trace) => n + trace.x.length, 0)"
    assert browser.execute_script(points) < 16 * 5000
    # No peak is lost.
    assert max(y for y in drawn(browser, 6, "y") if y is not None) == pytest.approx(0.9, abs=1e-4)
    assert [x for x in drawn(browser, 7, "x") if x] == pytest.approx([1000.033, 1000.033], abs=2)
    x = drawn(browser, 0, "x")
    steps = [b - a for a, b in itertools.pairwise(x) if a is not None and b is not None]
    assert max(steps) < 6  # a line over the gap would take 100 s
    at(browser, 1000).click_and_hold().perform()
    at(browser, 1030).release().perform()
    wait(browser, "return document.getElementById('timeline').layout.xaxis.range[1] < 1100")
    left, right = browser.execute_script(
        "return document.getElementById('timeline').layout.xaxis.range"
    )
    inside = [x for x in drawn(browser, 0, "x") if left <= x <= right]
    assert len(inside) == pytest.approx((right - left) * 30, abs=2)  # every frame
    at(browser, (left + right) / 2).perform()
    wait(browser, "return document.querySelector('.hoverlayer .hovertext')")
    assert complaints(browser) == []


def test_a_large_video_stays_beside_the_page(browser: WebDriver, tmp_path: Path) -> None:
    (tmp_path / "my clips").mkdir()
    clip = grey_clip(tmp_path / "my clips" / "a #1.webm")
    page = write_report(two_faces(), tmp_path / "pages" / "a.html", video=clip, embed_limit=0)
    assert b"my%20clips/a%20%231.webm" in page.read_bytes()
    assert str(tmp_path).encode() not in page.read_bytes()
    open_page(browser, page)
    wait(browser, "return document.getElementById('video').readyState >= 1")
    assert complaints(browser) == []
    clip.rename(tmp_path / "moved.webm")
    browser.get(page.as_uri())
    wait(browser, "return !document.getElementById('video-note').hidden")
    wait_text(browser, "video-note", "not where the page looks")


def test_the_page_says_when_the_browser_cannot_play_the_video(
    browser: WebDriver, tmp_path: Path
) -> None:
    page = write_report(two_faces(), tmp_path / "a.html", video=grey_clip(tmp_path / "a.mp4"))
    open_page(browser, page)
    wait(browser, "return !document.getElementById('video-note').hidden")
    wait_text(browser, "video-note", "cannot play this video")
    at(browser, 7.25).click().perform()  # the timeline works all the same
    text = "7.200 s, frame 72."
    assert wait_text(browser, "readout", text).startswith(text)
    assert [line for line in complaints(browser) if "Uncaught" in line] == []


def test_independent_images_are_shown_together(browser: WebDriver, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    images = AUResult(AUS, {"independent": True, "thresholds": {"AU12": 0.5}}, files=True)
    for i in range(3):
        name = folder / f"<b>{i}.png"
        Image.new("RGB", (100, 100)).save(name)
        # A number for every face.
        images.append(row(i, (0.1, 0.2 * i, 0.2), 2 * i, time_s=np.nan, file=str(name)))
        images.append(row(i, (0.1, 0.9, 0.2), 2 * i + 1, time_s=np.nan, file=str(name)))
    open_page(browser, images.report(tmp_path / "a.html", folder))
    main_part = browser.find_element(By.TAG_NAME, "main").text
    assert "6 faces in 3 images" in main_part
    assert "onsets" not in main_part
    cells = [
        cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "tbody tr:nth-child(2) td")
    ]
    assert cells == ["0.500", "50.0 %", "0.55", "0.90"]
    assert (
        browser.execute_script("return document.getElementById('timeline').data[0].mode")
        == "markers"
    )
    shown = [y for y in drawn(browser, 2, "y") if y is not None]
    assert shown == pytest.approx([0.0, 0.9, 0.2, 0.9, 0.4, 0.9], abs=1e-4)
    at(browser, 3).click().perform()
    text = "<b>1.png. Active: AU12 0.90"
    assert wait_text(browser, "readout", text) == text
    assert wait(
        browser, "return document.querySelector('#timeline .hoverlayer text.nums').textContent"
    ) == ("AU12 0.900<b>1.png")
    assert "<b>0.png" in browser.find_elements(By.TAG_NAME, "figure")[1].text
    assert str(tmp_path) not in (tmp_path / "a.html").read_text()
    assert complaints(browser) == []
    axes = images.plot().axes[1]
    assert list(axes.lines[0].get_ydata()) == pytest.approx(shown, abs=1e-4)
    (bars,) = axes.collections
    assert [path.get_extents().intervalx.tolist() for path in bars.get_paths()] == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]
    assert images.plot(kind="heatmap").axes[0].images[0].get_array().shape == (3, 6)


def test_without_faces_times_or_metadata(browser: WebDriver, tmp_path: Path) -> None:
    empty = AUResult(AUS, {})
    empty.append(nobody(0))
    open_page(browser, empty.report(tmp_path / "empty.html"))
    assert "No face was found" in browser.find_element(By.TAG_NAME, "main").text
    assert complaints(browser) == []

    two_faces().to_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv.json").unlink()
    assert main(["report", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.html"), "--quiet"]) == 0
    open_page(browser, tmp_path / "a.html")
    assert (
        browser.execute_script("return document.getElementById('timeline').layout.shapes.length")
        == 1
    )
    assert complaints(browser) == []


def test_numbers_of_the_summary() -> None:
    result = two_faces()
    table = result.to_dataframe()
    face = table[table["face_id"] == 0]
    found = pd.DataFrame(
        {
            "au": ["AU12", "AU12"],
            "onset_s": [1.0, 3.0],
            "offset_s": [2.0, 6.0],
            "onset_seen": [False, True],
        }
    )
    first, second, third = summarize_aus(face, AUS, found)
    assert first["share"] == pytest.approx(1 / 90)
    assert first["peak"] == pytest.approx(0.9)
    assert (first["onsets"], second["onsets"], second["length_s"]) == (0, 1, 2.0)
    assert second["mean"] == pytest.approx(np.r_[0:40, 50:100].mean() / 100)
    assert third["share"] == 0
    assert summarize_aus(face, AUS, None)[0]["onsets"] is None


def test_numbers_of_the_co_occurrence() -> None:
    active = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)
    scores = np.array([[0.9, 0.8, 0.1], [0.8, 0.2, 0.1], [0.1, 0.1, 0.1], [0.7, 0.9, 0.1]])
    found = co_occurrence(scores, active)
    assert found["jaccard"][0].tolist() == pytest.approx([1, 2 / 3, 0])
    assert np.isnan(found["jaccard"][2, 2])
    assert found["both"][0].tolist() == pytest.approx([0.75, 0.5, 0])
    assert found["correlation"][0, 1] == pytest.approx(
        np.corrcoef(scores[:, 0], scores[:, 1])[0, 1]
    )
    assert np.isnan(found["correlation"][0, 2])
    for matrix in found.values():
        np.testing.assert_allclose(matrix, matrix.T)


def test_options_of_events_reach_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_faces().to_csv(tmp_path / "a.csv")
    options = ["--min-frames", "2", "--join-frames", "3", "--quiet"]
    assert main(["report", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.html"), *options]) == 0
    assert re.match(r".*a\.html: \d+\.\d MB\n", capsys.readouterr().out)
    text = (tmp_path / "a.html").read_text()
    assert "Events of fewer than 2 frames do not count." in text
    assert "at most 3 frames between them" in text
    line = re.search(r"AU01 inner brow raiser</th>(.*?)</tr>", text, re.DOTALL)
    assert line is not None
    assert "<td>0</td>" in line[1]  # the one active frame is too short


def test_what_went_wrong_is_noted_without_paths(tmp_path: Path) -> None:
    result = two_faces()
    result.warnings.append("the run did not <finish>")
    result.failures += [Failure(f"/home/me/{i}.jpg", "no image") for i in range(7)]
    text = result.report(tmp_path / "a.html").read_text()
    assert "<li>the run did not &lt;finish&gt;</li>" in text
    assert "<li>could not be scored: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more</li>" in text
    assert "/home/me" not in text


def test_a_video_that_is_too_short_is_noted(tmp_path: Path) -> None:
    page = write_report(two_faces(), tmp_path / "a.html", video=grey_clip(tmp_path / "a.webm", 50))
    assert (
        "a.webm ends before frame 99 of the table: is it the video that was scored?"
        in page.read_text()
    )


def test_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    page = str(tmp_path / "a.html")
    assert main(["report", str(tmp_path / "none.csv"), "-o", page]) == 1
    assert "none.csv" in capsys.readouterr().err
    two_faces().to_csv(tmp_path / "a.csv")
    assert (
        main(["report", str(tmp_path / "a.csv"), "-o", page, "--video", str(tmp_path / "none.mp4")])
        == 1
    )
    assert "none.mp4" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.pdf")]) == 1
    assert ".html" in capsys.readouterr().err
    for options in (
        {"embed_limit": -1},
        {"embed_limit": float("nan")},
        {"min_frames": 0},
        {"join_frames": -1},
    ):
        with pytest.raises(OptionError, match=next(iter(options))):
            write_report(two_faces(), page, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no action units"):
        write_report(AUResult((), {}), page)
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="cannot write"):
        write_report(two_faces(), tmp_path / "file" / "a.html")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(DependencyError, match=r"pyfau\[report\]"):
        write_report(two_faces(), page)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"pyfau\[plot\]"):
        two_faces().plot()


def test_static_plots(tmp_path: Path) -> None:
    result = two_faces()
    loaded = "matplotlib.pyplot" in sys.modules
    figure = result.plot()
    assert (
        "matplotlib.pyplot" in sys.modules
    ) == loaded  # its figures and its backend are the user's
    assert len(figure.axes) == len(AUS)
    line = np.asarray(figure.axes[1].lines[0].get_ydata())
    assert np.isnan(line[40])  # the gap
    np.testing.assert_allclose(np.delete(line, 40), np.r_[0:40, 50:100] / 100, atol=1e-6)
    assert figure.axes[1].lines[1].get_ydata()[0] == 0.5  # the threshold
    spans = [
        [path.get_extents().intervalx.tolist() for path in ax.collections[0].get_paths()]
        for ax in figure.axes
    ]
    assert [np.round(span, 6).tolist() for span in spans] == [
        [[0.7, 0.8]],
        [[5.0, 10.0]],
        [],
    ]  # also a single frame
    assert len(figure.axes[2].lines) == 1  # which is not known here
    figure.savefig(tmp_path / "lines.png", dpi=40)
    heat = result.plot(face_id=1, kind="heatmap")
    heat.savefig(tmp_path / "heat.png", dpi=40)
    assert heat.axes[0].images[0].get_array().shape == (3, 5)
    assert Image.open(tmp_path / "heat.png").width == 400
    with pytest.raises(OptionError, match="face_id must be one of 0, 1, got 7"):
        result.plot(7)
    with pytest.raises(OptionError, match="lines, heatmap"):
        result.plot(kind="pie")
    with pytest.raises(PyfauError, match="nothing to plot"):
        AUResult(AUS, {}).plot()


@pytest.mark.slow
@pytest.mark.media
def test_a_real_clip(browser: WebDriver, media: Path, tmp_path: Path) -> None:
    clip = media / "single_face.mp4"
    result = AUDetector(progress=False).detect_video(clip, save=tmp_path / "a.csv")
    page = write_report(result, tmp_path / "a.html", video=clip)
    open_page(browser, page)
    wait(browser, "return document.getElementById('video').videoWidth == 640")
    assert "mdhr-lite" in browser.find_element(By.TAG_NAME, "footer").text
    assert len(
        browser.find_elements(By.CSS_SELECTOR, "section.face:not([hidden]) figure img")
    ) == len(result.aus)
    at(browser, 1.0, au=result.aus.index("AU12")).click().perform()
    wait(browser, "return Math.abs(document.getElementById('video').currentTime - 1) < 0.1")
    wait_text(browser, "readout", "AU12")  # by then he smiles
    assert complaints(browser) == []
    metadata = json.loads((tmp_path / "a.csv.json").read_text())
    assert str(metadata["model_sha256"]) in page.read_text()


# Intensity, hostile names, many faces

ODD = "\x1b]0;gone\x07\n=cmd|' calc'!A0\u202e"


def without_programs(page: Path) -> str:
    """The text of a page without its JavaScript; the data stay."""
    return re.sub(r"(?s)<script>.*?</script>", "", page.read_text())


def graded(result: AUResult) -> AUResult:
    """The same rows with intensities: 4.5 times the score."""
    copy = AUResult(result.aus, result.metadata, intensity=True)
    copy.extend(dataclasses.replace(r, intensity=r.scores * np.float32(4.5)) for r in result)
    return copy


def test_intensities_are_in_the_table_and_on_the_timeline(
    browser: WebDriver, tmp_path: Path
) -> None:
    page = write_report(graded(two_faces()), tmp_path / "a.html")
    open_page(browser, page)
    labels = [
        label.text for label in browser.find_elements(By.CSS_SELECTOR, "#timeline .annotation-text")
    ]
    # AU12 of face 0 is active in frames 50 to 99: its mean score is 0.745, its highest 0.99.
    assert re.sub(r"\s+", " ", labels[1]) == (
        "AU12 lip corner puller intensity D 3.4, highest E 4.5"
    )
    assert labels[2].endswith("intensity –, highest B 1.1")  # noqa: RUF001
    table = browser.find_element(By.CSS_SELECTOR, "section.face:not([hidden]) table")
    headers = [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "thead th")]
    place = headers.index("mean intensity")
    cells = [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tr:nth-child(2) > *")]
    assert cells[place : place + 2] == ["D 3.4", "E 4.5"]
    assert complaints(browser) == []


def test_without_intensities_nothing_speaks_of_them(page: Path) -> None:
    text = without_programs(page)
    assert "highest intensity" not in text
    assert "experimental" not in text


def test_numbers_of_the_intensities() -> None:
    table = graded(two_faces()).to_dataframe()
    face = table[table["face_id"] == 0]
    first, second, third = summarize_aus(face, AUS, None)
    assert first["intensity"] == first["intensity_peak"] == pytest.approx(0.9 * 4.5)
    assert second["intensity"] == pytest.approx(4.5 * 0.745)
    assert math.isnan(third["intensity"])
    assert third["intensity_peak"] == pytest.approx(0.25 * 4.5)
    bare = two_faces().to_dataframe()
    assert summarize_aus(bare[bare["face_id"] == 0], AUS, None)[0]["intensity"] is None


def test_control_characters_of_names_are_shown_as_escapes(tmp_path: Path) -> None:
    aus = ("AU01", "AU12", ODD)
    result = AUResult(aus, {"source": f"/data/{ODD}.mp4", "model": ODD, "fps": FPS})
    for i in range(5):
        result.append(row(i, (0.9, 0.2, 0.6), aus=aus))
    result.failures.append(Failure(f"/data/{ODD}.png", ODD))
    result.warnings.append(ODD)
    text = without_programs(write_report(result, tmp_path / "a.html"))
    assert [c for c in text if not c.isprintable() and c not in "\n"] == []
    shown = r"\x1b]0;gone\x07\n=cmd|&#39; calc&#39;!A0\u202e"
    assert text.count(shown) >= 5  # title, heading, note, table, footer
    independent = AUResult(aus, {"independent": True})
    for i in range(2):
        independent.append(row(i, (0.9, 0.2, 0.6), aus=aus, time_s=math.nan, file=f"/x/{ODD}.png"))
    text = without_programs(write_report(independent, tmp_path / "b.html"))
    assert [c for c in text if not c.isprintable() and c not in "\n"] == []


def test_control_characters_of_names_are_not_drawn_in_plots() -> None:
    result = AUResult((ODD,), {"source": f"/data/{ODD}.mp4"})
    result.append(row(0, (0.9,), aus=(ODD,)))
    figure = result.plot()
    assert figure.get_suptitle().startswith(r"\x1b]0;gone\x07\n=cmd")
    assert figure.axes[0].get_ylabel().startswith(r"\x1b]0;gone")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_video_with_a_hostile_name_is_linked(tmp_path: Path) -> None:
    name = "javascript:alert(1)\x1b\"'<b>\udcff.webm"
    clip = tmp_path / name
    clip.write_bytes(b"a clip")
    source = _player(clip, tmp_path / "a.html", limit=0)["source"]
    assert source is not None
    assert re.fullmatch(r"[A-Za-z0-9%._-]+", source)
    assert unquote_to_bytes(source) == os.fsencode(name)


@pytest.mark.parametrize("time_s", [math.inf, -math.inf])
def test_infinite_times_are_no_times(tmp_path: Path, time_s: float) -> None:
    result = AUResult(AUS, {"fps": FPS})
    for i in range(3):
        result.append(row(i, (0.9, 0.2, 0.6), time_s=time_s))
    assert "Face 0: frames 0 to 2" in write_report(result, tmp_path / "a.html").read_text()


def test_frame_numbers_that_the_page_cannot_count_are_refused(tmp_path: Path) -> None:
    result = AUResult(AUS, {"fps": FPS})
    result.append(row(2**31, (0.9, 0.2, 0.6)))
    with pytest.raises(InputError, match="frame numbers"):
        write_report(result, tmp_path / "a.html")


def test_thousands_of_faces_take_linear_time(tmp_path: Path) -> None:
    def seconds(faces: int) -> float:
        result = AUResult(AUS, {"fps": FPS})
        for face in range(faces):
            for i in range(4):
                result.append(row(i, (0.9, 0.2, 0.6), face=face))
        start = time.process_time()
        write_report(result, tmp_path / "a.html")
        return time.process_time() - start

    seconds(10)  # imports
    small, large = seconds(500), seconds(3000)
    assert large < 12 * small + 1
