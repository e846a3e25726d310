"""What may wait, for how long, and when a refused caller should come back: pure, so that tests need no clock."""

import math
from dataclasses import dataclass

from models.errors import TooLarge
from service.errors import DeadlinePassed, Overloaded

# Busy seconds after which a measurement counts 1/e. Long enough to average over some hundred steps, short enough that a
# change of load shows within the few seconds that a refused caller is asked to wait.
RATE_MEMORY_S = 10.0
# What counts as capacity is the best rate of late: it falls to 1/e within so many busy seconds, since texts change.
CAPACITY_MEMORY_S = 600.0
# Busy seconds before a rate can count as capacity; the first few steps are no measure.
CAPACITY_AFTER_S = 1.0
# Over how many seconds the load is averaged.
LOAD_MEMORY_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait for one model before new requests are refused.

    Args:
        waiting_rows: rows not yet admitted.
        waiting_tokens: source tokens of those rows.
    """

    waiting_rows: int
    waiting_tokens: int


@dataclass(slots=True)
class Change:
    """By how much the rows and source tokens that wait or run have grown; negative when they have become fewer."""

    waiting_rows: int = 0
    waiting_tokens: int = 0
    running_tokens: int = 0


class Rate:
    """Source tokens finished per busy second, exponentially weighted over busy time.

    Both sums fade alike, so that already the first measurement gives an unbiased rate. Idle time does not lower it.
    """

    def __init__(self) -> None:
        self._tokens = 0.0
        self._busy_s = 0.0
        self._capacity = 0.0

    def measure(self, tokens: int, busy_s: float) -> None:
        """An iteration took `busy_s` seconds and finished rows of `tokens` source tokens together, often none."""
        fade = math.exp(-busy_s / RATE_MEMORY_S)
        self._tokens = self._tokens * fade + tokens
        self._busy_s = self._busy_s * fade + busy_s
        if self._busy_s >= CAPACITY_AFTER_S:
            kept = self._capacity * math.exp(-busy_s / CAPACITY_MEMORY_S)
            self._capacity = max(kept, self._tokens / self._busy_s)

    @property
    def tokens_per_s(self) -> float | None:
        """None before the first row has finished."""
        return self._tokens / self._busy_s if self._tokens > 0 and self._busy_s > 0 else None

    @property
    def capacity_tokens_per_s(self) -> float | None:
        """The best rate of late: that of a model whose steps were full. None before a second of work."""
        return self._capacity or None


class Load:
    """Which share of a model's capacity was used of late, by the clock; idle time lowers it."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._share = 0.0

    def measure(self, tokens: int, busy_s: float, capacity_tokens_per_s: float | None, now: float) -> None:
        """An iteration that has just ended took `busy_s` seconds and finished rows of `tokens` source tokens together.

        While no capacity is known, busy time counts whole, as if every step had been full.
        """
        used_s = busy_s if capacity_tokens_per_s is None else tokens / capacity_tokens_per_s
        self._share = self.share(now) + used_s / LOAD_MEMORY_S
        self._at = now

    def share(self, now: float) -> float:
        """The load at `now`; 1 is all that the model can do."""
        return self._share * math.exp(-(now - self._at) / LOAD_MEMORY_S)


@dataclass(frozen=True, slots=True)
class Pressure:
    """How much a model has to do.

    Args:
        backlog_s: seconds of work that waits and does not run yet, at the measured rate.
        load: share of its capacity that was used of late.
        idle_s: seconds since the last request was answered; 0 while there is one.
    """

    backlog_s: float
    load: float
    idle_s: float


class Admission:
    """The books on what waits and what runs. Not thread-safe: the engine holds its lock.

    Source tokens measure the work although decoding is most of it: the rate counts the source tokens of finished rows,
    so the unknown output length cancels out of backlog ÷ rate.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.rate = Rate()
        self.waiting_rows = 0
        self.waiting_tokens = 0
        self.running_tokens = 0

    def offer(self, rows: int, tokens: int) -> None:
        """Check whether a new request may wait with its first rows; `book` it then.

        Raises:
            TooLarge: the request exceeds the limits even when nothing else waits, so coming back later would not help.
            Overloaded: it would exceed them now.
        """
        limits = self.limits
        for unit, asked, waiting, limit in (
            ("rows", rows, self.waiting_rows, limits.waiting_rows),
            ("tokens", tokens, self.waiting_tokens, limits.waiting_tokens),
        ):
            if asked > limit:
                raise TooLarge(
                    f"the request makes {asked} {unit}, at most {limit} may wait; send it in parts", pointer=""
                )
            if waiting + asked > limit:
                detail = f"{waiting} {unit} wait already and the request adds {asked}, at most {limit} may wait"
                raise Overloaded(detail, self.retry_after_s())

    def knock(self, unread: int) -> None:
        """Check whether more may wait, a row and a token at least: of a request of which it is not known yet what it
        adds, or of an explanation, which is let in whole.

        Args:
            unread: requests before it of which that is not known either.

        Raises:
            Overloaded: not even so much more may wait.
        """
        limits = self.limits
        for unit, waiting, limit in (
            ("rows", self.waiting_rows, limits.waiting_rows),
            ("tokens", self.waiting_tokens, limits.waiting_tokens),
        ):
            if waiting + unread >= limit:
                detail = f"{waiting} {unit} and {unread} unread requests wait already, at most {limit} {unit} may wait"
                raise Overloaded(detail, self.retry_after_s())

    def book(self, change: Change) -> None:
        """Rows came, moved from the queue into the model, or left."""
        self.waiting_rows += change.waiting_rows
        self.waiting_tokens += change.waiting_tokens
        self.running_tokens += change.running_tokens

    def clear(self) -> None:
        """Nothing waits or runs any more; what was learned about the rate stays."""
        self.waiting_rows = self.waiting_tokens = self.running_tokens = 0

    def backlog_s(self) -> float:
        """Seconds until all that waits and runs is done at the measured rate; 0 while there is no measurement."""
        rate = self.rate.tokens_per_s
        return 0.0 if rate is None else (self.waiting_tokens + self.running_tokens) / rate

    def waiting_s(self) -> float:
        """Seconds of work that waits and does not run yet, at the measured rate; 0 while there is no measurement."""
        rate = self.rate.tokens_per_s
        return 0.0 if rate is None else self.waiting_tokens / rate

    def retry_after_s(self) -> int:
        """The backlog in whole seconds, at least 1."""
        return max(1, math.ceil(self.backlog_s()))


def time_left_s(deadline: float | None, now: float) -> float | None:
    """Seconds until the deadline on the clock of `now`; None when there is none.

    Raises:
        DeadlinePassed: none are left.
    """
    if deadline is None:
        return None
    if deadline <= now:
        raise DeadlinePassed(f"the deadline passed {now - deadline:.3f} s before the request was looked at")
    return deadline - now
