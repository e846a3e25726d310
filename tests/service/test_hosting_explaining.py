"""A host tells the engine which requests will be explained, so that a refusal comes before the answer is computed."""

import time

import pytest

from service.admission import Change
from service.errors import Overloaded
from service.hosting import Call, LocalHost
from service.settings import ModelSettings, Settings
from tests.models.embedded import RECOMMENDATION


async def test_an_explanation_is_refused_before_its_answer_is_computed() -> None:
    settings = Settings(models=(ModelSettings(bundle=RECOMMENDATION),))
    host = LocalHost(settings)
    try:
        await host.start()
        (running,) = host._running.values()
        body = {"inputs": {"history": ["22423", "85123A"]}, "explain": {"method": "occlusion"}}
        request = running.loaded.task.request_type.model_validate(body)
        full = Change(waiting_rows=settings.limits.max_waiting_rows)
        running.engine._explaining.lane.admission.book(full)
        rows = running.engine._next_row
        with pytest.raises(Overloaded, match="4096 rows and 0 unread requests wait already"):
            await host.answer(Call(host.cards[0], request, time.monotonic() + 60))
        assert running.engine._next_row == rows
    finally:
        host.stop()
