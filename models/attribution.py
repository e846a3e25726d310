"""From attention and log-probabilities to the weight of words: rollout, what a word covers, and how two rankings agree.

Pure NumPy, so that each can be tested by hand.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Span: TypeAlias = tuple[int, int]
Floats: TypeAlias = NDArray[np.floating[Any]]

LEAST_RANKED = 3
"""Ranks of fewer words agree or disagree by chance."""

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}_])\w)+(?:['’](?:(?![{_UNSPACED}_])\w)+)*|[^\w\s]|_")


def words(text: str) -> list[Span]:
    """Characters [start, end) of each word and punctuation mark; scripts without blanks have a word for each letter."""
    return [match.span() for match in _WORD.finditer(text)]


def without(text: str, word: Span) -> str:
    """The text with a word left out, and one of the blanks around it."""
    before, after = text[: word[0]], text[word[1] :]
    if (not before or before[-1].isspace()) and after[:1].isspace():
        after = after[1:]
    return before + after


def by_word(weights: Floats, tokens: Sequence[Span | None], found: Sequence[Span]) -> Floats:
    """Sum what belongs together, float [..., tokens] to float64 [..., words]; a token goes to the first word it is in.

    Args:
        tokens: characters of each token, None for special ones.
        found: those of each word.
    """
    sums = np.zeros((*weights.shape[:-1], len(found)))
    for index, token in enumerate(tokens):
        if token is None:
            continue
        for word, (start, end) in enumerate(found):
            if token[0] < end and start < token[1]:
                sums[..., word] += weights[..., index]
                break
    return sums


def rollout(start: Floats, attention: Floats) -> NDArray[np.float64]:
    """Shares of the last layer's positions, followed through all layers to the inputs.

    That is attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928): heads are averaged, half of what a layer gives
    is its residual, and the layers are multiplied.

    Args:
        start: float [rows, S].
        attention: float [layers, heads, S, S].

    Returns:
        Float64 [rows, S]; where rows of `start` sum to 1, these do.
    """
    followed = start.astype(np.float64)
    for layer in attention[::-1].mean(1, dtype=np.float64):
        followed = (followed @ layer + followed) / 2
    return followed


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's, with ties at their mean rank; None where there are too few values, or all of one side are equal."""
    if len(first) < LEAST_RANKED or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    ranks = np.array([_ranks(first), _ranks(second)])
    ranks -= ranks.mean(1, keepdims=True)
    (own, shared), (_, other) = ranks @ ranks.T
    return float(shared / np.sqrt(own * other))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]


def token_spans(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[Span | None]:
    """The characters of the decoded text that came with each token, without blanks; None where it shows nothing."""
    whole = decode(ids)
    found: list[Span | None] = []
    told = 0
    for end in range(1, len(ids) + 1):
        until = max(told, _alike(decode(ids[:end]), whole))
        start = told + len(whole[told:until]) - len(whole[told:until].lstrip())
        found.append((start, until) if start < until else None)
        told = until
    return found


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def placed(spans: Sequence[Span | None], written: str, text: str, start: int, end: int) -> list[Span | None]:
    """Where stretches of what a model wrote stand in the answer, which may have other blanks, capitals and accents.

    Letters are found from the right, since what an answer adds, its layout, stands before them.

    Args:
        spans: in `written`.
        start, end: the part of the answer `text` that holds it.
    """
    places: list[int | None] = [None] * len(written)
    right = end
    for index in range(len(written) - 1, -1, -1):
        letter = _plain(written[index])
        if not letter:
            continue
        at = next((at for at in range(right - 1, start - 1, -1) if _plain(text[at]) == letter), None)
        if at is not None:
            places[index], right = at, at
    return [_hull([at for at in places[slice(*span)] if at is not None]) if span else None for span in spans]


def _hull(places: Sequence[int]) -> Span | None:
    return (places[0], places[-1] + 1) if places else None


def _plain(letter: str) -> str:
    folded = unicodedata.normalize("NFD", letter.lower())
    return "".join(part for part in folded if unicodedata.category(part) != "Mn").strip()
