"""One call as pure steps: what to send, when to come back, what the answer means. A thread or a loop takes them."""

import random
import re
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, TypeVar

import httpx
from pydantic import ValidationError

from service.client.calls import Call
from service.client.deadline import Left
from service.client.errors import (
    ClientError,
    ConnectionLost,
    Overloaded,
    ProblemError,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    problem_error,
)
from service.contract import REQUEST_ID, Problem, StreamEvent

R = TypeVar("R")

URL = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
RETRIES = 3

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MAX_SERVER_TIMEOUT_MS = 600_000  # the largest X-Request-Timeout-Ms that the service takes
# The service is told a little less than is left, so that its own word on a passed deadline still arrives.
SERVER_SHARE = 0.95
FIRST_BACKOFF_S = 0.25  # where no Retry-After says better; doubles with each try
MAX_JITTER = 0.25  # of the pause, on top of it: callers who were refused together do not come back together
SHOWN_CHARACTERS = 200


class CallOptions(TypedDict, total=False):
    """What every call takes by keyword.

    Args:
        timeout_s: in place of the client's own.
        request_id: sent as `X-Request-ID`; made when it is left out. Every error carries it.
    """

    timeout_s: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a call may take with all its tries and pauses, and how often it is tried again."""

    timeout_s: float
    retries: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call, and bring the response or the transport's error, while something is left of the timeout.

    Args:
        left_s: seconds that are left of the call.
    """

    call: Call[Any]
    headers: dict[str, str]
    left_s: Callable[[], float]

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """As this client sends it."""
        method = "GET" if self.call.body is None else "POST"
        request = http.build_request(method, self.call.path, content=self.call.body, headers=self.headers)
        request.extensions["timeout"] = Left(self.left_s)
        return request


@dataclass(frozen=True, slots=True)
class Pause:
    """Come back after so many seconds."""

    seconds: float


Outcome: TypeAlias = httpx.Response | httpx.TransportError | None
Exchange: TypeAlias = Generator[Send | Pause, Outcome, httpx.Response]


def exchange(
    call: Call[Any],
    policy: Policy,
    options: CallOptions,
    *,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = random.random,
) -> Exchange:
    """Yields what to do next, is sent what came of it, and returns the response when it is a success.

    Only what the service has not begun is tried again: where there was no connection, and after 429 and 503, not before
    their `Retry-After` is over. All tries carry the same `X-Request-ID`.

    Args:
        clock: seconds since some moment.
        jitter: from 0 to 1.

    Raises:
        ClientError: of the last try; at once when the next would begin after the timeout.
        ValueError: the request id is none that the service takes; nothing was sent.
    """
    request_id = options.get("request_id") or uuid.uuid4().hex
    if not REQUEST_ID.fullmatch(request_id):
        raise ValueError(f"request_id must be 1 to 128 visible ASCII characters without blanks, got {request_id!a}")
    left_s = options.get("timeout_s", policy.timeout_s)
    give_up_at = clock() + left_s
    tried = 0
    while True:
        outcome = yield Send(call, _headers(call, request_id, left_s), lambda: give_up_at - clock())
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return outcome
        failure = _failure(outcome)
        pause_s = _pause_s(failure, tried) * (1 + MAX_JITTER * jitter())
        tried += 1
        left_s = give_up_at - clock() - pause_s
        if tried > policy.retries or left_s <= 0 or not isinstance(failure, Unreachable | Overloaded | Unavailable):
            raise failure
        yield Pause(pause_s)


def checked(url: str) -> str:
    """The URL.

    Raises:
        ValueError: it is none of HTTP's.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must start with http:// or https://, got {url!r}")
    return url


def read(call: Call[R], response: httpx.Response) -> R:
    """The typed answer, without the fields that a newer service may have added.

    Raises:
        UnexpectedAnswer: it has another shape.
    """
    try:
        return call.answer.validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise _unexpected(response) from error


def broken(error: httpx.TransportError) -> ClientError:
    """What a transport's error means to the caller."""
    url, request_id = error.request.url, error.request.headers["x-request-id"]
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.PoolTimeout):
        return Unreachable("this client's connections were all in use until the timeout; nothing was sent", request_id)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unreachable(f"no connection to {url.host} port {url.port or url.scheme}: {reason}", request_id)
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"{url.path} did not answer within the timeout", request_id)
    return ConnectionLost(f"the connection broke before the answer of {url.path} was there: {reason}", request_id)


