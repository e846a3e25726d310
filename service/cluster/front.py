"""The process at `/`: documentation, cards, health, metrics of all replicas, and 503 for a group that is not there."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from service import exposition, logs, tracing
from service.callers import Timing
from service.cluster.canary import UNREACHABLE
from service.cluster.replica import WholePaths, replica_id
from service.contract import ModelCard, StreamEvent
from service.errors import NotReady
from service.gateway import create_app
from service.hosting import READY_AGAIN_S, Call, model_cards
from service.metrics import Metrics, Observer, render
from service.serve_config import Application, applications
from service.settings import Settings

ASK_TIMEOUT_S = 2.0  # for a replica's metrics or readiness; one that takes longer is left out of this page


class ClusterHost:
    """The gateway's view of the groups: it asks their replicas, and stands in for a group that is not there."""

    def __init__(self, settings: Settings) -> None:
        self.cards: Sequence[ModelCard] = model_cards(settings)
        self._applications = [each for each in applications(settings, self.cards) if each.group is not None]
        self._handles: dict[str, DeploymentHandle[Any]] = {}
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)
        self._observers = {card.routes: self._metrics.observer(card.task, card.name) for card in self.cards}
        for each in self._applications:
            if _may_have_none(each):  # then none is no reason for an alert
                for card in each.cards:
                    self.observer(card).hide_readiness()

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        raise NotReady(f"no replica serves the model {call.card.name} at the moment", READY_AGAIN_S)

    def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        raise NotReady(f"no replica serves the model {call.card.name} at the moment", READY_AGAIN_S)

    async def not_ready(self) -> Sequence[str]:
        """A group that may have no replica is ready without one: its first caller waits for it."""
        asked = [each for each in self._applications if each.kind == "models"]
        answers = await asyncio.gather(*(self._ask(each.name, "not_ready") for each in asked))
        starting: set[str] = set()
        for each, answered in zip(asked, answers, strict=True):
            if answered or not _may_have_none(each):
                starting.update(*(answered or [[card.name for card in each.cards]]))
        return sorted(starting)

    async def metrics(self) -> bytes:
        answers = await asyncio.gather(*(self._ask(each.name, "metrics") for each in self._applications))
        pages = dict(page for answered in answers for page in answered)
        return exposition.merge({replica_id(): render(self._registry), **pages})

    def observer(self, card: ModelCard) -> Observer:
        return self._observers[card.routes]

    async def _ask(self, application: str, method: str) -> list[Any]:
        """What each replica of the application answers in time; nothing while there is none."""
        until = asyncio.get_running_loop().time() + ASK_TIMEOUT_S
        try:
            async with asyncio.timeout_at(until):
                if application not in self._handles:
                    self._handles[application] = await asyncio.to_thread(serve.get_app_handle, application)
                asked = self._handles[application].broadcast(method)
                # Its public `results_async` has one time-out for all: a slow replica would take the others' answers.
                results: list[Any] = await asked._fetch_replica_results_async()  # noqa: SLF001
        except UNREACHABLE:
            return []
        answers = await asyncio.gather(*(_answer(result, until) for result in results), return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _answer(result: Any, until: float) -> Any:
    async with asyncio.timeout_at(until):
        return await result.get_async()


def _may_have_none(application: Application) -> bool:
    """Whether it may scale to no replica at all."""
    scaling = application.settings.autoscaling
    return scaling is not None and scaling.min_replicas == 0


class Gateway:
    """The process at `/`: documentation, cards, health, metrics, and 503 for a group that is not there."""

    def __init__(self, settings: Settings) -> None:
        logs.configure(settings.log_level, settings.log_format)
        tracing.configure()
        self._settings = settings
        self._host = ClusterHost(settings)

    async def settings(self) -> Settings:
        """With which the service runs; a command that changes it starts from them."""
        return self._settings

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return WholePaths(create_app(self._host, self._settings))
