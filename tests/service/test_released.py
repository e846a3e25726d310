"""What a request held is free as soon as it is refused, not when the collector comes, which it seldom does."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from models.task import Solution
from service.admission import Limits
from service.callers import Timing
from service.contract import StreamEvent, StreamToken
from service.engine import Engine
from service.errors import NotReady
from service.gateway import create_app
from service.hosting import Call
from tests.service.countdown import ask, gated, row, until
from tests.service.test_refusals import ROUTE, SETTINGS, Refusing

EACH = 20


class Remembering(Refusing):
    """A host that answers with an engine, and knows of its requests without holding them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(NotReady("no", 1))
        self.asked: list[weakref.ref[BaseModel]] = []
        self._engine = engine

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        self.asked.append(weakref.ref(call.request))
        return await self._engine.answer(_solved(call.request), deadline=call.deadline)

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        yield StreamEvent(index=0, token=StreamToken(id=1, text="a"))
        await self.answer(call)


def _solved(request: BaseModel) -> Solution[BaseModel]:
    yield [row(9)]
    return request


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_refused_or_times_out_is_released_at_once(make: Callable[..., Engine], *, stream: bool) -> None:
    model, gate = gated(slots=1)
    engine = make(model, limits=Limits(waiting_rows=EACH, waiting_tokens=1000))
    host = Remembering(engine)
    transport = httpx.ASGITransport(create_app(host, SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://heedful") as http:

        async def ends(detail: str, timeout_ms: int) -> None:
            headers = {"X-Request-Timeout-Ms": str(timeout_ms)}
            answer = await http.post(ROUTE, json={"inputs": "a", "stream": stream}, headers=headers)
            assert detail in answer.text

        others = [asyncio.create_task(engine.answer(ask(row(1))))]
        await until(lambda: (engine.running_rows, engine.waiting_rows) == (1, 0))
        for _ in range(EACH):
            await ends("the deadline passed", 50)
        while engine.waiting_rows < EACH:  # those above wait still, until the step is over
            others.append(asyncio.create_task(engine.answer(ask(row(1)))))
            await asyncio.sleep(0)
        for _ in range(EACH):
            await ends(f"at most {EACH} may wait", 60_000)
        kept = [place for place, request in enumerate(host.asked) if request() is not None]
        gate.release(1000)
        await asyncio.gather(*others)
    assert len(host.asked) == 2 * EACH
    assert not kept


@pytest.mark.parametrize("stream", [False, True])
async def test_the_log_still_tells_where_an_unexpected_error_comes_from(
    caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    class Broken(Refusing):
        async def answer(self, call: Call) -> tuple[Any, Timing]:
            try:
                return dict[int, tuple[Any, Timing]]()[1]
            except KeyError as error:
                raise ValueError("broken") from error

        async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
            yield StreamEvent(index=0, token=StreamToken(id=1, text="a"))
            await self.answer(call)

    transport = httpx.ASGITransport(create_app(Broken(NotReady("no", 1)), SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://heedful") as http:
        answer = await http.post(ROUTE, json={"inputs": "a", "stream": stream})
    assert "its log has the reason" in answer.text
    assert "return dict[int, tuple[Any, Timing]]()[1]" in caplog.text
    assert "ValueError: broken" in caplog.text
