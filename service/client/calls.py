"""What can be asked of the service: each call's path, body and typed answer, in one place for both clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic_core import PydanticSerializationError

from models.explain import Explain
from models.tasks.question_answering import (
    QuestionAnsweringAnswer,
    QuestionAnsweringInputs,
    QuestionAnsweringParameters,
    QuestionAnsweringRequest,
)
from models.tasks.recommendation import (
    RecommendationAnswer,
    RecommendationInputs,
    RecommendationParameters,
    RecommendationRequest,
)
from models.tasks.summarization import SummarizationAnswer, SummarizationParameters, SummarizationRequest
from models.tasks.translation import TranslationAnswer, TranslationParameters, TranslationRequest
from service.contract import ModelCard

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """What is asked of the service: a GET where there is no body.

    Args:
        path: from the root on.
        answer: its shape.
        body: JSON.
        streams: the answer comes as server-sent events.
    """

    path: str
    answer: TypeAdapter[R]
    body: str | None = None
    streams: bool = False


CARDS: Call[list[ModelCard]] = Call("/v1/models", TypeAdapter(list[ModelCard]))


def translation(
    texts: str | Sequence[str],
    parameters: TranslationParameters | None,
    model: str | None,
    explain: Explain | None = None,
    *,
    streams: bool = False,
) -> Call[list[TranslationAnswer]]:
    """An answer for each text."""
    request = TranslationRequest(inputs=_listed(texts), parameters=parameters, explain=explain, stream=streams)
    return _call("translation", model, request, TypeAdapter(list[TranslationAnswer]), streams=streams)


def summarization(
    texts: str | Sequence[str],
    parameters: SummarizationParameters | None,
    model: str | None,
    explain: Explain | None = None,
    *,
    streams: bool = False,
) -> Call[list[SummarizationAnswer]]:
    """An answer for each text."""
    request = SummarizationRequest(inputs=_listed(texts), parameters=parameters, explain=explain, stream=streams)
    return _call("summarization", model, request, TypeAdapter(list[SummarizationAnswer]), streams=streams)


def question_answering(
    question: str,
    context: str,
    parameters: QuestionAnsweringParameters | None,
    model: str | None,
    explain: Explain | None = None,
) -> Call[list[QuestionAnsweringAnswer]]:
    """A list also where the service answers one object in place of a list of one."""
    inputs = QuestionAnsweringInputs(question=question, context=context)
    request = QuestionAnsweringRequest(inputs=inputs, parameters=parameters, explain=explain)
    answers = TypeAdapter(Annotated[list[QuestionAnsweringAnswer], BeforeValidator(_as_list)])
    return _call("question-answering", model, request, answers)


def recommendation(
    history: Sequence[str],
    parameters: RecommendationParameters | None,
    model: str | None,
    explain: Explain | None = None,
) -> Call[list[RecommendationAnswer]]:
    """Items for one customer."""
    inputs = RecommendationInputs(history=list(history))
    request = RecommendationRequest(inputs=inputs, parameters=parameters, explain=explain)
    return _call("recommendation", model, request, TypeAdapter(list[RecommendationAnswer]))


def _call(
    task: str, model: str | None, request: BaseModel, answer: TypeAdapter[R], *, streams: bool = False
) -> Call[R]:
    """What is asked of a task.

    Raises:
        ValueError: a text holds half of a surrogate pair, which is no character: UTF-8 has no bytes for it.
    """
    try:
        path = f"/v1/{task}" if model is None else f"/v1/{task}/{quote(model, safe='')}"
        return Call(path, answer, request.model_dump_json(exclude_defaults=True), streams)
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise ValueError(f"a text holds what is no character and cannot be sent: {error}") from error


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _as_list(answer: object) -> object:
    return [answer] if isinstance(answer, dict) else answer
