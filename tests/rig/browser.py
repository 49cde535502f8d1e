"""A real browser, headless: Debian's Chromium, by its driver."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DRIVER = "/usr/bin/chromedriver"
_BROWSER = "/usr/bin/chromium"


@contextmanager
def browser(profile: Path, *options: str) -> Iterator[webdriver.Chrome]:
    """Start a browser that accepts the agent's own certificate, with an empty ``profile``."""
    settings = Options()
    settings.binary_location = _BROWSER
    settings.accept_insecure_certs = True
    for option in ("--headless=new", "--no-sandbox", f"--user-data-dir={profile}", *options):
        settings.add_argument(option)
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(settings, Service(_DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
