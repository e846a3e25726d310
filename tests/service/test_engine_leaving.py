"""Callers that go away, and deadlines that pass: the model is free at the next step, and nobody else notices."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from models.errors import InvalidInput
from models.task import Solution
from service.engine import Engine
from service.errors import DeadlinePassed
from tests.service.countdown import (
    Countdown,
    ask,
    counted,
    gated,
    let,
    noting,
    row,
    until,
)


async def test_a_cancelled_request_leaves_before_the_next_step(make: Callable[..., Engine]) -> None:
    model = Countdown(slots=3)
    engine = make(model)
    await engine.answer(ask(row(1)))  # so that there is a rate
    model.gate = threading.Semaphore(0)
    closed: list[bool] = []
    neighbour = asyncio.create_task(engine.answer(ask(row(6))))
    await until(lambda: engine.running_rows == 1)
    gone = asyncio.create_task(engine.answer(ask(*[row(50)] * 5, closed=closed)))
    await until(lambda: engine.waiting_rows == 5)
    await let(model, 2)
    assert (engine.running_rows, engine.waiting_rows) == (3, 3)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert closed == [True]
    await let(model, 2)  # the one under way, and the next
    assert model.stepped == [1, 1, 3, 3, 1]
    assert len(model.dropped) == 2
    assert (engine.running_rows, engine.waiting_rows) == (1, 0)
    await let(model, 2)
    assert (await neighbour)[0] == counted(6)
    assert engine.backlog_s() == 0.0


async def test_a_caller_that_goes_just_when_its_answer_comes_takes_nobody_with_it(make: Callable[..., Engine]) -> None:
    model, gate = gated()
    engine = make(model)
    gone, stays = (asyncio.create_task(engine.answer(ask(row(1)))) for _ in range(2))
    await until(lambda: model.gates_entered == 1)
    gate.release(2)
    give_up = time.monotonic() + 5
    while engine.running_rows or engine.waiting_rows:
        assert time.monotonic() < give_up
        time.sleep(0.001)  # noqa: ASYNC251 - the loop must not hear of the answers before the caller goes
    gone.cancel()
    assert (await asyncio.wait_for(stays, 5))[0] == counted(1)


async def test_a_deadline_passes_while_rows_wait_and_while_they_run(
    make: Callable[..., Engine], registry: CollectorRegistry
) -> None:
    model, _ = gated(slots=1)
    engine = make(model)
    neighbour = asyncio.create_task(engine.answer(ask(row(3))))
    await until(lambda: engine.running_rows == 1)
    with pytest.raises(DeadlinePassed, match=r"no answer within 0\.[0-3]\d\d s"):
        await engine.answer(ask(row(1)), deadline=time.monotonic() + 0.3)
    await let(model, 1)
    assert engine.waiting_rows == 0
    await let(model, 2)
    await neighbour

    closed: list[bool] = []
    with pytest.raises(DeadlinePassed):
        await engine.answer(ask(row(9), closed=closed), deadline=time.monotonic() + 0.3)
    assert closed == [True]
    await let(model, 1)
    await until(lambda: engine.running_rows == 0)
    assert len(model.stepped) == 4


async def test_a_deadline_in_the_past_does_not_even_start(make: Callable[..., Engine]) -> None:
    started: list[bool] = []
    with pytest.raises(DeadlinePassed, match="before the request was looked at"):
        await make(Countdown()).answer(noting(started), deadline=time.monotonic() - 1)
    assert not started


async def test_a_deadline_frees_the_caller_of_a_step_that_hangs(make: Callable[..., Engine]) -> None:
    model, _ = gated()
    with pytest.raises(DeadlinePassed):
        await make(model).answer(ask(row(1)), deadline=time.monotonic() + 0.02)


async def test_a_solution_that_raises_after_its_first_yield_fails_alone(make: Callable[..., Engine]) -> None:
    def failing() -> Solution[None]:
        yield [row(1)]
        raise KeyError("a bug in a task")

    engine = make(Countdown())
    neighbour = asyncio.create_task(engine.answer(ask(row(20))))
    with pytest.raises(KeyError):
        await engine.answer(failing())
    assert (await neighbour)[0] == counted(20)
    await asyncio.wait_for(engine.drain(), 1)


async def test_invalid_input_comes_straight_from_the_solution(make: Callable[..., Engine]) -> None:
    def refusing() -> Solution[None]:
        yield from ()
        raise InvalidInput("top_k is 0, at least 1", pointer="/parameters/top_k")

    with pytest.raises(InvalidInput, match="top_k is 0"):
        await make(Countdown()).answer(refusing())


async def test_a_timeout_of_the_solution_itself_is_not_the_deadline(make: Callable[..., Engine]) -> None:
    def failing() -> Solution[None]:
        yield [row(1)]
        raise TimeoutError("the solution's own")

    with pytest.raises(TimeoutError, match="own"):
        await make(Countdown()).answer(failing(), deadline=time.monotonic() + 5)
