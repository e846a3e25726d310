"""Every bad input gets its status and a message with field, limit and value, while others are answered correctly."""

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from tests.serving import Service

JSON = {"Content-Type": "application/json"}
GOOD = {"inputs": {"question": "What is blue?", "context": "The sky is blue and the grass is green."}}
QA = "/v1/question-answering"
TRANSLATION = "/v1/translation"
RECOMMENDATION = "/v1/recommendation"


@pytest.fixture(autouse=True)
def others_are_answered(service: Service) -> Iterator[None]:
    """Somebody else asks all the time while a test misbehaves, and must get the same answer each time."""
    over = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            while not over.is_set() or not answers:
                response = http.post(QA, json=GOOD)
                answers.append((response.status_code, response.text))

    other = threading.Thread(target=ask)
    other.start()
    yield
    over.set()
    other.join(60)
    assert len(set(answers)) == 1
    assert answers[0][0] == 200


def problem(response: httpx.Response, status: int, *parts: str) -> dict[str, Any]:
    """The response is a problem of this status whose message holds every part."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["error"] == body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    for part in parts:
        assert part in body["detail"]
    return body


def refused(
    http: httpx.Client, route: str, inputs: Any, status: int, pointer: str, *parts: str, **parameters: Any
) -> None:
    body = problem(http.post(route, json={"inputs": inputs, "parameters": parameters}), status, *parts)
    assert body["errors"][0]["pointer"] == pointer


def limits(http: httpx.Client, task: str) -> dict[str, int]:
    cards = http.get("/v1/models").json()
    found: dict[str, int] = next(card["limits"] for card in cards if card["task"] == task)
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"",
        b'{"inputs": "a"',
        b'{"inputs": NaN}',
        b'{"inputs": -Infinity}',
        b'{"inputs": "\\ud800"}',
        b"\xff\xfe",
        b'{"inputs": "\xed\xa0\x80"}',
    ],
    ids=["text", "empty", "cut", "nan", "infinity", "lone surrogate", "not utf-8", "surrogate bytes"],
)
def test_not_json(http: httpx.Client, body: bytes) -> None:
    problem(http.post(TRANSLATION, content=body, headers=JSON), 400, "JSON")


def test_nested_too_deeply(http: httpx.Client) -> None:
    problem(http.post(TRANSLATION, content=b'{"inputs":' * 100_000, headers=JSON), 400, "JSON")


@pytest.mark.parametrize("body", ["[]", "3", "null", '"text"'])
def test_json_that_is_no_object(http: httpx.Client, body: str) -> None:
    problem(http.post(TRANSLATION, content=body, headers=JSON), 422, "the body", body)


def test_wrong_type(http: httpx.Client) -> None:
    refused(http, TRANSLATION, 5, 422, "/inputs", "inputs must be a string or a list of strings", "got 5")
    refused(http, TRANSLATION, ["a", 5], 422, "/inputs/1", "inputs/1", "string", "got 5")
    refused(http, QA, "a", 422, "/inputs", "inputs", 'got "a"')
    refused(http, QA, {"question": "a"}, 422, "/inputs/context", "inputs/context is required")
    refused(http, RECOMMENDATION, {"history": [1]}, 422, "/inputs/history/0", "inputs/history/0", "string", "got 1")


def test_unknown_field(http: httpx.Client) -> None:
    refused(http, TRANSLATION, "a", 422, "/parameters/colour", "parameters/colour is not a field", colour="red")
    body = problem(http.post(TRANSLATION, json={"inputs": "a", "echo": True}), 422, "echo is not a field")
    assert body["errors"][0]["pointer"] == "/echo"


@pytest.mark.parametrize("blank", ["", "   ", "\n\t "])
def test_blank_text(http: httpx.Client, blank: str) -> None:
    got = f"got {len(blank)}"
    refused(http, TRANSLATION, blank, 422, "/inputs", "inputs must have at least 1 character", got)
    refused(http, TRANSLATION, ["a", blank], 422, "/inputs/1", "inputs/1 must have at least 1 character", got)
    refused(http, "/v1/summarization", blank, 422, "/inputs", "inputs must have at least 1 character", got)
    refused(http, QA, {"question": blank, "context": "a"}, 422, "/inputs/question", "at least 1 character", got)
    refused(http, QA, {"question": "a", "context": blank}, 422, "/inputs/context", "at least 1 character", got)


def test_a_megabyte_of_text(http: httpx.Client) -> None:
    for route, inputs, pointer in (
        (TRANSLATION, "word " * 200_000, "/inputs"),
        ("/v1/summarization", "word " * 200_000, "/inputs"),
        (QA, {"question": "a", "context": "word " * 200_000}, "/inputs/context"),
    ):
        limit = limits(http, route.removeprefix("/v1/"))["max_characters"]
        refused(http, route, inputs, 413, pointer, f"at most {limit} characters", "got 1000000")


def test_a_body_over_the_limit(http: httpx.Client) -> None:
    problem(http.post(TRANSLATION, json={"inputs": "a" * 3_000_000}), 413, "at most 2097152 bytes", "got 3000")


def test_a_body_that_grows_over_the_limit_is_refused_before_its_end(service: Service) -> None:
    """Its length is not announced, and its end never comes."""
    lines = (
        f"POST {TRANSLATION} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as caller:
        caller.sendall("\r\n".join((*lines, "", "")).encode())
        for size in (*[2**16] * 32, 1):
            caller.sendall(f"{size:x}\r\n".encode() + b"a" * size + b"\r\n")
        response = HTTPResponse(caller)
        response.begin()
        assert response.status == 413
        assert "at most 2097152 bytes" in json.loads(response.read())["detail"]


def test_ten_thousand_inputs(http: httpx.Client) -> None:
    limit = limits(http, "translation")["max_inputs"]
    refused(http, TRANSLATION, ["Hello."] * 10_000, 413, "/inputs", f"at most {limit} texts", "got 10000")
    refused(http, TRANSLATION, [], 422, "/inputs", "at least 1 text", "empty list")


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b is here.",
        "I am happy 😀👩‍👩‍👧!",
        "مرحبا بالعالم",
        "שלום עולם",
        "你好，世界。你好吗？",
        "\u202eabc\u200b",
        "e\u0301te\u0301",
    ],
)
def test_unusual_text_is_answered(http: httpx.Client, text: str) -> None:
    for route in (TRANSLATION, "/v1/summarization"):
        assert http.post(route, json={"inputs": text}).status_code == 200
    answer = http.post(QA, json={"inputs": {"question": text, "context": f"{text} The sky is blue. {text}"}}).json()
    assert f"{text} The sky is blue. {text}"[answer["start"] : answer["end"]] == answer["answer"]


def test_a_question_longer_than_the_window(http: httpx.Client) -> None:
    question = "why " * 1000
    limit = limits(http, "question-answering")["max_tokens"]
    refused(http, QA, {"question": question, "context": "a b c"}, 413, "/inputs/question", "tokens", "got 1000")
    cut = http.post(
        QA, json={"inputs": {"question": question, "context": "a b c"}, "parameters": {"max_question_len": 64}}
    )
    assert cut.status_code == 200
    inputs = GOOD["inputs"]
    refused(
        http, QA, inputs, 422, "/parameters/max_seq_len", f"at most {limit}", f"got {limit + 1}", max_seq_len=limit + 1
    )
    refused(http, QA, inputs, 422, "/parameters/max_seq_len", "must be at least", "got 4", max_seq_len=4)
    refused(http, QA, inputs, 422, "/parameters/doc_stride", "must be below", f"got {limit}", doc_stride=limit)


def test_bad_histories(http: httpx.Client) -> None:
    refused(http, RECOMMENDATION, {"history": []}, 422, "/inputs/history", "at least 1 item", "empty list")
    refused(
        http,
        RECOMMENDATION,
        {"history": ["no such thing"]},
        422,
        "/inputs/history/0",
        "one of the model's",
        "'no such thing'",
    )
    limit = limits(http, "recommendation")["max_items"]
    refused(
        http, RECOMMENDATION, {"history": ["a"] * 10_000}, 413, "/inputs/history", f"at most {limit} items", "got 10000"
    )


@pytest.mark.parametrize(("top_k", "limit"), [(0, "1"), (-1, "1"), (10**9, "100"), (10**30, "")])
def test_bad_top_k(http: httpx.Client, top_k: int, limit: str) -> None:
    refused(http, QA, GOOD["inputs"], 422, "/parameters/top_k", "parameters/top_k", limit, f"got {top_k}", top_k=top_k)
    refused(
        http,
        RECOMMENDATION,
        {"history": ["a"]},
        422,
        "/parameters/top_k",
        "parameters/top_k",
        limit,
        f"got {top_k}",
        top_k=top_k,
    )


def test_unsupported_language(http: httpx.Client) -> None:
    for field in ("src_lang", "tgt_lang"):
        known = {"src_lang": "en", "tgt_lang": "fr"}[field]
        refused(
            http,
            TRANSLATION,
            "Hello.",
            422,
            f"/parameters/{field}",
            f"{field} must be one of {known}",
            "'xx'",
            **{field: "xx"},
        )


@pytest.mark.parametrize(
    ("generate", "parts"),
    [
        ({"num_beams": 9}, ("num_beams", "at most 8", "got 9")),
        ({"num_beams": 2, "do_sample": True}, ("num_beams", "do_sample", "got 2")),
        ({"length_penalty": 2.0}, ("length_penalty", "num_beams above 1", "2.0")),
        (
            {"early_stopping": "always", "num_beams": 2},
            ("early_stopping", "must be true, false or 'never'", 'got "always"'),
        ),
        ({"no_repeat_ngram_size": -1}, ("no_repeat_ngram_size", "greater than or equal to 0", "got -1")),
        ({"max_new_tokens": 10**6}, ("max_new_tokens", "at most", "got 1000000")),
        ({"max_new_tokens": 0}, ("max_new_tokens", "greater than or equal to 1", "got 0")),
        ({"temperature": 0, "do_sample": True}, ("temperature", "greater than 0", "got 0")),
        ({"top_p": 1.5, "do_sample": True}, ("top_p", "less than or equal to 1", "got 1.5")),
        ({"temperature": 2.0}, ("temperature", "do_sample", "2.0")),
        ({"magic": 1}, ("magic", "is not a field")),
    ],
)
def test_decoding_that_cannot_be_done(http: httpx.Client, generate: dict[str, Any], parts: tuple[str, ...]) -> None:
    pointer = f"/parameters/generate_parameters/{next(iter(generate))}"
    refused(http, TRANSLATION, "Hello.", 422, pointer, *parts, generate_parameters=generate)


def test_wrong_method(http: httpx.Client) -> None:
    response = http.get(TRANSLATION)
    problem(response, 405, "POST", "GET")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("route", ["/nothing", "/v1", "/v1/nothing", "/v1/translation/nothing", "/v1/translation/a/b"])
def test_nothing_is_served_there(http: httpx.Client, route: str) -> None:
    problem(http.post(route, json=GOOD), 404, route, "/v1/models")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", None])
def test_wrong_media_type(http: httpx.Client, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    request = http.build_request("POST", TRANSLATION, content=json.dumps(GOOD).encode(), headers=headers)
    problem(http.send(request), 415, "application/json", media_type or "none")


@pytest.mark.parametrize("timeout_ms", ["0", "-1", "soon", "1e3", "9999999"])
def test_bad_deadline(http: httpx.Client, timeout_ms: str) -> None:
    response = http.post(QA, json=GOOD, headers={"X-Request-Timeout-Ms": timeout_ms})
    problem(response, 422, "X-Request-Timeout-Ms", "600000", timeout_ms)


def test_deadline_passes(http: httpx.Client) -> None:
    texts = [f"There are {index} apples in the garden of my neighbour's house." for index in range(100)]
    response = http.post(TRANSLATION, json={"inputs": texts}, headers={"X-Request-Timeout-Ms": "20"})
    problem(response, 504, "deadline")
