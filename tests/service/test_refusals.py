"""Every refusal that a caller reads is counted once, wherever it was made; also those of requests cut at the end."""

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.callers import Timing
from service.contract import ModelCard, StreamEvent, StreamToken
from service.errors import DeadlinePassed, NotReady, Overloaded, ServiceError
from service.gateway import create_app
from service.hosting import Call, model_cards
from service.metrics import Metrics, Observer
from service.settings import ModelSettings, Settings
from tests.models.embedded import TRANSLATION
from tests.serving import rows_inside, start, stop, until
from tests.tiny import write_bundle

SETTINGS = Settings(models=(ModelSettings(bundle=TRANSLATION),))
ROUTE = "/v1/translation"


class Refusing:
    """A host that says no to everything, to a stream after its first event."""

    def __init__(self, error: ServiceError) -> None:
        self.cards: Sequence[ModelCard] = model_cards(SETTINGS)
        self.registry = CollectorRegistry()
        self._metrics = Metrics(self.registry)
        self._error = error

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        raise self._error

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        yield StreamEvent(index=0, token=StreamToken(id=1, text="a"))
        raise self._error

    async def not_ready(self) -> Sequence[str]:
        return []

    async def metrics(self) -> bytes:
        return b""

    def observer(self, card: ModelCard) -> Observer:
        return self._metrics.observer(card.task, card.name)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (Overloaded("no", 1), "overloaded", 429),
        (NotReady("no", 1), "not_ready", 503),
        (DeadlinePassed("no"), "deadline", 504),
    ],
)
async def test_a_refusal_is_counted_by_its_reason(
    error: ServiceError, reason: str, status: int, *, stream: bool
) -> None:
    host = Refusing(error)
    transport = httpx.ASGITransport(create_app(host, SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://heedful") as http:
        answer = await http.post(ROUTE, json={"inputs": "a", "stream": stream})
        await http.post(ROUTE, json={"inputs": 1})
    assert answer.status_code == (200 if stream else status)
    counted = {
        sample.labels["reason"]: sample.value
        for metric in host.registry.collect()
        for sample in metric.samples
        if sample.name == "heedful_rejected_total" and sample.value
    }
    assert counted == {reason: 1}


def test_what_still_runs_after_the_drain_timeout_is_a_503(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "slow", "slow", products=150)
    service = start(
        "embedded", tmp_path / "log", HEEDFUL_BUNDLES=str(tmp_path / "bundles"), HEEDFUL_DRAIN_TIMEOUT_S="0.2"
    )
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=service.url, timeout=60) as http:
        body = {"inputs": {"history": ["i1", "i2"]}}
        asked = pool.submit(httpx.post, f"{service.url}/v1/recommendation", json=body, timeout=60)
        until(lambda: rows_inside(http, "recommendation") > 0)
        http.close()
        stop(service)
        answer = asked.result()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "shutting down" in answer.json()["detail"]
    assert "are cut" not in service.log.read_text()
    assert "Traceback" not in service.log.read_text()
