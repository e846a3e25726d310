"""What the playground makes of numbers: tokens per second over the replicas, and weights of tokens in a text."""

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.contract.browser import run, task, watched
from tests.serving import Service

pytestmark = pytest.mark.browser
METHODS = {"weights": {"values": [[0.2, 0.3, 0.1, 0.4]]}}


def test_tokens_per_second_are_those_of_replicas_that_were_there_before(browser: Browser, service: Service) -> None:
    """One of two is left out of every second sample, and has written a million tokens."""
    with watched(browser, service.url) as page:
        samples = itertools.count()

        def fulfil(route: Route) -> None:
            at = next(samples)
            left_out = [] if at % 2 else ['heedful_tokens_total{replica="b"} 1e+06']
            lines = ["# HELP heedful_tokens_total Tokens.", f'heedful_tokens_total{{replica="a"}} {at}.0', *left_out]
            route.fulfill(body="\n".join(lines), content_type="text/plain")

        page.route("**/metrics", fulfil)
        page.goto("/")
        for _ in range(3):
            with page.expect_response("**/metrics"):
                pass
            expect(page.locator("#throughput .rate")).to_have_text(re.compile(r"^[01]$"), timeout=10_000)


def explained(page: Page) -> None:
    """Explanations of a text of one letter and one character of three bytes, each of which is a token."""
    places = [("x", 0, 1), ("😀", 2, 3), ("😀", 2, 3), ("😀", 2, 3)]
    units = [{"text": text, "pointer": "/inputs", "start": start, "end": end} for text, start, end in places]
    part: dict[str, Any] = {
        "output": [{"text": "x", "start": 0, "end": 1}],
        "source": units,
        "attention": METHODS,
        "occlusion": {"units": units, "changes": [1, 1, 1, 1], **METHODS},
    }

    def fulfil(route: Route) -> None:
        if "explain" not in (route.request.post_data or ""):
            return route.fallback()
        return route.fulfill(json=[{"translation_text": "x", "explanation": {"parts": [part]}}])

    page.route("**/v1/translation", fulfil)


def test_a_character_of_several_tokens_stands_once_in_its_text_with_all_their_weight(page: Page) -> None:
    explained(page)
    panel = task(page, "Translation")
    panel.get_by_label("Text in English").fill("x 😀")
    run(panel)
    panel.get_by_role("button", name="Why this answer?").press("Enter")
    expect(panel.locator(".side.attention .read")).to_have_text("x 😀80 %")
    expect(panel.locator(".side.occlusion .read")).to_have_text("x+1.0 😀+3.0")
    expect(panel.get_by_role("heading", name="Why this answer")).to_be_focused()


def test_an_explanation_does_not_take_the_focus_from_who_writes_on(page: Page) -> None:
    explained(page)
    panel = task(page, "Translation")
    run(panel)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/translation", hold)
    with page.expect_request("**/v1/translation"):
        panel.get_by_role("button", name="Why this answer?").click()
    text = panel.get_by_label("Text in English")
    text.fill("x 😀")
    text.focus()
    held[0].fallback()
    expect(panel.get_by_role("heading", name="Why this answer")).to_be_visible()
    expect(text).to_be_focused()
