"""The client for asyncio: awaits the steps of an exchange."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from models.explain import Explain
from models.tasks.question_answering import QuestionAnsweringAnswer, QuestionAnsweringParameters
from models.tasks.recommendation import RecommendationAnswer, RecommendationParameters
from models.tasks.summarization import SummarizationAnswer, SummarizationParameters
from models.tasks.translation import TranslationAnswer, TranslationParameters
from service.client import calls
from service.client.calls import Call
from service.client.deadline import GRACE_S, AsyncBounded
from service.client.exchange import (
    RETRIES,
    TIMEOUT_S,
    URL,
    CallOptions,
    EventDecoder,
    Outcome,
    Pause,
    Policy,
    Send,
    broken,
    checked,
    exchange,
    read,
)
from service.contract import ModelCard, StreamEvent

R = TypeVar("R")


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited, or to be gone through by `async for` where they stream.

    A call whose task is cancelled hangs up, and the service drops its work within a step.
    """

    def __init__(self, url: str = URL, *, timeout_s: float = TIMEOUT_S, retries: int = RETRIES) -> None:
        self._policy = Policy(timeout_s, retries)
        self._http = httpx.AsyncClient(base_url=checked(url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def translate(
        self,
        texts: str | Sequence[str],
        parameters: TranslationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[TranslationAnswer]:
        """Translate one text or several; an answer for each."""
        return await self._answer(calls.translation(texts, parameters, model, explain), options)

    def stream_translation(
        self,
        text: str,
        parameters: TranslationParameters | None = None,
        *,
        model: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[StreamEvent]:
        """Translate one text, token by token."""
        return self._events(calls.translation(text, parameters, model, streams=True), options)

    async def summarize(
        self,
        texts: str | Sequence[str],
        parameters: SummarizationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[SummarizationAnswer]:
        """Summarize one text or several; an answer for each."""
        return await self._answer(calls.summarization(texts, parameters, model, explain), options)

    def stream_summarization(
        self,
        text: str,
        parameters: SummarizationParameters | None = None,
        *,
        model: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[StreamEvent]:
        """Summarize one text, token by token."""
        return self._events(calls.summarization(text, parameters, model, streams=True), options)

    async def answer(
        self,
        question: str,
        context: str,
        parameters: QuestionAnsweringParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[QuestionAnsweringAnswer]:
        """Find the answer to a question in a context: one, or `parameters.top_k` of them."""
        return await self._answer(calls.question_answering(question, context, parameters, model, explain), options)

    async def recommend(
        self,
        history: Sequence[str],
        parameters: RecommendationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[RecommendationAnswer]:
        """Recommend items to a customer with this history, oldest item first."""
        return await self._answer(calls.recommendation(history, parameters, model, explain), options)

    async def models(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """The cards of the models that are served."""
        return await self._answer(calls.CARDS, options)

    async def _answer(self, call: Call[R], options: CallOptions) -> R:
        return read(call, await self._response(call, options))

    async def _events(self, call: Call[Any], options: CallOptions) -> AsyncIterator[StreamEvent]:
        response = await self._response(call, options)
        try:
            decoder = EventDecoder(response)
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    yield event
            decoder.end()
        except httpx.TransportError as error:
            raise broken(error) from error
        finally:
            await response.aclose()

    async def _response(self, call: Call[Any], options: CallOptions) -> httpx.Response:
        """A success: read, unless the call streams."""
        steps = exchange(call, self._policy, options)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                outcome = await self._sent(step)

    async def _sent(self, step: Send) -> Outcome:
        request = step.request(self._http)
        try:
            async with asyncio.timeout(step.left_s() + GRACE_S):
                response = await self._http.send(request, stream=True)
            response.stream = AsyncBounded(response, step.left_s)
            if not (step.call.streams and response.is_success):
                await response.aread()
        except TimeoutError:
            return httpx.ReadTimeout("", request=request)
        except httpx.TransportError as error:
            return error
        return response
