"""Two versions side by side: the stable replica sends a share of its requests through a handle to the canary's.

HAProxy has no weights and an application of Ray Serve one entrance, so that the replica itself divides the requests.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from service import tracing
from service.admission import time_left_s
from service.callers import Timing
from service.contract import ModelCard, StreamEvent
from service.hosting import Call, LocalHost
from service.metrics import Observer
from service.releases import goes_to_canary

logger = logging.getLogger("heedful.cluster")

Routes = tuple[str, ...]


class DividedHost:
    """The models of the stable replica, with a share of their requests answered by their canaries.

    A canary that cannot be reached costs nothing: the stable version answers. What the canary itself refuses, such as
    an input that is too long, is refused.

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
        self._handle: DeploymentHandle[Any] | None = None

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        if self._is_stable(call):
            return await self._stable.answer(call)
        try:
            handle = await self._canary()
            answer: tuple[Any, Timing] = await handle.answer.remote(*_arguments(call))
        except RayTaskError as error:
            raise error.cause from None
        except (RayServeException, RayActorError) as error:
            _missed(call, error)
            return await self._stable.answer(call)
        return answer

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        if not self._is_stable(call):
            spoken = False
            try:
                handle = await self._canary()
                streaming: DeploymentHandle[Any] = handle.options(stream=True)
                events = cast("DeploymentResponseGenerator[StreamEvent]", streaming.stream.remote(*_arguments(call)))
                async for event in events:
                    spoken = True
                    yield event
            except RayTaskError as error:
                raise error.cause from None
            except (RayServeException, RayActorError) as error:
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

    def _is_stable(self, call: Call) -> bool:
        return not goes_to_canary(call.request_id, self._percents.get(call.card.routes, 0))

    async def _canary(self) -> DeploymentHandle[Any]:
        if self._handle is None:
            self._handle = await asyncio.to_thread(serve.get_app_handle, self._application)
        return self._handle


def _arguments(call: Call) -> tuple[Routes, BaseModel, float, bool, dict[str, str]]:
    """A deadline is on this machine's clock; the canary may run on another."""
    left_s = time_left_s(call.deadline, time.monotonic()) or 0.0
    return call.card.routes, call.request, left_s, call.is_long, tracing.carrier()


def _missed(call: Call, error: Exception) -> None:
    logger.warning("request_id=%s the canary is away, the stable version answers: %s", call.request_id, error)
