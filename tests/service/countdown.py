"""A small model that computes for real: it counts down, one token a step, in slots; and what tests do with it.

The engine is generic, so the model may be simple; what matters is when rows join, leave, fail and are dropped.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry

from models.task import Cost, Event, Row, RowId, Solution
from service.admission import Limits

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
