"""Which target tokens each source token is likely to be translated by: IBM model 1, by expectation maximisation."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 5
"""Of expectation maximisation: as many as alignment tools run of this model."""
MOST_LINKS = 20_000_000
"""Pairs of a source and a target token in one sentence that are looked at; 1 GB of memory while the export runs."""


class Pair(NamedTuple):
    """A sentence and its translation, as token ids."""

    source: Sequence[int]
    target: Sequence[int]


def lexicon(pairs: Sequence[Pair], vocabulary: int, per_token: int) -> tuple[list[NDArray[np.int64]], int]:
    """The likeliest target tokens of each source token.

    Model 1 of Brown et al. 1993 (aclanthology.org/J93-2003): every target token comes from one token of the source, or
    from none, and from each of them with a probability that depends on the two tokens alone.

    Args:
        vocabulary: how many token ids there are, the same for source and target.
        per_token: so many for each source token at most.

    Returns:
        For each source token at most `per_token` target tokens, the likeliest first; and how many pairs were looked
        at: where there are too many, they are taken evenly from all over the text.
    """
    links = np.array([(1 + len(pair.source)) * len(pair.target) for pair in pairs])
    used = pairs[:: max(1, -(-int(links.sum()) // MOST_LINKS))]
    nothing = vocabulary  # the source token of what comes from none
    keys, sums = _links(used, nothing)
    entries, entry_of = np.unique(keys, return_inverse=True)
    entry_of = entry_of.astype(np.int32)
    sources, targets = np.divmod(entries, vocabulary)
    probability = np.ones(len(entries), np.float32)
    starts = np.cumsum(sums) - sums
    for _ in range(ITERATIONS):
        each = probability[entry_of]
        each /= np.repeat(np.add.reduceat(each, starts), sums)
        expected = np.bincount(entry_of, each, len(entries))
        totals = np.bincount(sources, expected, vocabulary + 1)
        probability = (expected / totals[sources]).astype(np.float32)
    order = np.lexsort((targets, -probability, sources))
    bounds = np.searchsorted(sources[order], np.arange(vocabulary + 1))
    likeliest = [targets[order[low : min(low + per_token, high)]] for low, high in pairwise(bounds.tolist())]
    return likeliest, len(used)


def _links(pairs: Sequence[Pair], nothing: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each source token with each target token of its sentence, as one number; and how many belong to each target."""
    keys, sums = [], []
    for pair in pairs:
        source, target = np.array([*pair.source, nothing], np.int64), np.array(pair.target, np.int64)
        keys.append((target[:, None] + source[None, :] * nothing).ravel())
        sums.append(np.full(len(target), len(source), np.int64))
    return np.concatenate(keys), np.concatenate(sums)
