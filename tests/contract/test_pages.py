"""The pages as they are sent: to whom, with which headers, and with nothing from elsewhere; and the items to choose."""

import re

import httpx
import pytest

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
PAGES = ("/", "/docs")


def test_a_browser_gets_a_page_and_a_program_json(http: httpx.Client) -> None:
    page = http.get("/", headers=HTML)
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>Heedful playground</title>" in page.text
    for accept in ("application/json", "*/*"):
        assert http.get("/", headers={"Accept": accept}).json()["service"] == "heedful"
    assert page.headers["vary"] == "Accept"


@pytest.mark.parametrize("route", PAGES)
def test_pages_load_only_from_here_and_run_no_inline_code(http: httpx.Client, route: str) -> None:
    page = http.get(route, headers=HTML)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page.text)
    loaded = re.findall(r'(?:src|href)="(playground/[^"]+)"', page.text)
    assert loaded
    while loaded:
        name = loaded.pop()
        asset = http.get(f"/{name}")
        assert asset.status_code == 200, name
        assert "://" not in asset.text.replace("http://www.w3.org/2000/svg", ""), name
        loaded += [f"playground/{found}" for found in re.findall(r'from "\./([\w.]+)"', asset.text)]


def test_an_unchanged_asset_is_not_sent_again(http: httpx.Client) -> None:
    first = http.get("/playground/style.css")
    again = http.get("/playground/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2F__init__.py", "__init__.py"])
def test_there_is_no_other_asset(http: httpx.Client, name: str) -> None:
    assert http.get(f"/playground/{name}").status_code == 404


def test_items_are_found_by_words_of_their_title_or_by_their_id(http: httpx.Client) -> None:
    found = http.get("/v1/recommendation/items", params={"search": "CAKESTAND  regency"}).json()
    assert {"item": "22423", "title": "Regency cakestand 3 tier"} in found
    assert all("regency" in each["title"].lower() for each in found)
    assert http.get("/v1/recommendation/items", params={"search": "85123a"}).json()[0]["item"] == "85123A"
    assert len(http.get("/v1/recommendation/items", params={"limit": 7}).json()) == 7
    assert http.get("/v1/recommendation/items", params={"search": "no such thing"}).json() == []
    refused = http.get("/v1/recommendation/items", params={"limit": 101})
    assert refused.status_code == 422
    assert "less than or equal to 100" in refused.json()["detail"]


def test_a_found_item_can_be_recommended_for(http: httpx.Client) -> None:
    for card in http.get("/v1/models").json():
        if card["task"] != "recommendation":
            continue
        for route in card["routes"]:
            (item,) = http.get(f"{route}/items", params={"search": "lunch bag", "limit": 1}).json()
            assert http.post(route, json={"inputs": {"history": [item["item"]]}}).status_code == 200
