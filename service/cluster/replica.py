"""The processes with the models of one group: their routes, and what the gateway and the autoscaler ask them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import heap, logs, tracing
from service.autoscaling import BACKLOG, IDLE, LOAD
from service.callers import Timing
from service.cluster.canary import DividedHost, Routes
from service.errors import NotReady
from service.gateway import create_app
from service.hosting import READY_AGAIN_S, Call, LocalHost
from service.serve_config import canary_name
from service.settings import Settings

logger = logging.getLogger("heedful.cluster")


class WholePaths:
    """ASGI middleware between Ray and the application: whole paths, as the routes are declared, and one request id.

    Ray moves the application's prefix into `root_path`, and appends an `X-Request-ID` of its own to every answer: what
    the caller sent, also where the application did not take that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name.lower() != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await self._app({**scope, "root_path": ""}, receive, send_once)


class _Process:
    """The models of one group, and what Ray and the gateway ask of any process that has some."""

    _settings: Settings
    _host: LocalHost

    async def _load(self, settings: Settings, replica: str) -> None:
        logs.configure(settings.log_level, settings.log_format)
        tracing.configure()
        self._settings = settings
        self._host = await asyncio.to_thread(LocalHost, settings, replica=replica)

    async def check_health(self) -> None:
        if dead := await self._host.not_ready():
            raise RuntimeError(f"the engines of these models have ended: {', '.join(dead)}")

    async def metrics(self) -> tuple[str, bytes]:
        return replica_id(), await self._host.metrics()

    async def drain(self) -> None:
        """Refuse what is new and return when all that was accepted is answered, at the latest with 503."""
        timeout_s = self._settings.drain_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._host.drain()
        except TimeoutError:
            logger.warning("requests were still running after the drain timeout of %s s and get 503", timeout_s)
            await asyncio.to_thread(self._host.stop)


class ModelReplica(_Process):
    """A process with the models of one group, and their routes."""

    async def __init__(self, settings: Settings, group: str) -> None:  # type: ignore[misc] # Ray awaits it
        await self._load(settings, group)
        percents = {
            card.routes: model.canary.percent
            for card, model in zip(self._host.cards, settings.models, strict=True)
            if model.canary and model.replica == group
        }
        self._front: LocalHost | DividedHost = (
            DividedHost(self._host, percents, canary_name(group)) if percents else self._host
        )
        await self._host.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            heap.settle()
            yield
            self._host.stop()

        return WholePaths(create_app(self._front, self._settings, lifespan=lifespan))

    async def not_ready(self) -> Sequence[str]:
        return await self._host.not_ready()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `service.autoscaling` decides by; Ray Serve asks for it."""
        pressure = self._front.pressure()
        return {BACKLOG: pressure.backlog_s, LOAD: pressure.load, IDLE: pressure.idle_s}


class CanaryReplica(_Process):
    """A process with the canaries of one group, which only the group's own replicas call."""

    async def __init__(self, settings: Settings, name: str) -> None:  # type: ignore[misc] # Ray awaits it
        await self._load(settings, name)
        # By the route that names the model: whether `/v1/{task}` is its, too, depends on the other models.
        self._cards = {card.routes[-1]: card for card in self._host.cards}
        await self._host.start()
        for model, card in zip(settings.models, self._host.cards, strict=True):
            if model.replica == name:
                self._host.observer(card).hide_readiness()
        heap.settle()

    async def answer(
        self, routes: Routes, request: BaseModel, left_s: float, is_long: bool, carrier: Mapping[str, str]
    ) -> tuple[Any, Timing]:
        with tracing.continued(carrier):
            return await self._host.answer(self._call(routes, request, left_s, is_long=is_long))

    async def stream(
        self, routes: Routes, request: BaseModel, left_s: float, is_long: bool, carrier: Mapping[str, str]
    ) -> AsyncGenerator[Any]:
        with tracing.continued(carrier):
            async for event in self._host.stream(self._call(routes, request, left_s, is_long=is_long)):
                yield event

    def _call(self, routes: Routes, request: BaseModel, left_s: float, *, is_long: bool) -> Call:
        if (card := self._cards.get(routes[-1])) is None:
            raise NotReady("this canary is being changed", READY_AGAIN_S)
        return Call(card, request, time.monotonic() + left_s, is_long=is_long)


def replica_id() -> str:
    """The name of this replica among all."""
    return serve.get_replica_context().replica_id.unique_id
