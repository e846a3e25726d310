"""What server and client say to each other beside the tasks' own requests and answers: cards, problems, events."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.bundle import Languages, Limits, Precision, Quality


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
    """What one event adds to the text; `logprob` is the natural logarithm of the token's probability."""

    id: int
    text: str
    logprob: float
    special: bool


class StreamDetails(BaseModel):
    """How the text came to its end."""

    finish_reason: Literal["eos_token", "length"]
    generated_tokens: int


class StreamEvent(BaseModel):
    """One event of a streamed answer. The texts of all tokens joined are `generated_text`, which the last event has."""

    index: int
    token: StreamToken
    generated_text: str | None = None
    details: StreamDetails | None = None
