"""A canary on a real Ray Serve that does whatever it is asked, failing included, and what callers of it are told.

A module to be run, which prints JSON, since Ray's environment must be prepared before Ray is imported.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pydantic import BaseModel

from models.errors import InvalidInput
from service.admission import time_left_s
from service.callers import Timing
from service.contract import ModelCard, StreamEvent, StreamToken
from service.errors import Broken, Draining, NotReady
from service.hosting import Call, Host, LocalHost
from service.ray_environment import prepare, run_folder
from service.session import in_own_session
from tests.cluster.conftest import until

NAME, ROUTES = "canary", ("/v1/translation",)
PATIENCE_S = 10.0  # longer than any deadline here
ERRORS: dict[str, Exception] = {
    "invalid": InvalidInput("inputs is wrong", pointer="/inputs"),
    "not ready": NotReady("it starts", 1),
    "draining": Draining("it ends", 1),
    "broken": Broken("it has lost its device", 1),
}


class Asked(BaseModel):
    """What the canary shall do, before and after its first event."""

    first: str = ""
    then: str = ""


class Unreadable(Asked):
    """Of a release that the canary does not know: it cannot be read where it was not made."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (os.getpid(),)


def _read(pid: int) -> Asked:
    if os.getpid() != pid:
        raise AttributeError("no such class in this release")
    return Unreadable()


class Canary:
    """Has the methods of `CanaryReplica`. Once it shall be away, no replica starts any more."""

    async def __init__(self, folder: Path) -> None:  # type: ignore[misc] # Ray awaits it
        self._folder = folder
        if (folder / "away").exists():
            await asyncio.Event().wait()

    async def answer(self, routes: Any, request: Asked, left_s: float, *_: object) -> tuple[str, Timing]:
        await self._do(request.first)
        return NAME, Timing()

    async def stream(self, routes: Any, request: Asked, left_s: float, *_: object) -> AsyncGenerator[StreamEvent]:
        try:
            await self._do(request.first)
            yield _event(0, NAME)
            await self._do(request.then)
            yield _event(1, NAME)
        except asyncio.CancelledError:
            (self._folder / "cancelled").touch()
            raise

    async def _do(self, what: str) -> None:
        if what in ERRORS:
            raise ERRORS[what]
        if what == "die":
            os._exit(1)
        if what == "sleep":
            await asyncio.sleep(60)


class Stable:
    """Has the methods of `LocalHost`, and its deadlines."""

    cards: tuple[ModelCard, ...] = ()

    def __init__(self) -> None:
        self.noticed = 0

    def asked(self) -> None:
        self.noticed += 1

    async def answer(self, call: Call) -> tuple[str, Timing]:
        time_left_s(call.deadline, time.monotonic())
        return "stable", Timing()

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        time_left_s(call.deadline, time.monotonic())
        yield _event(0, "stable")


def _event(index: int, text: str) -> StreamEvent:
    return StreamEvent(index=index, token=StreamToken(id=None, text=text))


def run() -> int:
    with run_folder() as folder:
        prepare(folder)
        import ray
        from ray import serve

        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            serve.start(proxy_location="Disabled")
            made: Any = serve.deployment(name=NAME, num_replicas=2, graceful_shutdown_timeout_s=0)(Canary)
            serve.run(made.bind(folder), name=NAME, route_prefix=None)
            print(json.dumps(asyncio.run(_outcomes(folder))), flush=True)  # noqa: T201 - the test reads it
        finally:
            ray.shutdown()
    return 0


class Callers:
    """Of the stable side, one after the other.

    Attributes:
        told: what each of them got, the texts first.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.told: dict[str, str] = {}

    async def answer(self, name: str, asked: Asked, within_s: float = PATIENCE_S) -> None:
        async def ask() -> str:
            return str((await self._host.answer(_call(asked, within_s)))[0])

        self.told[f"answer: {name}"] = await _outcome(ask)

    async def stream(self, name: str, asked: Asked, within_s: float = PATIENCE_S) -> None:
        heard: list[str] = []

        async def ask() -> str:
            async for event in self._host.stream(_call(asked, within_s)):
                heard.append(event.token.text)  # noqa: PERF401 - also when no more comes
            return "end"

        ended = await _outcome(ask)
        self.told[f"stream: {name}"] = " ".join([*heard, ended])

    async def hang_up(self, folder: Path) -> None:
        async with aclosing(self._host.stream(_call(Asked(then="sleep")))) as events:
            await anext(events)
        self.told["stream: hung up"] = await _outcome(lambda: _cancelled(folder))


def _call(asked: Asked, within_s: float = PATIENCE_S) -> Call:
    return Call(cast("ModelCard", SimpleNamespace(routes=ROUTES)), asked, time.monotonic() + within_s)


async def _outcomes(folder: Path) -> dict[str, str]:
    from service.cluster.canary import DividedHost

    stable = Stable()
    host = DividedHost(cast("LocalHost", stable), {ROUTES: 100.0}, NAME)
    while (await host.answer(_call(Asked())))[0] != NAME:
        pass  # on a busy machine, the first time may take longer than the stable side waits
    callers = Callers(host)
    await callers.hang_up(folder)
    for ask in (callers.answer, callers.stream):
        await ask("fine", Asked())
        for name in ERRORS:
            await ask(name, Asked(first=name))
        await ask("unreadable", Unreadable())
        await ask("silent", Asked(first="sleep"), 1.0)
    await callers.stream("silent later", Asked(then="sleep"), 1.0)
    await callers.stream("broken later", Asked(then="broken"))
    (folder / "away").touch()
    await callers.answer("dies", Asked(first="die"))
    await callers.stream("dies later", Asked(then="die"))
    for ask in (callers.answer, callers.stream):
        await ask("none", Asked())
        await ask("none and little time", Asked(), 0.8)
    callers.told["all were noticed"] = str(stable.noticed >= len(callers.told))
    return callers.told


async def _outcome(ask: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S - 2):
            return await ask()
    except Exception as error:  # noqa: BLE001 - which one is what the test asks
        return type(error).__name__


async def _cancelled(folder: Path) -> str:
    await until((folder / "cancelled").exists, PATIENCE_S)
    return "cancelled"


if __name__ == "__main__":
    from tests.cluster.canaries import run as run_importable  # Ray's workers have no `__main__` of ours

    sys.exit(in_own_session(run_importable))
