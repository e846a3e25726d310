"""The client against a service that is overloaded, dead or slow, over real HTTP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.client import AsyncClient, Client, DeadlinePassed, Overloaded, TimedOut, Unreachable
from tests.serving import Service, free_port, rows_inside, start, stop

LONG = "I have never seen such a large house in the town before. "
ENDLESS = "she lives in a house and " * 12  # one sentence of a hundred steps, in one slot


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in which one row runs and four may wait."""
    log = tmp_path_factory.mktemp("small") / "log"
    running = start("embedded", log, HEEDFUL_SLOTS="1", HEEDFUL_LIMITS__MAX_WAITING_ROWS="4")
    yield running
    stop(running)


def test_an_overloaded_service_says_when_to_come_back(small: Service) -> None:
    with Client(small.url, retries=0) as client, ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(client.translate, [LONG] * 4) for _ in range(8)]
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


def test_a_service_that_comes_up_meanwhile_is_found() -> None:
    """The listener is opened while the client pauses before its second try."""
    port = free_port()

    def answer_one() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener, listener.accept()[0] as caller:
            caller.recv(4096)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

    with ThreadPoolExecutor(1) as server, Client(f"http://127.0.0.1:{port}", retries=50) as client:
        asked = server.submit(client.models)
        while not asked.running():
            time.sleep(0.01)
        answer_one()
        assert asked.result() == []


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


def test_a_timeout_stops_the_work_in_the_service(small: Service) -> None:
    with Client(small.url) as client:
        with pytest.raises((DeadlinePassed, TimedOut)):
            client.translate([ENDLESS] * 4, timeout_s=0.03)
        with httpx.Client(base_url=small.url) as http:
            give_up = time.monotonic() + 20
            while rows_inside(http, "translation") > 0 and time.monotonic() < give_up:
                time.sleep(0.02)
            assert rows_inside(http, "translation") == 0


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="must start with http"):
        Client("127.0.0.1:8000")
