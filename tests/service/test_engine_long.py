"""Requests longer than any one text, which compute in a thread of their own beside the others."""

import asyncio
from collections.abc import Callable

import pytest

from models.errors import ComputeError
from service.admission import Limits
from service.engine import Engine
from service.errors import Overloaded
from tests.service.countdown import POISON_STEP, Countdown, ask, counted, gated, row, until

LONG_TOKENS = 4
"""Two rows of two tokens are short, three are long."""


async def test_short_requests_are_answered_while_a_long_one_computes(make: Callable[..., Engine]) -> None:
    model, (long, gate) = Countdown(), gated()
    engine = make(model, long=long, long_tokens=LONG_TOKENS)
    waiting = asyncio.ensure_future(engine.answer(ask(row(2), row(3), row(4))))
    await until(lambda: long.gates_entered == 1)
    assert (await engine.answer(ask(row(5), row(1))))[0] == counted(5, 1)
    assert not waiting.done()
    assert engine.running_rows == 3
    gate.release(4)
    assert (await waiting)[0] == counted(2, 3, 4)
    assert len(model.admitted) == len(long.admitted) == 1


async def test_a_long_request_that_fails_or_leaves_takes_nobody_along(make: Callable[..., Engine]) -> None:
    model, (long, gate) = Countdown(), gated(slots=3)
    engine = make(model, long=long, long_tokens=LONG_TOKENS)
    leaving = asyncio.ensure_future(engine.answer(ask(row(9), row(9), row(9))))
    await until(lambda: long.gates_entered == 1)
    leaving.cancel()
    gate.release(100)
    with pytest.raises(ComputeError):
        await engine.answer(ask(row(1), row(1), row(1, POISON_STEP)))
    assert len(long.dropped) >= 3
    assert (await engine.answer(ask(row(1), row(2), row(3))))[0] == counted(1, 2, 3)
    assert (await engine.answer(ask(row(3))))[0] == counted(3)
    await engine.drain()


async def test_long_requests_that_wait_leave_room_for_short_ones(make: Callable[..., Engine]) -> None:
    long, gate = gated(slots=3)
    limits = Limits(waiting_rows=3, waiting_tokens=100)
    engine = make(Countdown(), long=long, long_tokens=LONG_TOKENS, limits=limits)
    three = (row(1), row(1), row(1))
    running = asyncio.ensure_future(engine.answer(ask(*three)))
    await until(lambda: long.gates_entered == 1)
    waiting = asyncio.ensure_future(engine.answer(ask(*three)))
    await until(lambda: engine.waiting_rows == 3)
    with pytest.raises(Overloaded):
        await engine.answer(ask(*three))
    assert (await engine.answer(ask(row(1))))[0] == counted(1)
    gate.release(2)
    await asyncio.gather(running, waiting)
