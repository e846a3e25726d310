"""Takes the README's pictures of the playground: `python -m docs.screenshots http://127.0.0.1:8000`, where one runs."""

import sys
from pathlib import Path

from tests.contract.browser import chromium, watched

PICTURES = (
    ("Translation", "light", None),
    ("Summarization", "dark", None),
    ("Question answering", "light", None),
    ("Recommendation", "dark", "Cakes and hearts"),
)


def main(url: str) -> None:
    with chromium() as browser:
        for task, scheme, example in PICTURES:
            size = {"width": 1240, "height": 800}
            with watched(browser, url, viewport=size, color_scheme=scheme, reduced_motion="reduce") as page:
                page.goto("/")
                page.get_by_role("tab", name=task, exact=True).click()
                panel = page.get_by_role("tabpanel", name=task, exact=True)
                chosen = panel.get_by_role("button", name=example) if example else panel.locator(".go")
                chosen.click()
                panel.locator(".timing").wait_for()
                page.wait_for_selector("#throughput:not([hidden])")
                page.get_by_role("tab", name=task, exact=True).blur()
                page.mouse.move(0, 0)
                box = panel.locator(".pair").first.bounding_box() or {"y": 0, "height": 800}
                clip = {"x": 0, "y": 0, "width": 1240, "height": box["y"] + box["height"] + 20}
                page.screenshot(path=Path(__file__).parent / f"playground-{task.split()[0].lower()}.png", clip=clip)


if __name__ == "__main__":
    main(sys.argv[1])
