"""The rows of one model from arrival to output: schedule → admit → step, and the second try after a failure."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from models.errors import ComputeError, DeviceLost
from models.task import Array, Event, FinishReason, Model, Output, Row, RowId
from service.admission import Change
from service.scheduler import LOOK_AHEAD, Turns, Waiting, plan

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a row has brought so far. After a second try it starts again with fewer tokens than before.

    Args:
        row: its place in the batch.
        tokens: all that it has brought.
        finish: set when there will be no more.
    """

    row: int
    tokens: tuple[int, ...]
    finish: FinishReason | None


@dataclass(slots=True, eq=False)
class Batch:
    """What a request yielded at once, and what became of it. Times are seconds on the clock of `Rows`.

    Args:
        request: it has at most one batch under way.
        ids: of its rows, in their order.
        tokens: source tokens of all rows.
        is_followed: somebody wants to know of every token.
        paces_s: of each finished row that brought tokens one by one, the mean time from one to the next.
        joined_at: when the first row was about to be admitted; 0 before.
        spoke_at: when the first token of any row came; 0 before.
        encode_s: spent in `admit` with at least one of the rows.
        steps: of the model that brought at least one of the rows forward.
        done_at: when the last row was done.
    """

    request: int
    ids: range
    rows: Sequence[Row]
    tokens: int
    submitted_at: float
    is_followed: bool = False
    outputs: dict[RowId, Output] = field(default_factory=dict)
    paces_s: list[float] = field(default_factory=list)
    joined_at: float = 0.0
    spoke_at: float = 0.0
    encode_s: float = 0.0
    steps: int = 0
    done_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Job:
    id: RowId
    row: Row
    batch: Batch
    tokens: list[int] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    spoke_at: float = 0.0
    alone: bool = False


