"""From scores to tokens for one row at a time: pure NumPy, so that a row's choice depends on nothing but the row."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from models.bundle import GenerationDefaults
from models.task import Array, FinishReason, Generation, Tokens

Filter: TypeAlias = Callable[[Array, Tokens], None]
"""Changes scores, float32 [beams, vocabulary], in place, given what each beam has read, int64 [beams, length].

The start token counts as read, and scores are logits for a single sequence but log-probabilities for beams, as in
transformers, so that a checkpoint's settings mean what they meant there.
"""

Choice: TypeAlias = Callable[[Array], int]
"""Picks a token from one row's filtered logits, float32 [vocabulary]."""


class Advance(NamedTuple):
    """What one step brought for a row.

    Args:
        tokens: what each beam reads next.
        parents: the beam that each beam goes on from; empty where beams stay as they are.
        new: tokens that the row's output certainly goes on with.
        finish: set when the row has ended; `tokens` and `parents` mean nothing then.
    """

    tokens: Sequence[int]
    parents: Sequence[int]
    new: tuple[int, ...]
    finish: FinishReason | None


class Logits(Protocol):
    """What a step says of every slot, [slots, vocabulary]."""

    def __getitem__(self, slots: Sequence[int], /) -> Array:
        """The logits of these slots of one row, float32 [slots, vocabulary], in an array of their own."""
        ...


class Decoder(Protocol):
    """The decoding of one row, from its first step to its last."""

    def advance(self, likeliest: Sequence[int], logits: Logits, slots: Sequence[int]) -> Advance:
        """Go on by one token.

        Args:
            likeliest: each slot's token with the largest logit.
            logits: only the row's own are read.
            slots: where the row's beams are, in their order.
        """
        ...


def repetition_penalty(penalty: float) -> Filter:
    """Divide positive and multiply negative scores of tokens read (CTRL, Keskar et al. 2019, arXiv 1909.05858)."""

    def apply(scores: Array, read: Tokens) -> None:
        values = np.take_along_axis(scores, read, 1)
        np.put_along_axis(scores, read, np.where(values > 0, values / penalty, values * penalty), 1)

    return apply


def no_repeat_ngram(size: int) -> Filter:
    """Forbid every token that would complete an n-gram of this size for the second time (Paulus et al. 2017)."""

    def apply(scores: Array, read: Tokens) -> None:
        length = read.shape[1]
        if length < size:
            return
        ngrams = sliding_window_view(read, size, 1)
        prefix = read[:, length - size + 1 :]
        beams, starts = np.nonzero((ngrams[:, :, :-1] == prefix[:, None]).all(-1))
        scores[beams, ngrams[beams, starts, -1]] = -np.inf

    return apply


def suppress(token_ids: Sequence[int]) -> Filter:
    """Forbid these tokens always."""
    forbidden = list(token_ids)

    def apply(scores: Array, _read: Tokens) -> None:
        scores[:, forbidden] = -np.inf

    return apply


def bad_words(words: Sequence[Sequence[int]]) -> Filter:
    """Forbid the last token of each word where the tokens before it have just been read."""
    lengths = sorted({len(word) for word in words})
    alike = [np.array([word for word in words if len(word) == length], np.int64) for length in lengths]

    def apply(scores: Array, read: Tokens) -> None:
        for group in alike:
            start = read.shape[1] - (group.shape[1] - 1)
            if start >= 0:
                beams, completed = np.nonzero((read[:, None, start:] == group[:, :-1]).all(-1))
                scores[beams, group[completed, -1]] = -np.inf

    return apply


def min_new_tokens(least: int, eos_token_id: int) -> Filter:
    """Forbid the end until there are so many tokens."""

    def apply(scores: Array, read: Tokens) -> None:
        if read.shape[1] - 1 < least:
            scores[:, eos_token_id] = -np.inf

    return apply


