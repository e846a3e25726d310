"""The typed client: `Client` for threads, `AsyncClient` for asyncio, with the same calls, retries and errors.

Example::

    from service.client import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.translate("Where is the station?")[0].translation_text)
"""

from models.explain import Explain, Explanation
from models.generation import GenerateParameters
from models.tasks.question_answering import QuestionAnsweringAnswer, QuestionAnsweringParameters
from models.tasks.recommendation import RecommendationAnswer, RecommendationParameters
from models.tasks.summarization import SummarizationAnswer, SummarizationParameters
from models.tasks.translation import TranslationAnswer, TranslationParameters
from service.client.asynchronous import AsyncClient
from service.client.blocking import Client
from service.client.errors import (
    ClientError,
    ConnectionLost,
    DeadlinePassed,
    InvalidRequest,
    NotServed,
    Overloaded,
    ProblemError,
    TimedOut,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from service.contract import FieldError, ModelCard, Problem, StreamEvent

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionLost",
    "DeadlinePassed",
    "Explain",
    "Explanation",
    "FieldError",
    "GenerateParameters",
    "InvalidRequest",
    "ModelCard",
    "NotServed",
    "Overloaded",
    "Problem",
    "ProblemError",
    "QuestionAnsweringAnswer",
    "QuestionAnsweringParameters",
    "RecommendationAnswer",
    "RecommendationParameters",
    "StreamEvent",
    "SummarizationAnswer",
    "SummarizationParameters",
    "TimedOut",
    "TooLarge",
    "TranslationAnswer",
    "TranslationParameters",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
]
