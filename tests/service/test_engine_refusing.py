"""What is refused: beyond the limits, while draining, and when the engine stops."""

import asyncio
import math
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from models.errors import TooLarge
from models.task import Solution
from service.admission import Limits
from service.engine import Engine
from service.errors import Draining, Overloaded
from tests.service.countdown import (
    Countdown,
    ask,
    counted,
    gated,
    noting,
    row,
    until,
)


async def test_what_does_not_fit_the_limits_is_refused_whole_with_a_computed_retry_after(
    make: Callable[..., Engine], registry: CollectorRegistry
) -> None:
    model = Countdown(slots=1)
    engine = make(model, limits=Limits(waiting_rows=10, waiting_tokens=1000))
    model.step_s = 0.125
    for _ in range(2):
        await engine.answer(ask(row(1)))  # 2 tokens in 0.125 s: 16 tokens/s at most
    model.step_s, model.gate = 0.0, threading.Semaphore(0)
    accepted = [asyncio.create_task(engine.answer(ask(row(1))))]
    await until(lambda: (engine.running_rows, engine.waiting_rows) == (1, 0))
    accepted += [asyncio.create_task(engine.answer(ask(row(1)))) for _ in range(10)]
    await until(lambda: engine.waiting_rows == 10)
    with pytest.raises(Overloaded, match="10 rows wait already and the request adds 2, at most 10") as refused:
        await engine.answer(ask(row(1), row(1)))
    assert engine.waiting_rows == 10
    assert refused.value.retry_after_s == math.ceil(engine.backlog_s())
    assert 22 / 16 <= engine.backlog_s() <= 22 / 4
    model.gate.release(100)
    await asyncio.gather(*accepted)
    assert (await engine.answer(ask(row(1))))[0] == counted(1)


async def test_tokens_are_limited_too_and_what_never_fits_is_too_large(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(), limits=Limits(waiting_rows=10, waiting_tokens=7), started=False)
    first = asyncio.create_task(engine.answer(ask(row(1), row(1))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="4 tokens wait already and the request adds 4, at most 7"):
        await engine.answer(ask(row(1), row(1)))
    with pytest.raises(TooLarge, match="8 tokens, at most 7"):
        await engine.answer(ask(*[row(1)] * 4))
    engine.start()
    await first


async def test_what_waits_to_be_read_in_a_thread_is_limited(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(), limits=Limits(waiting_rows=3, waiting_tokens=1000))
    read = threading.Event()
    started: list[bool] = []

    def long() -> Solution[int]:
        read.wait(60)
        return len((yield [row(1)]))

    reading = [asyncio.create_task(engine.answer(long(), in_thread=True)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="0 rows and 3 unread requests wait already, at most 3 rows may wait"):
        await asyncio.wait_for(engine.answer(noting(started), in_thread=True), 10)
    assert not started
    assert (await engine.answer(ask(row(1))))[0] == counted(1)
    reading[0].cancel()
    await asyncio.wait(reading[:1])
    reading[0] = asyncio.create_task(engine.answer(long(), in_thread=True))
    await asyncio.sleep(0)
    read.set()
    assert [length for length, _ in await asyncio.gather(*reading)] == [1, 1, 1]
    assert (await engine.answer(ask(row(1)), in_thread=True))[0] == counted(1)


async def test_what_no_lane_has_room_for_is_not_read(make: Callable[..., Engine]) -> None:
    (model, gate), (long, long_gate) = gated(slots=1), gated(slots=2)
    engine = make(model, limits=Limits(waiting_rows=2, waiting_tokens=1000), long=long, long_tokens=2)
    both = (row(1), row(1))
    waiting = [asyncio.create_task(engine.answer(ask(*both)))]
    await until(lambda: long.gates_entered == 1)
    waiting.append(asyncio.create_task(engine.answer(ask(*both))))
    await until(lambda: engine.waiting_rows == 2)
    waiting.append(asyncio.create_task(engine.answer(ask(row(1)), in_thread=True)))
    await until(lambda: model.gates_entered == 1)
    waiting += [asyncio.create_task(engine.answer(ask(row(1)))) for _ in range(2)]
    await until(lambda: engine.waiting_rows == 4)
    started: list[bool] = []
    with pytest.raises(Overloaded, match="2 rows and 0 unread requests wait already"):
        await engine.answer(noting(started), in_thread=True)
    assert not started
    gate.release(100)
    long_gate.release(100)
    await asyncio.gather(*waiting)


async def test_an_accepted_request_is_not_refused_at_its_later_yields(make: Callable[..., Engine]) -> None:
    def growing() -> Solution[int]:
        yield [row(1)]
        outputs = yield [row(1)] * 50
        return len(outputs)

    assert (await make(Countdown(), limits=Limits(1, 2)).answer(growing()))[0] == 50


async def test_draining_answers_what_was_accepted_and_refuses_what_is_new(
    make: Callable[..., Engine], registry: CollectorRegistry
) -> None:
    def twice() -> Solution[int]:
        yield [row(2)]
        outputs = yield [row(3), row(1)]
        return len(outputs)

    model, gate = gated()
    engine = make(model)
    accepted = asyncio.create_task(engine.answer(twice()))
    sooner = asyncio.create_task(engine.answer(ask(row(1))))
    await until(lambda: engine.running_rows + engine.waiting_rows == 2)
    draining = [asyncio.create_task(engine.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    started: list[bool] = []
    with pytest.raises(Draining) as refused:
        await engine.answer(noting(started))
    assert not started
    assert refused.value.retry_after_s >= 1
    gate.release(2)
    assert (await sooner)[0] == counted(1)
    await asyncio.sleep(0)
    assert not any(task.done() for task in draining)
    gate.release(100)
    await asyncio.wait_for(asyncio.gather(*draining), 5)
    assert (await accepted)[0] == 2
    await asyncio.wait_for(engine.drain(), 1)


async def test_stopping_ends_the_thread_and_refuses_what_is_pending(make: Callable[..., Engine]) -> None:
    model, gate = gated(slots=1)
    engine = make(model)
    pending = [asyncio.create_task(engine.answer(ask(row(9)))) for _ in range(2)]
    await until(lambda: (engine.running_rows, engine.waiting_rows) == (1, 1))
    drained = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)
    gate.release()
    engine.stop()
    assert not engine.alive
    for task in pending:
        with pytest.raises(Draining):
            await task
    with pytest.raises(Draining):
        await engine.answer(ask(row(1)))
    await asyncio.wait_for(drained, 1)


async def test_stopping_leaves_a_step_behind_that_hangs(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.engine.STOP_TIMEOUT_S", 0.02)
    model, _ = gated()
    engine = make(model)
    pending = asyncio.create_task(engine.answer(ask(row(9))))
    await until(lambda: model.gates_entered == 1)
    engine.stop()
    assert "left behind a step" in caplog.text
    with pytest.raises(Draining):
        await pending
