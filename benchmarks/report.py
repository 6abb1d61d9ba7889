"""A page of `pyfau report` in Chromium: its size, and how long it takes to open, zoom, hover and go
to a time.

    python benchmarks/report.py [--minutes 30] [--fps 30] [--noise]

The recording has one face and 16 action units, with smooth random scores. With --noise, scores jump
from frame to frame, which is the worst case for drawing. Medians of the wall-clock time in the page
are printed. It needs Chromium and ChromeDriver.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import chromium, complaints

from pyfau.report.html import write_report
from pyfau.result import AUResult
from pyfau.types import AURow

AUS = tuple(
    f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26, 43)
)

# In the page: how long a change takes until the browser has painted it.
PAINTED = """
const [done, change] = [arguments[arguments.length - 1], arguments[0]], from = performance.now();
Promise.resolve(new Function("i", change)(arguments[1])).then(() =>
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - from))));
"""
ZOOM = (
    "const a = document.getElementById('timeline'), x = a.layout.xaxis, w = (x.maxallowed - "
    "x.minallowed) / 2 ** i;"
    "return Plotly.relayout(a, {'xaxis.range[0]': x.minallowed + w / 3, 'xaxis.range[1]': "
    "x.minallowed + w * 4 / 3})"
)
HOVER = (
    "const a = "
    "document.getElementById('timeline').querySelector('.nsewdrag').getBoundingClientRect();"
    "document.getElementById('timeline').querySelector('.nsewdrag').dispatchEvent(new "
    "MouseEvent('mousemove',"
    "{clientX: a.left + a.width * (i + 1) / 12, clientY: a.top + a.height / 2, bubbles: true}))"
)


def recording(frames: int, fps: float, noise: bool = False) -> AUResult:
    """A face with random scores that is missing for a second every minute."""
    rng = np.random.default_rng(0)
    scores = rng.random((frames, len(AUS)))
    if not noise:
        knots = np.arange(0, frames + fps, fps)
        at = np.arange(frames)
        scores = np.stack([np.interp(at, knots, rng.random(len(knots)) ** 3) for _ in AUS], axis=1)
    scores = scores.astype(np.float32)
    result = AUResult(AUS, {"source": "made up", "fps": fps, "thresholds": dict.fromkeys(AUS, 0.5)})
    box, landmarks = np.array([10, 10, 90, 90], np.float32), np.full((5, 2), np.nan, np.float32)
    for i, row in enumerate(scores):
        if i % (60 * fps) < 60 * fps - fps:
            result.append(AURow(i, i / fps, 0, True, 0.99, box, landmarks, row, row >= 0.5, AUS))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--noise", action="store_true")
    args = parser.parse_args()
    result = recording(round(args.minutes * 60 * args.fps), args.fps, args.noise)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        page = write_report(result, Path(folder) / "page.html")
        print(
            f"{len(result)} frames, {len(AUS)} AUs: written in {time.perf_counter() - started:.1f} "
            "s"
        )
        print(f"page                  {page.stat().st_size / 1e6:8.1f} MB")
        with chromium(Path(folder) / "profile") as browser:
            browser.set_script_timeout(60)
            opened = []
            for _ in range(3):
                browser.get(page.as_uri())
                opened.append(
                    browser.execute_script(
                        "return performance.timing.loadEventEnd - "
                        "performance.timing.navigationStart"
                    )
                )
            points = browser.execute_script(
                "return document.getElementById('timeline').data.reduce((n, trace) => n + "
                "trace.x.length, 0)"
            )
            print(f"points drawn          {points:8d}")
            print(f"open                  {statistics.median(opened):8.0f} ms")
            for name, change in (("zoom", ZOOM), ("hover", HOVER)):
                spent = [browser.execute_async_script(PAINTED, change, i) for i in range(1, 10)]
                print(f"{name:20}  {statistics.median(spent):8.0f} ms  (at most {max(spent):.0f})")
            for line in complaints(browser):
                print(line)


if __name__ == "__main__":
    main()
