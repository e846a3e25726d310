"""What server and client say to each other beside the tasks' own requests and answers: cards, problems, events."""

import re
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.bundle import Languages, Limits, Precision, Quality
from models.explain import Method

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""An `X-Request-ID` that the service takes; it puts one of its own in the place of any other."""

CacheResult: TypeAlias = Literal["hit", "joined", "miss"]
"""Where an answer came from: kept from earlier, an equal request that was under way, or the model."""


class ModelCard(BaseModel):
    """What `GET /v1/models` says of one model."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    routes: tuple[str, ...]
    version: str
    source: str
    licence: str
    family: str
    parameters: int
    precision: Precision
    bytes: int
    languages: Languages
    limits: Limits
    explains: tuple[Method, ...]
    quality: tuple[Quality, ...]
    example: dict[str, JsonValue]


class FieldError(BaseModel):
    """One field of the request that cannot be accepted."""

    pointer: str = Field(description="JSON pointer (RFC 6901) of the field.", examples=["/parameters/top_k"])
    detail: str


class Problem(BaseModel):
    """An RFC 9457 problem. `error` repeats `detail` for clients of the Hugging Face Inference API."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str
    request_id: str
    errors: list[FieldError] | None = None


class StreamToken(BaseModel):
    """A token, and the text that became certain with it: often a whole word, often nothing."""

    id: int | None = Field(description="None in the last event, which brings the rest of the text.")
    text: str


class StreamTiming(BaseModel):
    """Where the time went, in milliseconds."""

    queue: float
    encode: float
    decode: float


class StreamDetails(BaseModel):
    """What the last event says of the whole answer."""

    finish_reason: Literal["eos_token", "length"] = Field(
        description="`length` when max_new_tokens ended a part of the text."
    )
    generated_tokens: int
    timing_ms: StreamTiming


class StreamEvent(BaseModel):
    """One server-sent event; the texts of all tokens together are `generated_text`."""

    index: int
    token: StreamToken
    generated_text: str | None = Field(None, description="In the last event alone.")
    details: StreamDetails | None = Field(None, description="In the last event alone.")
