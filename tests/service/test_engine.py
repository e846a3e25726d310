"""The engine with a small model that computes for real: it counts down, one token a step, in slots.

The engine is generic, so the model may be simple; what matters is when rows join, leave, fail and are dropped.
"""

import asyncio
import contextlib
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import ComputeError, InvalidInput, TooLarge
from models.task import Cost, Event, Output, Row, RowId, Solution
from service.admission import Limits
from service.callers import Timing
from service.engine import Engine
from service.errors import DeadlinePassed, Draining, Overloaded
from service.metrics import Metrics
from service.rows import Progress

POISON_STEP, POISON_ADMIT, HUGE = 1, 2, 3
LIMITS = Limits(waiting_rows=10_000, waiting_tokens=1_000_000)


class Countdown:
    """A row [n, mark] brings the tokens n-1 … 0, one a step. Its mark may make the model raise.

    With a gate, a step waits for a permit, so that a test decides how far the model gets.
    """

    def __init__(self, slots: int = 32) -> None:
        self.slots = slots
        self.padding_tokens = 0
        self.left: dict[RowId, int] = {}
        self.marks: dict[RowId, int] = {}
        self.admitted: list[list[RowId]] = []
        self.stepped: list[int] = []
        self.dropped: list[RowId] = []
        self.gate: threading.Semaphore | None = None
        self.gates_entered = 0
        self.step_s = 0.0

    def cost(self, row: Row) -> Cost:
        return Cost(self.slots + 1 if row.tokens[1] == HUGE else 1, len(row.tokens))

    def room(self) -> Cost:
        return Cost(self.slots - len(self.left), 10_000)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        self.admitted.append(list(rows))
        for id_, row in rows.items():
            self.left[id_], self.marks[id_] = int(row.tokens[0]), int(row.tokens[1])
        if POISON_ADMIT in self.marks.values():
            raise ValueError("secret detail of the model")
        assert len(self.left) <= self.slots

    def step(self) -> Sequence[Event]:
        assert self.left, "a step without rows"
        if self.gate is not None:
            self.gates_entered += 1
            self.gate.acquire()
        time.sleep(self.step_s)
        if any(self.marks[id_] == POISON_STEP and left == 1 for id_, left in self.left.items()):
            raise ValueError("secret detail of the model")
        self.stepped.append(len(self.left))
        events = []
        for id_ in list(self.left):
            self.left[id_] -= 1
            left = self.left[id_]
            events.append(Event(id_, (left,), finish=None if left else "stop"))
            if not left:
                del self.left[id_], self.marks[id_]
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        for id_ in ids:
            self.dropped.append(id_)
            self.left.pop(id_, None)
            self.marks.pop(id_, None)

    def reset(self) -> None:
        self.left.clear()
        self.marks.clear()


def row(steps: int, mark: int = 0) -> Row:
    return Row(np.array([steps, mark], np.int64))


def counted(*steps: int) -> list[tuple[int, ...]]:
    return [tuple(range(n - 1, -1, -1)) for n in steps]


def ask(*rows: Row, closed: list[bool] | None = None) -> Solution[list[tuple[int, ...]]]:
    """One yield, and the tokens of its rows as the response."""
    try:
        outputs = yield rows
        return [output.tokens for output in outputs]
    finally:
        if closed is not None:
            closed.append(True)


def noting(started: list[bool]) -> Solution[None]:
    started.append(True)
    yield [row(1)]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make(registry: CollectorRegistry) -> Iterator[Callable[..., Engine]]:
    engines: list[tuple[Engine, Countdown]] = []
    metrics = Metrics(registry)

    def build(
        model: Countdown, *, limits: Limits = LIMITS, started: bool = True, explainer: Countdown | None = None
    ) -> Engine:
        engine = Engine(
            model,
            name="countdown",
            limits=limits,
            observer=metrics.observer("test", "countdown"),
            explainer=explainer or Countdown(),
        )
        engines.append((engine, model))
        if started:
            engine.start()
        return engine

    yield build
    for engine, model in engines:
        if model.gate is not None:
            model.gate.release(10_000)
        engine.stop()
        assert not engine.alive


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the thread that makes it true knows no event
            await asyncio.sleep(0.001)


