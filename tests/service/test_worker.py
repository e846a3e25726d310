"""The rate of what computes for a share of the time alone, on a clock that the test turns: the thread does not run."""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from models.task import Event
from service.callers import Caller
from service.lanes import Lane, Share
from service.rows import Batch
from service.worker import Worker
from tests.service.countdown import LIMITS, Countdown, row

STEP_S, PAUSE_S = 0.02, 0.98


class Timed(Countdown):
    """Steps that take a known time."""

    now_s = 100.0

    def step(self) -> Sequence[Event]:
        self.now_s += STEP_S
        return super().step()

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize("explains", [True, False])
async def test_pauses_count_in_the_rate_of_explanations_and_idle_time_does_not(
    monkeypatch: pytest.MonkeyPatch, *, explains: bool
) -> None:
    model, share = Timed(slots=1), Share()
    monkeypatch.setattr("service.worker.time", SimpleNamespace(monotonic=model.clock))
    lane, lock = Lane(model, "test", LIMITS, model.clock), threading.RLock()
    worker = Worker(
        "test",
        lane,
        lock=lock,
        observer=None,
        leave=lambda _: None,
        lose=lambda: None,
        share=share,
        explains=explains,
    )
    share.answering(model.now_s)
    loop = asyncio.get_running_loop()
    for request in range(3):
        batch = Batch(request, range(3 * request, 3 * request + 3), [row(1)] * 3, 6, model.now_s)
        with lock:
            worker.submit(Caller(batch, loop, loop.create_future(), None))
        for _ in range(3):
            assert worker._turn()
            model.now_s += PAUSE_S
        assert not lane.rows
        model.now_s += 1000
    busy_s = (3 * STEP_S + 2 * PAUSE_S) if explains else 3 * STEP_S
    assert lane.admission.rate.tokens_per_s == pytest.approx(6 / busy_s, rel=0.1)