class Rows:
    """What waits for a model and what runs in it; the only one that calls the model. Not thread-safe.

    Args:
        name: for messages and the log.
        clock: seconds; another one than the machine's where the model's time is simulated.

    Attributes:
        change: since it was last reset by the reader, for the books of `Admission`.
        finished_tokens: source tokens of rows that finished, likewise.
        settled: batches that are done since then, with the error if one of their rows failed.
        progress: what rows of followed batches have brought since then, in its order.
    """

    def __init__(self, model: Model, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._name = name
        self._clock = clock
        self._turns = Turns()
        self._batches: dict[int, Batch] = {}
        self._waiting: dict[RowId, _Job] = {}
        self._running: dict[RowId, _Job] = {}
        self._suspects: dict[RowId, _Job] = {}  # to be tried alone after a failure; the first one may be running
        self.change = Change()
        self.finished_tokens = 0
        self.settled: list[tuple[Batch, ComputeError | None]] = []
        self.progress: list[tuple[Batch, Progress]] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._turns or self._running or self._suspects)

    @property
    def running(self) -> int:
        """Rows in the model, or about to be tried once more."""
        return max(len(self._running), len(self._suspects))

    @property
    def padding_tokens(self) -> int:
        """What the model's graphs have computed so far that is no row's."""
        return self._model.padding_tokens

    def enqueue(self, batch: Batch) -> None:
        """Rows begin to wait; they have been booked already."""
        try:
            costs = [self._model.cost(row) for row in batch.rows]
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            self.change.waiting_rows -= len(batch.rows)
            self.change.waiting_tokens -= batch.tokens
            self._settle(batch, self._failure(error))
            return
        self._batches[batch.request] = batch
        self._waiting.update({id_: _Job(id_, row, batch) for id_, row in zip(batch.ids, batch.rows, strict=True)})
        waiting = (Waiting(id_, batch.request, cost) for id_, cost in zip(batch.ids, costs, strict=True))
        self._turns.add(batch.request, waiting)

    def discard(self, request: int) -> None:
        """Nobody wants the rows of a request any more; nothing happens when they are done."""
        batch = self._batches.pop(request, None)
        if batch is None:
            return
        for waiting in self._turns.discard(request):
            self._unqueue(self._waiting.pop(waiting.id))
        inside = {id_: self._running.pop(id_) for id_ in batch.ids if id_ in self._running}
        suspects = {id_: self._suspects.pop(id_) for id_ in batch.ids if id_ in self._suspects}
        self.change.running_tokens -= sum(len(job.row.tokens) for job in (inside | suspects).values())
        if inside:
            try:
                self._model.drop(inside)
            except DeviceLost:
                raise
            except Exception as error:  # noqa: BLE001 - a model may raise anything
                self._try_alone(error)

    def schedule(self) -> "dict[RowId, _Job]":
        """Who joins the next iteration; `iterate` expects exactly that."""
        if self._suspects:
            return {} if self._running else dict(islice(self._suspects.items(), 1))
        if not self._turns:
            return {}
        room = self._model.room()
        planned = plan(islice(self._turns, LOOK_AHEAD), room)
        if not planned.join and not self._running:
            first = next(iter(self._turns))
            detail = f"{self._name}: a row of this request needs {first.cost.slots} slots, the model has {room.slots}"
            self._fail(self._batches[first.request], ComputeError(detail))
            return {}
        self._turns.take(planned)
        joining = {row.id: self._waiting.pop(row.id) for row in planned.join}
        for job in joining.values():
            self._unqueue(job)
            self.change.running_tokens += len(job.row.tokens)
        return joining

    def iterate(self, joining: "dict[RowId, _Job]") -> int:
        """Admit, do one step and collect what it brought.

        Returns:
            How many rows shared the step; 0 when there was none or it failed.

        Raises:
            DeviceLost: no row would fare better alone.
        """
        self._running.update(joining)
        rows = len(self._running)
        if not rows:
            return 0
        try:
            if joining:
                self._admit(joining)
            events = self._model.step()
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            self._try_alone(error)
            return 0
        for batch in {job.batch for job in self._running.values()}:
            batch.steps += 1
        self._collect(events)
        return rows

    def clear(self) -> None:
        """Forget everything but `settled`, and reset the model."""
        self._turns = Turns()
        for jobs in (self._batches, self._waiting, self._running, self._suspects):
            jobs.clear()
        self.change = Change()
        self.finished_tokens = 0
        self._model.reset()

    def _admit(self, joining: dict[RowId, _Job]) -> None:
        started_at = self._clock()
        batches = {job.batch.request: job.batch for job in joining.values()}.values()
        for batch in batches:
            if not batch.joined_at:
                batch.joined_at = started_at
        self._model.admit({id_: job.row for id_, job in joining.items()})
        encode_s = self._clock() - started_at
        for batch in batches:
            batch.encode_s += encode_s

    def _collect(self, events: Sequence[Event]) -> None:
        now = self._clock()
        for event in events:
            job = self._running.get(event.row)
            if job is None:
                continue  # dropped
            if event.tokens and not job.tokens:
                job.spoke_at = now
                job.batch.spoke_at = job.batch.spoke_at or now
            job.tokens += event.tokens
            if event.arrays:
                job.arrays.update(event.arrays)
            if job.batch.is_followed:
                progress = Progress(job.id - job.batch.ids.start, tuple(job.tokens), event.finish)
                self.progress.append((job.batch, progress))
            if event.finish is not None:
                del self._running[job.id]
                self._suspects.pop(job.id, None)
                steps = len(job.tokens) - bool(event.tokens)  # after the first token; an end token brings none
                if steps > 0 and now > job.spoke_at:
                    job.batch.paces_s.append((now - job.spoke_at) / steps)
                self._finish(job, Output(tuple(job.tokens), job.arrays, event.finish))

    def _finish(self, job: _Job, output: Output) -> None:
        tokens = len(job.row.tokens)
        self.change.running_tokens -= tokens
        self.finished_tokens += tokens
        batch = job.batch
        batch.outputs[job.id] = output
        if len(batch.outputs) == len(batch.ids):
            del self._batches[batch.request]
            self._settle(batch, None)

    def _try_alone(self, error: Exception) -> None:
        """Start over: every row that was in the model gets a second try, alone; one that had it fails its request."""
        _log.warning("%s: the model failed on %d rows", self._name, len(self._running), exc_info=error)
        failed, self._running = self._running, {}
        self._model.reset()
        for job in failed.values():
            if job.alone:
                self._fail(job.batch, self._failure(error))
            else:
                self._suspects[job.id] = _Job(job.id, job.row, job.batch, alone=True)

    def _failure(self, error: Exception) -> ComputeError:
        failure = ComputeError(f"{self._name}: the model failed on this input, also when it was computed alone")
        failure.__cause__ = error
        return failure

    def _fail(self, batch: Batch, error: ComputeError) -> None:
        self.discard(batch.request)
        self._settle(batch, error)

    def _settle(self, batch: Batch, error: ComputeError | None) -> None:
        batch.done_at = self._clock()
        self.settled.append((batch, error))

    def _unqueue(self, job: _Job) -> None:
        self.change.waiting_rows -= 1
        self.change.waiting_tokens -= len(job.row.tokens)
