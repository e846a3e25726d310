"""What users ask: requests to each task whose lengths vary as people's do, drawn from a seeded generator."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

MEDIAN_SENTENCES = {"translation": 1.5, "summarization": 5.0, "question-answering": 6.0}
SPREAD = 0.6
MOST_SENTENCES = 25
MEDIAN_HISTORY = 8

_SUBJECTS = (
    "The committee", "My neighbour", "A small company from the north", "The new method", "Our friends in the village",
    "The teacher of the second class", "The old bridge over the river", "A group of engineers", "The museum",
    "Nobody in this house", "The first train of the morning", "An early version of the report",
)  # fmt: skip
_VERBS = (
    "opened in {year}", "was sold for {number} euros", "needs more time than we thought",
    "has been repaired twice since {year}", "will arrive before noon", "did not answer the letter",
    "shows that the results can be improved", "lost {number} members in a single winter",
    "is looking for a place to stay", "moved to the other side of the town in {year}",
)  # fmt: skip
_ENDINGS = (
    "", "", " after a long discussion", " because the weather was bad", ", and everybody was pleased",
    " although only a few people had asked for it", " without a word of explanation", ", as the newspapers wrote",
)  # fmt: skip


def sentence(draw: random.Random) -> str:
    """A plain English sentence of 4 to 25 words."""
    verb = draw.choice(_VERBS).format(year=draw.randint(1850, 2025), number=draw.randint(2, 9000))
    return f"{draw.choice(_SUBJECTS)} {verb}{draw.choice(_ENDINGS)}."


def text(draw: random.Random, median_sentences: float) -> str:
    """Sentences, so many that their number is lognormal: most texts are short, a few are long."""
    count = round(draw.lognormvariate(math.log(median_sentences), SPREAD))
    return " ".join(sentence(draw) for _ in range(min(max(1, count), MOST_SENTENCES)))


def _written(task: str) -> Callable[[random.Random, Sequence[str]], dict[str, Any]]:
    return lambda draw, _items: {"inputs": text(draw, MEDIAN_SENTENCES[task])}


def _question(draw: random.Random, _items: Sequence[str]) -> dict[str, Any]:
    subject = draw.choice(_SUBJECTS)
    context = f"{text(draw, MEDIAN_SENTENCES['question-answering'])} {subject} opened in {draw.randint(1850, 2025)}."
    return {"inputs": {"question": f"When did {subject[0].lower()}{subject[1:]} open?", "context": context}}


def _history(draw: random.Random, items: Sequence[str]) -> dict[str, Any]:
    count = round(draw.lognormvariate(math.log(MEDIAN_HISTORY), SPREAD))
    return {"inputs": {"history": [draw.choice(items) for _ in range(max(1, min(count, 50)))]}}


REQUESTS: dict[str, Callable[[random.Random, Sequence[str]], dict[str, Any]]] = {
    "translation": _written("translation"),
    "summarization": _written("summarization"),
    "question-answering": _question,
    "recommendation": _history,
}
"""For each task, a request from a generator and the items that the recommender knows."""
