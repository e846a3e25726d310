"""Engines around a small model, stopped when the test ends."""

from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from service.admission import Limits
from service.engine import Engine
from service.metrics import Metrics
from tests.service.countdown import LIMITS, Countdown


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make(registry: CollectorRegistry) -> Iterator[Callable[..., Engine]]:
    engines: list[tuple[Engine, Countdown]] = []
    metrics = Metrics(registry)

    def build(
        model: Countdown,
        *,
        limits: Limits = LIMITS,
        started: bool = True,
        explainer: Countdown | None = None,
        long: Countdown | None = None,
        long_tokens: int = 0,
    ) -> Engine:
        engine = Engine(
            model,
            name="countdown",
            limits=limits,
            observer=metrics.observer("test", "countdown"),
            explainer=explainer or Countdown(),
            long=long,
            long_tokens=long_tokens,
        )
        engines.append((engine, model))
        if long is not None:
            engines.append((engine, long))
        if started:
            engine.start()
        return engine

    yield build
    for engine, model in engines:
        if model.gate is not None:
            model.gate.release(10_000)
        engine.stop()
        assert not engine.alive
