"""What a process says of its models: how much there is to do, from the first request on."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import httpx
import pytest

from models.tasks import TASKS
from service.errors import DeadlinePassed, Draining
from service.gateway import create_app
from service.hosting import Call, LocalHost
from service.settings import ModelSettings, Settings
from tests.models.embedded import RECOMMENDATION, TRANSLATION
from tests.service.countdown import until


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


async def test_while_a_model_starts_its_callers_are_told_when_to_come_back() -> None:
    settings = Settings(models=(ModelSettings(bundle=TRANSLATION),))
    host = LocalHost(settings)
    (card,) = host.cards
    bodies = [card.example, card.example | {"stream": True}]
    transport = httpx.ASGITransport(create_app(host, settings))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://heedful") as http:
            early = [await http.get("/readyz"), *[await http.post(card.routes[0], json=body) for body in bodies]]
            await host.start()
            later = [await http.get("/readyz"), *[await http.post(card.routes[0], json=body) for body in bodies]]
    finally:
        host.stop()
    assert [(answer.status_code, answer.headers.get("retry-after")) for answer in early] == [(503, "1")] * 3
    assert all("starting" in answer.json()["detail"] for answer in early)
    assert [answer.status_code for answer in later] == [200] * 3


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


@pytest.mark.parametrize("fields", [{"stream": True}, {"explain": {"method": "attention"}}])
async def test_the_deadline_holds_while_all_threads_are_taken(fields: dict[str, Any]) -> None:
    host = LocalHost(Settings(models=(ModelSettings(bundle=TRANSLATION),)))
    await host.start()
    free = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    taken = loop.run_in_executor(None, free.wait, 60)
    try:
        (card,) = host.cards
        request = TASKS[card.task].request_type.model_validate({"inputs": "How are you?"} | fields)
        call = Call(card, request, time.monotonic() + 0.05, is_long=True)
        with pytest.raises(DeadlinePassed):
            await asyncio.wait_for(anext(host.stream(call)) if "stream" in fields else host.answer(call), 10)
        assert not taken.done()
    finally:
        free.set()
        await taken
        host.stop()


async def test_an_engine_that_hangs_keeps_no_other_from_refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.STOP_TIMEOUT_S", 60)
    host = LocalHost(Settings(models=(ModelSettings(bundle=TRANSLATION), ModelSettings(bundle=RECOMMENDATION))))
    await host.start()
    go_on = threading.Event()

    def hang() -> NoReturn:
        go_on.wait(60)
        raise ValueError("it went on")

    asked = []
    for card in host.cards:
        monkeypatch.setattr(host._running[card.routes].loaded.model, "step", hang)
        request = TASKS[card.task].request_type.model_validate(card.example)
        asked.append(asyncio.create_task(host.answer(Call(card, request, time.monotonic() + 60))))
    engines = [running.engine for running in host._running.values()]
    await until(lambda: [engine.running_rows > 0 for engine in engines] == [True, True])
    stopping = asyncio.create_task(asyncio.to_thread(host.stop))
    try:
        done, _ = await asyncio.wait(asked, timeout=10)
        assert [type(task.exception()) for task in done] == [Draining, Draining]
        assert not stopping.done()
    finally:
        go_on.set()
        await stopping