def filters(generation: Generation, defaults: GenerationDefaults) -> tuple[Filter, ...]:
    """What stands between the model's scores and the choice, in the order of application."""
    found: list[Filter] = []
    if generation.repetition_penalty != 1.0:
        found.append(repetition_penalty(generation.repetition_penalty))
    if generation.no_repeat_ngram_size:
        found.append(no_repeat_ngram(generation.no_repeat_ngram_size))
    if defaults.suppressed_token_ids:
        found.append(suppress(defaults.suppressed_token_ids))
    if defaults.bad_words:
        found.append(bad_words(defaults.bad_words))
    if defaults.min_new_tokens:
        found.append(min_new_tokens(defaults.min_new_tokens, defaults.eos_token_id))
    return tuple(found)


def forced_tokens(generation: Generation, defaults: GenerationDefaults) -> Mapping[int, int]:
    """The only token allowed once so many tokens have been read; the last one of a row wins over the first."""
    found: dict[int, int] = {}
    first = generation.forced_bos_token_id
    if first is None:
        first = defaults.forced_bos_token_id
    if first is not None:
        found[1] = first
    if defaults.forced_eos_token_id is not None:
        found[generation.max_new_tokens] = defaults.forced_eos_token_id
    return found


def greedy(logits: Array) -> int:
    """The likeliest token, the lowest id among equals."""
    return int(logits.argmax())


def sampling(generation: Generation) -> Choice:
    """Draw from the softmax at `temperature`, cut to `top_k` tokens and then to a probability of `top_p`.

    The random stream is the row's own: Philox keyed by the seed and, in the upper half of the key, the row's number;
    one uniform number for each token.
    Nucleus sampling is Holtzman et al. 2019 (arXiv 1904.09751).
    """
    stream = np.random.Generator(np.random.Philox(key=generation.row << 64 | generation.seed))

    def choose(logits: Array) -> int:
        kept = np.flatnonzero(np.isfinite(logits))
        if 0 < generation.top_k < len(kept):
            kept = kept[np.argpartition(-logits[kept], generation.top_k - 1)[: generation.top_k]]
        order = kept[np.lexsort((kept, -logits[kept]))]
        with np.errstate(over="ignore"):  # minus infinity then: nearly no temperature leaves nothing but the likeliest
            scaled = (logits[order].astype(np.float64) - logits[order[0]]) / generation.temperature
        cumulative = np.cumsum(np.exp(scaled))
        within = int(np.searchsorted(cumulative, generation.top_p * cumulative[-1])) + 1
        cumulative = cumulative[: min(within, len(cumulative))]
        drawn = int(np.searchsorted(cumulative, stream.random() * cumulative[-1], side="right"))
        return int(order[min(drawn, len(cumulative) - 1)])

    return choose


class SequenceDecoder:
    """Decodes a single sequence, greedily or by sampling: each token is certain once it is chosen."""

    def __init__(self, generation: Generation, defaults: GenerationDefaults) -> None:
        self._read = [defaults.decoder_start_token_id]
        self._longest = 1 + generation.max_new_tokens
        self._eos = defaults.eos_token_id
        self._forced = forced_tokens(generation, defaults)
        self._filters = filters(generation, defaults)
        self._choose = sampling(generation) if generation.do_sample else greedy
        penalised = generation.repetition_penalty != 1.0 or generation.no_repeat_ngram_size
        self._takes_likeliest = not generation.do_sample and not penalised
        self._doubtful = {*defaults.suppressed_token_ids, *(word[-1] for word in defaults.bad_words)}
        if defaults.min_new_tokens:
            self._doubtful.add(self._eos)

    def advance(self, likeliest: Sequence[int], logits: Logits, slots: Sequence[int]) -> Advance:
        """One token; the likeliest is the answer already unless a filter or chance has a say."""
        (slot,) = slots
        forced = self._forced.get(len(self._read))
        if forced is not None:
            token = forced
        elif self._takes_likeliest and likeliest[slot] not in self._doubtful:
            token = likeliest[slot]
        else:
            token = self._filtered(logits[slots])
        self._read.append(token)
        if token == self._eos:
            return Advance((), (), (), "stop" if forced is None else "length")
        return Advance((token,), (), (token,), "length" if len(self._read) == self._longest else None)

    def _filtered(self, logits: Array) -> int:
        read = np.array([self._read], np.int64)
        for apply in self._filters:
            apply(logits, read)
        return self._choose(logits[0])
