"""The client against a service that is overloaded, dead or slow, over real HTTP."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

from models.tasks.translation import TranslationParameters
from service.client import AsyncClient, Client, DeadlinePassed, Overloaded, TimedOut, Unreachable
from tests.models.embedded import TRANSLATION
from tests.serving import LASTING, Service, ended, free_port, outcome, rows_inside, start, stop, until

LONG = "I have never seen such a large house in the town before. "
TEXT, PARAMETERS = LASTING["inputs"], TranslationParameters.model_validate(LASTING["parameters"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in which one row runs and four may wait."""
    log = tmp_path_factory.mktemp("small") / "log"
    running = start("embedded", log, HEEDFUL_SLOTS="1", HEEDFUL_LIMITS__MAX_WAITING_ROWS="4")
    yield running
    stop(running)


def test_an_overloaded_service_says_when_to_come_back(small: Service) -> None:
    with Client(small.url, retries=0) as client, ThreadPoolExecutor(8) as callers:
        # A quarter of a second each, so that the others come meanwhile.
        asked = [callers.submit(client.translate, ["Good morning."] * 4, PARAMETERS) for _ in range(8)]
        failures = [each.exception() for each in asked]
    refused = [failure for failure in failures if failure is not None]
    assert 0 < len(refused) < 8
    for failure in refused:
        assert isinstance(failure, Overloaded)
        assert failure.status == 429
        assert failure.retry_after_s is not None
        assert failure.retry_after_s >= 1
        assert "at most 4 may wait" in failure.detail


def test_callers_who_come_back_are_answered(small: Service) -> None:
    with Client(small.url, retries=50, timeout_s=120) as client, ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(client.translate, [[LONG] * 4] * 4))
    assert all(answer == answers[0] for answer in answers)

    async def several() -> list[object]:
        async with AsyncClient(small.url, retries=50, timeout_s=120) as client:
            return list(await asyncio.gather(*(client.translate([LONG] * 4) for _ in range(4))))

    assert asyncio.run(several()) == answers


def test_nobody_is_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=1) as client, pytest.raises(Unreachable, match=r"no connection to 127\.0\.0\.1 port"):
        client.models(request_id="abc")

    async def ask() -> None:
        async with AsyncClient(url, retries=1) as client:
            await client.models()

    with pytest.raises(Unreachable):
        asyncio.run(ask())


def test_a_service_that_comes_up_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener is opened while the client pauses before its second try."""
    port = free_port()
    answered: list[Future[None]] = []

    def answer_one(listener: socket.socket) -> None:
        with listener, listener.accept()[0] as caller:
            caller.recv(4096)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

    with ThreadPoolExecutor(1) as server, Client(f"http://127.0.0.1:{port}", retries=1) as client:

        def come_up(seconds: float) -> None:
            listener = socket.create_server(("127.0.0.1", port))
            listener.settimeout(10)
            answered.append(server.submit(answer_one, listener))

        monkeypatch.setattr("service.client.blocking.time", SimpleNamespace(sleep=come_up))
        assert client.models() == []
        assert [each.result() for each in answered] == [None]


def test_a_service_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout_s=0.2) as client, pytest.raises(TimedOut) as late:
            client.translate("Good morning.", request_id="abc")
        assert late.value.request_id == "abc"


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a server whose answers come by the byte, without an end."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as callers:

        def drip(caller: socket.socket) -> None:
            with caller, contextlib.suppress(OSError):  # the client hangs up
                caller.recv(4096)
                caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n")
                for _ in range(100):
                    caller.sendall(b":")
                    time.sleep(0.1)

        def accept() -> None:
            with contextlib.suppress(OSError):
                callers.submit(drip, listener.accept()[0])

        callers.submit(accept)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_goes_on_coming_ends_with_the_timeout(dripping: str, streams: bool) -> None:
    began = time.monotonic()
    with Client(dripping, timeout_s=0.5) as client, pytest.raises(TimedOut):
        list(client.stream_translation("Good morning.") if streams else client.translate("Good morning."))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("streams", [False, True])
def test_it_does_so_for_asyncio(dripping: str, streams: bool) -> None:
    async def ask() -> None:
        async with AsyncClient(dripping, timeout_s=0.5) as client:
            if not streams:
                await client.translate("Good morning.")
            async for _ in client.stream_translation("Good morning."):
                pass

    began = time.monotonic()
    with pytest.raises(TimedOut):
        asyncio.run(ask())
    assert time.monotonic() - began < 5


def test_a_call_waits_for_a_connection_no_longer_than_its_timeout() -> None:
    """A hundred calls wait for a server that says nothing; nothing is sent of the next one."""

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            others = [asyncio.create_task(client.models()) for _ in range(100)]
            await asyncio.sleep(0.5)
            with pytest.raises(Unreachable, match="connections were all in use"):
                await client.models(timeout_s=0.3)
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}"))


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes on all that it is asked for."""
    models = json.dumps([{"bundle": str(TRANSLATION)}])
    running = start("embedded", tmp_path_factory.mktemp("patient") / "log", HEEDFUL_MODELS=models)
    yield running
    stop(running)


@pytest.fixture
def http(patient: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=patient.url, timeout=60) as client:
        yield client


def test_a_timeout_stops_the_work_in_the_service(patient: Service, http: httpx.Client) -> None:
    before = ended(http, "translation")
    with Client(patient.url) as client:
        with pytest.raises((DeadlinePassed, TimedOut)):
            client.translate(TEXT, PARAMETERS, timeout_s=0.3)
        assert outcome(http, "translation", before) in ({"504": 1}, {"499": 1})


def test_a_cancelled_call_hangs_up(patient: Service, http: httpx.Client) -> None:
    before = ended(http, "translation")

    async def ask() -> None:
        async with AsyncClient(patient.url) as client:
            asked = asyncio.create_task(client.translate(TEXT, PARAMETERS))
            await asyncio.to_thread(until, lambda: rows_inside(http, "translation") > 0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await asyncio.to_thread(outcome, http, "translation", before) == {"499": 1}

    asyncio.run(ask())


def test_leaving_a_stream_hangs_up(patient: Service, http: httpx.Client) -> None:
    before = ended(http, "translation")
    with Client(patient.url) as client:
        for _ in client.stream_translation(TEXT, PARAMETERS):
            break
        assert outcome(http, "translation", before) == {"499": 1}


def test_leaving_a_stream_hangs_up_for_asyncio(patient: Service, http: httpx.Client) -> None:
    before = ended(http, "translation")

    async def ask() -> None:
        async with AsyncClient(patient.url) as client:
            async for _ in client.stream_translation(TEXT, PARAMETERS):
                break
            assert await asyncio.to_thread(outcome, http, "translation", before) == {"499": 1}

    asyncio.run(ask())


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="must start with http"):
        Client("127.0.0.1:8000")
