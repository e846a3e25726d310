"""A model's lanes, such as rows that answer and rows that explain an answer, and how much time the latter may take."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from models.task import Model, Row
from service.admission import Admission, Change, Limits, Load
from service.errors import Overloaded
from service.rows import Batch, Rows

SHARE = 0.05
"""Of the time that explanations get while there are answers to compute, so that these come hardly later."""

QUIET_S = 0.1
"""When no answer has been computed for so long, explanations get all the time."""

MOST_CREDIT_S = 0.02
"""What unused time adds up to at most: a step or two."""

MOST_DEBT_S = 0.5
"""What they owe at most, a pause of ten seconds: the clock that they are charged by also counts what others did."""


class Lane:
    """Rows of one kind with the books on what waits. Only its worker's thread touches `rows`, but for counting.

    `admission`, `load` and `arrived` are shared with the callers' loops and guarded by the engine's lock.
    """

    def __init__(self, model: Model, name: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = Rows(model, name, clock)
        self.admission = Admission(limits)
        self.load = Load(clock())
        self._clock = clock
        self.arrived: list[Batch] = []

    def submit(self, batch: Batch) -> None:
        """The batch begins to wait; under the lock."""
        self.admission.book(Change(waiting_rows=len(batch.rows), waiting_tokens=batch.tokens))
        self.arrived.append(batch)

    def take(self) -> Sequence[Batch]:
        """What has arrived; under the lock."""
        arrived, self.arrived = self.arrived, []
        return arrived

    def book(self, busy_s: float | None = None) -> None:
        """Bring the books up to date; under the lock.

        Args:
            busy_s: the iteration that is over took so long; None while it is under way.
        """
        self.admission.book(self.rows.change)
        self.rows.change = Change()
        if busy_s is not None:
            rate = self.admission.rate
            rate.measure(self.rows.finished_tokens, busy_s)
            self.load.measure(self.rows.finished_tokens, busy_s, rate.capacity_tokens_per_s, self._clock())
            self.rows.finished_tokens = 0

    def clear(self) -> None:
        """Nothing has arrived, waits or runs; under the lock. `Rows.clear` is the thread's."""
        self.arrived = []
        self.admission.clear()


class Unread:
    """Requests that wait for a thread in which they are tokenized, before any lane has them in its books.

    Args:
        lanes: one of them will get a request's rows.
        lock: guards their books, and ours.
    """

    def __init__(self, lanes: Sequence[Lane], lock: threading.RLock) -> None:
        self._lanes, self._lock = lanes, lock
        self._count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """While a request is read.

        Raises:
            Overloaded: no lane could take it, so it need not be read.
        """
        with self._lock:
            self._knock()
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def _knock(self) -> None:
        *others, last = self._lanes
        for lane in others:
            with suppress(Overloaded):
                lane.admission.knock(self._count)
                return
        last.admission.knock(self._count)


def explains(rows: Sequence[Row]) -> bool:
    """Whether rows that are yielded together explain an answer."""
    return bool(rows) and rows[0].purpose != "answer"


class Share:
    """When explanations may compute: pure, so that tests need no clock. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._credit_s = 0.0
        self._counted_until = self._answered_at = float("-inf")
        self._answering = 0

    def answering(self, now: float) -> None:
        """An iteration with answers begins."""
        self._earn(now)
        self._answering += 1

    def answered(self, now: float) -> None:
        """It is over."""
        self._earn(now)
        self._answering -= 1
        self._answered_at = now

    def spent(self, began: float, now: float) -> None:
        """From `began` to `now` a step of explanations was computed, or what its answer tells was made of them."""
        self._earn(now)
        if self._answering or began - self._answered_at < QUIET_S:
            self._credit_s = max(self._credit_s - (now - began), -MOST_DEBT_S)

    def wait_s(self, now: float) -> float:
        """Seconds until it is worth to ask again; 0 when explanations may compute."""
        quiet_s = QUIET_S if self._answering else self._answered_at + QUIET_S - now
        self._earn(now)
        return max(0.0, min(quiet_s, -self._credit_s / SHARE))

    def _earn(self, now: float) -> None:
        earned_s = SHARE * (now - max(self._counted_until, now - MOST_CREDIT_S / SHARE))
        self._credit_s = min(MOST_CREDIT_S, self._credit_s + earned_s)
        self._counted_until = now
