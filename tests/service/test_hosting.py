"""What a process says of its models: how much there is to do, from the first request on."""

import asyncio
import time

import pytest

from models.tasks import TASKS
from service.hosting import Call, LocalHost
from service.settings import ModelSettings, Settings
from tests.models.embedded import TRANSLATION


async def test_the_example_that_a_model_starts_with_does_not_make_a_backlog_of_the_first_callers() -> None:
    host = LocalHost(Settings(models=(ModelSettings(bundle=TRANSLATION),)))
    await host.start()
    try:
        (card,) = host.cards
        request = TASKS[card.task].request_type.model_validate({"inputs": ["How are you?"] * 100})
        asked = asyncio.create_task(host.answer(Call(card, request, time.monotonic() + 60)))
        await asyncio.sleep(0)
        assert host._running[card.routes].engine.waiting_rows > 0
        assert host.pressure().backlog_s == 0
        await asked
    finally:
        host.stop()


async def test_answers_from_memory_keep_the_last_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    host = LocalHost(Settings(models=(ModelSettings(bundle=TRANSLATION),), cache_mb=1))
    await host.start()
    clock = time.monotonic
    try:
        (card,) = host.cards
        request = TASKS[card.task].request_type.model_validate({"inputs": "How are you?"})
        await host.answer(Call(card, request, clock() + 60))
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000)
        assert host.pressure().idle_s > 900
        _, timing = await host.answer(Call(card, request, clock() + 2000))
        assert timing.cache == "hit"
        assert host.pressure().idle_s < 900
    finally:
        monkeypatch.undo()
        host.stop()
