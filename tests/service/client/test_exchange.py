"""The steps of a call, without a network: what is tried again, when, and what each outcome means to the caller."""

import json
import pickle
from collections.abc import Iterator
from typing import Any, Unpack

import httpx
import pytest

from service.client import (
    ClientError,
    ConnectionLost,
    DeadlinePassed,
    InvalidRequest,
    NotServed,
    Overloaded,
    ProblemError,
    TimedOut,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from service.client.calls import CARDS, question_answering, translation
from service.client.deadline import PHASES
from service.client.exchange import CallOptions, EventDecoder, Exchange, Pause, Policy, Send, exchange, read

CALL = translation("Good morning.", None, None)
ANSWER = [{"translation_text": "Bonjour."}]


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begin(
    clock: Clock, *, retries: int = 3, jitter: float = 0.0, **options: Unpack[CallOptions]
) -> tuple[Exchange, Send]:
    steps = exchange(CALL, Policy(timeout_s=10, retries=retries), options, clock=clock, jitter=lambda: jitter)
    first = next(steps)
    assert isinstance(first, Send)
    return steps, first


def sent(step: Send | Pause) -> httpx.Request:
    assert isinstance(step, Send)
    return step.request(httpx.Client(base_url="http://heedful.test"))


def response(request: httpx.Request, status: int, body: Any = None, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers=names, request=request)


def problem(status: int, detail: str = "no") -> dict[str, Any]:
    return {"title": "No", "status": status, "detail": detail, "error": detail, "request_id": "r1"}


def paused_s(step: Send | Pause) -> float:
    assert isinstance(step, Pause)
    return step.seconds


def refusal(steps: Exchange, outcome: httpx.Response | httpx.TransportError) -> ClientError:
    with pytest.raises(ClientError) as refused:
        steps.send(outcome)
    return refused.value


def test_a_success_is_the_response() -> None:
    steps, step = begin(Clock())
    answered = response(sent(step), 200, ANSWER)
    with pytest.raises(StopIteration) as end:
        steps.send(answered)
    assert end.value.value is answered
    assert read(CALL, answered)[0].translation_text == "Bonjour."


def test_what_is_sent() -> None:
    _, step = begin(Clock(), request_id="abc", timeout_s=4.0)
    request = sent(step)
    assert (request.method, request.url.path) == ("POST", "/v1/translation")
    assert json.loads(request.content) == {"inputs": ["Good morning."]}
    assert request.headers["x-request-id"] == "abc"
    assert request.headers["x-request-timeout-ms"] == "3800"
    assert {request.extensions["timeout"].get(phase) for phase in PHASES} == {4.0}


def test_each_phase_has_what_is_left_of_the_call() -> None:
    clock = Clock()
    _, step = begin(clock, timeout_s=4.0)
    timeouts = sent(step).extensions["timeout"]
    clock.now += 3
    assert timeouts.get("read") == pytest.approx(1.0)
    clock.now += 3
    assert 0 < timeouts.get("read") < 0.01


@pytest.mark.parametrize("request_id", ["ü", "a b", "a\n", "a" * 129, "\ud800"])
def test_a_request_id_that_the_service_would_not_take(request_id: str) -> None:
    with pytest.raises(ValueError, match="request_id must be 1 to 128 visible ASCII characters"):
        begin(Clock(), request_id=request_id)


def test_what_is_no_character_is_refused_before_anything_is_sent() -> None:
    for text, model in (("a\ud800", None), ("a", "\ud800")):
        with pytest.raises(ValueError, match="a text holds what is no character") as refused:
            translation(text, None, model)
        assert type(refused.value) is ValueError


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    clock = Clock()
    steps, step = begin(clock, jitter=1.0)
    made = sent(step).headers["x-request-id"]
    assert 2 <= paused_s(steps.send(response(sent(step), status, problem(status), retry_after="2"))) <= 3
    clock.now += 3
    again = next(steps)
    assert isinstance(again, Send)
    assert again.left_s() == pytest.approx(7)
    assert sent(again).headers["x-request-id"] == made


def test_a_wait_for_a_connection_of_its_own_is_told_from_a_service_that_is_away() -> None:
    steps, step = begin(Clock(), retries=0)
    refused = refusal(steps, httpx.PoolTimeout("", request=sent(step)))
    assert type(refused) is Unreachable
    assert refused.detail == "this client's connections were all in use until the timeout; nothing was sent"


def test_pauses_without_retry_after_double() -> None:
    steps, step = begin(Clock(), retries=3)
    pauses = []
    for _ in range(3):
        pauses.append(paused_s(steps.send(httpx.ConnectError("refused", request=sent(step)))))
        next(steps)
    assert pauses == [0.25, 0.5, 1.0]
    assert isinstance(refusal(steps, httpx.ConnectError("refused", request=sent(step))), Unreachable)


def test_no_pause_goes_beyond_the_timeout() -> None:
    steps, step = begin(Clock())
    refused = refusal(steps, response(sent(step), 429, problem(429, "full"), retry_after="10"))
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_s == 10


@pytest.mark.parametrize("kind", [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError])
def test_what_may_have_begun_is_not_tried_again(kind: type[httpx.TransportError]) -> None:
    steps, step = begin(Clock())
    expected = TimedOut if kind is httpx.ReadTimeout else ConnectionLost
    assert type(refusal(steps, kind("", request=sent(step)))) is expected


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (404, NotServed),
        (413, TooLarge),
        (415, InvalidRequest),
        (422, InvalidRequest),
        (500, ProblemError),
        (504, DeadlinePassed),
    ],
)
def test_a_problem_is_the_error_of_its_status(status: int, kind: type[ProblemError]) -> None:
    steps, step = begin(Clock())
    body = problem(status, "top_k is wrong") | {"errors": [{"pointer": "/parameters/top_k", "detail": "is wrong"}]}
    refused = refusal(steps, response(sent(step), status, body))
    assert type(refused) is kind
    assert isinstance(refused, ProblemError)
    assert (refused.status, refused.detail, refused.request_id) == (status, "top_k is wrong", "r1")
    assert refused.errors[0].pointer == "/parameters/top_k"
    assert "top_k is wrong" in str(refused)


