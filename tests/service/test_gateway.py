"""Which bodies are long, so that they are tokenized beside the event loop."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from models.tasks.question_answering import QuestionAnsweringAnswer
from service.callers import Timing
from service.contract import ModelCard, StreamEvent, StreamToken
from service.gateway import create_app
from service.hosting import Call, model_cards
from service.metrics import Metrics, Observer
from service.settings import ModelSettings, Settings
from tests.models.embedded import QUESTION_ANSWERING

SETTINGS = Settings(models=(ModelSettings(bundle=QUESTION_ANSWERING),))


class Noting:
    """A host that notes which calls are long."""

    def __init__(self) -> None:
        self.cards: Sequence[ModelCard] = model_cards(SETTINGS)
        self.were_long: list[bool] = []
        self._metrics = Metrics(CollectorRegistry())

    async def answer(self, call: Call) -> tuple[Any, Timing]:
        self.were_long.append(call.is_long)
        return QuestionAnsweringAnswer(answer="a", score=1, start=0, end=1), Timing()

    async def stream(self, call: Call) -> AsyncGenerator[StreamEvent]:
        yield StreamEvent(index=0, token=StreamToken(id=1, text="a"))

    async def not_ready(self) -> Sequence[str]:
        return []

    async def metrics(self) -> bytes:
        return b""

    def observer(self, card: ModelCard) -> Observer:
        return self._metrics.observer(card.task, card.name)


@pytest.mark.parametrize(("characters", "is_long"), [(3_000, False), (5_000, True)])
async def test_a_usual_context_is_read_in_the_loop_and_a_long_one_beside_it(characters: int, *, is_long: bool) -> None:
    host = Noting()
    transport = httpx.ASGITransport(create_app(host, SETTINGS))
    body = {"inputs": {"question": "Who?", "context": "a " * (characters // 2)}}
    async with httpx.AsyncClient(transport=transport, base_url="http://heedful") as http:
        (await http.post("/v1/question-answering", json=body)).raise_for_status()
    assert host.were_long == [is_long]
