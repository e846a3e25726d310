"""From logits to tokens for one row at a time: pure NumPy, so that a row's choice depends on nothing but the row."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from models.bundle import GenerationDefaults
from models.task import Array, FinishReason, Generation

Filter: TypeAlias = Callable[[Array, Sequence[int]], None]
"""Changes one row's logits, float32 [vocabulary], in place, given the tokens that the row has produced."""

Choice: TypeAlias = Callable[[Array], int]
"""Picks a token from one row's filtered logits, float32 [vocabulary]."""


def repetition_penalty(penalty: float) -> Filter:
    """Divide positive and multiply negative logits of produced tokens (CTRL, Keskar et al. 2019, arXiv 1909.05858)."""

    def apply(logits: Array, produced: Sequence[int]) -> None:
        seen = np.unique(np.asarray(produced, dtype=np.int64))
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)

    return apply


def no_repeat_ngram(size: int) -> Filter:
    """Forbid every token that would complete an n-gram of this size for the second time (Paulus et al. 2017)."""

    def apply(logits: Array, produced: Sequence[int]) -> None:
        prefix = tuple(produced[len(produced) - size + 1 :])
        repeats = range(len(produced) - size + 1)
        forbidden = [produced[i + size - 1] for i in repeats if tuple(produced[i : i + size - 1]) == prefix]
        logits[forbidden] = -np.inf

    return apply


def suppress(token_ids: Sequence[int]) -> Filter:
    """Forbid these tokens always."""
    forbidden = list(token_ids)

    def apply(logits: Array, _produced: Sequence[int]) -> None:
        logits[forbidden] = -np.inf

    return apply


def filters(generation: Generation, defaults: GenerationDefaults) -> tuple[Filter, ...]:
    """What stands between the model's logits and the choice, in the order of application."""
    found: list[Filter] = []
    if generation.repetition_penalty != 1.0:
        found.append(repetition_penalty(generation.repetition_penalty))
    if generation.no_repeat_ngram_size:
        found.append(no_repeat_ngram(generation.no_repeat_ngram_size))
    if defaults.suppressed_token_ids:
        found.append(suppress(defaults.suppressed_token_ids))
    return tuple(found)


def greedy(logits: Array) -> int:
    """The likeliest token, the lowest id among equals."""
    return int(logits.argmax())


def sampling(generation: Generation) -> Choice:
    """Draw from the softmax at `temperature`, cut to `top_k` tokens and then to a probability of `top_p`.

    The random stream is the row's own: Philox keyed by the seed, one uniform number for each token.
    Nucleus sampling is Holtzman et al. 2019 (arXiv 1904.09751).
    """
    stream = np.random.Generator(np.random.Philox(key=generation.seed))

    def choose(logits: Array) -> int:
        kept = np.flatnonzero(np.isfinite(logits))
        if 0 < generation.top_k < len(kept):
            kept = kept[np.argpartition(-logits[kept], generation.top_k - 1)[: generation.top_k]]
        order = kept[np.lexsort((kept, -logits[kept]))]
        scaled = logits[order].astype(np.float64) / generation.temperature
        cumulative = np.cumsum(np.exp(scaled - scaled[0]))
        within = int(np.searchsorted(cumulative, generation.top_p * cumulative[-1])) + 1
        cumulative = cumulative[: min(within, len(cumulative))]
        drawn = int(np.searchsorted(cumulative, stream.random() * cumulative[-1], side="right"))
        return int(order[min(drawn, len(order) - 1)])

    return choose


class RowDecoder:
    """The decoding of one row: what it has produced, and how its next token is chosen."""

    def __init__(self, generation: Generation, defaults: GenerationDefaults) -> None:
        self.produced: list[int] = []
        self._max_new_tokens = generation.max_new_tokens
        self._eos = defaults.eos_token_id
        self._forced_bos = defaults.forced_bos_token_id
        self._filters = filters(generation, defaults)
        self._choose = sampling(generation) if generation.do_sample else greedy
        self._takes_likeliest = not self._filters and not generation.do_sample

    @property
    def needs_logits(self) -> bool:
        """Whether the next choice needs more than the likeliest token."""
        forced = self._forced_bos is not None and not self.produced
        return not self._takes_likeliest and not forced

    def choose(self, likeliest: int, logits: Array) -> int:
        """The next token. `logits`, float32 [vocabulary], is read (and changed) only where `needs_logits` holds."""
        if self._forced_bos is not None and not self.produced:
            return self._forced_bos
        if self._takes_likeliest:
            return likeliest
        for apply in self._filters:
            apply(logits, self.produced)
        return self._choose(logits)

    def accept(self, token: int) -> FinishReason | None:
        """Append the token and say whether the row ends with it; the end token itself is not kept."""
        if token == self._eos:
            return "stop"
        self.produced.append(token)
        return "length" if len(self.produced) == self._max_new_tokens else None
