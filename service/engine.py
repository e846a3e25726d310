"""The loop that lets many callers share one model: schedule → admit → step → deliver, in one thread per model."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TypeVar

from models.errors import ComputeError
from models.task import Model, Output, Row, Solution
from service import tracing
from service.admission import Limits, Pressure
from service.callers import Call, Caller, Follower, Response, Timing, advance, wake, within
from service.errors import Draining, ServiceError
from service.lanes import Lane, Share, explains
from service.metrics import Observer
from service.rows import Batch

R = TypeVar("R")

# How long `stop` waits for the thread to end its step. A step takes well under a second; one that takes longer hangs.
STOP_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class Engine:
    """Answers requests with one model, which only its thread calls.

    `answer` and `drain` may be called from several event loops at once; each loop is woken at most once per step.
    A step that never returns cannot be interrupted: callers with a deadline get `DeadlinePassed`, the others wait, and
    `stop` gives up after `STOP_TIMEOUT_S` (the thread is a daemon, so the process can end).

    Args:
        model: not to be touched by anybody else from now on.
        name: for messages, logs and the thread.
        limits: on what may wait.
        observer: the model's metrics, which tell of answers alone.
        explainer: computes the rows that explain answers, in time that answers leave.
    """

    def __init__(self, model: Model, *, name: str, limits: Limits, observer: Observer, explainer: Model) -> None:
        self._name = name
        self._observer = observer
        self._model = model
        self._answers = Lane(model, name, limits)
        self._explanations = Lane(explainer, name, limits)
        self._lanes = (self._answers, self._explanations)
        self._share = Share()
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        self._request_ids = count()

        # Shared with the callers' loops, guarded by the lock, which is never held while the model computes.
        self._lock = threading.Condition()
        self._idle_since = time.monotonic()
        self._next_row = 0
        self._accepted: dict[int, Caller] = {}  # every request that is not answered yet, with what it yielded last
        self._gone: list[int] = []
        self._drained: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._draining = False
        self._stopping = False

        observer.watch(
            running_rows=lambda: self.running_rows, waiting_rows=lambda: self.waiting_rows, backlog_s=self.backlog_s
        )

    def start(self) -> None:
        """Start the thread; requests that came earlier have waited for it."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; only `stop` ends it."""
        return self._thread.is_alive()

    @property
    def running_rows(self) -> int:
        """Rows in the model."""
        return self._answers.rows.running

    @property
    def waiting_rows(self) -> int:
        """Rows not yet admitted."""
        return self._answers.admission.waiting_rows

    def backlog_s(self) -> float:
        """Seconds until all accepted rows are done at the measured rate; 0 before the first measurement."""
        with self._lock:
            return self._answers.admission.backlog_s()

    def pressure(self) -> Pressure:
        """How much there is to do."""
        now = time.monotonic()
        with self._lock:
            idle_s = 0.0 if self._accepted else now - self._idle_since
            return Pressure(self._answers.admission.waiting_s(), self._answers.load.share(now), idle_s)

    async def answer(
        self,
        solution: Solution[R],
        *,
        deadline: float | None = None,
        follower: Follower | None = None,
        in_thread: bool = False,
    ) -> tuple[R, Timing]:
        """Run a request to its end.

        When the awaiting task is cancelled or the deadline passes, its rows leave the model before the next step.

        Args:
            solution: what a task's `solve` returned, not started; it is closed in any case.
            deadline: on the clock of `time.monotonic()`, in seconds.
            follower: is told what rows bring as soon as they do; of all that the solution yields.
            in_thread: the solution has long texts to tokenize, which would hold up the caller's loop.

        Raises:
            InvalidInput: from the solution.
            TooLarge: from the solution, or because its first rows exceed the limits on what may wait.
            Overloaded: the first rows do not fit the limits now; nothing was queued.
            Draining: after `drain` or `stop`.
            DeadlinePassed: and its rows are dropped.
            ComputeError: the model failed on one of its rows, also when that row was alone.
        """
        try:
            async with within(deadline):
                return await self._solve(solution, follower, in_thread=in_thread)
        except ServiceError as error:
            self._observer.rejected(error.reason)
            raise
        finally:
            with suppress(ValueError):  # it runs, in a thread that nobody waits for any more
                solution.close()

    async def drain(self) -> None:
        """Refuse new requests, and return when all accepted ones are answered, whatever they still yield."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._draining = True
            if not self._accepted:
                return
            waiter = loop.create_future()
            self._drained.append((loop, waiter))
        await waiter

    def stop(self) -> None:
        """End the thread after its present step, and block so long; whatever is not answered gets `Draining`."""
        with self._lock:
            self._draining = self._stopping = True
            callers = list(self._accepted.values())
            self._lock.notify()
        self._wake((caller, partial(caller.settle, self._refusal())) for caller in callers)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            _log.warning("%s: left behind a step that has not returned within %s s", self._name, STOP_TIMEOUT_S)

    # The caller's side, in the caller's event loop.

    async def _solve(self, solution: Solution[R], follower: Follower | None, *, in_thread: bool) -> tuple[R, Timing]:
        if self._draining:
            raise self._refusal()
        request = next(self._request_ids)
        timing = Timing()
        outputs: Sequence[Output] | None = None
        try:
            while True:
                advanced = await advance(solution, outputs, in_thread=in_thread)
                if isinstance(advanced, Response):
                    break
                outputs = ()
                if advanced:
                    caller = self._submit(request, advanced, follower)
                    try:
                        failure = await caller.done
                    finally:
                        tracing.record(caller.batch)
                    if failure is not None:
                        raise failure
                    outputs = [caller.batch.outputs[id_] for id_ in caller.batch.ids]
                    timing = timing.plus(caller.batch)
            self._observer.phases(queue_s=timing.queue_s, encode_s=timing.encode_s, decode_s=timing.decode_s)
            self._observer.tokens(source=timing.source_tokens, generated=timing.generated_tokens)
            if timing.first_token_s is not None:
                self._observer.generation(first_token_s=timing.first_token_s, paces_s=timing.paces_s)
            return advanced.value, timing
        finally:
            self._leave(request)

    def _submit(self, request: int, rows: Sequence[Row], follower: Follower | None) -> Caller:
        loop = asyncio.get_running_loop()
        tokens = sum(len(row.tokens) for row in rows)
        lane = self._explanations if explains(rows) else self._answers
        with self._lock:
            accepted = request in self._accepted
            if self._stopping or (self._draining and not accepted):
                raise self._refusal()
            if not accepted or lane is self._explanations:
                lane.admission.offer(len(rows), tokens)
            ids = range(self._next_row, self._next_row + len(rows))
            self._next_row = ids.stop
            batch = Batch(request, ids, rows, tokens, time.monotonic(), is_followed=follower is not None)
            caller = Caller(batch, loop, loop.create_future(), follower)
            lane.submit(batch)
            self._accepted[request] = caller
            self._lock.notify()
        return caller

    def _leave(self, request: int) -> None:
        with self._lock:
            caller = self._accepted.pop(request, None)
            if caller is not None and (caller.done.cancelled() or not caller.done.done()):
                self._gone.append(request)
                self._lock.notify()
            if self._accepted:
                return
            self._idle_since = time.monotonic()
            drained, self._drained = self._drained, []
        for loop, waiter in drained:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_release, waiter)

    def _refusal(self) -> Draining:
        with self._lock:
            retry_after_s = self._answers.admission.retry_after_s()
        return Draining(f"{self._name} is shutting down and takes no new requests", retry_after_s)

    # The model's side, in the thread.

    def _run(self) -> None:
        while True:
            try:
                if not self._turn():
                    return
            except BaseException as error:  # noqa: BLE001 - whatever it was: without the thread every caller would wait for ever
                self._fail_all(error)

    def _turn(self) -> bool:
        answers, explanations = self._answers.rows, self._explanations.rows
        with self._lock:
            while (idle_s := self._idle_s()) != 0:
                self._lock.wait(idle_s)
            if self._stopping:
                return False
            arrived = [(lane.rows, lane.take()) for lane in self._lanes]
            gone, self._gone = self._gone, []
        for rows, batches in arrived:
            for batch in batches:
                rows.enqueue(batch)
        for request in gone:
            answers.discard(request)
            explanations.discard(request)
        with self._lock:
            for lane in self._lanes:
                lane.book()
        padding_tokens = self._model.padding_tokens
        if answers and (stepped := self._iterate(self._answers)):
            self._observer.step(stepped, self._model.padding_tokens - padding_tokens)
            self._share.answered(time.monotonic())
        self._deliver()
        began_at = time.monotonic()
        if explanations and not self._share.wait_s(began_at):
            self._iterate(self._explanations)
            self._share.spent(began_at, time.monotonic())
            self._deliver()
        return True

    def _iterate(self, lane: Lane) -> int:
        """Schedule, admit and step; how many rows shared the step."""
        started_at = time.monotonic()
        joining = lane.rows.schedule()
        with self._lock:
            lane.book()
        stepped = lane.rows.iterate(joining)
        with self._lock:
            lane.book(busy_s=time.monotonic() - started_at)
        return stepped

    def _idle_s(self) -> float | None:
        """How long there is nothing to do, None for ever; under the lock."""
        if self._stopping or self._gone or self._answers.rows or any(lane.arrived for lane in self._lanes):
            return 0
        return self._share.wait_s(time.monotonic()) if self._explanations.rows else None

    def _deliver(self) -> None:
        settled, progress = [], []
        for lane in self._lanes:
            rows = lane.rows
            settled += rows.settled
            progress += rows.progress
            rows.settled, rows.progress = [], []
        if not settled and not progress:
            return
        with self._lock:
            told = [(self._accepted.get(batch.request), news) for batch, news in progress]
            done = [(self._accepted.get(batch.request), failure) for batch, failure in settled]
        calls = [(caller, partial(caller.follower, news)) for caller, news in told if caller and caller.follower]
        self._wake([*calls, *((caller, partial(caller.settle, failure)) for caller, failure in done if caller)])

    def _wake(self, calls: Iterable[tuple[Caller, Call]]) -> None:
        for caller in wake(calls):
            self._leave(caller.batch.request)

    def _fail_all(self, error: BaseException) -> None:
        _log.error("%s: all requests fail, because the loop itself failed", self._name, exc_info=error)
        with self._lock:
            callers = list(self._accepted.values())
            self._gone = []
            for lane in self._lanes:
                lane.clear()
        try:
            for lane in self._lanes:
                lane.rows.clear()
        except BaseException:  # noqa: BLE001 - see `_run`
            _log.exception("%s: the model cannot be reset", self._name)
        self._deliver()
        self._wake((caller, partial(caller.settle, _interrupted(self._name, error))) for caller in callers)


def _interrupted(name: str, error: BaseException) -> ComputeError:
    failure = ComputeError(f"{name} failed while this request was under way; it may be sent again")
    failure.__cause__ = error
    return failure


def _release(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
