"""The playground of models that are not among the embedded ones: their languages, and their own examples."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.contract.browser import task, watched
from tests.serving import Service, start, stop
from tests.tiny import write_bundle

pytestmark = pytest.mark.browser
SEVERAL = ["eng_Latn", "fra_Latn", "x!"]


def playground(page: Page, change: Callable[[dict[str, Any]], object]) -> None:
    """Opened on cards that were changed."""

    def fulfil(route: Route) -> None:
        cards = route.fetch().json()
        for card in cards:
            change(card)
        route.fulfill(json=cards)

    page.route("**/v1/models", fulfil)
    page.goto("/")


def translator(page: Page, source: list[str], target: list[str], **parameters: str) -> Locator:
    """The panel of a translator with these languages, which names those of `parameters` in its example."""

    def change(card: dict[str, Any]) -> None:
        card["languages"] = {"source": source, "target": target}
        if card["task"] == "translation":
            card["example"]["parameters"] = parameters

    playground(page, change)
    return task(page, "Translation")


def sent(page: Page, button: Locator) -> Any:
    """The parameters that go out by a click."""
    with page.expect_response("**/v1/translation") as answered:
        button.click()
    return json.loads(answered.value.request.post_data or "").get("parameters")


def test_languages_can_be_chosen_where_a_model_knows_several(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, refused=1) as page:
        panel = translator(page, SEVERAL, ["fr", "x!"])
        panel.get_by_label("From").select_option(label="French (Latin)")
        panel.get_by_label("Into").select_option(label="x!")
        assert sent(page, panel.locator(".go")) == {"src_lang": "fra_Latn", "tgt_lang": "x!"}
        expect(panel.get_by_role("alert")).to_contain_text("src_lang must be one of en")
        expect(panel.get_by_label("From")).to_be_focused()


def test_a_language_that_the_model_has_itself_need_not_be_chosen(page: Page) -> None:
    panel = translator(page, SEVERAL, SEVERAL)
    for choice in (panel.get_by_label("From"), panel.get_by_label("Into")):
        expect(choice.locator("option:checked")).to_have_text("The model's own")
    assert sent(page, panel.locator(".go")) is None
    expect(panel.locator(".timing")).to_be_visible()


def test_a_language_that_the_models_example_names_is_chosen_first(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, refused=2) as page:
        panel = translator(page, SEVERAL, SEVERAL, tgt_lang="fra_Latn")
        into = panel.get_by_label("Into")
        expect(into.locator("option")).to_have_text(["English (Latin)", "French (Latin)", "x!"])
        assert sent(page, panel.locator(".go")) == {"tgt_lang": "fra_Latn"}
        into.select_option(label="x!")
        panel.get_by_label("From").select_option(label="x!")
        own = panel.get_by_role("button", name="The model's own")
        assert sent(page, own) == {"tgt_lang": "fra_Latn"}


def test_the_code_for_the_hubs_client_says_both_languages_or_neither(page: Page) -> None:
    panel = translator(page, ["en"], SEVERAL, tgt_lang="fra_Latn")
    hub = panel.get_by_role("tab", name="huggingface_hub")
    hub.click()
    expect(panel.locator(".snippet:visible")).to_contain_text('src_lang="en", tgt_lang="fra_Latn"')
    panel = translator(page, SEVERAL, SEVERAL)
    hub.click()
    expect(panel.locator(".snippet:visible")).to_contain_text('keys?").translation_text')
    panel.get_by_label("Into").select_option(label="x!")
    expect(hub).to_be_hidden()
    panel.get_by_label("From").select_option(label="x!")
    hub.click()
    expect(panel.locator(".snippet:visible")).to_contain_text('src_lang="x!", tgt_lang="x!"')


@pytest.mark.parametrize(("target", "tag"), [(["fr"], "fr"), (["fra_Latn"], "fr-Latn"), (["x!"], ""), (SEVERAL, "")])
def test_a_text_is_marked_as_of_its_language(page: Page, target: list[str], tag: str) -> None:
    panel = translator(page, ["en"], target)
    panel.locator(".go").click()
    expect(panel.locator(".timing")).to_be_visible()
    for place in (panel.locator(".written"), panel.locator(".status span")):
        expect(place).to_have_attribute("lang", tag)
        expect(place).not_to_be_empty()
    expect(panel.locator(".written")).to_have_attribute("dir", "auto")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A recommender of another catalogue."""
    folder = tmp_path_factory.mktemp("shop")
    config = folder / "heedful.yaml"
    config.write_text(json.dumps({"models": [{"bundle": str(write_bundle(folder / "shop", "shop"))}]}))
    service = start("embedded", folder / "log", "--config", str(config))
    yield service
    stop(service)


def test_another_catalogue_begins_with_its_own_example(browser: Browser, shop: Service) -> None:
    with watched(browser, shop.url) as page:
        page.goto("/")
        panel = task(page, "Recommendation")
        expect(panel.get_by_role("list", name="History").get_by_role("listitem")).to_contain_text(["Thing 1"])
        page.wait_for_load_state("networkidle")
        expect(panel.locator(".chip:visible")).to_have_text(["The model's own"])
        panel.locator(".go").click()
        expect(panel.locator(".recommended li")).to_have_count(6)
