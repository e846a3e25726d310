"""What a caller may say about decoding, checked against what the bundle's model can do."""

import secrets
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.bundle import GenerationDefaults, Limits
from models.errors import InvalidInput, TooLarge
from models.task import Generation


class Closed(BaseModel):
    """A part of a request: no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class GenerateParameters(Closed):
    """How the output is decoded; greedy unless `do_sample`."""

    max_new_tokens: int | None = Field(None, ge=1, description="At most so many output tokens for each row.")
    num_beams: int | None = Field(None, ge=1, description="Beams searched side by side.")
    do_sample: bool | None = Field(None, description="Draw tokens instead of taking the likeliest.")
    temperature: float | None = Field(None, gt=0, le=100, description="Divides the logits before sampling.")
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Sample among the k likeliest tokens; 0 means all.")
    top_p: float | None = Field(None, gt=0, le=1, description="Sample among the likeliest with this joint probability.")
    repetition_penalty: float | None = Field(None, gt=0, le=100, description="Above 1 makes repetition less likely.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same seed gives the same sampled answer.")


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("text_or_list", "must be a string or a list of strings")
    return value


Inputs = Annotated[
    list[Annotated[str, StringConstraints(strict=True)]],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""One text or a list of texts; always a list once validated."""


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
    if asked.num_beams is not None and asked.num_beams > 1:
        detail = f"{root}/num_beams may be at most 1: this model decodes without beam search, got {asked.num_beams}"
        raise InvalidInput(detail, pointer=f"/{root}/num_beams")
    for name in ("temperature", "top_k", "top_p", "seed"):
        if getattr(asked, name) is not None and not asked.do_sample:
            detail = f"{root}/{name} needs do_sample: true, got {name} {getattr(asked, name)} without it"
            raise InvalidInput(detail, pointer=f"/{root}/{name}")
    return Generation(
        max_new_tokens=max_new_tokens,
        do_sample=bool(asked.do_sample),
        temperature=asked.temperature or 1.0,
        top_k=asked.top_k or 0,
        top_p=asked.top_p or 1.0,
        repetition_penalty=asked.repetition_penalty or defaults.repetition_penalty,
        no_repeat_ngram_size=defaults.no_repeat_ngram_size,
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
    )
