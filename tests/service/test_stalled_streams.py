"""A caller who asks for a stream and does not read it keeps neither memory nor the service beyond his deadline."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Message

from service import transport
from service.contract import StreamEvent, StreamToken
from service.engine import Engine
from service.errors import NotReady
from service.gateway import create_app
from service.hosting import Call
from service.rows import Progress
from service.streaming import stream
from service.transport import EventStream
from tests.service.countdown import gated, row, until
from tests.service.test_refusals import SETTINGS, Refusing
from tests.service.test_streaming import translation

ROWS, STEPS = 3, 50


async def test_of_what_is_not_read_only_the_latest_is_kept(make: Callable[..., Engine]) -> None:
    model, gate = gated()
    engine = make(model)
    draft = replace(translation("One here. " * ROWS), rows=[row(STEPS)] * ROWS)
    events = stream(engine, lambda: draft, time.monotonic() + 60, in_thread=False)
    gate.release(1)
    told = [await anext(events)]
    gate.release(STEPS)
    await engine.drain()
    gc.collect()
    kept = sum(type(each) is Progress for each in gc.get_objects())
    told += [event async for event in events]
    assert kept <= 3 * ROWS
    assert [event.token.id for event in told] == [*range(STEPS)][::-1] * ROWS + [None]
    assert "".join(event.token.text for event in told) == told[-1].generated_text


class Endless(Refusing):
    """A host that never comes to an end."""

    def __init__(self) -> None:
        super().__init__(NotReady("no", 1))
        self.closed = False

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        try:
            while True:
                yield StreamEvent(index=0, token=StreamToken(id=1, text="a" * 1000))
        finally:
            self.closed = True


@asynccontextmanager
async def asked(host: Endless, **headers: str) -> AsyncIterator[socket.socket]:
    """A connection on which a stream was asked for, with small buffers."""
    lines = ("POST /v1/translation HTTP/1.1", "Host: a", "Content-Type: application/json", "Content-Length: 29")
    head = "\r\n".join((*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""))
    server = uvicorn.Server(uvicorn.Config(create_app(host, SETTINGS), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as reader:
        for end, buffer in ((listener, socket.SO_SNDBUF), (reader, socket.SO_RCVBUF)):
            end.setsockopt(socket.SOL_SOCKET, buffer, 4096)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, listener.getsockname())
            await loop.sock_sendall(reader, head.encode() + b'{"inputs": "a","stream":true}')
            yield reader
        finally:
            reader.close()
            server.should_exit = True
            await running


async def test_a_stream_that_nobody_reads_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LAST_WORD_S", 0.1)
    host = Endless()
    async with asked(host, **{"X-Request-Timeout-Ms": "100"}) as reader:
        await until(lambda: host.closed)
        page = b""
        while received := await asyncio.get_running_loop().sock_recv(reader, 65536):
            page += received
    assert page.startswith(b"HTTP/1.1 200")
    assert page.count(b"data: ") > 1
    assert not page.endswith(b"0\r\n\r\n"), "as if it were whole"
    labels = {"task": "translation", "model": "en-fr"}
    counted = {
        status: host.registry.get_sample_value("heedful_requests_total", labels | {"status": status})
        for status in ("200", "499", "504")
    }
    assert counted == {"200": 0, "499": 1, "504": 0}


async def test_a_caller_who_reads_is_told_everything_after_his_deadline_too() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"1"
        raise ValueError("late")

    async def failed(error: Exception) -> Response:
        return Response(str(error), 504)

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    body: list[bytes] = []
    statuses: list[int] = []

    async def send(message: Message) -> None:
        body.append(message.get("body", b""))

    events = EventStream(failing(), failed)
    events.on_end = statuses.append
    await events({"type": "http", "state": {"deadline": time.monotonic() - 60}}, receive, send)
    assert b"".join(body) == b"data: 1\n\nevent: error\ndata: late\n\n"
    assert statuses == [504]
