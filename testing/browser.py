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
def browsing(place: Path | str, *, width: int = 1400, dark: bool = False) -> Generator["Page"]:
    """A page in Chromium without any other; what the console or a script complains of fails the test.

    The test is skipped where Chromium or Playwright are not installed.

    Args:
        place: the HTML file, or the address of a server, which alone can be reached.
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
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            offline=isinstance(place, Path),
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        own = "file:" if isinstance(place, Path) else place
        page.on("request", lambda request: None if _is_of(request.url, own) else complaints.append(request.url))
        page.goto(place.absolute().as_uri() if isinstance(place, Path) else place)
        yield page
        browser.close()
    assert not complaints


def column(page: "Page", table: int, place: int) -> list[str]:
    """The cells of a column of a table, from top to bottom."""
    return page.locator("table").nth(table).locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()


def _is_of(address: str, page: str) -> bool:
    return address.startswith((page, "data:", "blob:"))
