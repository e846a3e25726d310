"""Beam search for one row: several continuations side by side, ranked by their log-probability and length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle import GenerationDefaults
from models.decoding import Advance, Logits, filters, forced_tokens
from models.task import Array, FinishReason, Generation, Tokens

_UNBORN = -1e9
"""Score of all beams but the first before the first step, when they are all the same.

Finite, as in transformers: where the first token is forced, beams of this score with that token still rank before
every other token.
"""

_BLOCK = 256
"""Scores whose largest is looked at first, so that only a few are ever sorted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    score: np.float32
    tokens: tuple[int, ...]
    reason: FinishReason


@dataclass(frozen=True, slots=True, eq=False)
class Continuations:
    """The score of every beam by every token, as parts that are only added up where a score may be among the largest.

    Args:
        logits: float32 [beams, vocabulary].
        largest: float32 [beams, 1], subtracted from the logits before anything else.
        normalizers: float32 [beams, 1], subtracted next: the logarithm of the sum that makes probabilities.
        scores: float32 [beams, 1], what the beams have so far.
    """

    logits: Array
    largest: Array
    normalizers: Array
    scores: Array

    def best(self, count: int) -> tuple[Array, Tokens]:
        """The `count` largest scores, the largest first, and their indices among all, the lowest first among equals.

        At least `count` blocks have a maximum that is no less than the `count`-th largest maximum; so the largest
        scores are all in those blocks, which are few. Where that bar is -inf it excludes nothing.
        """
        vocabulary = self.logits.shape[1]
        starts = np.arange(0, vocabulary, _BLOCK)
        maxima = self._sums(np.maximum.reduceat(self.logits, starts, 1))
        bar = np.partition(maxima.ravel(), -count)[-count] if maxima.size > count else -np.inf
        if bar == -np.inf:
            return _largest(self._sums(self.logits).ravel(), count)
        beams, blocks = np.nonzero(maxima >= bar)
        tokens = starts[blocks][:, None] + np.arange(_BLOCK)
        logits = self.logits[beams[:, None], np.minimum(tokens, vocabulary - 1)]
        part = Continuations(logits, self.largest[beams], self.normalizers[beams], self.scores[beams])
        sums = part._sums(logits)
        reach = (sums >= bar) & (tokens < vocabulary)
        scores, order = _largest(sums[reach], count)
        return scores, (beams[:, None] * vocabulary + tokens)[reach][order]

    def _sums(self, logits: Array) -> Array:
        """Rounded the same way wherever it is called."""
        sums: Array = logits - self.largest
        sums -= self.normalizers
        sums += self.scores
        return sums


def log_softmax_parts(logits: Array) -> tuple[Array, Array]:
    """What is subtracted from logits, float32 [beams, vocabulary], in turn, to make log-probabilities of them."""
    largest: Array = logits.max(-1, keepdims=True)
    exponentials = logits - largest
    np.exp(exponentials, out=exponentials)
    return largest, np.log(exponentials.sum(-1, keepdims=True))


def log_softmax(logits: Array) -> None:
    """Turn logits, float32 [beams, vocabulary], into log-probabilities in place."""
    for part in log_softmax_parts(logits):
        logits -= part


def _largest(scores: Array, count: int) -> tuple[Array, Tokens]:
    """The `count` largest of float32 [scores] and where they are, the lowest index first among equals."""
    reach = np.arange(len(scores))
    if len(scores) > count:
        reach = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    order = reach[np.lexsort((reach, -scores[reach]))][:count]
    return scores[order], order


class BeamSearch:
    """Decodes `num_beams` continuations of a row and answers the best that has ended.

    Each step takes the likeliest 2 x beams of all continuations by one token; those that end compete by log-probability
    ÷ length ** length_penalty for a place among the best ended ones, as many as there are beams, and the others go on.
    What counts when, and when the search ends, is what transformers does.
    """

    def __init__(self, generation: Generation, defaults: GenerationDefaults) -> None:
        self._generation = generation
        self._eos = defaults.eos_token_id
        self._renormalize = defaults.renormalize_logits
        self._filters = filters(generation, defaults)
        # A filter that only forbids is the same before and after the softmax, and the sums need not be written out.
        self._rescales = self._renormalize or generation.repetition_penalty != 1.0
        self._forced = forced_tokens(generation, defaults)
        self._read = np.full(
            (generation.num_beams, 1 + generation.max_new_tokens), defaults.decoder_start_token_id, np.int64
        )
        self._length = 1
        self._scores = np.full(generation.num_beams, _UNBORN, np.float32)
        self._scores[0] = 0
        self._ended: list[_Ended] = []

    def advance(self, _likeliest: Sequence[int], logits: Logits, slots: Sequence[int]) -> Advance:
        """One token for every beam; the row's tokens all come with its end."""
        beams = self._generation.num_beams
        continuations = self._continuations(logits[slots])
        best_scores, best = continuations.best(2 * beams)
        vocabulary = continuations.logits.shape[1]
        is_forced = self._length in self._forced
        self._length += 1
        is_last = self._length == self._read.shape[1]
        going_on: list[tuple[int, int, int]] = []
        for rank, (parent, token) in enumerate(divmod(index, vocabulary) for index in best.tolist()):
            ends = token == self._eos
            if (ends or is_last) and rank < beams:
                self._end(best_scores[rank], parent, token, "stop" if ends and not is_forced else "length")
            elif not ends and len(going_on) < beams:
                going_on.append((rank, parent, token))
        if is_last or self._is_decided(best_scores[going_on[0][0]]):
            winner = self._ended[0]
            return Advance((), (), winner.tokens, winner.reason)
        ranks, parents, tokens = zip(*going_on, strict=True)
        self._scores = best_scores[list(ranks)]
        self._read = self._read[list(parents)]
        self._read[:, self._length - 1] = tokens
        return Advance(tokens, parents, (), None)

    def _continuations(self, logits: Array) -> Continuations:
        """Each beam's score with each next token; `logits` are changed."""
        read, scores = self._read[:, : self._length], self._scores[:, None]
        nothing = np.zeros_like(scores)
        forced = self._forced.get(self._length)
        if forced is not None:
            logits[:] = -np.inf
            logits[:, forced] = 0
            return Continuations(logits, nothing, nothing, scores)
        largest, normalizers = log_softmax_parts(logits)
        if self._rescales:
            logits -= largest
            logits -= normalizers
            largest = normalizers = nothing
        for apply in self._filters:
            apply(logits, read)
        if self._renormalize:
            log_softmax(logits)
        return Continuations(logits, largest, normalizers, scores)

    def _end(self, log_probability: np.float32, parent: int, token: int, reason: FinishReason) -> None:
        """Keep what ends with this token if it is among the best; the older one wins among equals."""
        tokens = (*self._read[parent, 1 : self._length - 1].tolist(), token)
        score = log_probability / np.float32(len(tokens) ** self._generation.length_penalty)
        self._ended.append(_Ended(score, tokens[:-1] if token == self._eos else tokens, reason))
        self._ended.sort(key=lambda ended: -ended.score)
        del self._ended[self._generation.num_beams :]

    def _is_decided(self, best_going_on: np.float32) -> bool:
        """Whether no beam that goes on is expected to end better than the worst of as many that have ended."""
        generation = self._generation
        if len(self._ended) < generation.num_beams:
            return False
        if generation.early_stopping is True:
            return True
        prefers_length = generation.early_stopping == "never" and generation.length_penalty > 0
        length = generation.max_new_tokens if prefers_length else self._length - 1
        return not best_going_on / np.float32(length**generation.length_penalty) > self._ended[-1].score
