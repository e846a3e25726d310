"""What lets many callers share one model: their requests go on here, and their rows wait for the workers' threads."""

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import count
from typing import TypeVar

from models.task import Model, Output, Row, Solution
from service import tracing
from service.admission import Limits, Pressure, Rate
from service.callers import Caller, Follower, Response, Timing, advance, wake, within
from service.errors import Broken, Draining, Retryable
from service.lanes import Lane, Share, Unread, explains
from service.metrics import Observer
from service.rows import Batch
from service.worker import Worker

R = TypeVar("R")

# How long `stop` waits for the thread to end its step. A step takes well under a second; one that takes longer hangs.
STOP_TIMEOUT_S = 5.0

# Of a core that both want, the operating system gives the thread of long requests a quarter beside that of the others,
# and the thread of explanations a tenth (weights 335 and 110, theirs 1,024).
LONG_NICENESS = 5
EXPLAINING_NICENESS = 10

# What comes back of more tokens is put together in a thread: to rank all spans of five long windows takes some 20 ms.
LOOP_TOKENS = 2_048

# After the loss of a device Ray Serve takes three failed health checks, 5 s apart, until it replaces the replica.
REPLACED_AFTER_S = 15


class Engine:
    """Answers requests with one model, which only its workers' threads call.

    `answer` and `drain` may be called from several event loops at once; each loop is woken at most once per step.
    A step that never returns cannot be interrupted: callers with a deadline get `DeadlinePassed`, the others wait, and
    `stop` gives up after `STOP_TIMEOUT_S`.

    Where the model is a single pass, a request of more tokens than any one text may have goes to a second thread. It
    would keep others waiting for passes that cannot be interrupted; so the operating system shares the processor
    between the two instead, most of it for the short ones. Rows that explain an answer have such a thread too, in which
    they compute for a small share of the time while there are answers to compute.

    Args:
        model: not to be touched by anybody else from now on.
        name: for messages, logs and the threads.
        limits: on what may wait; long requests have the same of their own.
        observer: the model's metrics, which tell of answers alone.
        explainer: computes the rows that explain answers, beside the model.
        long: the model once more, likewise.
        long_tokens: requests of more tokens go to `long`.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        limits: Limits,
        observer: Observer,
        explainer: Model,
        long: Model | None = None,
        long_tokens: int = 0,
    ) -> None:
        self._name = name
        self._observer = observer
        self._long_tokens = long_tokens
        self._request_ids = count()

        # Shared with the callers' loops, guarded by the lock, which is never held while the model computes.
        self._lock = threading.RLock()
        self._idle_since = time.monotonic()
        self._next_row = 0
        self._accepted: dict[int, Caller] = {}  # every request that is not answered yet, with what it yielded last
        self._drained: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._draining = False
        self._stopping = False
        self._lost = False

        self._share = Share()
        worker = partial(Worker, lock=self._lock, share=self._share, leave=self._leave, lose=self._lose)
        self._worker = worker(name, Lane(model, name, limits), observer=observer)
        self._long = None
        if long is not None:
            lane = Lane(long, name, limits)
            self._long = worker(f"{name}-long", lane, observer=observer, niceness=LONG_NICENESS)
        lane = Lane(explainer, name, limits)
        self._explaining = worker(
            f"{name}-explaining", lane, observer=None, explains=True, niceness=EXPLAINING_NICENESS
        )
        self._answering = [self._worker] if self._long is None else [self._worker, self._long]
        self._workers = [*self._answering, self._explaining]
        self._unread = Unread([worker.lane for worker in self._answering], self._lock)
        observer.watch(
            running_rows=lambda: self.running_rows, waiting_rows=lambda: self.waiting_rows, backlog_s=self.backlog_s
        )

    def start(self) -> None:
        """Start the threads; requests that came earlier have waited for them."""
        for worker in self._workers:
            worker.start()

    @property
    def alive(self) -> bool:
        """Whether the threads run; `stop` ends them, and the loss of the device that they compute on."""
        return all(worker.alive for worker in self._workers)

    @property
    def running_rows(self) -> int:
        """Rows in the model."""
        return sum(worker.lane.rows.running for worker in self._answering)

    @property
    def waiting_rows(self) -> int:
        """Rows not yet admitted."""
        return sum(worker.lane.admission.waiting_rows for worker in self._answering)

    def backlog_s(self) -> float:
        """Seconds until all accepted rows are done at the measured rate; 0 before the first measurement."""
        with self._lock:
            return max(worker.lane.admission.backlog_s() for worker in self._answering)

    def pressure(self) -> Pressure:
        """How much there is to do."""
        now = time.monotonic()
        with self._lock:
            idle_s = 0.0 if self._accepted else now - self._idle_since
            return Pressure(
                max(worker.lane.admission.waiting_s() for worker in self._answering),
                sum(worker.lane.load.share(now) for worker in self._answering),
                idle_s,
            )

    async def answer(
        self,
        solution: Solution[R],
        *,
        deadline: float | None = None,
        follower: Follower | None = None,
        in_thread: bool = False,
        explained: bool = False,
    ) -> tuple[R, Timing]:
        """Run a request to its end.

        When the awaiting task is cancelled or the deadline passes, its rows leave the model before the next step.

        Args:
            solution: what a task's `solve` returned, not started; it is closed in any case.
            deadline: on the clock of `time.monotonic()`, in seconds.
            follower: is told what rows bring as soon as they do; of all that the solution yields.
            in_thread: the solution has long texts to tokenize, which would hold up the caller's loop; a few texts may
                make many rows, so from there on their tokens decide too.
            explained: it yields rows that explain the answer once that is computed.

        Raises:
            InvalidInput: from the solution.
            TooLarge: from the solution, or because its first rows exceed the limits on what may wait.
            Overloaded: the first rows do not fit the limits now, or with `in_thread` no row would, or with `explained`
                none that explains; nothing was queued. Or as many of these have come to wait since.
            Draining: after `drain` or `stop`.
            Broken: the device was lost, now or before.
            DeadlinePassed: and its rows are dropped.
            ComputeError: the model failed on one of its rows, also when that row was alone.
        """
        try:
            async with within(deadline):
                return await self._solve(solution, follower, in_thread=in_thread, explained=explained)
        finally:
            with suppress(ValueError):  # it runs, in a thread that nobody waits for any more
                solution.close()

    def forget_rate(self) -> None:
        """What has been measured so far does not count, nor what is computed from it: backlogs and `Retry-After`."""
        with self._lock:
            for worker in self._answering:
                worker.lane.admission.rate = Rate()

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
        """End the threads after their present step, and block so long; whatever is not answered gets `Draining`."""
        stop_all([self])

    def join(self, give_up: float) -> None:
        """Wait for the end of the threads, at most until a moment on the clock of `time.monotonic()`."""
        for worker in self._workers:
            worker.join(max(0.0, give_up - time.monotonic()))

    def _lose(self) -> None:
        """End all threads for good: whoever asks for our health then has the process replaced."""
        self._lost = True
        self._observer.lost()
        self.end()

    def end(self) -> None:
        """Let the threads end after their present step; whatever is not answered gets `Draining` now."""
        with self._lock:
            self._draining = self._stopping = True
            callers = list(self._accepted.values())
            for worker in self._workers:
                worker.stop()
        for lost in wake((caller, partial(caller.settle, self._refusal())) for caller in callers):
            self._leave(lost.batch.request)

    # The caller's side, in the caller's event loop.

    async def _solve(
        self, solution: Solution[R], follower: Follower | None, *, in_thread: bool, explained: bool
    ) -> tuple[R, Timing]:
        if self._draining:
            raise self._refusal()
        if explained:
            with self._lock:
                self._explaining.lane.admission.knock(0)
        request = next(self._request_ids)
        timing = Timing()
        outputs: Sequence[Output] | None = None
        was_explained = False
        try:
            while True:
                began_at = time.monotonic()
                with self._unread.one_more() if in_thread and outputs is None else nullcontext():
                    advanced = await advance(solution, outputs, in_thread=in_thread)
                if was_explained:
                    with self._lock:
                        self._share.spent(began_at, time.monotonic())
                if isinstance(advanced, Response):
                    break
                outputs = ()
                if advanced:
                    caller = self._submit(request, advanced, follower)
                    in_thread = in_thread or caller.batch.tokens > LOOP_TOKENS
                    try:
                        failure = await caller.done
                    finally:
                        tracing.record(caller.batch)
                    if failure is not None:
                        raise failure
                    outputs = [caller.batch.outputs[id_] for id_ in caller.batch.ids]
                    timing = timing.plus(caller.batch)
                    was_explained = explains(advanced)
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
        worker = self._worker
        if explains(rows):
            worker = self._explaining
        elif self._long is not None and tokens > self._long_tokens:
            worker = self._long
        with self._lock:
            accepted = request in self._accepted
            if self._stopping or (self._draining and not accepted):
                raise self._refusal()
            if explains(rows):
                worker.lane.admission.knock(0)  # it cannot be sent in parts, and has bounds of its own
            elif not accepted:
                worker.lane.admission.offer(len(rows), tokens)
            ids = range(self._next_row, self._next_row + len(rows))
            self._next_row = ids.stop
            batch = Batch(request, ids, rows, tokens, time.monotonic(), is_followed=follower is not None)
            caller = Caller(batch, loop, loop.create_future(), follower)
            worker.submit(caller)
            self._accepted[request] = caller
        return caller

    def _leave(self, request: int) -> None:
        with self._lock:
            caller = self._accepted.pop(request, None)
            if caller is not None and (caller.done.cancelled() or not caller.done.done()):
                for worker in self._workers:
                    worker.discard(request)
            if self._accepted:
                return
            self._idle_since = time.monotonic()
            drained, self._drained = self._drained, []
        for loop, waiter in drained:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_release, waiter)

    def _refusal(self) -> Retryable:
        if self._lost:
            return Broken(f"{self._name} has lost the device that it computes on", REPLACED_AFTER_S)
        with self._lock:
            retry_after_s = max(worker.lane.admission.retry_after_s() for worker in self._answering)
        return Draining(f"{self._name} is shutting down and takes no new requests", retry_after_s)


def stop_all(engines: Iterable[Engine]) -> None:
    """Stop several as `Engine.stop` does one, in the time of one: nobody's refusal waits for another's step."""
    engines = list(engines)
    for engine in engines:
        engine.end()
    give_up = time.monotonic() + STOP_TIMEOUT_S
    for engine in engines:
        engine.join(give_up)


def _release(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
