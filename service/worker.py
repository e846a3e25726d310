"""A thread that computes what waits in its lane, schedule → admit → step → deliver; nobody else touches its model."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from models.errors import ComputeError, DeviceLost
from service.callers import Call, Caller, wake
from service.lanes import Lane, Share
from service.metrics import Observer

_log = logging.getLogger(__name__)


class Worker:
    """Serves a lane.

    What the callers' loops and the thread share is guarded by a lock of the engine's, which is never held while a model
    computes. A step that never returns cannot be interrupted; the thread is a daemon, so that the process can end.

    Args:
        name: for messages, logs and the thread.
        lane: its model is not to be touched by anybody else from now on.
        lock: guards all that is shared.
        observer: is told of every step; None where nobody counts them.
        leave: is called with the ids of requests whose caller's loop is closed.
        lose: is called when the device is lost, and ends all threads.
        niceness: how much more willingly than others the thread gives the processor away, on Linux.
        share: of the time between answers and explanations, the same for all of an engine's workers.
        explains: the lane's rows explain answers, and compute when the share lets them.
    """

    def __init__(
        self,
        name: str,
        lane: Lane,
        *,
        lock: threading.RLock,
        observer: Observer | None,
        leave: Callable[[int], None],
        lose: Callable[[], None],
        share: Share,
        explains: bool = False,
        niceness: int = 0,
    ) -> None:
        self._name, self._observer, self._niceness = name, observer, niceness
        self._share, self._explains = share, explains
        self._counted_until = time.monotonic()
        self.lane = lane
        self._leave_request, self._lose = leave, lose
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)

        self._lock = lock
        self._changed = threading.Condition(lock)
        self._callers: dict[int, Caller] = {}
        self._gone: list[int] = []
        self._stopping = False

    @property
    def alive(self) -> bool:
        """Whether the thread runs; `stop` ends it, and the loss of the device that it computes on."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; requests that came earlier have waited for it."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step; under the lock."""
        self._stopping = True
        self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait so long for the end of a thread that was started."""
        if self.alive:
            self._thread.join(timeout_s)
        if self.alive:
            _log.warning("%s: left behind a step that does not return", self._name)

    def submit(self, caller: Caller) -> None:
        """The caller's batch begins to wait; under the lock."""
        self._callers[caller.batch.request] = caller
        self.lane.submit(caller.batch)
        self._changed.notify()

    def discard(self, request: int) -> None:
        """Nobody waits for a request any more, if ever it was here; under the lock."""
        if self._callers.pop(request, None) is not None:
            self._gone.append(request)
            self._changed.notify()

    def _run(self) -> None:
        if self._niceness and sys.platform == "linux":  # elsewhere it would be the whole process
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self._niceness)
        while True:
            try:
                if not self._turn():
                    return
            except DeviceLost:
                _log.critical("%s: the engine ends, its process must be replaced", self._name, exc_info=True)
                self._deliver()
                self._lose()
                return
            except BaseException as error:  # noqa: BLE001 - whatever it was: without the thread every caller would wait for ever
                self._fail_all(error)

    def _turn(self) -> bool:
        """Whether there may be another."""
        rows = self.lane.rows
        was_idle = not rows
        with self._lock:
            while (idle_s := self._idle_s()) != 0:
                self._changed.wait(idle_s)
            if self._stopping:
                return False
            arrived = self.lane.take()
            gone, self._gone = self._gone, []
        for batch in arrived:
            rows.enqueue(batch)
        for request in gone:
            rows.discard(request)
        if was_idle:
            self._counted_until = time.monotonic()
        with self._lock:
            self.lane.book()
            may_compute = bool(rows) and not self._paused_s()
        if may_compute:
            self._iterate()
        self._deliver()
        return True

    def _idle_s(self) -> float | None:
        """How long there is nothing to do, None for ever; under the lock."""
        if self._stopping or self._gone or self.lane.arrived:
            return 0
        return self._paused_s() if self.lane.rows else None

    def _paused_s(self) -> float:
        """How long what waits may not compute; under the lock."""
        return self._share.wait_s(time.monotonic()) if self._explains else 0

    def _iterate(self) -> None:
        rows, started_at = self.lane.rows, time.monotonic()
        padding_tokens = rows.padding_tokens
        joining = rows.schedule()
        with self._lock:
            self.lane.book()
            if not self._explains:
                self._share.answering(started_at)
        try:
            stepped = rows.iterate(joining)
        finally:
            ended_at = time.monotonic()
            with self._lock:
                if self._explains:
                    self._share.spent(started_at, ended_at)
                else:
                    self._share.answered(ended_at)
        # Of rows that compute for a share of the time alone, their pauses decide when they are done.
        began_at, self._counted_until = self._counted_until if self._explains else started_at, ended_at
        with self._lock:
            self.lane.book(busy_s=ended_at - began_at)
        if stepped and self._observer is not None:
            self._observer.step(stepped, rows.padding_tokens - padding_tokens)

    def _deliver(self) -> None:
        rows = self.lane.rows
        settled, rows.settled = rows.settled, []
        progress, rows.progress = rows.progress, []
        if not settled and not progress:
            return
        with self._lock:
            told = [(self._callers.get(batch.request), news) for batch, news in progress]
            done = [(caller, failure) for batch, failure in settled if (caller := self._callers.get(batch.request))]
        calls = [(caller, partial(caller.follower, news)) for caller, news in told if caller and caller.follower]
        self._wake([*calls, *((caller, partial(caller.settle, failure)) for caller, failure in done)])
        self._forget(caller for caller, _ in done)

    def _wake(self, calls: Iterable[tuple[Caller, Call]]) -> None:
        for caller in wake(calls):
            self._leave_request(caller.batch.request)

    def _forget(self, callers: Iterable[Caller]) -> None:
        """They have been told; one that has come again with its next rows is another."""
        with self._lock:
            for caller in callers:
                if self._callers.get(caller.batch.request) is caller:
                    del self._callers[caller.batch.request]

    def _fail_all(self, error: BaseException) -> None:
        _log.error("%s: all requests fail, because the loop itself failed", self._name, exc_info=error)
        with self._lock:
            callers = list(self._callers.values())
            self._gone = []
            self.lane.clear()
        try:
            self.lane.rows.clear()
        except BaseException:  # noqa: BLE001 - see `_run`
            _log.exception("%s: the model cannot be reset", self._name)
        self._deliver()
        self._wake((caller, partial(caller.settle, _interrupted(self._name, error))) for caller in callers)
        self._forget(callers)


def _interrupted(name: str, error: BaseException) -> ComputeError:
    failure = ComputeError(f"{name} failed while this request was under way; it may be sent again")
    failure.__cause__ = error
    return failure
