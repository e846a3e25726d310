"""What a caller may say about decoding, checked against what the bundle's model can do."""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.bundle import GenerationDefaults, Limits
from models.errors import InvalidInput, TooLarge
from models.task import Generation, Row, Tokens

T = TypeVar("T")


class Closed(BaseModel):
    """A part of a request: no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _as_when_to_stop(value: object) -> object:
    if not isinstance(value, bool) and value != "never":
        raise PydanticCustomError("early_stopping", "must be true, false or 'never'")
    return value


WhenToStop = Annotated[Literal[True, False, "never"], BeforeValidator(_as_when_to_stop)]


class GenerateParameters(Closed):
    """How the output is decoded: as the model's own settings say, unless something is given."""

    max_new_tokens: int | None = Field(None, ge=1, description="At most so many output tokens for each row.")
    num_beams: int | None = Field(None, ge=1, description="Continuations searched side by side; 1 takes the likeliest.")
    length_penalty: float | None = Field(
        None, ge=-10, le=10, description="Beams rank by log-probability ÷ length ** length_penalty."
    )
    early_stopping: WhenToStop | None = Field(
        None,
        description="Whether the search ends as soon as num_beams continuations have ended; `never` ends it when none"
        " of any length can be better.",
    )
    do_sample: bool | None = Field(None, description="Draw tokens instead of taking the likeliest.")
    temperature: float | None = Field(None, gt=0, le=100, description="Divides the logits before sampling.")
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Sample among the k likeliest tokens; 0 means all.")
    top_p: float | None = Field(None, gt=0, le=1, description="Sample among the likeliest with this joint probability.")
    repetition_penalty: float | None = Field(None, gt=0, le=100, description="Above 1 makes repetition less likely.")
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=1000, description="No n-gram of this size comes twice.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same seed gives the same sampled answer.")


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("text_or_list", "must be a string or a list of strings")
    return value


Inputs = Annotated[
    list[Annotated[str, StringConstraints(strict=True)]],
    FailFast(),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""One text or a list of texts; always a list once validated."""


class WritingRequest(Closed):
    """What the requests of all tasks that write text have in common."""

    inputs: Inputs = Field(description="A text or a list of texts.")
    stream: bool = Field(
        False, description="Answer with server-sent events while the text is being written; inputs is then one text."
    )


def check_writing(request: WritingRequest, limits: Limits) -> None:
    """Refuse what `check_inputs` refuses, and a stream of several texts.

    Raises:
        InvalidInput: also when `stream` is asked for more than one text.
        TooLarge: see `check_inputs`.
    """
    check_inputs(request.inputs, limits)
    if request.stream and len(request.inputs) > 1:
        raise InvalidInput(f"inputs must be 1 text with stream: true, got {len(request.inputs)}", pointer="/inputs")


def check_inputs(inputs: list[str], limits: Limits) -> None:
    """Refuse too many, too long or blank texts.

    Raises:
        InvalidInput: no text at all, or one without a character that is not blank.
        TooLarge: more than `max_inputs` texts, or one of more than `max_characters`.
    """
    if not inputs:
        raise InvalidInput("inputs must hold at least 1 text, got an empty list", pointer="/inputs")
    if len(inputs) > limits.max_inputs:
        raise TooLarge(f"inputs holds at most {limits.max_inputs} texts, got {len(inputs)}", pointer="/inputs")
    for index, text in enumerate(inputs):
        check_text(text, "inputs" if len(inputs) == 1 else f"inputs/{index}", limits)


def check_text(text: str, field: str, limits: Limits) -> None:
    """Refuse a text that is blank or longer than `max_characters`; `field` is its path below the request's root."""
    if len(text) > limits.max_characters:
        raise TooLarge(
            f"{field} may have at most {limits.max_characters} characters, got {len(text)}", pointer=f"/{field}"
        )
    if not text.strip():
        raise InvalidInput(
            f"{field} must have at least 1 character that is not blank, got {len(text)} blank ones", pointer=f"/{field}"
        )


def generation(parameters: GenerateParameters | None, defaults: GenerationDefaults, limits: Limits) -> Generation:
    """Settings of a row from the bundle's defaults and what the caller asked for.

    Raises:
        InvalidInput: the caller asks for what this model cannot do.
    """
    asked = parameters or GenerateParameters()
    root = "parameters/generate_parameters"
    max_new_tokens = asked.max_new_tokens or defaults.max_new_tokens
    if max_new_tokens > limits.max_new_tokens:
        detail = f"{root}/max_new_tokens may be at most {limits.max_new_tokens} for this model, got {max_new_tokens}"
        raise InvalidInput(detail, pointer=f"/{root}/max_new_tokens")
    num_beams = asked.num_beams or (1 if asked.do_sample else defaults.num_beams)
    if asked.num_beams is not None and num_beams > limits.max_beams:
        detail = f"{root}/num_beams may be at most {limits.max_beams} for this model, got {num_beams}"
        raise InvalidInput(detail, pointer=f"/{root}/num_beams")
    if asked.do_sample and num_beams > 1:
        detail = f"{root}/num_beams must be 1 with do_sample: true, beams are not sampled, got {num_beams}"
        raise InvalidInput(detail, pointer=f"/{root}/num_beams")
    for needed, holds, names in (
        ("do_sample: true", asked.do_sample, ("temperature", "top_k", "top_p", "seed")),
        ("num_beams above 1", num_beams > 1, ("length_penalty", "early_stopping")),
    ):
        for name in names:
            if (given := getattr(asked, name)) is not None and not holds:
                detail = f"{root}/{name} needs {needed}, got {name} {given} without it"
                raise InvalidInput(detail, pointer=f"/{root}/{name}")
    return Generation(
        max_new_tokens=max_new_tokens,
        do_sample=bool(asked.do_sample),
        temperature=asked.temperature or defaults.temperature or 1.0,
        top_k=_either(asked.top_k, defaults.top_k or 0),
        top_p=asked.top_p or defaults.top_p or 1.0,
        repetition_penalty=asked.repetition_penalty or defaults.repetition_penalty,
        no_repeat_ngram_size=_either(asked.no_repeat_ngram_size, defaults.no_repeat_ngram_size),
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
        num_beams=num_beams,
        length_penalty=_either(asked.length_penalty, defaults.length_penalty),
        early_stopping=_either(asked.early_stopping, defaults.early_stopping),
    )


def rows_of(texts: Iterable[Tokens], settings: Generation) -> list[Row]:
    """The rows of one request, numbered in their order."""
    return [Row(tokens, generation=replace(settings, row=number)) for number, tokens in enumerate(texts)]


def is_repeatable(request: BaseModel) -> bool:
    """Whether a validated request of any task always has the same answer: not where it draws tokens without a seed."""
    asked = getattr(getattr(request, "parameters", None), "generate_parameters", None)
    return not (isinstance(asked, GenerateParameters) and asked.do_sample and asked.seed is None)


def _either(asked: T | None, default: T) -> T:
    return default if asked is None else asked
