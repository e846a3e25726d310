"""One replica on a simulated clock: the service's own schedule, admission and load around a model without work.

Simulated is only the time that the model takes. Nothing else takes time: neither HTTP nor the load balancer.
"""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np

from models.task import Cost, Event, Row, RowId
from service.admission import Limits
from service.autoscaling import BACKLOG, IDLE, LOAD
from service.lanes import Lane
from service.rows import Batch


class Events:
    """What is to happen, in the order of its time in seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Let this happen then; of two at the same time the one that was said first."""
        heapq.heappush(self._heap, (time_s, next(self._numbers), action))

    def run(self, until_s: float) -> None:
        """Let everything happen that is due by then."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._heap)
            action()
        self.now_s = until_s


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model takes to compute, in seconds, by measurement.

    Args:
        encode_s: of one pass, by source tokens; linear between the measured numbers and beyond the last.
        step_s: of one step, by rows; likewise.
    """

    encode_s: Mapping[int, float]
    step_s: Mapping[int, float]

    def table(self, kind: str, most: int) -> list[float]:
        """Seconds for 0 to `most` tokens or rows."""
        measured = self.encode_s if kind == "encode" else self.step_s
        known = sorted(measured)
        inner = np.interp(np.arange(most + 1), known, [measured[size] for size in known])
        if len(known) > 1 and most > known[-1]:
            slope = (measured[known[-1]] - measured[known[-2]]) / (known[-1] - known[-2])
            beyond = np.arange(known[-1], most + 1)
            inner[known[-1] :] = measured[known[-1]] + slope * (beyond - known[-1])
        return [float(seconds) for seconds in inner]


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class CostedModel:
    """A generating model that computes nothing and turns the clock by what computing would take.

    Every row writes as many tokens as it may. A row's events are only its last one, since nobody follows it.
    """

    padding_tokens = 0

    def __init__(self, costs: Costs, clock: _Clock, *, slots: int, budget_tokens: int, source_length: int) -> None:
        self._clock, self._slots, self._budget_tokens = clock, slots, budget_tokens
        self._encode_s = costs.table("encode", budget_tokens + source_length)
        self._step_s = costs.table("step", slots)
        self._running: set[RowId] = set()
        self._ending: dict[int, list[RowId]] = {}
        self._steps = 0

    def cost(self, row: Row) -> Cost:
        return Cost(slots=1, tokens=len(row.tokens))

    def room(self) -> Cost:
        return Cost(slots=self._slots - len(self._running), tokens=self._budget_tokens)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        self._clock.now_s += self._encode_s[sum(len(row.tokens) for row in rows.values())]
        self._running.update(rows)
        for id_, row in rows.items():
            new_tokens = row.generation.max_new_tokens if row.generation else 1
            self._ending.setdefault(self._steps + new_tokens, []).append(id_)

    def step(self) -> Sequence[Event]:
        self._clock.now_s += self._step_s[len(self._running)]
        self._steps += 1
        ended = [id_ for id_ in self._ending.pop(self._steps, ()) if id_ in self._running]
        self._running.difference_update(ended)
        return [Event(id_, finish="length") for id_ in ended]

    def drop(self, ids: Collection[RowId]) -> None:
        self._running.difference_update(ids)

    def reset(self) -> None:
        self._running.clear()


@dataclass(frozen=True, slots=True)
class Machine:
    """A replica's model and limits.

    Args:
        source_length: the longest source, in tokens.
    """

    costs: Costs
    limits: Limits
    slots: int = 32
    budget_tokens: int = 512
    source_length: int = 512


class Replica:
    """The engine's loop for one model: schedule, admit, step, deliver.

    Attributes:
        inside: requests that wait or run.
    """

    def __init__(self, events: Events, machine: Machine) -> None:
        self._events, self._clock = events, _Clock()
        self._clock.now_s = self._idle_since_s = events.now_s
        model = CostedModel(
            machine.costs,
            self._clock,
            slots=machine.slots,
            budget_tokens=machine.budget_tokens,
            source_length=machine.source_length,
        )
        self._lane = Lane(model, "simulated", machine.limits, self._clock)
        self._answered: dict[int, Callable[[], None]] = {}
        self._began_s: float | None = None
        self.inside = 0

    def submit(self, number: int, row: Row, answered: Callable[[], None]) -> None:
        """Take a request on.

        Raises:
            Overloaded: the limits on what may wait are reached.
        """
        tokens = len(row.tokens)
        self._lane.admission.offer(1, tokens)
        self._lane.submit(Batch(number, range(number, number + 1), (row,), tokens, self._events.now_s))
        self._answered[number] = answered
        self.inside += 1
        if self._began_s is None:
            self._begin()

    def pressure(self) -> dict[str, float]:
        """What a replica reports to the autoscaler."""
        now_s = self._events.now_s
        idle_s = 0.0 if self._answered else now_s - self._idle_since_s
        return {BACKLOG: self._lane.admission.waiting_s(), LOAD: self._lane.load.share(now_s), IDLE: idle_s}

    def _begin(self) -> None:
        lane = self._lane
        for batch in lane.take():
            lane.rows.enqueue(batch)
        lane.book()
        if not lane.rows:
            self._began_s, self._idle_since_s = None, self._events.now_s
            return
        self._began_s = self._clock.now_s = self._events.now_s
        joining = lane.rows.schedule()
        lane.book()
        lane.rows.iterate(joining)
        self._events.at(self._clock.now_s, partial(self._end, self._began_s))

    def _end(self, began_s: float) -> None:
        self._lane.book(busy_s=self._events.now_s - began_s)
        settled, self._lane.rows.settled = self._lane.rows.settled, []
        self.inside -= len(settled)
        for batch, _ in settled:
            self._answered.pop(batch.request)()
        self._begin()
