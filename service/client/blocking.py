"""The client for threads: takes the steps of an exchange and blocks while it does."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Self, TypeVar, Unpack

import httpx

from models.explain import Explain
from models.tasks.question_answering import QuestionAnsweringAnswer, QuestionAnsweringParameters
from models.tasks.recommendation import RecommendationAnswer, RecommendationParameters
from models.tasks.summarization import SummarizationAnswer, SummarizationParameters
from models.tasks.translation import TranslationAnswer, TranslationParameters
from service.client import calls
from service.client.calls import Call
from service.client.deadline import Bounded
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


class Client:
    """Asks a running Heedful. Threads may share it; `close` it, or use it in a `with` statement.

    The method of a task takes the request's `parameters`, a `model` other than the task's default, what `explain` shall
    show of each answer, and `CallOptions`.
    It gives a list, best first where there are candidates, and raises `ClientError`, or `ValueError` before anything is
    sent that cannot be. A streaming method sends its request when the first event is asked for.

    Args:
        url: of the service, without `/v1`.
        timeout_s: for a call with all its retries, pauses and the wait for a connection. The service is told, and stops
            its work then.
        retries: how often a call is tried again that the service has not begun.
    """

    def __init__(self, url: str = URL, *, timeout_s: float = TIMEOUT_S, retries: int = RETRIES) -> None:
        self._policy = Policy(timeout_s, retries)
        self._http = httpx.Client(base_url=checked(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def translate(
        self,
        texts: str | Sequence[str],
        parameters: TranslationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[TranslationAnswer]:
        """Translate one text or several; an answer for each."""
        return self._answer(calls.translation(texts, parameters, model, explain), options)

    def stream_translation(
        self,
        text: str,
        parameters: TranslationParameters | None = None,
        *,
        model: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Iterator[StreamEvent]:
        """Translate one text, token by token."""
        return self._events(calls.translation(text, parameters, model, streams=True), options)

    def summarize(
        self,
        texts: str | Sequence[str],
        parameters: SummarizationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[SummarizationAnswer]:
        """Summarize one text or several; an answer for each."""
        return self._answer(calls.summarization(texts, parameters, model, explain), options)

    def stream_summarization(
        self,
        text: str,
        parameters: SummarizationParameters | None = None,
        *,
        model: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Iterator[StreamEvent]:
        """Summarize one text, token by token."""
        return self._events(calls.summarization(text, parameters, model, streams=True), options)

    def answer(
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
        return self._answer(calls.question_answering(question, context, parameters, model, explain), options)

    def recommend(
        self,
        history: Sequence[str],
        parameters: RecommendationParameters | None = None,
        *,
        model: str | None = None,
        explain: Explain | None = None,
        **options: Unpack[CallOptions],
    ) -> list[RecommendationAnswer]:
        """Recommend items to a customer with this history, oldest item first."""
        return self._answer(calls.recommendation(history, parameters, model, explain), options)

    def models(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """The cards of the models that are served."""
        return self._answer(calls.CARDS, options)

    def _answer(self, call: Call[R], options: CallOptions) -> R:
        return read(call, self._response(call, options))

    def _events(self, call: Call[Any], options: CallOptions) -> Iterator[StreamEvent]:
        with closing(self._response(call, options)) as response:
            decoder = EventDecoder(response)
            try:
                for chunk in response.iter_bytes():
                    yield from decoder.feed(chunk)
            except httpx.TransportError as error:
                raise broken(error) from error
            decoder.end()

    def _response(self, call: Call[Any], options: CallOptions) -> httpx.Response:
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
                time.sleep(step.seconds)
            else:
                outcome = self._sent(step)

    def _sent(self, step: Send) -> Outcome:
        try:
            response = self._http.send(step.request(self._http), stream=True)
            response.stream = Bounded(response, step.left_s)
            if not (step.call.streams and response.is_success):
                response.read()
        except httpx.TransportError as error:
            return error
        return response
