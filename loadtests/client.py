"""Callers over HTTP/1.1 that cost so little that one process can load a fast server: closed loop and Poisson."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import psutil
import uvloop
from pydantic_core import to_json

TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Load:
    """What a run over HTTP took.

    Args:
        wall_s: from the first request to the last answer.
        latencies_s: of every request; in an open loop from the moment at which it was due.
        client_cpu_s: processor seconds of the client alone.
    """

    wall_s: float
    latencies_s: tuple[float, ...]
    client_cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return len(self.latencies_s) / self.wall_s

    @property
    def client_cores(self) -> float:
        """The client's share of a core."""
        return self.client_cpu_s / self.wall_s

    def quantile_s(self, share: float) -> float:
        """The latency below which this share of the requests stays."""
        return float(np.quantile(self.latencies_s, share))


class RefusedError(Exception):
    """A server answered something else than 200, so that a run says nothing unless it counts such answers."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Told:
    """An answer in an open loop.

    Args:
        due_s: when its request was to be sent, since the beginning.
        latency_s: from then on.
    """

    due_s: float
    latency_s: float
    status: int


class _Connection(asyncio.Protocol):
    """One request at a time, kept alive."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)

    @property
    def is_closing(self) -> bool:
        """Nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    async def ask(self, request: bytes) -> bytes:
        """Send a whole request and return the body of its answer."""
        if self._transport is None:
            raise ConnectionResetError("the connection was never made")
        self._body = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(TIMEOUT_S):
            status = await self._answer
        if status != 200:
            raise RefusedError(status, self._body[:500].decode(errors="replace"))
        return self._body

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Caller:
    """A caller's connection, and the next one when the server has closed it.

    A server may close a connection that is idle at any time; Ray's HAProxy does when it reads its configuration anew.
    A request that meets this moment is sent once more, as HTTP clients do.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: _Connection | None = None

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        if self._connection is not None and not self._connection.is_closing:
            with suppress(ConnectionResetError):
                return await self._connection.ask(request)
        return await (await self.connect()).ask(request)

    async def connect(self) -> _Connection:
        """Called before the first request, so that the time it takes is not counted."""
        parts = urlsplit(self._url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        _, self._connection = await asyncio.get_running_loop().create_connection(_Connection, host, port)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def post(url: str, body: Any) -> bytes:
    """A whole request, ready to be sent: bytes are made before the clock runs."""
    parts = urlsplit(url)
    content = to_json(body)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def closed_loop(url: str, requests: Sequence[bytes], *, callers: int) -> Load:
    """So many callers, each sends the next request as soon as it has its answer, until there are none left."""
    return uvloop.run(_closed(url, iter(requests), callers))


def for_seconds(url: str, requests: Sequence[bytes], *, callers: int, seconds: float) -> Load:
    """The same, with the requests over and over again, none begun after so many seconds."""
    return uvloop.run(_closed(url, _until(requests, seconds), callers))


def beside(
    url: str, requests: Sequence[bytes], others: Sequence[bytes], *, callers: int, other_callers: int, seconds: float
) -> Load:
    """The same for `requests`, while other callers ask for something else all the time."""

    async def both() -> Load:
        load, _ = await asyncio.gather(
            _closed(url, _until(requests, seconds), callers), _closed(url, _until(others, seconds), other_callers)
        )
        return load

    return uvloop.run(both())


def open_loop(url: str, requests: Iterable[bytes], *, per_s: float, seed: int) -> Load:
    """Requests come at random moments at this rate, whether the ones before them are answered or not."""
    return uvloop.run(_open(url, list(requests), per_s, seed))


def overload(url: str, requests: Sequence[bytes], *, per_s: float, seconds: float, seed: int) -> list[Told]:
    """The same for so many seconds with the requests over and over again; answers of every status are told."""
    come = list(islice(cycle(requests), round(per_s * seconds)))
    return uvloop.run(_come(url, come, per_s, seed, may_refuse=True))


def answers(url: str, requests: Sequence[bytes]) -> list[bytes]:
    """The bodies of the answers, one request after the other."""

    async def ask() -> list[bytes]:
        caller = _Caller(url)
        try:
            return [await caller.ask(request) for request in requests]
        finally:
            caller.close()

    return uvloop.run(ask())


def _until(requests: Sequence[bytes], seconds: float) -> Iterator[bytes]:
    until = time.perf_counter() + seconds
    while True:
        for request in requests:
            if time.perf_counter() > until:
                return
            yield request


async def _closed(url: str, requests: Iterator[bytes], callers: int) -> Load:
    latencies: list[float] = []

    async def ask(caller: _Caller) -> None:
        for request in requests:
            began = time.perf_counter()
            await caller.ask(request)
            latencies.append(time.perf_counter() - began)

    crowd = [_Caller(url) for _ in range(callers)]
    try:
        for caller in crowd:
            await caller.connect()
        began, cpu = time.perf_counter(), _cpu_s()
        async with asyncio.TaskGroup() as group:
            for caller in crowd:
                group.create_task(ask(caller))
        return Load(time.perf_counter() - began, tuple(latencies), _cpu_s() - cpu)
    finally:
        for caller in crowd:
            caller.close()


async def _open(url: str, requests: Sequence[bytes], per_s: float, seed: int) -> Load:
    began, cpu = time.perf_counter(), _cpu_s()
    told = await _come(url, requests, per_s, seed, may_refuse=False)
    return Load(time.perf_counter() - began, tuple(each.latency_s for each in told), _cpu_s() - cpu)


async def _come(url: str, requests: Sequence[bytes], per_s: float, seed: int, *, may_refuse: bool) -> list[Told]:
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / per_s, len(requests)))
    idle: list[_Caller] = []
    told: list[Told] = []

    async def one(request: bytes, due_s: float) -> None:
        caller, status = idle.pop() if idle else _Caller(url), 200
        try:
            await caller.ask(request)
        except RefusedError as error:
            if not may_refuse:
                raise
            status = error.status
        told.append(Told(due_s, time.perf_counter() - began - due_s, status))
        idle.append(caller)

    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for request, due_s in zip(requests, due.tolist(), strict=True):
                await asyncio.sleep(began + due_s - time.perf_counter())
                group.create_task(one(request, due_s))
        return told
    finally:
        for caller in idle:
            caller.close()


def _cpu_s() -> float:
    return float(sum(psutil.Process().cpu_times()[:2]))
