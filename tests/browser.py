"""A real browser for pages that pyfau makes: headless Chromium, driven by Selenium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver

# Without these, Chromium looks for updates and hosts of its maker.
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@contextmanager
def chromium(
    profile: Path, *arguments: str, size: tuple[int, int] = (1280, 900)
) -> Iterator[webdriver.Chrome]:
    """Chromium with an empty profile; skips the test, loudly, where Chromium is not installed.

    Args:
        profile: An empty folder.
        arguments: Further switches, such as `--use-file-for-fake-video-capture=...`.
        size: Of the window, in pixels.
    """
    binary, driver = (
        shutil.which("chromium") or shutil.which("google-chrome"),
        shutil.which("chromedriver"),
    )
    if binary is None or driver is None:
        if os.environ.get("PYFAU_REQUIRE_BROWSER"):
            pytest.fail("Chromium or ChromeDriver is missing, and PYFAU_REQUIRE_BROWSER is set")
        pytest.skip("needs Chromium and ChromeDriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        *QUIET,
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
        *arguments,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the pages wrote to the console since the last call, warnings and errors only."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("WARNING", "SEVERE")
    ]
