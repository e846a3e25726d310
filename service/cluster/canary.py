"""Two versions side by side: the stable replica sends a share of its requests through a handle to the canary's.

HAProxy has no weights and an application of Ray Serve one entrance, so that the replica itself divides the requests.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from pydantic import BaseModel
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from service import tracing
from service.admission import Pressure, time_left_s
from service.callers import Timing, within
from service.contract import ModelCard, StreamEvent
from service.errors import Broken, Draining, NotReady
from service.hosting import Call, LocalHost
from service.metrics import Observer
from service.releases import goes_to_canary

logger = logging.getLogger("heedful.cluster")

# For a replica of the canary to take a request. Ray would wait for one without end; how long the answer then takes is
# the model's business.
TAKE_TIMEOUT_S = 1.0

UNREACHABLE = (RayServeException, RayError, AioRpcError, TimeoutError)
AWAY = (*UNREACHABLE, NotReady, Draining, Broken)

Routes = tuple[str, ...]


class DividedHost:
    """The models of the stable replica, with a share of their requests answered by their canaries.

    A canary that cannot answer costs a moment at most: the stable version answers, unless the caller has already been
    told a part. What the canary itself refuses, such as an input that is too long, is refused.

    Args:
        stable: the models of this process.
        percents: of the models that have a canary, by their routes.
        application: where the canaries run.
    """

    def __init__(self, stable: LocalHost, percents: Mapping[Routes, float], application: str) -> None:
        self.cards: Sequence[ModelCard] = stable.cards
        self._stable = stable
        self._percents = percents
        self._application = application
        self._handle: asyncio.Task[DeploymentHandle[Any]] | None = None
        self._under_way = 0

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        if self._is_stable(call):
            return await self._stable.answer(call)
        try:
            async with within(call.deadline), self._taken(call, "answer") as response:
                with _as_raised():
                    answer: tuple[Any, Timing] = await response
        except AWAY as error:
            _missed(call, error)
            return await self._stable.answer(call)
        return answer

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        if not self._is_stable(call):
            spoken = False
            try:
                async with self._taken(call, "stream", stream=True) as events:
                    while (event := await _next(events, call.deadline)) is not None:
                        spoken = True
                        yield event
            except AWAY as error:
                if spoken:
                    raise
                _missed(call, error)
            else:
                return
        async for event in self._stable.stream(call):
            yield event

    async def not_ready(self) -> Sequence[str]:
        return await self._stable.not_ready()

    async def metrics(self) -> bytes:
        return await self._stable.metrics()

    def observer(self, card: ModelCard) -> Observer:
        return self._stable.observer(card)

    def pressure(self) -> Pressure:
        """Of the stable models; who waits for a canary keeps them from being idle, since it would go with them."""
        pressure = self._stable.pressure()
        return replace(pressure, idle_s=0.0) if self._under_way else pressure

    def _is_stable(self, call: Call) -> bool:
        return not goes_to_canary(call.request_id, self._percents.get(call.card.routes, 0))

    @asynccontextmanager
    async def _taken(self, call: Call, method: str, *, stream: bool = False) -> AsyncGenerator[Any]:
        """The response of a replica of the canary that has taken the request; cancelled at the end.

        Half of the time that is left is kept for the stable version.

        Raises:
            TimeoutError: none did in time.
        """
        left_s = time_left_s(call.deadline, time.monotonic()) or 0.0
        async with AsyncExitStack() as chosen:
            chosen.enter_context(self._counted())
            async with asyncio.timeout(min(TAKE_TIMEOUT_S, left_s / 2)):
                handle = (await self._canary()).options(method_name=method, stream=stream)
                replica = await chosen.enter_async_context(handle.choose_replica())
            response = handle.dispatch(replica, *_arguments(call))
            try:
                yield response
            finally:
                response.cancel()  # type: ignore[no-untyped-call]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._stable.asked()

    async def _canary(self) -> DeploymentHandle[Any]:
        """Looked for once: while the head is away it takes long, and each look would hold a thread."""
        if self._handle is None or (self._handle.done() and self._handle.exception() is not None):
            self._handle = asyncio.create_task(asyncio.to_thread(serve.get_app_handle, self._application))
        return await asyncio.shield(self._handle)


async def _next(events: Any, deadline: float) -> StreamEvent | None:
    """The next event; None after the last. Each is bounded by itself: another task may ask for the next one."""
    async with within(deadline):
        with _as_raised():
            event: StreamEvent | None = await anext(events, None)
    return event


@contextmanager
def _as_raised() -> Iterator[None]:
    """What the canary raised, without Ray's wrapping."""
    try:
        yield
    except RayTaskError as error:
        raise error.cause from None


def _arguments(call: Call) -> tuple[Routes, BaseModel, float, bool, dict[str, str]]:
    """A deadline is on this machine's clock; the canary may run on another."""
    left_s = time_left_s(call.deadline, time.monotonic()) or 0.0
    return call.card.routes, call.request, left_s, call.is_long, tracing.carrier()


def _missed(call: Call, error: Exception) -> None:
    reason = " ".join(repr(error).split())
    logger.warning("request_id=%s the canary is away, the stable version answers: %s", call.request_id, reason)
