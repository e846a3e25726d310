"""The playground and the API page, clicked through in a headless Chromium on both hosts."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from models.tasks import TASKS
from service.settings import EMBEDDED_BUNDLES
from tests.contract.browser import run, run_javascript, task, watched
from tests.contract.test_answers import ENGLISH, post
from tests.serving import Service, start, stop

pytestmark = pytest.mark.browser
TABS = ("Translation", "Summarization", "Question answering", "Recommendation")


def test_there_is_a_tab_for_each_task_and_the_first_is_open(page: Page) -> None:
    expect(page.get_by_role("tablist", name="Tasks").get_by_role("tab")).to_have_text(TABS)
    expect(page.get_by_role("tab", name="Translation")).to_have_attribute("aria-selected", "true")
    assert len(TABS) == len(TASKS)


def test_translation_streams_what_the_service_answers(page: Page, http: httpx.Client) -> None:
    panel = task(page, "Translation")
    text = f"{ENGLISH}\n- Good morning."
    panel.get_by_label("Text in English").fill(text)
    run(panel)
    answer = post(http, "/v1/translation", text)[0]["translation_text"]
    assert panel.locator(".written").text_content() == answer
    expect(panel.locator(".timing")).to_contain_text("first word after")
    expect(panel.locator(".status")).to_contain_text("Answered in")
    expect(panel.locator(".timing li")).to_have_text(
        [re.compile(each) for each in ("waiting", "reading", "writing", "network")]
    )
    panel.get_by_label("Decoding").select_option(label="Beam search, 4 beams")
    run(panel)
    beams = post(http, "/v1/translation", text, generate_parameters={"num_beams": 4})[0]["translation_text"]
    expect(panel.locator(".written")).to_have_text(beams)


def test_an_example_is_one_click_away(page: Page) -> None:
    for label, example in zip(TABS, ("A question", "Small data", "How long is it?", "Lunch bags"), strict=True):
        panel = task(page, label)
        panel.get_by_role("button", name=example).click()
        expect(panel.locator(".timing")).to_be_visible()
        expect(panel.locator(".output")).not_to_be_empty()
        expect(panel.locator(".problem")).to_be_empty()


def test_the_answer_is_marked_in_the_text(page: Page) -> None:
    panel = task(page, "Question answering")
    panel.get_by_label("Question", exact=True).fill("Where was Marie Curie born?")
    panel.get_by_label("Text that may hold the answer").fill(
        "😀 <img src=x onerror=alert(1)> Marie Curie was born in Warsaw."
    )
    run(panel)
    best = panel.locator(".candidate").first
    expect(best).to_contain_text("Warsaw")
    expect(panel.locator("mark")).to_have_text(best.locator(".said").inner_text())
    expect(panel.locator(".passage")).to_contain_text("<img src=x onerror=alert(1)>")
    other = panel.locator(".candidate").nth(1)
    other.focus()
    expect(panel.locator("mark")).to_have_text(other.locator(".said").inner_text())


def test_a_history_is_put_together_from_the_catalogue(page: Page) -> None:
    panel = task(page, "Recommendation")
    search = panel.get_by_role("combobox", name="Add an item")
    search.fill("CAKESTAND regency")
    expect(panel.get_by_role("option").first).to_contain_text("Regency cakestand")
    search.press("ArrowDown")
    search.press("Enter")
    history = panel.get_by_role("list", name="History").get_by_role("listitem")
    expect(history).to_have_count(3)
    expect(history.nth(2)).to_contain_text("Regency cakestand")
    panel.get_by_role("button", name="Remove").first.click()
    expect(history).to_have_count(2)
    run(panel)
    expect(panel.locator(".recommended li")).to_have_count(6)
    added = panel.locator(".recommended .title").first.inner_text()
    panel.locator(".recommended").get_by_role("button").first.click()
    expect(history.nth(2)).to_contain_text(added)
    expect(panel.locator(".recommended .title").first).not_to_have_text(added)


def test_every_answer_is_explained_by_both_methods_side_by_side(page: Page) -> None:
    for label in TABS:
        panel = task(page, label)
        run(panel)
        panel.get_by_role("button", name="Why this answer?").click()
        expect(panel.get_by_role("heading", name="Why this answer")).to_be_focused()
        expect(panel.locator(".side").first).to_contain_text("Attention, where the model looked")
        expect(panel.locator(".side").nth(1)).to_contain_text("Occlusion, how much less likely")
        expect(panel.locator(".spot .weight").filter(has_text=re.compile(r"\d")).first).to_be_visible()
        if label != "Recommendation":
            expect(panel.locator(".agreement").first).to_contain_text("The two rank the words")
    translation = task(page, "Translation")
    translation.get_by_label("Text in English").fill("😀\nThank you very much.")
    run(translation)
    expect(translation.locator(".why h3")).to_have_count(0)
    translation.get_by_role("button", name="Why this answer?").press("Enter")
    translation.get_by_role("group", name="Words of the answer").get_by_role("button", name="Merci", exact=True).focus()
    for side in translation.locator(".side").all():
        strongest = side.locator(".spot").evaluate_all(
            "spots => spots.find(spot => spot.style.getPropertyValue('--share') === '1.000').firstChild.data"
        )
        assert strongest == "Thank"
    expect(translation.locator(".part-why .status")).to_contain_text("Occlusion, Merci: Thank +")
    translation.get_by_text("Every weight as a heat map").click()
    expect(translation.get_by_role("region", name="Attention, every weight")).to_contain_text("%")
    expect(translation.locator(".snippet:visible")).to_contain_text('"explain":{"method":["attention","occlusion"]}')


def test_an_error_is_a_sentence_at_its_field(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, refused=2) as page:
        page.goto("/")
        panel = task(page, "Translation")
        text = panel.get_by_label("Text in English")
        text.fill("   ")
        panel.locator(".go").click()
        problem = panel.get_by_role("alert")
        expect(problem).to_contain_text("inputs must have at least 1 character that is not blank, got 3 blank ones.")
        expect(text).to_have_attribute("aria-invalid", "true")
        expect(text).to_be_focused()
        page.route("**/v1/translation", lambda route: route.abort())
        text.fill(ENGLISH)
        panel.locator(".go").click()
        expect(problem).to_have_text("The service cannot be reached. Is it still running?")


def test_without_a_service_the_page_says_so(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, refused=1) as page:
        page.route("**/v1/models", lambda route: route.abort())
        page.goto("/")
        expect(page.get_by_role("status")).to_have_text(
            "The service cannot be reached. Is it still running? Reload this page to try again."
        )


def test_a_running_answer_can_be_stopped(page: Page) -> None:
    panel = task(page, "Translation")
    panel.get_by_label("Text in English").fill("I have never seen such a large house in the town before. " * 1500)
    panel.locator(".go").click()
    expect(panel.locator(".arriving").first).to_be_attached(timeout=30_000)  # a busy machine reads for seconds
    panel.get_by_role("button", name="Stop").click()
    expect(panel.locator(".status")).to_have_text("Stopped.")
    expect(panel.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    expect(panel.locator(".problem")).to_be_empty()


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the task")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Translation")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Question answering")).to_be_focused()
    assert page.url.endswith("#question-answering")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    panel = page.get_by_role("tabpanel", name="Question answering", exact=True)
    expect(panel.get_by_label("Question", exact=True)).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(panel.locator(".timing")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_every_control_has_a_name(page: Page) -> None:
    for label in TABS:
        task(page, label)
        nameless = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')]"
            ".filter(control => !control.labels.length).map(control => control.outerHTML)"
        )
        assert nameless == []


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_the_screen(browser: Browser, service: Service, width: int) -> None:
    with watched(browser, service.url, viewport={"width": width, "height": 700}) as page:
        page.goto("/")
        for label in TABS:
            panel = task(page, label)
            run(panel)
            panel.get_by_role("button", name="Why this answer?").click()
            expect(panel.locator(".side").first).to_be_visible()
            for details in panel.locator(".alignment summary").all():
                details.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_another_model_of_the_task_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    bundle = str(EMBEDDED_BUNDLES / "translation")
    models = [{"bundle": bundle, "name": name} for name in ("first", "second")]
    config = tmp_path / "heedful.yaml"
    config.write_text(json.dumps({"models": models}))
    service = start("embedded", tmp_path / "log", "--config", str(config))
    try:
        with watched(browser, service.url) as page:
            page.goto("/")
            expect(page.get_by_role("tab", name="Recommendation")).to_have_count(0)
            panel = task(page, "Translation")
            choice = panel.get_by_label("Model", exact=True)
            choice.focus()
            choice.select_option(label="second")
            expect(choice).to_be_focused()
            expect(panel.get_by_role("region", name="Model second")).to_be_visible()
            expect(panel.locator(".snippet:visible")).to_contain_text("/v1/translation/second")
            with page.expect_request("**/v1/translation/second"):
                run(panel)
    finally:
        stop(service)


def printed(code: str, language: str, page: Page) -> str:
    """What the code that the page shows prints."""
    if language == "JavaScript":
        return run_javascript(page, code)
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_code_on_the_screen_does_what_the_screen_shows(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, bypass_csp=True) as page:
        page.goto("/")
        for label in TABS:
            panel = task(page, label)
            if label == "Translation":
                panel.get_by_label("Text in English").fill("Where's the \"station\"?\n- It's 5 €.\t☕")
                panel.get_by_label("Decoding").select_option(index=1)
            run(panel)
            shown = panel.locator(".written, .candidate .said, .recommended .title").first.text_content()
            for tab in panel.get_by_role("tablist", name="Language").get_by_role("tab").all():
                tab.click()
                language = tab.inner_text()
                code = panel.locator(".snippet:visible code").text_content() or ""
                said = printed(code, language, page)
                if language == "curl":
                    answer: Any = json.loads(said)
                    said = next(value for value in answer[0].values() if value == shown)
                assert said.startswith(shown or "nothing is shown"), (label, language)


def test_the_api_page_names_every_route(browser: Browser, service: Service, http: httpx.Client) -> None:
    with watched(browser, service.url) as page:
        page.goto("/docs")
        for card in http.get("/v1/models").json():
            for route in card["routes"]:
                summary = page.locator("summary").filter(has=page.locator("code", has_text=re.compile(f"^{route}$")))
                summary.click()
                expect(summary.locator("..").locator("pre")).to_contain_text(route)
        expect(page.get_by_text("generate_parameters").first).to_be_visible()
