"""The models of one process behind the routes: loaded, warmed by their own example, answering, drained."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from models.bundle import Limits, Manifest, read_manifest
from models.errors import BundleError, ModelError
from models.explain import Explain, explained_by
from models.generation import is_repeatable
from models.load import Loaded, device, example_of, load, preferred
from models.task import WritingTask
from models.tasks import TASKS
from service import admission, tracing
from service.cache import Cache, held_bytes, key_of
from service.callers import Timing, within
from service.contract import ModelCard, StreamEvent
from service.engine import Engine, stop_all
from service.errors import NotReady
from service.gpu import memory_budget_bytes, visible_gpu
from service.metrics import Metrics, Observer, render
from service.settings import ModelSettings, Settings
from service.streaming import stream

logger = logging.getLogger("heedful.hosting")

READY_AGAIN_S = 1


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A request to one model.

    Args:
        request: of the type of the model's task.
        deadline: on the clock of `time.monotonic()`, in seconds.
        is_long: its texts are tokenized beside the event loop, since others would wait for it.
        request_id: the caller's, or one made for it.
    """

    card: ModelCard
    request: BaseModel
    deadline: float
    is_long: bool = False
    request_id: str = ""


class Host(Protocol):
    """What the gateway asks, whether the models are in its own process or behind a cluster's handles."""

    cards: Sequence[ModelCard]

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        """The task's response. Raises what `Engine.answer` raises, and NotReady."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        """The response of a task that writes text, while it is written. Raises what `answer` raises, at any time."""
        ...

    async def not_ready(self) -> Sequence[str]:
        """Names of the models that have not answered their own example yet."""
        ...

    async def metrics(self) -> bytes:
        """Every sample in the Prometheus text format."""
        ...

    def observer(self, card: ModelCard) -> Observer:
        """Where the gateway counts the requests of a model."""
        ...


def model_cards(settings: Settings) -> list[ModelCard]:
    """Cards of every configured model from the manifests alone; the first model of a task also answers `/v1/{task}`.

    Raises:
        BundleError: a manifest is broken, its task unknown or its version another than the settings say, or two models
            of a task share a name.
    """
    cards: list[ModelCard] = []
    for model in settings.models:
        manifest = read_manifest(model.bundle)
        if manifest.task not in TASKS:
            raise BundleError(f"{model.bundle}: task {manifest.task!r} is unknown, this release has {', '.join(TASKS)}")
        if model.version not in {None, manifest.version}:
            said = f"but the setting version of this model is {model.version!r}"
            raise BundleError(f"{model.bundle}: version {manifest.version!r}, {said}")
        name = model.name or manifest.name
        if any((card.task, card.name) == (manifest.task, name) for card in cards):
            raise BundleError(f"{model.bundle}: a second {manifest.task} model named {name!r}; give it another name")
        is_default = all(card.task != manifest.task for card in cards)
        limits = manifest.limits.within(settings.slots)
        cards.append(_card(manifest, model, name, limits, is_default=is_default))
    return cards


def _card(manifest: Manifest, model: ModelSettings, name: str, limits: Limits, *, is_default: bool) -> ModelCard:
    precision = model.precision or preferred(manifest.precisions)
    if precision not in manifest.precisions:
        carried = ", ".join(manifest.precisions)
        raise BundleError(f"{model.bundle}: no {precision} graphs, the bundle carries {carried}")
    own = f"/v1/{manifest.task}/{name}"
    return ModelCard(
        name=name,
        task=manifest.task,
        routes=(f"/v1/{manifest.task}", own) if is_default else (own,),
        version=manifest.version,
        source=manifest.source,
        licence=manifest.licence,
        family=manifest.family,
        parameters=manifest.parameters,
        precision=precision,
        bytes=sum(file.bytes for file in manifest.files()),
        languages=manifest.languages,
        limits=limits,
        explains=explained_by(manifest),
        quality=manifest.quality,
        example=manifest.example,
    )


@dataclass(slots=True, eq=False)
class _Running:
    loaded: Loaded
    engine: Engine
    cache: Cache[tuple[Any, Timing]] | None
    is_ready: bool = False


class LocalHost:
    """Models that run in this process, an engine each.

    Args:
        settings: which models, and how.
        replica: only the models of this replica; None takes all.

    Raises:
        BundleError: a bundle is broken, or does not fit what the replica may take of a GPU.
    """

    def __init__(self, settings: Settings, *, replica: str | None = None) -> None:
        self.cards: Sequence[ModelCard] = model_cards(settings)
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)
        self._observers = {
            card.routes: self._metrics.observer(card.task, card.name)
            for card, model in zip(self.cards, settings.models, strict=True)
            if replica in {None, model.replica}
        }
        limits = admission.Limits(settings.limits.max_waiting_rows, settings.limits.max_waiting_tokens)
        self._running: dict[tuple[str, ...], _Running] = {}
        self._asked_at = time.monotonic()
        gpu = visible_gpu() if device() == "cuda" else None
        left_bytes: int | None = None
        if gpu is not None:
            self._metrics.watch_gpu(gpu)
            left_bytes = memory_budget_bytes(gpu.memory_total_bytes, settings.num_gpus, settings.gpu_memory_mb)
        for card, model in zip(self.cards, settings.models, strict=True):
            if (observer := self._observers.get(card.routes)) is None:
                continue
            loaded = load(
                model.bundle,
                precision=card.precision,
                slots=settings.slots,
                threads=settings.threads,
                memory_bytes=left_bytes,
            )
            if left_bytes is not None:
                left_bytes -= loaded.memory_bytes
            engine = Engine(
                loaded.model,
                name=f"{card.task}/{card.name}",
                limits=limits,
                observer=observer,
                explainer=loaded.explainer,
                long=loaded.long,
                long_tokens=card.limits.max_tokens,
            )
            cache = Cache[tuple[Any, Timing]](settings.cache_mb * 10**6, held_bytes) if settings.cache_mb else None
            self._running[card.routes] = _Running(loaded, engine, cache)
            observer.describe(version=card.version, precision=card.precision)

    async def start(self) -> None:
        """Start the engines and let every model answer its own example; returns when all are ready.

        Raises:
            BundleError: a model cannot answer its own example.
        """
        for running in self._running.values():
            running.engine.start()
        for routes, running in self._running.items():
            await self._warm(running)
            running.is_ready = True
            self._observers[routes].ready()

    async def _warm(self, running: _Running) -> None:
        request = example_of(running.loaded.bundle)
        try:
            await running.engine.answer(running.loaded.task.solve(request))
        except ModelError as error:
            raise BundleError(f"{running.loaded.bundle.folder}: cannot answer its own example: {error}") from error
        # One row alone says nothing of what many together bring; by it the first few callers would seem a backlog.
        running.engine.forget_rate()
        logger.info("model %s answered its example", running.loaded.bundle.manifest.name)

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        running = self._ready(call.card)
        if running.cache is not None and is_repeatable(call.request):
            return await self._cached(running, running.cache, call)
        return await self._computed(running, call, call.deadline)

    async def _computed(self, running: _Running, call: Call, deadline: float | None = None) -> tuple[Any, Timing]:
        asked: Explain | None = getattr(call.request, "explain", None)
        if asked is not None and "attention" in asked.method:
            async with within(deadline):
                await asyncio.to_thread(running.loaded.explainer.load)
        solution = running.loaded.task.solve(call.request)
        in_thread = call.is_long or asked is not None  # an explanation multiplies matrices
        return await running.engine.answer(
            solution, deadline=deadline, in_thread=in_thread, explained=asked is not None
        )

    async def _cached(self, running: _Running, cache: Cache[tuple[Any, Timing]], call: Call) -> tuple[Any, Timing]:
        """The deadline is the caller's own: others may wait longer for the same computation, which has none."""

        async def compute() -> tuple[Any, Timing]:
            answer, timing = await self._computed(running, call)
            return answer, replace(timing, paces_s=())  # counted by the engine; of many rows they outweigh the answer

        began = time.monotonic()
        async with within(call.deadline):
            (answer, timing), result = await cache.get(key_of(call.request), compute)
        self.observer(call.card).cached(result)
        waited = timing if result == "miss" else Timing(queue_s=time.monotonic() - began)
        return answer, replace(waited, cache=result)

    def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        running = self._ready(call.card)
        task = cast("WritingTask[BaseModel, Any]", running.loaded.task)  # only their requests ask for a stream
        return stream(running.engine, partial(task.draft, call.request), call.deadline, in_thread=call.is_long)

    def asked(self) -> None:
        """Somebody wants an answer now, whoever gives it: a model, a cache or another process."""
        self._asked_at = time.monotonic()

    def _ready(self, card: ModelCard) -> _Running:
        self.asked()
        running = self._running.get(card.routes)
        if running is None or not running.is_ready:
            raise NotReady(f"the model {card.name} is starting", READY_AGAIN_S)
        return running

    async def not_ready(self) -> Sequence[str]:
        return [
            running.loaded.bundle.manifest.name
            for running in self._running.values()
            if not (running.is_ready and running.engine.alive)
        ]

    async def metrics(self) -> bytes:
        return render(self._registry)

    def pressure(self) -> admission.Pressure:
        """Of all models together: the longest backlog, the highest load, and how long none has had a request."""
        each = [running.engine.pressure() for running in self._running.values()]
        idle_s = min(time.monotonic() - self._asked_at, *(one.idle_s for one in each))
        return admission.Pressure(max(one.backlog_s for one in each), max(one.load for one in each), idle_s)

    def observer(self, card: ModelCard) -> Observer:
        # Another replica's model is asked for here while that replica is away and its path is below our prefix.
        return self._observers.get(card.routes) or self._metrics.observer(card.task, card.name)

    async def drain(self) -> None:
        """Refuse new requests and return when everything accepted is answered."""
        await asyncio.gather(*(running.engine.drain() for running in self._running.values()))

    def stop(self) -> None:
        """End the engines' threads, and send the spans that have not been sent."""
        stop_all(running.engine for running in self._running.values())
        tracing.shutdown()
