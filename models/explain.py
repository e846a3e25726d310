"""What a caller may ask of an explanation and what it holds, the same for every task, with the bounds on its cost."""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.attribution import Floats
from models.bundle import Bundle, Manifest
from models.errors import InvalidInput, TooLarge
from models.generation import Closed

Method: TypeAlias = Literal["attention", "occlusion"]

MOST_ATTENTION_TOKENS = 1024
"""Source tokens of all rows of a request whose attention is shown: a weight for each with each output token."""
MOST_TOKENS_BY_HEAD = 256
"""The same where it is shown by layer and head."""
MOST_OCCLUSION_TOKENS = 65_536
"""Tokens that occlusion reads: for each word, those of the row without it."""
DIGITS = 6


def _as_methods(value: object) -> object:
    methods = [value] if isinstance(value, str) else value
    known = ("attention", "occlusion")
    if not isinstance(methods, list | tuple) or not methods or not all(method in known for method in methods):
        raise PydanticCustomError("explain_method", "must be 'attention', 'occlusion' or a list of both")
    return tuple(dict.fromkeys(methods))


Methods = Annotated[
    tuple[Method, ...],
    BeforeValidator(_as_methods),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["attention", "occlusion"], "type": "string"},
                {"items": {"enum": ["attention", "occlusion"], "type": "string"}, "minItems": 1, "type": "array"},
            ]
        }
    ),
]


class Explain(Closed):
    """Asks what in the input led to the answer; the answer itself stays the same."""

    method: Methods = Field(
        description="`attention` shows what the model attended to, `occlusion` how much less likely the answer becomes"
        " without each word or item."
    )
    heads: Literal["mean", "each"] | None = Field(
        None, description="Attention averaged over layers and heads (when left out), or also of `each`."
    )
    encoding: Literal["json", "base64"] | None = Field(
        None, description="Weights as lists of numbers (when left out), or float16 in base64."
    )
    top_k: int | None = Field(None, ge=1, le=1024, description="Only the k largest weights of each row.")


class Unit(Closed):
    """A token, word or item: the characters `[start, end)` of the caller's or the answer's text, none for specials."""

    text: str
    pointer: str | None = Field(None, description="JSON pointer to the field of the request; absent in an output.")
    start: int | None = None
    end: int | None = None


class Weights(Closed):
    """Numbers of this shape, as nested lists in `values` or as little-endian float16 in `base64`, in C order.

    With `top_k` the last axis holds the largest ones alone, and `indices`, nested like `values`, say which these are.
    """

    shape: list[int]
    values: list[float] | list[list[float]] | list[list[list[list[float]]]] | None = None
    base64: str | None = None
    indices: list[int] | list[list[int]] | list[list[list[list[int]]]] | None = None


class Attention(Closed):
    """What the model attended to; shares between 0 and 1. Plausible, but by itself no explanation."""

    kind: Literal["cross-attention", "copy", "self-attention"]
    unit: Literal["share"] = "share"
    weights: Weights = Field(description="Of each output unit (rows) to each source unit, over layers and heads.")
    rollout: Weights = Field(description="The same followed through the encoder's layers to what stands at its input.")
    heads: Weights | None = Field(None, description="[layers, heads, output units, source units].")
    copy_share: list[float] | None = Field(
        None, description="For each output unit, how likely the model copies from the source rather than writes."
    )
    question_to_context: Weights | None = Field(None, description="Of each question token to each context token.")
    context_to_question: Weights | None = Field(None, description="Of each context token to each question token.")


class Occlusion(Closed):
    """How much the answer's log-probability falls when a word or item is left out; above 0 where it supported it."""

    unit: Literal["nat"] = "nat"
    log_probability: float = Field(description="Natural logarithm of how likely the answer is, with nothing left out.")
    units: list[Unit] = Field(description="What was left out, one at a time.")
    changes: list[float] = Field(description="For each of them, the fall of the logarithm.")
    weights: Weights | None = Field(None, description="The same for each output unit (rows) alone.")


class Part(Closed):
    """What the model computed as one: a sentence, a window of a text, a history."""

    source: list[Unit]
    output: list[Unit]
    attention: Attention | None = None
    occlusion: Occlusion | None = None
    rank_correlation: float | None = Field(
        None,
        description="Spearman's, between the attention to each word and how much leaving it out changes the answer;"
        " absent unless both are asked for and there are three words to rank.",
    )


class Explanation(Closed):
    """What in the input led to this answer, in the order of reading."""

    parts: list[Part]


def explained_by(manifest: Manifest) -> tuple[Method, ...]:
    """How answers of this bundle can be explained: by attention where every precision has the graph for it."""
    shows = all("explain" in graphs.graphs for graphs in manifest.precisions.values())
    return ("attention", "occlusion") if shows else ("occlusion",)


def check_explain(
    asked: Explain, bundle: Bundle, *, row_tokens: Sequence[int], left_out: Sequence[int], is_stream: bool = False
) -> None:
    """Refuse what this bundle cannot show, or what would cost too much.

    Args:
        row_tokens: source tokens of each row.
        left_out: for each row, how many words or items are left out, one at a time.

    Raises:
        InvalidInput: the bundle has no graph of attention, or the answer is to be a stream.
        TooLarge: too many tokens.
    """
    if is_stream:
        raise InvalidInput("explain needs stream: false, a stream is not explained", pointer="/explain")
    if "attention" in asked.method:
        if "attention" not in explained_by(bundle.manifest):
            raise InvalidInput(
                "explain/method attention needs a graph that this model's bundle does not have; occlusion needs none",
                pointer="/explain/method",
            )
        by_head = asked.heads == "each"
        most, tokens = MOST_TOKENS_BY_HEAD if by_head else MOST_ATTENTION_TOKENS, sum(row_tokens)
        if tokens > most:
            how = " with heads: each" if by_head else ""
            raise TooLarge(f"explain by attention reads at most {most} tokens{how}, got {tokens}", pointer="/explain")
    elif asked.heads is not None:
        raise InvalidInput("explain/heads needs the method attention", pointer="/explain/heads")
    if "occlusion" in asked.method:
        cost = sum(tokens * (1 + units) for tokens, units in zip(row_tokens, left_out, strict=True))
        if cost > MOST_OCCLUSION_TOKENS:
            raise TooLarge(
                f"explain by occlusion reads at most {MOST_OCCLUSION_TOKENS} tokens, leaving out {sum(left_out)} words"
                f" or items one at a time takes {cost}",
                pointer="/explain",
            )


def shown(array: Floats, asked: Explain) -> Weights:
    """An array as the caller wants it."""
    indices = None
    if asked.top_k is not None and asked.top_k < array.shape[-1]:
        chosen = np.argsort(-np.abs(array), axis=-1, kind="stable")[..., : asked.top_k]
        array, indices = np.take_along_axis(array, chosen, -1), chosen.tolist()
    shape = list(array.shape)
    if asked.encoding == "base64":
        content = base64.b64encode(np.ascontiguousarray(array, "<f2").tobytes()).decode()
        return Weights(shape=shape, base64=content, indices=indices)
    return Weights(shape=shape, values=rounded(array), indices=indices)


def rounded(array: Floats) -> "list[float]":
    """Nested lists of numbers with as many digits as anybody reads."""
    numbers: list[float] = np.round(array.astype(np.float64), DIGITS).tolist()
    return numbers
