"""From logits to tokens for one row at a time: pure NumPy, so that a row's choice depends on nothing but the row."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from models.bundle import GenerationDefaults
from models.task import Array, FinishReason, Generation

Filter: TypeAlias = Callable[[Array, Sequence[int]], None]
"""Changes one row's logits, float32 [vocabulary], in place, given what the decoder has read: start token, then its own.

The start token counts as transformers counts it, so that a checkpoint's settings mean what they meant there.
"""

Choice: TypeAlias = Callable[[Array], int]
"""Picks a token from one row's filtered logits, float32 [vocabulary]."""


def repetition_penalty(penalty: float) -> Filter:
    """Divide positive and multiply negative logits of tokens read (CTRL, Keskar et al. 2019, arXiv 1909.05858)."""

    def apply(logits: Array, read: Sequence[int]) -> None:
        seen = np.unique(np.asarray(read, dtype=np.int64))
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)

    return apply


def no_repeat_ngram(size: int) -> Filter:
    """Forbid every token that would complete an n-gram of this size for the second time (Paulus et al. 2017)."""

    def apply(logits: Array, read: Sequence[int]) -> None:
        prefix = tuple(read[len(read) - size + 1 :])
        forbidden = [
            read[start + size - 1]
            for start in range(len(read) - size + 1)
            if tuple(read[start : start + size - 1]) == prefix
        ]
        logits[forbidden] = -np.inf

    return apply


def suppress(token_ids: Sequence[int]) -> Filter:
    """Forbid these tokens always."""
    forbidden = list(token_ids)

    def apply(logits: Array, _read: Sequence[int]) -> None:
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
    """The decoding of one row: what its decoder has read, and how the next token is chosen."""

    def __init__(self, generation: Generation, defaults: GenerationDefaults) -> None:
        self._read = [defaults.decoder_start_token_id]
        self._longest = 1 + generation.max_new_tokens
        self._eos = defaults.eos_token_id
        self._forced_bos = defaults.forced_bos_token_id
        self._forbidden = frozenset(defaults.suppressed_token_ids)
        self._filters = filters(generation, defaults)
        self._choose = sampling(generation) if generation.do_sample else greedy
        penalised = generation.repetition_penalty != 1.0 or generation.no_repeat_ngram_size
        self._takes_likeliest = not generation.do_sample and not penalised

    def choose(self, likeliest: int, logits: Array) -> int:
        """The next token.

        Args:
            likeliest: token with the largest logit, which is the answer already unless a filter or chance has a say.
            logits: float32 [vocabulary], changed in place.
        """
        if self._forced_bos is not None and len(self._read) == 1:
            return self._forced_bos
        if self._takes_likeliest and likeliest not in self._forbidden:
            return likeliest
        for apply in self._filters:
            apply(logits, self._read)
        return self._choose(logits)

    def accept(self, token: int) -> FinishReason | None:
        """Append the token and say whether the row ends with it."""
        if token == self._eos:
            return "stop"
        self._read.append(token)
        return "length" if len(self._read) == self._longest else None
