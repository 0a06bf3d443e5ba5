"""A real headless browser, for the tests of the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH")
OFF = ("quic", "gpu", "background-networking", "component-update", "sync", "dev-shm-usage")


@contextmanager
def browser(profile: Path) -> Iterator[WebDriver]:
    """A browser of 1400 by 1000 pixels that keeps its files in ``profile``. Nothing is downloaded."""
    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = ["--headless", "--no-sandbox", "--no-first-run", "--window-size=1400,1000", f"--user-data-dir={profile}"]
    flags.append("--force-prefers-reduced-motion")  # a click may miss while the page still scrolls
    for flag in [*flags, *(f"--disable-{name}" for name in OFF)]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    # As if the window were in front: without it an element that gets the focus is not told.
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver: WebDriver) -> list[str]:
    """What the console has said since the last look: errors of scripts, of the security policy, of loading."""
    return [entry["message"] for entry in driver.get_log("browser")]
