"""Beam search for one row: several continuations side by side, ranked by their log-probability and length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle import GenerationDefaults
from models.decoding import Advance, filters, forced_tokens
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


def log_softmax(logits: Array) -> None:
    """Turn logits, float32 [beams, vocabulary], into log-probabilities in place."""
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))


def largest(scores: Array, count: int) -> Tokens:
    """Indices of the `count` largest of float32 [scores], the largest first and the lowest index first among equals.

    At least `count` blocks have a maximum that is no less than the `count`-th largest maximum; so the largest scores
    are all among those that reach it, which are few. Where that bar is -inf it excludes nothing.
    """
    maxima = np.maximum.reduceat(scores, np.arange(0, len(scores), _BLOCK))
    bar = np.partition(maxima, -count)[-count] if len(maxima) > count else -np.inf
    reach = np.flatnonzero(scores >= bar) if bar > -np.inf else np.argpartition(-scores, count - 1)[:count]
    return reach[np.lexsort((reach, -scores[reach]))][:count]


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
        self._forced = forced_tokens(generation, defaults)
        self._read = np.full(
            (generation.num_beams, 1 + generation.max_new_tokens), defaults.decoder_start_token_id, np.int64
        )
        self._length = 1
        self._scores = np.full(generation.num_beams, _UNBORN, np.float32)
        self._scores[0] = 0
        self._ended: list[_Ended] = []

    def advance(self, _likeliest: Sequence[int], logits: Array, slots: Sequence[int]) -> Advance:
        """One token for every beam; the row's tokens all come with its end."""
        beams = self._generation.num_beams
        scores = self._log_probabilities(logits[slots])
        scores += self._scores[:, None]
        flat, vocabulary = scores.ravel(), scores.shape[1]
        best = largest(flat, 2 * beams)
        best_scores = flat[best]
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

    def _log_probabilities(self, logits: Array) -> Array:
        """What each beam's next tokens add to its score, changed in place."""
        forced = self._forced.get(self._length)
        if forced is not None:
            logits[:] = -np.inf
            logits[:, forced] = 0
            return logits
        log_softmax(logits)
        for apply in self._filters:
            apply(logits, self._read[:, : self._length])
        if self._renormalize:
            log_softmax(logits)
        return logits

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
