"""Rows beside the ordinary ones: followed token by token, solved in a thread, or explaining."""

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from models.errors import ComputeError, InvalidInput
from models.task import Row, Solution
from service.engine import Engine
from service.errors import DeadlinePassed
from service.rows import Progress
from tests.service.countdown import (
    POISON_STEP,
    Countdown,
    ask,
    counted,
    gated,
    let,
    row,
    until,
)

# Following.


async def test_a_follower_is_told_of_every_token_as_it_comes(make: Callable[..., Engine]) -> None:
    model, gate = gated()
    engine = make(model)
    told: list[Progress] = []
    answer = asyncio.ensure_future(engine.answer(ask(row(3), row(1)), follower=told.append))
    other = asyncio.ensure_future(engine.answer(ask(row(3))))
    await until(lambda: model.gates_entered == 1)
    await let(model, 1)
    await until(lambda: len(told) == 2)
    assert {(news.row, news.tokens, news.finish) for news in told} == {(0, (2,), None), (1, (0,), "stop")}
    assert not answer.done()
    gate.release(100)
    await asyncio.gather(answer, other)
    assert [news.tokens for news in told if news.row == 0] == [(2,), (2, 1), (2, 1, 0)]


async def test_a_row_that_is_tried_again_tells_its_tokens_again(make: Callable[..., Engine]) -> None:
    engine = make(Countdown())
    told: list[Progress] = []
    good = engine.answer(ask(row(4)), follower=told.append)
    bad = engine.answer(ask(row(3, POISON_STEP)))
    (answer, _), failure = await asyncio.gather(good, bad, return_exceptions=True)  # type: ignore[misc]
    assert isinstance(failure, ComputeError)
    assert answer == counted(4)
    tokens = [news.tokens for news in told]
    assert tokens[-4:] == [(3,), (3, 2), (3, 2, 1), (3, 2, 1, 0)]


# Long texts.


async def test_a_solution_in_a_thread_does_not_hold_up_others(make: Callable[..., Engine]) -> None:
    engine = make(Countdown())
    tokenized = threading.Event()

    def long() -> Solution[list[tuple[int, ...]]]:
        tokenized.wait(5)
        outputs = yield [row(2)]
        return [output.tokens for output in outputs]

    slow = asyncio.ensure_future(engine.answer(long(), in_thread=True))
    assert (await engine.answer(ask(row(3))))[0] == counted(3)
    assert not slow.done()
    tokenized.set()
    assert (await slow)[0] == counted(2)


async def test_a_solution_in_a_thread_may_be_given_up(make: Callable[..., Engine]) -> None:
    engine = make(Countdown())
    tokenized = threading.Event()
    seen: list[int] = []

    def long() -> Solution[None]:
        tokenized.wait(5)
        seen.append(1)
        yield [row(2)]

    with pytest.raises(DeadlinePassed):
        await engine.answer(long(), deadline=time.monotonic() + 0.05, in_thread=True)
    tokenized.set()
    await until(lambda: seen == [1])
    assert engine.running_rows == engine.waiting_rows == 0


async def test_what_a_solution_in_a_thread_refuses_is_raised(make: Callable[..., Engine]) -> None:
    def refusing() -> Solution[None]:
        yield from ()
        raise InvalidInput("no", pointer="/inputs")

    with pytest.raises(InvalidInput, match="no"):
        await make(Countdown()).answer(refusing(), in_thread=True)


def explaining(tokens: int) -> Row:
    return Row(np.array([tokens, 0], np.int64), purpose="score")


async def test_rows_that_explain_run_beside_those_that_answer(make: Callable[..., Engine]) -> None:
    model, explainer = Countdown(slots=1), Countdown()
    model.gate = threading.Semaphore(0)
    engine = make(model, explainer=explainer)

    def explained() -> Solution[tuple[int, ...]]:
        (answer,) = yield [row(2)]
        (explanation,) = yield [explaining(3)]
        return answer.tokens + explanation.tokens

    model.gate.release(2)
    tokens, timing = await engine.answer(explained())
    assert tokens == (1, 0, 2, 1, 0)
    assert timing.generated_tokens == 2
    assert timing.explain_s > 0
    assert len(explainer.admitted) == 1
    answer = asyncio.ensure_future(engine.answer(ask(row(5))))
    await until(lambda: model.gates_entered > 2)
    assert engine.waiting_rows == 0
    model.gate.release(100)
    await answer
    assert len(explainer.admitted) == 1


async def test_no_answer_waits_for_a_step_that_explains(make: Callable[..., Engine]) -> None:
    explainer = Countdown()
    explainer.gate = threading.Semaphore(0)
    engine = make(Countdown(), explainer=explainer)
    explanation = asyncio.ensure_future(engine.answer(ask(explaining(3))))
    try:
        await until(lambda: explainer.gates_entered == 1)
        async with asyncio.timeout(10):
            assert (await engine.answer(ask(row(3))))[0] == [(2, 1, 0)]
        assert not explanation.done()
    finally:
        explainer.gate.release(3)
    await explanation


async def test_explanations_wait_while_an_answer_is_computed_and_go_on_after_it(make: Callable[..., Engine]) -> None:
    model, explainer = Countdown(), Countdown()
    model.gate = threading.Semaphore(0)
    explainer.step_s = 0.02
    engine = make(model, explainer=explainer)
    answer = asyncio.ensure_future(engine.answer(ask(row(1))))
    try:
        await until(lambda: model.gates_entered == 1)
        explanation = asyncio.ensure_future(engine.answer(ask(explaining(20))))
        await asyncio.sleep(0.5)
        assert len(explainer.stepped) <= 4
    finally:
        model.gate.release(1)
    await answer
    await explanation
    assert len(explainer.stepped) == 20


async def test_an_explanation_that_fails_leaves_answers_alone(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(), explainer=Countdown())
    with pytest.raises(ComputeError):
        await engine.answer(ask(Row(np.array([3, POISON_STEP]), purpose="score")))
    assert (await engine.answer(ask(row(3))))[0] == [(2, 1, 0)]


async def test_whoever_leaves_takes_his_explanation_along(make: Callable[..., Engine]) -> None:
    explainer = Countdown()
    explainer.gate = threading.Semaphore(0)
    engine = make(Countdown(), explainer=explainer)
    leaving = asyncio.ensure_future(engine.answer(ask(explaining(50))))
    await until(lambda: bool(explainer.admitted))
    leaving.cancel()
    explainer.gate.release(100)
    await until(lambda: bool(explainer.dropped))
    await engine.drain()
