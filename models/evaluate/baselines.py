"""What a model must beat to be worth its memory: answers that need no model at all, or only counting."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sentencex import segment

FIRST_WORDS = 10
RECENCY = 0.8

Histories = Sequence[Sequence[int]]
Scores = NDArray[np.float64]


def first_sentence(abstract: str) -> str:
    """The abstract's first sentence."""
    return str(segment("en", abstract)[0])


def first_words(abstract: str) -> str:
    """The abstract's first ten words."""
    return " ".join(abstract.split()[:FIRST_WORDS])


def nearest_sentence(question: str, context: str) -> str:
    """The sentence of the context that has the most words of the question; the first of several."""
    asked = _words(question)
    return max((str(sentence) for sentence in segment("en", context)), key=lambda text: len(asked & _words(text)))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def popularity(histories: Histories, items: int) -> Scores:
    """How often each item was bought, float64 [items]."""
    counts = Counter(item for history in histories for item in history)
    return np.array([counts[item] for item in range(1, items + 1)], np.float64)


def markov(histories: Histories, items: int) -> Scores:
    """First-order transitions: how often each item followed each item directly, float64 [items, items]."""
    followed = np.zeros((items, items))
    for history in histories:
        np.add.at(followed, (np.array(history[:-1], np.int64) - 1, np.array(history[1:], np.int64) - 1), 1)
    return followed


def item_similarity(histories: Histories, items: int) -> Scores:
    """Cosine of the sets of customers who bought two items (Sarwar et al. 2001), float64 [items, items], diagonal 0."""
    bought = np.zeros((len(histories), items), np.float32)
    for row, history in enumerate(histories):
        bought[row, np.array(history, np.int64) - 1] = 1
    together = (bought.T @ bought).astype(np.float64)
    norms = np.sqrt(np.maximum(together.diagonal(), 1))
    similarity: Scores = together / norms[:, None] / norms[None, :]
    np.fill_diagonal(similarity, 0)
    return similarity


def neighbours(similarity: Scores, history: Sequence[int], *, recency: float = RECENCY) -> Scores:
    """Item-kNN: similarity to the items of the history, each counting `recency` times the one bought after it."""
    weights = recency ** np.arange(len(history))[::-1]
    scores: Scores = weights @ similarity[np.array(history, np.int64) - 1]
    return scores
