"""The playground by keyboard: the search for an item, the tabs above the code, and the way past those of the tasks."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.contract.browser import task

pytestmark = pytest.mark.browser
SEARCH = re.compile(r"/items\?search=")


def searching(page: Page) -> tuple[Locator, Locator, Locator]:
    """The combobox, its options, and the history that they join."""
    panel = task(page, "Recommendation")
    history = panel.get_by_role("list", name="History").get_by_role("listitem")
    return panel.get_by_role("combobox"), panel.get_by_role("option"), history


def test_a_list_that_was_closed_adds_nothing_and_opens_again(page: Page) -> None:
    search, options, history = searching(page)
    search.fill("lunch bag")
    expect(options.first).to_contain_text("Lunch bag")
    search.press("Escape")
    expect(options).to_have_count(0)
    search.press("Enter")
    search.press("ArrowDown")
    expect(options.first).to_contain_text("Lunch bag")
    expect(history).to_have_count(2)
    search.press("ArrowDown")
    search.press("Enter")
    expect(history).to_have_count(3)
    expect(history.last).to_contain_text("Lunch bag")


def test_no_item_of_a_new_list_is_chosen_yet(page: Page) -> None:
    search, options, history = searching(page)
    search.fill("bag")
    expect(options).to_have_count(20)
    search.press("ArrowUp")
    expect(search).to_have_attribute("aria-activedescendant", re.compile("item-"))
    search.fill("regency cakestand 3 tier")
    expect(options).to_have_count(1)
    expect(search).not_to_have_attribute("aria-activedescendant", re.compile("."))
    search.press("Enter")
    expect(page.locator(".recommended li")).to_have_count(0)
    expect(history).to_have_count(2)


@pytest.mark.parametrize("leave", ["Tab", "Escape"])
def test_what_is_found_after_the_search_was_left_opens_nothing(page: Page, leave: str) -> None:
    search, options, _ = searching(page)
    search.focus()
    expect(options).to_have_count(20)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(SEARCH, hold)
    with page.expect_request(SEARCH):
        search.press("b")
    search.press(leave)
    expect(options).to_have_count(0)
    held[0].fulfill(json=[{"item": "1", "title": "Too late"}])
    page.wait_for_timeout(200)
    expect(options).to_have_count(0)
    expect(search).to_have_attribute("aria-expanded", "false")


def test_escape_leaves_the_list_before_it_stops_an_answer(page: Page) -> None:
    search, options, _ = searching(page)
    page.route("**/v1/recommendation", lambda _: None)
    search.fill("bag")
    expect(options).to_have_count(20)
    search.press("Control+Enter")
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_visible()
    search.press("Escape")
    expect(options).to_have_count(0)
    expect(stop).to_be_visible()
    search.press("Escape")
    expect(stop).to_be_hidden()


def test_arrows_step_over_a_tab_that_is_hidden(page: Page) -> None:
    tabs = task(page, "Recommendation").get_by_role("tablist", name="Language")
    tabs.get_by_role("tab", name="Python").click()
    for key, name in (
        ("ArrowRight", "JavaScript"),
        ("ArrowLeft", "Python"),
        ("Home", "curl"),
        ("ArrowLeft", "JavaScript"),
        ("ArrowRight", "curl"),
        ("End", "JavaScript"),
    ):
        page.keyboard.press(key)
        expect(tabs.get_by_role("tab", name=name)).to_be_focused()
        expect(tabs.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")


def test_the_way_past_the_tabs_leaves_the_task_open(page: Page) -> None:
    task(page, "Summarization")
    page.get_by_role("link", name="Skip to the task").press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(page.get_by_role("tab", name="Summarization")).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("#summarization")
    page.evaluate("location.hash = '#nothing-of-this-name'")
    page.wait_for_timeout(100)
    expect(page.get_by_role("tab", name="Summarization")).to_have_attribute("aria-selected", "true")
