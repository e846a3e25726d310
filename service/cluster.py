"""Heedful on Ray Serve: an application for each group of models, and the gateway at `/`.

The only module that imports Ray. Import it after `service.ray_environment.prepare` has run: Ray reads its environment
when it is imported.
"""

import asyncio
import logging
import math
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, ServeStatus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import BundleError
from service import exposition, logs, tracing
from service.callers import Timing
from service.contract import ModelCard, StreamEvent
from service.errors import NotReady, StartError
from service.gateway import create_app
from service.hosting import READY_AGAIN_S, Call, LocalHost, model_cards
from service.metrics import Metrics, Observer, render
from service.placement import GATEWAY, Group, place
from service.settings import Settings

logger = logging.getLogger("heedful.cluster")

ASK_TIMEOUT_S = 2.0  # for a replica's metrics or readiness; one that takes longer is left out of this page
LAST_WORD_S = 10.0  # for a replica to answer 503 after its drain timeout
LOOK_AGAIN_S = 0.05
# Refusing is our own admission's task: Ray would queue without bound beyond this.
MAX_ONGOING_REQUESTS = 100_000
GATEWAY_CPUS = 0.1


class WholePaths:
    """ASGI middleware between Ray and the application: whole paths, as the routes are declared, and one request id.

    Ray moves the application's prefix into `root_path`, and appends the `X-Request-ID` that the application has set.
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


class ModelReplica:
    """A process with the models of one group, and their routes."""

    async def __init__(self, settings: Settings, group: str) -> None:  # type: ignore[misc] # Ray awaits it
        logs.configure(settings.log_level, settings.log_format)
        tracing.configure()
        self._settings = settings
        self._host = await asyncio.to_thread(LocalHost, settings, replica=group)
        await self._host.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            yield
            self._host.stop()

        return WholePaths(create_app(self._host, self._settings, lifespan=lifespan))

    async def check_health(self) -> None:
        if dead := await self._host.not_ready():
            raise RuntimeError(f"the engines of these models have ended: {', '.join(dead)}")

    async def not_ready(self) -> Sequence[str]:
        return await self._host.not_ready()

    async def metrics(self) -> tuple[str, bytes]:
        return _replica_id(), await self._host.metrics()

    async def drain(self) -> None:
        """Refuse what is new and return when all that was accepted is answered, at the latest with 503."""
        timeout_s = self._settings.drain_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._host.drain()
        except TimeoutError:
            logger.warning("requests were still running after the drain timeout of %s s and get 503", timeout_s)
            await asyncio.to_thread(self._host.stop)


class ClusterHost:
    """The gateway's view of the groups: it asks their replicas, and stands in for a group that is not there."""

    def __init__(self, settings: Settings, groups: Sequence[Group]) -> None:
        self.cards: Sequence[ModelCard] = model_cards(settings)
        self._groups = groups
        self._handles: dict[str, DeploymentHandle[Any]] = {}
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)
        self._observers = {card.routes: self._metrics.observer(card.task, card.name) for card in self.cards}

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        raise NotReady(f"no replica serves the model {call.card.name} at the moment", READY_AGAIN_S)

    def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        raise NotReady(f"no replica serves the model {call.card.name} at the moment", READY_AGAIN_S)

    async def not_ready(self) -> Sequence[str]:
        answers = await asyncio.gather(*(self._ask(group, "not_ready") for group in self._groups))
        starting: set[str] = set()
        for group, answered in zip(self._groups, answers, strict=True):
            starting.update(*(answered or [[card.name for card in group.cards]]))
        return sorted(starting)

    async def metrics(self) -> bytes:
        answers = await asyncio.gather(*(self._ask(group, "metrics") for group in self._groups))
        pages = dict(page for answered in answers for page in answered)
        return exposition.merge({_replica_id(): render(self._registry), **pages})

    def observer(self, card: ModelCard) -> Observer:
        return self._observers[card.routes]

    async def _ask(self, group: Group, method: str) -> list[Any]:
        """What every replica of the group answers; nothing while there is none."""
        try:
            if group.name not in self._handles:
                self._handles[group.name] = await asyncio.to_thread(serve.get_app_handle, group.name)
            asked = self._handles[group.name].broadcast(method)
            answers = await asked.results_async(timeout_s=ASK_TIMEOUT_S, return_exceptions=True)
        except (RayServeException, TimeoutError):
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]


class Gateway:
    """The process at `/`: documentation, cards, health, metrics, and 503 for a group that is not there."""

    def __init__(self, settings: Settings, groups: Sequence[Group]) -> None:
        logs.configure(settings.log_level, settings.log_format)
        tracing.configure()
        self._settings = settings
        self._host = ClusterHost(settings, groups)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return WholePaths(create_app(self._host, self._settings))


