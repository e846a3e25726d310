"""A headless Chromium for tests of the pages, where one is installed."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

FAILED = "Failed to load resource"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Started from `CHROMIUM` or the path; the test is skipped where there is none."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path; on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, url: str, *, refused: int = 0, **context: object) -> Iterator[Page]:
    """A page that must report nothing to its console but `refused` requests that were answered by an error."""
    with browser.new_context(base_url=url, **context) as opened:  # type: ignore[arg-type] # playwright's own keywords
        page = opened.new_page()
        page.set_default_timeout(20_000)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
        give_up = time.monotonic() + 5
        while (
            len(failed := [text for text in said if text.startswith(FAILED)]) < refused and time.monotonic() < give_up
        ):
            page.wait_for_timeout(20)  # the console hears of an answer after the page has it
        assert [text for text in said if text not in failed] == []
        assert len(failed) == refused


def task(page: Page, label: str) -> Locator:
    """The panel of a task, brought to the front."""
    page.get_by_role("tab", name=label, exact=True).click()
    return page.get_by_role("tabpanel", name=label, exact=True)


def run(panel: Locator) -> None:
    """Ask what is on the screen, and wait for the answer."""
    panel.locator(".go").click()
    expect(panel.locator(".timing")).to_be_visible()


def run_javascript(page: Page, code: str) -> str:
    """What a piece of code, with `await` at its top, prints in the page."""
    said: str = page.evaluate(
        """async (code) => {
            const AsyncFunction = (async () => {}).constructor;
            const said = [];
            await new AsyncFunction("console", code)({ log: (text) => said.push(text) });
            return said.join("\\n");
        }""",
        code,
    )
    return said