def gated(slots: int = 32) -> tuple[Countdown, threading.Semaphore]:
    model = Countdown(slots)
    model.gate = threading.Semaphore(0)
    return model, model.gate


async def let(model: Countdown, steps: int) -> None:
    """Let the model do so many steps, and wait until it is inside the next one or has nothing left."""
    assert model.gate is not None
    done = len(model.stepped) + steps
    entered = model.gates_entered + steps
    model.gate.release(steps)
    await until(lambda: len(model.stepped) == done and (model.gates_entered == entered or not model.left))


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"task": "test", "model": "countdown"} | labels)


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


# Callers that go away.


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
    while engine.running_rows or engine.waiting_rows:
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
    with pytest.raises(DeadlinePassed, match=r"no answer within 0\.0\d\d s"):
        await engine.answer(ask(row(1)), deadline=time.monotonic() + 0.03)
    await let(model, 1)
    assert engine.waiting_rows == 0
    await let(model, 2)
    await neighbour

    closed: list[bool] = []
    with pytest.raises(DeadlinePassed):
        await engine.answer(ask(row(9), closed=closed), deadline=time.monotonic() + 0.03)
    assert closed == [True]
    await let(model, 1)
    await until(lambda: engine.running_rows == 0)
    assert len(model.stepped) == 4
    assert sample(registry, "heedful_rejected_total", reason="deadline") == 2


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


# A model that fails.


