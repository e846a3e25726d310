"""Explanations that are refused: before the answer is computed, and never for what they add."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from models.task import Row, Solution
from service.admission import Limits
from service.engine import Engine
from service.errors import Overloaded
from tests.service.countdown import Countdown, ask, counted, row, until


def explaining(steps: int) -> Row:
    return Row(np.array([steps, 0], np.int64), purpose="score")


def explained(rows: int) -> Solution[int]:
    yield [row(1)]
    return len((yield [explaining(1)] * rows))


async def test_an_explanation_of_more_rows_than_may_wait_is_let_in_whole(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(), limits=Limits(waiting_rows=2, waiting_tokens=10))
    assert (await engine.answer(explained(50), explained=True))[0] == 50


async def test_where_no_explanation_may_wait_the_answer_is_not_computed(make: Callable[..., Engine]) -> None:
    model, explainer = Countdown(), Countdown(slots=1)
    explainer.gate = threading.Semaphore(0)
    engine = make(model, explainer=explainer, limits=Limits(waiting_rows=2, waiting_tokens=100))
    first = asyncio.create_task(engine.answer(explained(3), explained=True))
    try:
        await until(lambda: explainer.gates_entered == 1)
        computed = len(model.admitted)
        with pytest.raises(Overloaded, match="2 rows and 0 unread requests wait already, at most 2 rows may wait"):
            await engine.answer(explained(1), explained=True)
        assert len(model.admitted) == computed
        assert (await engine.answer(ask(row(3))))[0] == counted(3)
    finally:
        explainer.gate.release(100)
    assert (await first)[0] == 3