class EventDecoder:
    """The bytes of a server-sent event stream as events; comments, such as heartbeats, are left out.

    Lines end with a line feed alone or behind a carriage return: what else Unicode counts as the end of a line may
    stand within the JSON.

    Args:
        response: whose body is decoded.
    """

    def __init__(self, response: httpx.Response) -> None:
        if not response.headers.get("content-type", "").startswith(EVENT_STREAM):
            raise UnexpectedAnswer(f"{response.url.path} answered no {EVENT_STREAM}", _request_id(response))
        self._response = response
        self._rest = b""
        self._event = "message"
        self._data: list[bytes] = []
        self._ended = False

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The events that this chunk completes.

        Raises:
            ProblemError: the service could not finish the answer.
            UnexpectedAnswer: an event has another shape.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            field, _, value = line.removesuffix(b"\r").partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._event = value.removeprefix(b" ").decode()
            elif not field and not value and self._data:
                yield self._dispatched()

    def end(self) -> None:
        """The stream is over.

        Raises:
            ConnectionLost: its last event has not come.
        """
        if not self._ended:
            detail = f"the stream of {self._response.url.path} ended before its last event"
            raise ConnectionLost(detail, _request_id(self._response))

    def _dispatched(self) -> StreamEvent:
        event, data = self._event, b"\n".join(self._data)
        self._event, self._data = "message", []
        try:
            if event == "error":
                raise problem_error(Problem.model_validate_json(data))
            read_event = StreamEvent.model_validate_json(data)
        except ValidationError as error:
            raise UnexpectedAnswer(
                f"the stream held {data[:SHOWN_CHARACTERS]!r}", _request_id(self._response)
            ) from error
        self._ended = read_event.generated_text is not None
        return read_event


def _headers(call: Call[Any], request_id: str, left_s: float) -> dict[str, str]:
    server_ms = min(max(1, int(left_s * 1e3 * SERVER_SHARE)), MAX_SERVER_TIMEOUT_MS)
    return {
        "Accept": EVENT_STREAM if call.streams else JSON,
        "Content-Type": JSON,
        "X-Request-ID": request_id,
        "X-Request-Timeout-Ms": str(server_ms),
    }


def _failure(outcome: Outcome) -> ClientError:
    if isinstance(outcome, httpx.TransportError):
        return broken(outcome)
    if outcome is None:
        raise TypeError("what came of sending a request must be a response or an error, got None")
    return _problem_of(outcome) if outcome.is_error else _unexpected(outcome)


def _problem_of(response: httpx.Response) -> ClientError:
    retry_after = response.headers.get("retry-after", "")
    retry_after_s = int(retry_after) if re.fullmatch(r"[0-9]{1,9}", retry_after) else None
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy's own words
        title = response.reason_phrase or "Error"
        detail = _shown(response.text) or title
        problem = Problem(
            title=title, status=response.status_code, detail=detail, error=detail, request_id=_request_id(response)
        )
    return problem_error(problem, retry_after_s)


def _pause_s(failure: ClientError, tried: int) -> float:
    if isinstance(failure, ProblemError) and failure.retry_after_s is not None:
        return float(failure.retry_after_s)
    return FIRST_BACKOFF_S * 2.0**tried


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    path, shown = response.url.path, _shown(response.text)
    return UnexpectedAnswer(f"{path} answered {response.status_code} with {shown!r}", _request_id(response))


def _shown(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARACTERS]


def _request_id(response: httpx.Response) -> str:
    request_id: str = response.request.headers["x-request-id"]
    return request_id
