"""Replicas behind a load balancer, and their autoscaler, on a simulated clock: `loadtests.simulated` many times over.

The policy that decides how many there are is the one that serves; simulated is the time that a replica takes to start.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from loadtests.simulated import Events, Machine, Replica
from models.task import Generation, Row
from service.autoscaling import BACKLOG, IDLE, LOAD, Context
from service.errors import Overloaded

CONTROL_S = 0.5
"""Between two decisions, as `service.ray_environment` has Ray Serve's controller make them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of one row: source tokens, and tokens to be written."""

    source_tokens: int
    new_tokens: int


@dataclass(slots=True)
class Outcome:
    """What became of a request: answered at a time, refused, or neither yet."""

    asked_s: float
    answered_s: float | None = None
    is_refused: bool = False

    @property
    def latency_s(self) -> float:
        """Of an answered request."""
        if self.answered_s is None:
            raise ValueError("the request has no answer")
        return self.answered_s - self.asked_s


class Policy(Protocol):
    """How many replicas there should be, and what to remember for the next look."""

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the number of replicas changes.

    Args:
        least, most: replicas.
        start_s: from the decision until a new replica takes requests.
        report_s: how often replicas report.
        mean_s: over how many seconds their reports are averaged.
    """

    policy: Policy
    least: int
    most: int
    start_s: float
    report_s: float
    mean_s: float


@dataclass(frozen=True, slots=True)
class Count:
    """How many replicas took requests at a time, and how many there should have been."""

    at_s: float
    ready: int
    target: int


class Group:
    """Replicas behind a load balancer that gives each request to the one with the fewest, scaled or not."""

    def __init__(self, events: Events, machine: Machine, replicas: int, scaling: Scaling | None = None) -> None:
        self._events, self._machine, self._scaling = events, machine, scaling
        self._ready = [Replica(events, machine) for _ in range(replicas)]
        self._target = replicas
        self._numbers = count()
        self._reports: dict[Replica, deque[tuple[float, dict[str, float], int]]] = {}
        self._state: dict[str, Any] = {}
        self.outcomes: list[Outcome] = []
        self.counts: list[Count] = [Count(0.0, replicas, replicas)]
        if scaling is not None:
            self._report(scaling)
            self._decide(scaling)

    @property
    def backlog_s(self) -> float:
        """Seconds of work that wait, over all replicas."""
        return sum(replica.pressure()[BACKLOG] for replica in self._ready)

    def send(self, asked: Asked, then: Callable[[], None] = lambda: None) -> None:
        """A request arrives now; `then` is called when it is answered."""
        outcome = Outcome(self._events.now_s)
        self.outcomes.append(outcome)
        row = Row(np.zeros(asked.source_tokens, np.int64), generation=Generation(asked.new_tokens))

        def answered() -> None:
            outcome.answered_s = self._events.now_s
            then()

        try:
            min(self._ready, key=attrgetter("inside")).submit(next(self._numbers), row, answered)
        except Overloaded:
            outcome.is_refused = True

    def _report(self, scaling: Scaling) -> None:
        now_s = self._events.now_s
        for replica in self._ready:
            kept = self._reports.setdefault(replica, deque())
            kept.append((now_s, replica.pressure(), replica.inside))
            while kept[0][0] <= now_s - scaling.mean_s:
                kept.popleft()
        self._events.at(now_s + scaling.report_s, partial(self._report, scaling))

    def _decide(self, scaling: Scaling) -> None:
        heard = {replica: self._reports[replica] for replica in self._ready if self._reports.get(replica)}
        look = Context(
            current_num_replicas=len(self._ready),
            target_num_replicas=self._target,
            total_num_requests=sum(sum(inside for *_, inside in kept) / len(kept) for kept in heard.values()),
            aggregated_metrics={
                name: {replica: sum(told[name] for _, told, _ in kept) / len(kept) for replica, kept in heard.items()}
                for name in (BACKLOG, LOAD, IDLE)
            },
            capacity_adjusted_min_replicas=scaling.least,
            capacity_adjusted_max_replicas=scaling.most,
            policy_state=self._state,
            current_time=self._events.now_s,
        )
        decided, self._state = scaling.policy(look)
        for _ in range(self._target, decided):
            self._events.at(self._events.now_s + scaling.start_s, self._arrive)
        # What leaves answers what it has; what has not come yet when the decision falls, does not come.
        del self._ready[max(decided, scaling.least) :]
        if decided != self._target:
            self._target = decided
            self._note()
        self._events.at(self._events.now_s + CONTROL_S, partial(self._decide, scaling))

    def _arrive(self) -> None:
        if len(self._ready) < self._target:
            self._ready.append(Replica(self._events, self._machine))
            self._note()

    def _note(self) -> None:
        self.counts.append(Count(self._events.now_s, len(self._ready), self._target))


def open_loop(group: Group, events: Events, requests: Sequence[Asked], at_s: Sequence[float]) -> None:
    """Requests come at these times, whether the ones before them are answered or not."""
    coming = zip(requests, at_s, strict=True)

    def next_comes() -> None:
        for asked, time_s in coming:
            events.at(time_s, partial(come, asked))
            return

    def come(asked: Asked) -> None:
        next_comes()
        group.send(asked)

    next_comes()


def closed_loop(group: Group, events: Events, requests: Sequence[Asked], *, callers: int, pause_s: float = 0.0) -> None:
    """So many callers, each sends the next request `pause_s` after its answer, until there are none left."""
    left = deque(requests)

    def ask() -> None:
        if left:
            group.send(left.popleft(), lambda: events.at(events.now_s + pause_s, ask))

    for _ in range(callers):
        events.at(0.0, ask)
