"""The routes beside the tasks: health, cards, metrics, OpenAPI; and the headers that every answer carries."""

import json
import re
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.tasks import TASKS

GOOD = {"inputs": {"question": "What is blue?", "context": "The sky is blue and the grass is green."}}


def test_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    for route in ("/healthz", "/readyz"):  # monitors ask for the status alone
        asked = http.head(route)
        assert (asked.status_code, asked.content) == (200, b"")


def test_the_index_leads_on(http: httpx.Client) -> None:
    index = http.get("/").json()
    assert http.get(index["models"]).status_code == 200
    assert http.get(index["docs"]).status_code == 200


def test_there_is_a_card_of_every_task(http: httpx.Client) -> None:
    cards = http.get("/v1/models").json()
    assert {card["task"] for card in cards} == set(TASKS)
    for card in cards:
        assert card["parameters"] > 0
        assert card["licence"]
        assert card["quality"], card["name"]


def test_request_id_is_taken_or_made(http: httpx.Client) -> None:
    given = http.post("/v1/question-answering", json=GOOD, headers={"X-Request-ID": "abc-123"})
    assert given.headers.get_list("x-request-id") == ["abc-123"]
    made = http.post("/v1/question-answering", json=GOOD)
    assert re.fullmatch(r"[0-9a-f-]{32,36}", made.headers["x-request-id"])


@pytest.mark.parametrize("given", ["a b", "a" * 129, "ä", ""])
def test_a_request_id_that_is_none_gives_way_to_one_of_ours(http: httpx.Client, given: str) -> None:
    """On Ray the answer's header has what was given all the same."""
    refused = http.post("/v1/question-answering", json={"inputs": 3}, headers={b"X-Request-ID": given.encode()})
    assert refused.status_code == 422
    assert re.fullmatch(r"[0-9a-f]{32}", refused.json()["request_id"])


@pytest.mark.parametrize("given", ["!", "~" * 128])
def test_a_problem_has_the_request_id_that_was_given(http: httpx.Client, given: str) -> None:
    refused = http.post("/v1/question-answering", json={"inputs": 3}, headers={"X-Request-ID": given})
    assert refused.json()["request_id"] == given


def test_server_timing_splits_the_time(http: httpx.Client) -> None:
    header = http.post("/v1/translation", json={"inputs": "Good morning."}).headers["server-timing"]
    phases = dict(part.split(";dur=") for part in header.split(", "))
    assert list(phases) == ["queue", "encode", "decode"]
    assert float(phases["decode"]) > 0


def test_server_timing_has_the_time_of_an_explanation(http: httpx.Client) -> None:
    asked = {"inputs": "Good morning.", "explain": {"method": "occlusion"}}
    header = http.post("/v1/translation", json=asked).headers["server-timing"]
    assert [part.partition(";")[0] for part in header.split(", ")] == ["queue", "encode", "decode", "explain"]
    assert float(header.rpartition("=")[2]) > 0


def test_authorization_is_ignored_while_no_keys_are_configured(http: httpx.Client) -> None:
    assert http.post("/v1/question-answering", json=GOOD, headers={"Authorization": "Bearer x"}).status_code == 200


def _requests(http: httpx.Client) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(http.get("/metrics").text)
    counted: dict[tuple[str, str], float] = {}
    for family in families:
        for sample in family.samples:
            if sample.name == "heedful_requests_total":
                key = (sample.labels["task"], sample.labels["status"])
                counted[key] = counted.get(key, 0) + sample.value
    return counted


def test_metrics_count_every_request_by_status(http: httpx.Client) -> None:
    before = _requests(http)
    for _ in range(3):
        http.post("/v1/question-answering", json=GOOD)
    http.post("/v1/question-answering", json={"inputs": {"question": " ", "context": "a"}})
    http.post("/v1/question-answering", json={"inputs": 3})
    after = _requests(http)
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert grown == {("question-answering", "200"): 3, ("question-answering", "422"): 2}


def test_metrics_have_the_promised_families(http: httpx.Client) -> None:
    names = {family.name for family in text_string_to_metric_families(http.get("/metrics").text)}
    assert {
        "heedful_requests",
        "heedful_request_duration_seconds",
        "heedful_phase_duration_seconds",
        "heedful_tokens",
        "heedful_step_rows",
        "heedful_running_rows",
        "heedful_waiting_rows",
        "heedful_model_info",
    } <= names


def test_openapi_describes_each_task_with_an_example(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    for card in http.get("/v1/models").json():
        for route in card["routes"]:
            operation: dict[str, Any] = document["paths"][route]["post"]
            assert operation["requestBody"]["content"]["application/json"]["example"] == card["example"]
            assert "$ref" in operation["requestBody"]["content"]["application/json"]["schema"]
            assert {"200", "400", "413", "415", "422", "429", "503", "504"} <= set(operation["responses"])
            assert "application/problem+json" in operation["responses"]["422"]["content"]


def test_every_reference_in_the_openapi_document_leads_somewhere(http: httpx.Client) -> None:
    page = http.get("/openapi.json").text
    assert "HTTPValidationError" not in page  # FastAPI's own, which is never answered
    document = json.loads(page)
    references = set(re.findall(r'"\$ref":\s*"#/([^"]+)"', page))
    assert len(references) > 10
    for reference in references:
        place = document
        for key in reference.split("/"):
            place = place[key]
