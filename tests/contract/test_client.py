"""Our client and the service understand each other: answers, errors and streams, for threads and for asyncio."""

import asyncio
from typing import Any

import httpx
import pytest

from models.tasks import TASKS
from service.client import (
    AsyncClient,
    Client,
    GenerateParameters,
    InvalidRequest,
    NotServed,
    QuestionAnsweringParameters,
    RecommendationParameters,
    TooLarge,
    TranslationParameters,
)
from tests.contract.test_answers import ABSTRACT, CONTEXT, ENGLISH, post
from tests.serving import Service

QUESTION = "Where was Marie Curie born?"


def plain(answers: Any) -> list[Any]:
    return [answer.model_dump(exclude_none=True) for answer in answers]


def test_every_task_is_answered_as_over_plain_http(service: Service, http: httpx.Client) -> None:
    with Client(service.url) as client:
        cards = client.models()
        assert {card.task for card in cards} == set(TASKS)
        assert [card.model_dump(mode="json") for card in cards] == http.get("/v1/models").json()
        assert plain(client.translate(ENGLISH)) == post(http, "/v1/translation", ENGLISH)
        assert plain(client.summarize([ABSTRACT, CONTEXT])) == post(http, "/v1/summarization", [ABSTRACT, CONTEXT])
        inputs = {"question": QUESTION, "context": CONTEXT}
        assert plain(client.answer(QUESTION, CONTEXT)) == [post(http, "/v1/question-answering", inputs)]
        three = client.answer(QUESTION, CONTEXT, QuestionAnsweringParameters(top_k=3))
        assert plain(three) == post(http, "/v1/question-answering", inputs, top_k=3)
        history = ["22423", "85123A"]
        recommended = client.recommend(history, RecommendationParameters(top_k=4))
        assert plain(recommended) == post(http, "/v1/recommendation", {"history": history}, top_k=4)
        named = next(card.name for card in cards if card.task == "translation")
        beams = TranslationParameters(generate_parameters=GenerateParameters(num_beams=3))
        assert plain(client.translate(ENGLISH, beams, model=named)) == post(
            http, "/v1/translation", ENGLISH, generate_parameters={"num_beams": 3}
        )


def test_asyncio_gets_the_same(service: Service) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(service.url) as client:
            return list(
                await asyncio.gather(
                    client.models(),
                    client.translate(ENGLISH),
                    client.summarize(ABSTRACT),
                    client.answer(QUESTION, CONTEXT),
                    client.recommend(["22423"]),
                )
            )

    with Client(service.url) as client:
        assert asyncio.run(ask()) == [
            client.models(),
            client.translate(ENGLISH),
            client.summarize(ABSTRACT),
            client.answer(QUESTION, CONTEXT),
            client.recommend(["22423"]),
        ]


def test_problems_are_typed(service: Service) -> None:
    with Client(service.url) as client:
        with pytest.raises(InvalidRequest, match="tgt_lang must be one of fr") as refused:
            client.translate(ENGLISH, TranslationParameters(tgt_lang="xx"), request_id="abc-1")
        assert (refused.value.status, refused.value.request_id) == (422, "abc-1")
        assert refused.value.errors[0].pointer == "/parameters/tgt_lang"
        with pytest.raises(NotServed, match="nothing is served at /v1/translation/other"):
            client.translate(ENGLISH, model="other")
        with pytest.raises(TooLarge, match="at most"):
            client.translate("word " * 200_000)


def test_streams_say_what_the_answers_say(service: Service) -> None:
    async def told() -> list[Any]:
        async with AsyncClient(service.url) as client:
            return [event async for event in client.stream_translation(ENGLISH)]

    with Client(service.url) as client:
        events = list(client.stream_translation(ENGLISH))
        assert "".join(event.token.text for event in events) == client.translate(ENGLISH)[0].translation_text
        assert events[-1].generated_text == client.translate(ENGLISH)[0].translation_text
        summary = list(client.stream_summarization(ABSTRACT))[-1]
        assert summary.generated_text == client.summarize(ABSTRACT)[0].summary_text
        assert summary.details is not None
        assert [event.token for event in asyncio.run(told())] == [event.token for event in events]
        with pytest.raises(InvalidRequest, match="tgt_lang"):
            next(iter(client.stream_translation(ENGLISH, TranslationParameters(tgt_lang="xx"))))
