"""A page as a real browser shows it: Chromium, driven by Playwright."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browsing(file: Path, *, width: int = 1400, dark: bool = False) -> Generator["Page"]:
    """A page in Chromium without network; what the console or a script complains of fails the test.

    The test is skipped where Chromium or Playwright are not installed.

    Args:
        file: the HTML file.
        width: of the window in pixels.
        dark: whether the user likes pages dark.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", offline=True
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _leaves(request.url) else None)
        page.goto(file.absolute().as_uri())
        yield page
        browser.close()
    assert not complaints


def column(page: "Page", table: int, place: int) -> list[str]:
    """The cells of a column of a table, from top to bottom."""
    return page.locator("table").nth(table).locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()


def _leaves(address: str) -> bool:
    return not address.startswith(("file:", "data:"))
