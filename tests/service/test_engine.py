"""The engine with a small model that computes for real: who joins when, what everybody gets, and what is reported."""

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.task import Event, Output, Solution
from service.callers import Timing
from service.engine import Engine
from service.errors import DeadlinePassed
from tests.service.countdown import (
    Countdown,
    ask,
    counted,
    gated,
    let,
    row,
    sample,
    until,
)

# Answers.


async def test_each_caller_gets_its_own_rows_in_its_own_order(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(slots=5))
    wanted = [[1 + (i * 7 + j * 5) % 13 for j in range(1 + i % 4)] for i in range(40)]
    answers = await asyncio.gather(*(engine.answer(ask(*map(row, steps))) for steps in wanted))
    assert [answer for answer, _ in answers] == [counted(*steps) for steps in wanted]
    assert engine.running_rows == engine.waiting_rows == 0


async def test_a_solution_gets_the_outputs_of_each_yield_before_the_next(make: Callable[..., Engine]) -> None:
    def chain() -> Solution[list[int]]:
        lengths = []
        steps = 4
        while steps:
            outputs = yield [row(steps), row(1)]
            nothing = yield []
            assert list(nothing) == []
            lengths.append(len(outputs[0].tokens))
            steps = outputs[0].tokens[0]
        return lengths

    lengths, timing = await make(Countdown()).answer(chain())
    assert lengths == [4, 3, 2, 1]
    assert timing.generated_tokens == 4 + 3 + 2 + 1 + 4
    assert timing.source_tokens == 4 * 2 * 2


async def test_a_solution_without_rows_needs_no_model(make: Callable[..., Engine]) -> None:
    def nothing() -> Solution[str]:
        yield from ()
        return "popular"

    engine = make(Countdown(), started=False)
    assert await engine.answer(nothing()) == ("popular", Timing())


async def test_arrays_and_finish_reach_the_solution(make: Callable[..., Engine]) -> None:
    class Scores(Countdown):
        def step(self) -> Sequence[Event]:
            ids, self.left = list(self.left), {}
            return [Event(id_, arrays={"start": np.array([id_, 1], np.float32)}, finish="length") for id_ in ids]

    def score() -> Solution[Sequence[Output]]:
        return (yield [row(1), row(1)])

    outputs, _ = await make(Scores()).answer(score())
    assert [(o.tokens, o.finish, o.arrays["start"].tolist()) for o in outputs] == [
        ((), "length", [0.0, 1.0]),
        ((), "length", [1.0, 1.0]),
    ]


async def test_the_phases_add_up_to_the_time_with_the_engine(make: Callable[..., Engine]) -> None:
    model = Countdown(slots=1)
    model.step_s = 0.01
    engine = make(model, started=False)
    began = time.monotonic()
    first = asyncio.create_task(engine.answer(ask(row(10))))
    second = asyncio.create_task(engine.answer(ask(row(5), row(6))))
    await asyncio.sleep(0)
    engine.start()
    await first
    _, timing = await second
    took_s = time.monotonic() - began
    assert timing.queue_s >= 0.1
    assert timing.decode_s >= 0.11  # its second row waits while its first one runs, so the request does not queue
    assert 0.21 <= timing.queue_s + timing.encode_s + timing.decode_s <= took_s


# Joining and leaving.


async def test_a_row_joins_while_others_run_and_leaves_before_them(make: Callable[..., Engine]) -> None:
    model, _ = gated()
    engine = make(model)
    long = asyncio.create_task(engine.answer(ask(row(10))))
    await until(lambda: model.gates_entered == 1)
    await let(model, 3)
    short = asyncio.create_task(engine.answer(ask(row(2))))
    await until(lambda: engine.waiting_rows == 1)
    await let(model, 3)
    assert (await short)[0] == counted(2)
    assert model.stepped == [1, 1, 1, 1, 2, 2]
    assert not long.done()
    await let(model, 4)
    assert (await long)[0] == counted(10)


async def test_one_row_does_not_wait_for_a_thousand_of_another_caller(make: Callable[..., Engine]) -> None:
    model = Countdown(slots=4)
    engine = make(model, started=False)
    many = asyncio.create_task(engine.answer(ask(*[row(2)] * 1000)))
    await asyncio.sleep(0)
    steps_at_end: list[int] = []

    async def one() -> None:
        await engine.answer(ask(row(2)))
        steps_at_end.append(next(i for i, ids in enumerate(model.admitted) if 1000 in ids))

    single = asyncio.create_task(one())
    await asyncio.sleep(0)
    engine.start()
    await asyncio.gather(many, single)
    assert steps_at_end == [0]
    assert len(model.stepped) == 502  # 1001 rows of 2 steps in 4 slots


