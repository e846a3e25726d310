"""What happens to a request around its route: its id, its body's limits and type, its deadline, its hanging up."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.contract import REQUEST_ID
from service.logs import note

logger = logging.getLogger("heedful.access")

MAX_TIMEOUT_MS = 600_000
HEARTBEAT_S = 10.0  # below the idle timeouts of common proxies, which start at 30 s
LAST_WORD_S = 1.0  # for the event that tells a caller who reads that his deadline has passed
CLIENT_CLOSED_REQUEST = 499  # nginx's status for the log and the metrics; nobody reads the response
_JSON = re.compile(r"application/([a-z0-9!#$&^_.+-]+\+)?json")

R = TypeVar("R")


class ClientGoneError(Exception):
    """The caller hung up before the answer was there, or does not read it; nobody reads a response."""


class RequestIds:
    """ASGI middleware: takes or makes `X-Request-ID`, puts it into scope and response, and logs each request's end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        # Not from the system's randomness: that call lets another thread go on, and an id keeps no secret.
        made = f"{random.getrandbits(128):032x}"
        request_id = given if REQUEST_ID.fullmatch(given) else made
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                note(scope, status=message["status"])
            await send(message)

        note(scope, request_id=request_id, method=scope["method"], path=scope["path"])
        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            note(scope, status=CLIENT_CLOSED_REQUEST)
            raise
        except Exception:
            note(scope, status=500)
            raise
        finally:
            if logger.isEnabledFor(logging.INFO):
                _log(scope["state"]["log"], (time.perf_counter() - began) * 1e3)


def _log(fields: dict[str, Any], duration_ms: float) -> None:
    fields = {"status": CLIENT_CLOSED_REQUEST, **fields, "duration_ms": round(duration_ms, 3)}
    logger.info(
        "request_id=%(request_id)s %(method)s %(path)s %(status)d %(duration_ms).1fms", fields, extra={"fields": fields}
    )


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body of a request that says that it sends JSON.

    Raises:
        HTTPException: 415 when the media type is not JSON, 400 when the body is empty, 413 as soon as it has more than
            `max_bytes`, before the rest is read.
        ClientGoneError: the caller hung up before its end.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type):
        given = repr(media_type) if media_type else "none"
        raise HTTPException(415, f"the header Content-Type must be application/json, got {given}")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(int(announced), max_bytes)
    chunks: list[bytes] = []
    received, goes_on = 0, True
    while goes_on:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        received += len(chunks[-1])
        if received > max_bytes:
            raise _too_large(received, max_bytes)
        goes_on = message.get("more_body", False)
    body = b"".join(chunks)
    if not body:
        raise HTTPException(400, "the body must be a JSON object, got an empty body")
    return body


def _too_large(size: int, max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body may have at most {max_bytes} bytes, got {size} or more")


def parsed(body: bytes) -> Any:
    """A body that is JSON by RFC 8259.

    Raises:
        HTTPException: 400 when it is not JSON; NaN, Infinity and lone surrogates are not.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None


def deadline(request: Request, default_ms: int) -> float:
    """When the caller stops waiting, in seconds of `time.monotonic`, from `X-Request-Timeout-Ms` or the default.

    It is kept in the request's state, for the stream that may answer.

    Raises:
        HTTPException: 422 when the header is not a whole number from 1 to `MAX_TIMEOUT_MS`.
    """
    given = request.headers.get("x-request-timeout-ms", str(default_ms))
    if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MAX_TIMEOUT_MS:
        raise HTTPException(
            422,
            f"the header X-Request-Timeout-Ms must be a whole number from 1 to {MAX_TIMEOUT_MS}, got {given[:40]!r}",
        )
    request.state.deadline = until = time.monotonic() + int(given) / 1e3
    return until


async def unless_gone(request: Request, work: Awaitable[R]) -> R:
    """Await `work`, but cancel it as soon as the caller hangs up.

    Raises:
        ClientGoneError: the caller hung up first.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    gone.add_done_callback(lambda _: answer.cancel())
    try:
        return await answer
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if gone.done() and not (task and task.cancelling()):
            raise ClientGoneError from None
        raise
    finally:
        gone.cancel()
        answer.cancel()


def let_go(error: BaseException) -> None:
    """Part an exception that has been told, and logged, from where it was raised.

    The frames there hold the request, and tasks that hold the exception: in a circle, which only the collector would
    find, long after.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _ending(scope: Scope, send: Send) -> Send:
    """A `send` that raises ClientGoneError where it would wait for the caller long after his deadline."""
    until: float = scope["state"]["deadline"] + LAST_WORD_S

    async def ending(message: Message) -> None:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await send(message)
        except TimeoutError:
            raise ClientGoneError from None

    return ending


class EventStream(Response):
    """Server-sent events, each sent at once; a comment where none comes for `HEARTBEAT_S`.

    When the caller hangs up, `events` is closed; so it is when his deadline has passed and he does not read, which ends
    the connection. When it raises, the last event is named `error` and has what `failed` makes of the exception.

    Attributes:
        on_end: is called with the status that became of it.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], failed: Callable[[Exception], Awaitable[Response]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._failed = events, failed
        self.on_end: Callable[[int], None] = lambda _status: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = CLIENT_CLOSED_REQUEST
        writing = asyncio.ensure_future(self._write(_ending(scope, send)))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                status = writing.result()
        except ClientGoneError as error:
            let_go(error)
        finally:
            gone.cancel()
            writing.cancel()
            await asyncio.wait({writing})
            await self._events.aclose()
            self.on_end(status)

    async def _write(self, send: Send) -> int:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        status = 200
        try:
            while (event := await self._next(send)) is not None:
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - it is told to the caller, whatever it was
            response = await self._failed(error)
            let_go(error)
            status, last = response.status_code, b"event: error\ndata: " + bytes(response.body) + b"\n\n"
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return status

    async def _next(self, send: Send) -> bytes | None:
        """The next event; None after the last."""
        coming = asyncio.ensure_future(anext(self._events, None))
        try:
            while not (await asyncio.wait({coming}, timeout=HEARTBEAT_S))[0]:
                await send({"type": "http.response.body", "body": b": heartbeat\n\n", "more_body": True})
            return coming.result()
        finally:
            coming.cancel()
