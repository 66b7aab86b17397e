"""A real browser for the tests, and what has to hold for every page in it.

With SCREENSHOTS=directory the pages are kept as pictures.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# A browser, a server and a database share what may be a small and busy machine.
PATIENCE = 60_000  # milliseconds
expect = playwright.expect
expect.set_options(timeout=PATIENCE)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@contextmanager
def browser(width: int, height: int, **options: Any) -> Iterator[Any]:
    """A page, of which nothing may go wrong unseen: no error on its console, no resource of others.

    A click waits for the page that it leads to, but not until all of that page is there: what is to be seen on it is
    asked with `expect`, or with what waits (`wait_for`), never with what answers at once (`count`, `inner_text`).

    `options` are playwright's for a page: `timezone_id`, `java_script_enabled`, `locale`.
    """
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.extend([message.text] if message.type in ("error", "warning") else []))
        page.on("pageerror", lambda error: said.append(str(error)))
        try:
            yield page
        except BaseException as error:
            error.add_note(f"The browser was at {page.url}, and had said: {said}")
            raise
        chromium.close()
    assert [line for line in said if "403" not in line] == []  # a wrong password is one


def violations(page: Any) -> list[Any]:
    """What axe finds against accessibility."""
    found: list[Any] = axe.Axe().run(page).response["violations"]
    return found


def look(page: Any, name: str) -> None:
    """Nothing sticks out, and axe finds nothing against accessibility."""
    page.wait_for_load_state()
    width = page.viewport_size["width"]
    keep(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert [(name, one["id"], [node["html"] for node in one["nodes"]]) for one in violations(page)] == []


def look_closely(page: Any, name: str) -> None:
    """And every field has a name, and the page one heading."""
    page.wait_for_load_state()
    expect(page.locator("main h1")).to_have_count(1)
    for field in page.locator("input:visible, select:visible, button:visible").all():
        assert field.evaluate("field => field.labels?.length || field.ariaLabel || field.innerText.trim()"), name
    look(page, name)


def keep(page: Any, name: str) -> None:
    """A picture, where pictures are wanted."""
    if pictures := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{pictures}/{name}-{page.viewport_size['width']}.png", full_page=True)
