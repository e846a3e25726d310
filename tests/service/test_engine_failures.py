"""A model that fails: every row gets a second try alone, and only what fails alone fails."""

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from models.errors import ComputeError
from models.task import Cost, Event, Row, RowId
from service.engine import Engine
from tests.service.countdown import (
    HUGE,
    POISON_ADMIT,
    POISON_STEP,
    Countdown,
    ask,
    counted,
    gated,
    let,
    row,
    until,
)


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
