"""The contracts between a task (what a caller asks), a model (what computes) and the engine that joins the two."""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Tokens: TypeAlias = NDArray[np.int64]
Array: TypeAlias = NDArray[np.float32]
RowId: TypeAlias = int
FinishReason: TypeAlias = Literal["stop", "length"]
EarlyStopping: TypeAlias = bool | Literal["never"]
Purpose: TypeAlias = Literal["answer", "score", "attention"]
"""What a row is for: an answer, or what explains one, how likely a given output is and what was attended to."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How one row is decoded. Greedy unless `do_sample` or several beams; beams are not sampled.

    Args:
        max_new_tokens: at most so many tokens, the end token included.
        temperature: divides the logits before sampling, > 0.
        top_k: sample among the k likeliest tokens; 0 means all.
        top_p: sample among the likeliest tokens that together hold this probability, in (0, 1].
        repetition_penalty: divides positive and multiplies negative logits of tokens already produced
            (Keskar et al. 2019).
        no_repeat_ngram_size: no n-gram of this size is produced twice; 0 turns it off.
        seed: with `row`, of this row's own random stream, so that a sampled answer does not depend on its neighbours.
        num_beams: continuations that are searched side by side.
        length_penalty: beams are ranked by log-probability ÷ length ** length_penalty.
        early_stopping: True ends the search as soon as `num_beams` continuations have ended; False when no other is
            expected to end better at the length reached, "never" at any length.
        forced_bos_token_id: what this row must begin with, its target language say; None leaves it to the bundle.
        row: which of its request's rows it is; all of them have one seed, and the same text twice is drawn twice.
    """

    max_new_tokens: int
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    forced_bos_token_id: int | None = None
    row: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence for the model.

    Args:
        tokens: int64 [length], special tokens included.
        segments: int64 [length], which of two texts a token belongs to; None where the model knows only one.
        generation: how to decode; None asks for a single forward pass.
        purpose: `score` asks an encoder-decoder for `log_probabilities` float32 [length of the target], natural
            logarithms, and another model for what an answer gets; `attention` for what the graph `explain` gives.
        target: int64, what the decoder is taken to say, end token included; None where nothing decodes.
    """

    tokens: Tokens
    segments: Tokens | None = None
    generation: Generation | None = None
    purpose: Purpose = "answer"
    target: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row takes, or what a model has left: decoder slots, and tokens to encode in one iteration."""

    slots: int
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """What one step brought for one row: new tokens, or the arrays of a forward pass.

    `finish` is set on the last event of a row. A row that is searched with beams brings its tokens with that one.
    """

    row: RowId
    tokens: tuple[int, ...] = ()
    arrays: Mapping[str, Array] = field(default_factory=dict)
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """All that a row brought, in the order of its events.

    Args:
        tokens: generated token ids without the end token.
        arrays: named float32 results of a forward pass, [length] for each token or [classes] for the row.
        finish: `stop` when the model ended by itself, `length` when `max_new_tokens` was reached.
    """

    tokens: tuple[int, ...]
    arrays: Mapping[str, Array]
    finish: FinishReason


class Model(Protocol):
    """What computes. Only the engine's thread calls it, so it needs no locks.

    Attributes:
        padding_tokens: that graphs computed so far beside those of rows; it only grows.
    """

    padding_tokens: int

    def cost(self, row: Row) -> Cost:
        """What the row would take if it were admitted."""
        ...

    def room(self) -> Cost:
        """What fits now. `tokens` bounds one `admit`; a row longer than that may be admitted when it comes alone."""
        ...

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Take slots for the rows and encode them. When it raises, `reset` follows."""
        ...

    def step(self) -> Sequence[Event]:
        """One decoder step for every admitted row, or the single forward pass of an encoder; an event for each row.

        When it raises, `reset` follows.
        """
        ...

    def drop(self, ids: Collection[RowId]) -> None:
        """Free the slots of rows whose caller has gone; unknown ids are ignored."""
        ...

    def reset(self) -> None:
        """Forget every row and free every slot, after a failure."""
        ...


Req = TypeVar("Req", bound=BaseModel, contravariant=True)
Res = TypeVar("Res", covariant=True)

Solution: TypeAlias = Generator[Sequence[Row], Sequence[Output], Res]
"""Yields rows that may run side by side, is sent their outputs in the same order, and returns the response."""


class Reader(Protocol):
    """What turns a text into a row's tokens."""

    def encode(self, text: str) -> Tokens:
        """Ids int64 [length]."""
        ...

    def spans(self, text: str) -> list[tuple[int, int] | None]:
        """For each of these ids the characters [start, end) of the text that it stands for; None for special ones."""
        ...

    def piece(self, token: int) -> str:
        """How the vocabulary writes an id."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row's text stands among the caller's: which of his texts, from which character on, and the text."""

    text: int
    start: int
    piece: str


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Texts that are about to be written.

    Args:
        rows: what is to be generated, in the order of reading.
        decode: the text of a row's tokens, also of the first ones alone.
        join: the answer's texts from those of the rows, and whether these are all; if not, the texts end with the
            last row that is given.
        add: does the same for one text row by row, before it is tidied: gives the text so far, whose last word alone
            matters, with what the next row, whose place among all is given, wrote.
        tidy: what `join` does to a text at last, to each word with the blanks before it by itself.
        origins: of the rows.
        reader: made their tokens.
    """

    rows: Sequence[Row]
    decode: Callable[[Sequence[int]], str]
    join: Callable[[Sequence[str], bool], list[str]]
    add: Callable[[str, int, str], str]
    tidy: Callable[[str], str]
    origins: Sequence[Origin]
    reader: Reader

    def write(self) -> "Solution[tuple[list[str], Sequence[Output]]]":
        """The solution whose response are the texts, and the rows' outputs."""
        outputs = (yield self.rows) if self.rows else ()
        return self.join([self.decode(output.tokens) for output in outputs], True), outputs


class Task(Protocol[Req, Res]):
    """What a caller asks of one opened bundle. Pure: the same request gives the same rows."""

    id: ClassVar[str]
    request_type: ClassVar[type[BaseModel]]
    response_type: ClassVar[Any]

    def solve(self, request: Req) -> Solution[Res]:
        """Answer one request.

        Raises:
            InvalidInput: the request names something that the bundle does not have; before the first yield.
            TooLarge: the request exceeds a limit of the bundle; before the first yield.
        """
        ...


class WritingTask(Task[Req, Res], Protocol):
    """A task whose answer is text, which can be read while it is being written."""

    def draft(self, request: Req) -> Draft:
        """What `solve` writes for one request. Raises what `solve` raises."""
        ...
