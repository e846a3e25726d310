"""Who waits for the engine: how their solutions go on, how they are told, and where their time went."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from models.task import Output, Row, Solution
from service.admission import time_left_s
from service.contract import CacheResult
from service.errors import DeadlinePassed
from service.lanes import explains
from service.rows import Batch, Progress

R = TypeVar("R")

Follower = Callable[[Progress], None]
"""Is told in the caller's loop what each step brought. It must not raise: others are told after it."""

Call = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who waits for a batch: `done` is set in `loop`, to the error if there was one, and `follower` called there."""

    batch: Batch
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Exception | None]"
    follower: Follower | None

    def settle(self, failure: Exception | None) -> None:
        """The batch is done; in the caller's loop."""
        if not self.done.done():
            self.done.set_result(failure)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a request went, summed over its yields; the four add up to the time from yield to outputs.

    What an answer costs is counted apart from what its explanation does, of which only `explain_s` tells.

    Args:
        queue_s: seconds until the first of its rows was admitted.
        encode_s: seconds in `admit` with at least one of its rows.
        decode_s: the rest until the last row was done: steps, and rows that waited while others of the request ran.
        generated_tokens: over all rows, without end tokens.
        source_tokens: over all rows.
        first_token_s: seconds from the first yield that generates to the first token of any row; None without any.
        paces_s: for each row that brought tokens one by one, mean seconds from one to the next.
        cache: where the answer came from; None where no cache was asked.
        explain_s: seconds from yield to outputs of rows that explain the answer.
    """

    queue_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    generated_tokens: int = 0
    source_tokens: int = 0
    first_token_s: float | None = None
    paces_s: tuple[float, ...] = ()
    cache: CacheResult | None = None
    explain_s: float = 0.0

    def plus(self, batch: Batch) -> "Timing":
        """With a batch that is done."""
        if explains(batch.rows):
            return replace(self, explain_s=self.explain_s + batch.done_at - batch.submitted_at)
        first_token_s = self.first_token_s
        if first_token_s is None and batch.spoke_at:
            first_token_s = batch.spoke_at - batch.submitted_at
        return Timing(
            self.queue_s + batch.joined_at - batch.submitted_at,
            self.encode_s + batch.encode_s,
            self.decode_s + batch.done_at - batch.joined_at - batch.encode_s,
            self.generated_tokens + sum(len(output.tokens) for output in batch.outputs.values()),
            self.source_tokens + batch.tokens,
            first_token_s,
            (*self.paces_s, *batch.paces_s),
            explain_s=self.explain_s,
        )


@asynccontextmanager
async def within(deadline: float | None) -> AsyncGenerator[None]:
    """Cancel what is done inside when the deadline passes, a moment on the clock of `time.monotonic()`.

    Raises:
        DeadlinePassed: in its place.
    """
    left_s = time_left_s(deadline, time.monotonic())
    try:
        async with asyncio.timeout(left_s) as scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlinePassed(f"the deadline passed: no answer within {left_s:.3f} s") from error


def wake(calls: Iterable[tuple[Caller, Call]]) -> list[Caller]:
    """Make the calls in their callers' loops, in the order given.

    Returns:
        Callers whose loop is closed.
    """
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Caller, Call]]] = {}
    for caller, call in calls:
        loops.setdefault(caller.loop, []).append((caller, call))
    lost = []
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_make, [call for _, call in own])
        except RuntimeError:
            lost += [caller for caller, _ in own]
    return lost


def _make(calls: Iterable[Call]) -> None:
    for call in calls:
        call()


@dataclass(frozen=True, slots=True)
class Response(Generic[R]):
    """What a solution returned."""

    value: R


async def advance(
    solution: Solution[R], outputs: Sequence[Output] | None, *, in_thread: bool
) -> Sequence[Row] | Response[R]:
    """Send a solution its outputs, None at its start, and return what it yields or its response.

    Args:
        in_thread: it has long texts to tokenize, which would hold up the loop.
    """
    if in_thread:
        return await asyncio.to_thread(_advance, solution, outputs)
    return _advance(solution, outputs)


def _advance(solution: Solution[R], outputs: Sequence[Output] | None) -> Sequence[Row] | Response[R]:
    try:
        return next(solution) if outputs is None else solution.send(outputs)
    except StopIteration as end:  # which no thread can raise
        return Response(end.value)
