"""A stream of events tells what happens on the way: silence, a failure, a reader that leaves."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from service import transport
from service.transport import CLIENT_CLOSED_REQUEST, ClientGoneError, EventStream, read_body, unless_gone


class Reader:
    """The other end of the connection, which hangs up when `gone` is set."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.body = b""
        self.ended = False
        self.status = 0

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.body += message.get("body", b"")
        self.ended = message["type"] == "http.response.body" and not message["more_body"]

    async def read(self, events: AsyncGenerator[bytes]) -> None:
        async def failed(error: Exception) -> Response:
            return Response(str(error), 507)

        stream = EventStream(events, failed)
        stream.on_end = lambda status: setattr(self, "status", status)
        async with asyncio.timeout(5):
            scope = {"type": "http", "state": {"deadline": time.monotonic() + 60}}
            await stream(scope, self.receive, self.send)


async def test_comments_fill_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEARTBEAT_S", 0.01)
    reader = Reader()

    async def slow() -> AsyncGenerator[bytes]:
        yield b"1"
        while reader.body.count(b": heartbeat\n\n") < 2:  # noqa: ASYNC110 - no event of ours
            await asyncio.sleep(0)
        yield b"2"

    await reader.read(slow())
    assert reader.body.replace(b": heartbeat\n\n", b"") == b"data: 1\n\ndata: 2\n\n"
    assert (reader.ended, reader.status) == (True, 200)


async def test_a_failure_midway_is_the_last_event() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"1"
        raise ValueError("no more")

    reader = Reader()
    await reader.read(failing())
    assert reader.body == b"data: 1\n\nevent: error\ndata: no more\n\n"
    assert (reader.ended, reader.status) == (True, 507)


async def test_a_reader_that_leaves_closes_the_source() -> None:
    reader = Reader()
    closed = []

    async def endless() -> AsyncGenerator[bytes]:
        try:
            yield b"1"
            reader.gone.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    await reader.read(endless())
    assert closed == [True]
    assert (reader.ended, reader.status) == (False, CLIENT_CLOSED_REQUEST)


def request(*messages: Message) -> Request:
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    return Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)


async def test_a_body_comes_in_parts_and_its_sender_may_hang_up_between_them() -> None:
    parts = [{"type": "http.request", "body": body, "more_body": True} for body in (b"[1", b", 2")]
    assert await read_body(request(*parts, {"type": "http.request", "body": b"]"}), 7) == b"[1, 2]"
    with pytest.raises(ClientGoneError):
        await read_body(request(*parts, {"type": "http.disconnect"}), 7)


async def test_a_body_over_the_limit_is_refused_before_the_rest_of_it_is_read() -> None:
    part = {"type": "http.request", "body": b"12", "more_body": True}
    with pytest.raises(HTTPException, match="at most 3 bytes, got 4 or more") as refused:
        await read_body(request(part, part), 3)
    assert refused.value.status_code == 413


async def test_work_is_cancelled_when_its_caller_hangs_up_and_only_then() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    left = asyncio.ensure_future(unless_gone(request({"type": "http.disconnect"}), work()))
    await asyncio.wait({left}, timeout=10)
    assert isinstance(left.exception(), ClientGoneError)
    assert ended.is_set()
    waiting = asyncio.ensure_future(unless_gone(Request({"type": "http"}, Reader().receive), work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