def run_cluster(settings: Settings, run_folder: Path, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was accepted, refuse what is new, end every process and return.

    Args:
        settings: which models, and how.
        run_folder: an empty folder that becomes the working directory. That comes first on the workers' path, so that
            a folder `models` where the operator stands would be imported in place of ours.
        on_ready: called once, when every group has answered an example through the front door.

    Raises:
        BundleError: a bundle is broken, or a model cannot answer its own example.
        SettingsError: the models cannot be placed as the settings ask.
        StartError: Ray or a replica does not start.
    """
    groups = place(settings.models, model_cards(settings))
    os.chdir(run_folder)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises no narrower class when its processes are not up within 30 s
        raise StartError(
            f"Ray does not start: {error} Its log is in /tmp/ray/session_latest/logs; try again"
        ) from error
    try:
        asyncio.run(_serve(settings, groups, on_ready))
    finally:
        ray.shutdown()


async def _serve(settings: Settings, groups: Sequence[Group], on_ready: Callable[[], None]) -> None:
    # After ray.init, which sets handlers of its own.
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    try:
        await asyncio.to_thread(_deploy, settings, groups)
        if await _ready(settings, groups, stop):
            on_ready()
            await stop.wait()
            logger.info("draining: accepted requests are answered, new ones refused")
            timeout_s = settings.drain_timeout_s + LAST_WORD_S
            await asyncio.gather(*(_drain(group, timeout_s) for group in groups))
    finally:
        await serve.shutdown_async()  # type: ignore[no-untyped-call]


def _deploy(settings: Settings, groups: Sequence[Group]) -> None:
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    cpus = _cpus_per_replica(settings, len(groups))
    targets = [
        serve.RunTarget(
            _application(group.name, ModelReplica, settings.replicas, cpus, settings, group.name),
            group.name,
            group.prefix,
        )
        for group in groups
    ]
    gateway = _application(GATEWAY, Gateway, 1, GATEWAY_CPUS, settings, groups)
    targets.append(serve.RunTarget(gateway, GATEWAY, "/"))
    serve.run_many(targets, wait_for_applications_running=False)


def _application(
    name: str, replica: type, replicas: int, cpus: float, settings: Settings, *arguments: object
) -> serve.Application:
    deployment = serve.deployment(
        name=name,
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_constructor_retry_count=2,
        max_surge_percent=100,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        health_check_period_s=5,
    )(serve.ingress()(replica))
    return deployment.bind(settings, *arguments)


async def _ready(settings: Settings, groups: Sequence[Group], stop: asyncio.Event) -> bool:
    """Wait until every group has answered an example through the front door; False when a signal came first."""
    waiting = list(groups)
    async with httpx.AsyncClient(base_url=settings.url, timeout=settings.request_timeout_ms / 1e3) as client:
        while waiting and not stop.is_set():
            if _all_run(await asyncio.to_thread(serve.status)):
                waiting = [group for group in waiting if not await _answers(client, group)]
            await asyncio.sleep(LOOK_AGAIN_S)
    return not waiting


async def _answers(client: httpx.AsyncClient, group: Group) -> bool:
    """Whether the load balancer has heard of the gateway and of this group."""
    card = group.cards[0]
    try:
        ready = await client.get("/readyz")
        return ready.is_success and (await client.post(card.routes[0], json=card.example)).is_success
    except httpx.TransportError:
        return False


def _all_run(status: ServeStatus) -> bool:
    """Whether every application runs.

    Raises:
        BundleError: a replica refused its bundle.
        StartError: an application failed for another reason.
    """
    for name, application in status.applications.items():
        if application.status is not ApplicationStatus.DEPLOY_FAILED:
            continue
        messages = [application.message, *(deployment.message for deployment in application.deployments.values())]
        if cause := re.search(r"BundleError: (.*)", "\n".join(messages)):
            raise BundleError(cause[1])
        raise StartError(f"the replica {name} does not start: {application.message}")
    return all(application.status is ApplicationStatus.RUNNING for application in status.applications.values())


async def _drain(group: Group, timeout_s: float) -> None:
    """Let every replica of the group refuse new requests and answer what it has accepted."""
    try:
        handle: DeploymentHandle[Any] = await asyncio.to_thread(serve.get_app_handle, group.name)
        await handle.broadcast("drain").results_async(timeout_s=timeout_s, return_exceptions=True)
    except (RayServeException, TimeoutError) as error:
        logger.warning("replica %s did not drain: %s", group.name, error)


def _cpus_per_replica(settings: Settings, groups: int) -> float:
    """A core for each thread where there are so many, else an equal share; halved, so that an update finds room."""
    cores: float = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
    share = (cores - 2 * GATEWAY_CPUS) / (2 * groups * settings.replicas)
    return min(float(settings.threads), math.floor(share * 100) / 100)


def _replica_id() -> str:
    return serve.get_replica_context().replica_id.unique_id
