"""What happens to a request around its route: its id, its body's limits and type, its deadline, its hanging up."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import note

logger = logging.getLogger("heedful.access")

MAX_TIMEOUT_MS = 600_000
HEARTBEAT_S = 10.0  # below the idle timeouts of common proxies, which start at 30 s
CLIENT_CLOSED_REQUEST = 499  # nginx's status for the log and the metrics; nobody reads the response
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

R = TypeVar("R")


class ClientGoneError(Exception):
    """The caller hung up before the answer was there; nobody reads a response."""


class RequestIds:
    """ASGI middleware: takes or makes `X-Request-ID`, puts it into scope and response, and logs each request's end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
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
            _log(scope["state"]["log"], (time.perf_counter() - began) * 1e3)


def _log(fields: dict[str, Any], duration_ms: float) -> None:
    fields = {"status": CLIENT_CLOSED_REQUEST, **fields, "duration_ms": round(duration_ms, 3)}
    logger.info(
        "request_id=%(request_id)s %(method)s %(path)s %(status)d %(duration_ms).1fms", fields, extra={"fields": fields}
    )


class JsonRequest(Request):
    """A request whose body must be JSON by RFC 8259, of at most `max_body_bytes`."""

    def __init__(self, scope: Scope, receive: Receive, *, max_body_bytes: int) -> None:
        super().__init__(scope, receive)
        self._max_body_bytes = max_body_bytes

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body's chunks.

        Raises:
            HTTPException: 413 as soon as the limit is passed, before the rest is read.
        """
        announced = self.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large(int(announced))
        received = 0
        async for chunk in super().stream():
            received += len(chunk)
            if received > self._max_body_bytes:
                raise self._too_large(received)
            yield chunk

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HTTPException: 415 when the media type is not JSON, 413 when it is too large, 400 when it is empty.
        """
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not re.fullmatch(r"application/([a-z0-9!#$&^_.+-]+\+)?json", media_type):
            given = repr(media_type) if media_type else "none"
            raise HTTPException(415, f"the header Content-Type must be application/json, got {given}")
        body = await super().body()
        if not body:
            raise HTTPException(400, "the body must be a JSON object, got an empty body")
        return body

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            HTTPException: 400 when it is not JSON; NaN, Infinity and lone surrogates are not.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from None

    def _too_large(self, size: int) -> HTTPException:
        return HTTPException(413, f"the body may have at most {self._max_body_bytes} bytes, got {size} or more")


def deadline(request: Request, default_ms: int) -> float:
    """When the caller stops waiting, in seconds of `time.monotonic`, from `X-Request-Timeout-Ms` or the default.

    Raises:
        HTTPException: 422 when the header is not a whole number from 1 to `MAX_TIMEOUT_MS`.
    """
    given = request.headers.get("x-request-timeout-ms", str(default_ms))
    if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MAX_TIMEOUT_MS:
        raise HTTPException(
            422,
            f"the header X-Request-Timeout-Ms must be a whole number from 1 to {MAX_TIMEOUT_MS}, got {given[:40]!r}",
        )
    return time.monotonic() + int(given) / 1e3


async def unless_gone(request: Request, work: Awaitable[R]) -> R:
    """Await `work`, but cancel it as soon as the caller hangs up.

    Raises:
        ClientGoneError: the caller hung up first.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, each sent at once; a comment where none comes for `HEARTBEAT_S`.

    When the caller hangs up, `events` is closed. When it raises, the last event is named `error` and has what `failed`
    makes of the exception.

    Attributes:
        on_end: is called with the status that became of it.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], failed: Callable[[Exception], Awaitable[Response]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._failed = events, failed
        self.on_end: Callable[[int], None] = lambda _status: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        status = CLIENT_CLOSED_REQUEST
        writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                status = writing.result()
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
        except Exception as error:  # noqa: BLE001 - it is told to the caller, whatever it was
            response = await self._failed(error)
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