@pytest.mark.parametrize("mark", [POISON_STEP, POISON_ADMIT])
async def test_a_poisonous_row_fails_alone_beside_sixteen_neighbours(
    make: Callable[..., Engine], mark: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = Countdown()
    engine = make(model, started=False)
    closed: list[bool] = []
    before = [asyncio.create_task(engine.answer(ask(row(5 + i)))) for i in range(8)]
    await asyncio.sleep(0)
    poison = asyncio.create_task(engine.answer(ask(row(30), row(4, mark), row(30), closed=closed)))
    await asyncio.sleep(0)
    after = [asyncio.create_task(engine.answer(ask(row(5 + i), row(2)))) for i in range(8)]
    await asyncio.sleep(0)
    engine.start()
    with pytest.raises(ComputeError) as failed:
        await poison
    assert isinstance(failed.value.__cause__, ValueError)
    assert "secret" not in str(failed.value)
    assert "secret" in caplog.text
    assert closed == [True]
    assert [(await task)[0] for task in before] == [counted(5 + i) for i in range(8)]
    assert [(await task)[0] for task in after] == [counted(5 + i, 2) for i in range(8)]
    assert (await engine.answer(ask(row(3))))[0] == counted(3)
    assert (engine.running_rows, engine.waiting_rows) == (0, 0)
    tries = [id_ for ids in model.admitted for id_ in ids]
    assert max(map(tries.count, tries)) == 2


async def test_rows_are_tried_again_alone_and_newcomers_wait_so_long(make: Callable[..., Engine]) -> None:
    model = Countdown()
    engine = make(model, started=False)
    tasks = [asyncio.create_task(engine.answer(ask(row(3, mark)))) for mark in (0, POISON_ADMIT, 0)]
    await asyncio.sleep(0)
    model.step_s = 0.005
    engine.start()
    await until(lambda: len(model.admitted) == 2)
    newcomer = asyncio.create_task(engine.answer(ask(row(3))))
    results = await asyncio.gather(*tasks, newcomer, return_exceptions=True)
    assert [type(result) for result in results] == [tuple, ComputeError, tuple, tuple]
    assert model.admitted == [[0, 1, 2], [0], [1], [2], [3]]


async def test_a_failure_that_does_not_come_back_fails_nobody(make: Callable[..., Engine]) -> None:
    class Hiccup(Countdown):
        def step(self) -> Sequence[Event]:
            if len(self.stepped) == 2 and len(self.admitted) == 1:
                raise MemoryError
            return super().step()

    engine = make(Hiccup(), started=False)
    tasks = [asyncio.create_task(engine.answer(ask(row(2 + i)))) for i in range(4)]
    await asyncio.sleep(0)
    engine.start()
    assert [(await task)[0] for task in tasks] == [counted(2 + i) for i in range(4)]


async def test_a_caller_that_goes_before_its_second_try_is_left_out(make: Callable[..., Engine]) -> None:
    model, gate = gated()
    engine = make(model, started=False)
    poison = asyncio.create_task(engine.answer(ask(row(1, POISON_STEP))))
    gone = asyncio.create_task(engine.answer(ask(row(9), row(9))))
    stays = asyncio.create_task(engine.answer(ask(row(2))))
    await asyncio.sleep(0)
    engine.start()
    await until(lambda: model.gates_entered == 1)
    gate.release()
    await until(lambda: model.gates_entered == 2)
    gone.cancel()
    await asyncio.wait([gone])
    gate.release(3)
    with pytest.raises(ComputeError):
        await poison
    assert (await stays)[0] == counted(2)
    assert [ids for ids in model.admitted if ids in ([1], [2])] == []
    assert engine.running_rows == 0


async def test_a_row_that_could_never_fit_fails_and_holds_up_nobody(make: Callable[..., Engine]) -> None:
    engine = make(Countdown(slots=4))
    impossible = asyncio.create_task(engine.answer(ask(row(1, HUGE))))
    others = await asyncio.gather(*(engine.answer(ask(row(2))) for _ in range(30)))
    assert all(answer == counted(2) for answer, _ in others)
    with pytest.raises(ComputeError, match="needs 5 slots, the model has 4"):
        await impossible


async def test_a_row_whose_cost_cannot_be_told_fails_alone(make: Callable[..., Engine]) -> None:
    class Pricey(Countdown):
        def cost(self, row: Row) -> Cost:
            if row.tokens[0] == 7:
                raise ValueError("secret")
            return super().cost(row)

    engine = make(Pricey())
    neighbour = asyncio.create_task(engine.answer(ask(row(20))))
    with pytest.raises(ComputeError):
        await engine.answer(ask(row(1), row(7)))
    assert (await neighbour)[0] == counted(20)
    assert engine.waiting_rows == 0


async def test_a_model_that_cannot_drop_is_reset_and_the_neighbours_never_notice(make: Callable[..., Engine]) -> None:
    class Sticky(Countdown):
        def drop(self, ids: Collection[RowId]) -> None:
            raise OSError("cannot drop")

    model = Sticky()
    model.gate = threading.Semaphore(0)
    engine = make(model)
    neighbour = asyncio.create_task(engine.answer(ask(row(4))))
    gone = asyncio.create_task(engine.answer(ask(row(50))))
    await until(lambda: engine.running_rows + engine.waiting_rows == 2)
    await let(model, 2)
    gone.cancel()
    model.gate.release(100)
    assert (await neighbour)[0] == counted(4)
    await until(lambda: engine.running_rows == 0)


class Panic(BaseException):
    """What a library's foreign code may raise."""


@pytest.mark.parametrize("method", ["room", "step"])
async def test_the_thread_outlives_whatever_the_loop_trips_over(
    make: Callable[..., Engine], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Countdown()
    engine = make(model, started=False)
    tasks = [asyncio.create_task(engine.answer(ask(row(3)))) for _ in range(3)]
    await asyncio.sleep(0)

    def panic() -> Any:
        raise Panic("secret")

    monkeypatch.setattr(model, method, panic)
    monkeypatch.setattr(model, "reset", panic)
    engine.start()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(failure) for failure in failures] == [ComputeError] * 3
    assert len(set(map(id, failures))) == 3
    assert "secret" not in str(failures[0])
    assert engine.alive
    assert (engine.running_rows, engine.waiting_rows, engine.backlog_s()) == (0, 0, 0.0)
    monkeypatch.undo()
    model.reset()
    assert (await engine.answer(ask(row(3))))[0] == counted(3)


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


# Refusing.


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
    assert sample(registry, "heedful_rejected_total", reason="overloaded") == 1
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
    assert sample(registry, "heedful_rejected_total", reason="draining") == 1


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
