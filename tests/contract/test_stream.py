"""`"stream": true` answers with the same text as without it, while it is being written, on both hosts."""

import json
from typing import Any

import httpx
import pytest

from tests.serving import LASTING, Service, ended, outcome, rows_inside

LONG = "I have never seen such a large house in the town before. " * 100
TEXTS = (
    "I don't know where she lives.",
    "- Good morning.\n\n  1. Where is the station?  It costs 20 €.\n***\n",
    "12 - 13 ✓\n",
)


def events(http: httpx.Client, route: str, body: Any, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of each event."""
    with http.stream("POST", route, json=body | {"stream": True}, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        page = "".join(response.iter_text())
    found = []
    for block in page.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_beams": 3}, {"do_sample": True, "seed": 3, "temperature": 0.7}],
    ids=["greedy", "beams", "sample"],
)
def test_a_stream_says_what_the_answer_says(http: httpx.Client, text: str, settings: dict[str, Any]) -> None:
    body = {"inputs": text, "parameters": {"generate_parameters": settings}}
    (answer,) = http.post("/v1/translation", json=body).json()
    told = [data for name, data in events(http, "/v1/translation", body) if name == "message"]
    assert [event["index"] for event in told] == list(range(len(told)))
    assert "".join(event["token"]["text"] for event in told) == answer["translation_text"]
    *before, last = told
    assert last["generated_text"] == answer["translation_text"]
    assert last["details"]["generated_tokens"] == len(before)
    assert last["details"]["finish_reason"] == "eos_token"
    assert all(event["generated_text"] is None and event["details"] is None for event in before)


def test_a_summary_is_streamed(http: httpx.Client) -> None:
    body = {"inputs": LONG, "parameters": {"generate_parameters": {"max_new_tokens": 3}}}
    (answer,) = http.post("/v1/summarization", json=body).json()
    told = [data for _, data in events(http, "/v1/summarization", body)]
    assert "".join(event["token"]["text"] for event in told) == answer["summary_text"]
    assert told[-1]["details"]["finish_reason"] == "length"


def test_the_first_words_come_while_the_rest_is_being_written(http: httpx.Client, service: Service) -> None:
    before = ended(http, "translation")
    with (
        httpx.Client(base_url=service.url, timeout=60) as other,
        http.stream("POST", "/v1/translation", json=LASTING | {"stream": True}) as response,
    ):
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["index"] == 0
        assert rows_inside(other, "translation") > 0
    assert outcome(http, "translation", before) == {"499": 1}


def test_what_cannot_be_streamed_is_a_problem(http: httpx.Client) -> None:
    for route, body, pointer in (
        ("/v1/translation", {"inputs": ["Good morning.", "Thank you."], "stream": True}, "/inputs"),
        ("/v1/translation", {"inputs": "Good morning.", "stream": 1}, "/stream"),
        ("/v1/translation", {"inputs": " ", "stream": True}, "/inputs"),
        ("/v1/question-answering", {"inputs": {"question": "Who?", "context": "Me."}, "stream": True}, "/stream"),
    ):
        response = http.post(route, json=body)
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["errors"][0]["pointer"] == pointer


def test_a_deadline_that_passes_midway_is_an_error_event(http: httpx.Client) -> None:
    before = ended(http, "translation")
    told = events(http, "/v1/translation", LASTING, **{"X-Request-Timeout-Ms": "5000"})
    assert [name for name, _ in told[:-1]] == ["message"] * (len(told) - 1)
    name, problem = told[-1]
    assert name == "error"
    assert problem["status"] == 504
    assert "deadline" in problem["detail"]
    assert outcome(http, "translation", before) == {"504": 1}
