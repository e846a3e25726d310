"""Takes the README's pictures of the playground: `python -m docs.screenshots http://127.0.0.1:8000`, where one runs."""

import sys
from pathlib import Path

from playwright.sync_api import Locator

from tests.contract.browser import chromium, watched

WIDTH = 1240
PICTURES = (
    ("Translation", "light", "A question", "gare"),
    ("Summarization", "dark", None, "All"),
    ("Question answering", "light", None, "All"),
    ("Recommendation", "dark", "Cakes and hearts", None),
)
"""Task, colours, example, and the word of the answer whose explanation is shown, a single one with every weight."""


def explain(panel: Locator, word: str | None) -> None:
    panel.get_by_role("button", name="Why this answer?").click()
    panel.get_by_role("heading", name="Why this answer").wait_for()
    if word is not None:
        if word != "All":
            panel.get_by_text("Every weight as a heat map").click()
        panel.get_by_role("button", name=word, exact=True).click()


def main(url: str) -> None:
    with chromium() as browser:
        for task, scheme, example, word in PICTURES:
            size = {"width": WIDTH, "height": 800}
            with watched(browser, url, viewport=size, color_scheme=scheme, reduced_motion="reduce") as page:
                page.goto("/")
                page.get_by_role("tab", name=task, exact=True).click()
                panel = page.get_by_role("tabpanel", name=task, exact=True)
                chosen = panel.get_by_role("button", name=example) if example else panel.locator(".go")
                chosen.click()
                panel.locator(".timing").wait_for()
                page.wait_for_selector("#throughput:not([hidden])")
                explain(panel, word)
                page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
                page.mouse.move(0, 0)
                box = panel.locator(".pair").first.bounding_box() or {"y": 0, "height": 800}
                clip = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 20}
                picture = Path(__file__).parent / f"playground-{task.split()[0].lower()}.png"
                page.screenshot(path=picture, clip=clip, full_page=True)


if __name__ == "__main__":
    main(sys.argv[1])