# Several event loops.


def test_callers_in_several_event_loops_are_woken_once_a_step(make: Callable[..., Engine]) -> None:
    model, gate = gated(slots=64)
    engine = make(model, started=False)
    woken = [0, 0]
    barrier = threading.Barrier(3)

    async def callers(index: int) -> list[Any]:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counting(*args: Any, **kwargs: Any) -> Any:
            woken[index] += 1
            return wake(*args, **kwargs)

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign, assignment]
        tasks = [asyncio.create_task(engine.answer(ask(row(2), row(3)))) for _ in range(8)]
        tasks += [asyncio.create_task(engine.answer(ask(row(1)))) for _ in range(8)]
        await asyncio.sleep(0)
        barrier.wait(5)
        return [answer for answer, _ in await asyncio.gather(*tasks)]

    answers: list[list[Any]] = [[], []]

    def run(index: int) -> None:
        answers[index] = asyncio.run(callers(index))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait(5)
    engine.start()
    gate.release(3)
    for thread in threads:
        thread.join(5)
    assert answers == [[counted(2, 3)] * 8 + [counted(1)] * 8] * 2
    assert model.stepped == [48, 32, 16]
    assert woken == [2, 2]  # after the first step and after the third


def test_a_loop_that_was_closed_midway_holds_up_nobody(
    make: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")  # "Task was destroyed but it is pending" is the point here
    model, gate = gated()
    engine = make(model)
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(engine.answer(ask(row(2))))
    loop.run_until_complete(until(lambda: engine.running_rows == 1))
    loop.close()

    async def other() -> None:
        answer = asyncio.create_task(engine.answer(ask(row(5))))
        await asyncio.sleep(0)
        gate.release(100)
        assert (await answer)[0] == counted(5)
        await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(other())
    assert engine.alive
    assert not abandoned.done()
    del abandoned
    gc.collect()  # here rather than in another test


# Metrics.


async def test_the_engine_reports_what_it_did(make: Callable[..., Engine], registry: CollectorRegistry) -> None:
    model, gate = gated(slots=2)
    engine = make(model)
    task = asyncio.create_task(engine.answer(ask(row(1), row(3), row(3))))
    await until(lambda: model.gates_entered == 1)
    assert sample(registry, "heedful_running_rows") == 2
    assert sample(registry, "heedful_waiting_rows") == 1
    gate.release(10)
    _, timing = await task
    assert sample(registry, "heedful_step_rows_count") == 4
    assert sample(registry, "heedful_step_rows_sum") == 7
    assert sample(registry, "heedful_tokens_total", direction="source") == 6
    assert sample(registry, "heedful_tokens_total", direction="generated") == 7
    assert sample(registry, "heedful_phase_duration_seconds_sum", phase="decode") == pytest.approx(timing.decode_s)
    with contextlib.suppress(DeadlinePassed):
        await engine.answer(ask(row(1)), deadline=0.0)
    assert sample(registry, "heedful_phase_duration_seconds_count", phase="queue") == 1


# How soon and how fast.


async def test_a_request_says_how_soon_its_first_token_came_and_how_fast_the_others(
    make: Callable[..., Engine], registry: CollectorRegistry
) -> None:
    model, gate = gated()
    engine = make(model)
    answer = asyncio.ensure_future(engine.answer(ask(row(4), row(1))))
    await until(lambda: model.gates_entered == 1)
    await let(model, 1)
    await asyncio.sleep(0.05)
    gate.release(100)
    _, timing = await answer
    assert timing.first_token_s is not None
    assert timing.first_token_s < timing.queue_s + timing.encode_s + timing.decode_s - 0.05
    (pace_s,) = timing.paces_s  # the row of one token has none
    assert pace_s >= 0.05 / 3
    assert sample(registry, "heedful_time_to_first_token_seconds_count") == 1
    assert sample(registry, "heedful_time_per_output_token_seconds_sum") == pytest.approx(pace_s)


async def test_rows_without_tokens_have_neither(make: Callable[..., Engine], registry: CollectorRegistry) -> None:
    class Forward(Countdown):
        def step(self) -> Sequence[Event]:
            done = [Event(id_, finish="stop") for id_ in self.left]
            self.left.clear()
            return done

    _, timing = await make(Forward()).answer(ask(row(1)))
    assert (timing.first_token_s, timing.paces_s) == (None, ())
    assert sample(registry, "heedful_time_to_first_token_seconds_count") == 0