def test_an_error_crosses_a_process_boundary_whole() -> None:
    steps, step = begin(Clock(), retries=0)
    refused = refusal(steps, response(sent(step), 503, problem(503), retry_after="4"))
    copy = pickle.loads(pickle.dumps(refused))
    assert isinstance(copy, Unavailable)
    assert (copy.retry_after_s, copy.status, str(copy)) == (4, 503, str(refused))


def test_a_proxys_own_error_page() -> None:
    steps, step = begin(Clock(), request_id="abc")
    page = httpx.Response(502, html="<h1>Bad\n gateway</h1>", request=sent(step))
    refused = refusal(steps, page)
    assert isinstance(refused, ProblemError)
    assert (refused.status, refused.detail, refused.request_id) == (502, "<h1>Bad gateway</h1>", "abc")


def test_an_answer_of_another_service() -> None:
    steps, step = begin(Clock())
    assert isinstance(refusal(steps, httpx.Response(302, request=sent(step))), UnexpectedAnswer)
    with pytest.raises(UnexpectedAnswer, match="/v1/translation answered 200 with"):
        read(CALL, response(sent(step), 200, {"hello": "world"}))


def test_fields_of_a_newer_service_are_left_out() -> None:
    _, step = begin(Clock())
    assert read(CALL, response(sent(step), 200, [ANSWER[0] | {"provenance": []}]))[0].translation_text == "Bonjour."


def test_one_answer_to_a_question_is_a_list_of_one() -> None:
    call = question_answering("Who?", "Me.", None, None)
    _, step = begin(Clock())
    body = {"answer": "Me", "score": 1, "start": 0, "end": 2}
    assert read(call, response(sent(step), 200, body)) == read(call, response(sent(step), 200, [body]))


def test_a_model_is_a_part_of_the_path() -> None:
    assert translation("a", None, "../b c").path == "/v1/translation/..%2Fb%20c"
    assert CARDS.body is None


def stream(*chunks: bytes) -> Iterator[Any]:
    _, step = begin(Clock())
    answered = httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, request=sent(step))
    decoder = EventDecoder(answered)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.end()


def event(index: int, text: str, **last: Any) -> bytes:
    data = {"index": index, "token": {"id": index, "text": text}, **last}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


LAST = event(1, "!", generated_text="a\u2028b!", details=None)


def test_events_come_as_they_were_sent_however_they_are_cut() -> None:
    page = b": heartbeat\n\n" + event(0, "a\u2028b\u0085") + b": heartbeat\r\n\r\n" + LAST.replace(b"\n", b"\r\n")
    whole = list(stream(page))
    assert [each.token.text for each in whole] == ["a\u2028b\u0085", "!"]
    assert list(stream(*(page[place : place + 1] for place in range(len(page))))) == whole


def test_an_error_event_is_raised_behind_what_came_before_it() -> None:
    events = stream(event(0, "a"), b"event: error\ndata: " + json.dumps(problem(504, "late")).encode() + b"\n\n")
    assert next(events).token.text == "a"
    with pytest.raises(DeadlinePassed, match="late"):
        next(events)


def test_a_stream_that_ends_early_is_an_error() -> None:
    with pytest.raises(ConnectionLost, match="before its last event"):
        list(stream(event(0, "a")))


def test_a_stream_of_something_else() -> None:
    with pytest.raises(UnexpectedAnswer):
        list(stream(b"data: {}\n\n"))
    _, step = begin(Clock())
    with pytest.raises(UnexpectedAnswer, match="no text/event-stream"):
        EventDecoder(response(sent(step), 200, ANSWER))
