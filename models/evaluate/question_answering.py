"""Exact match and F1 of a question answering bundle, what its scores mean, and what it does without an answer."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluate import baselines
from models.evaluate.result import BUNDLE, Result, answers
from models.load import Loaded
from models.tasks.question_answering import QuestionAnsweringAnswer
from models.train import data

MAX_ANSWER_TOKENS = 30
BINS = 10
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VECTORS = "pretrained word vectors, no pretrained encoder"
PUBLISHED = tuple(
    Result(f"{system} (published)", metric, value, f"SQuAD 1.1 {split}", note)
    for system, split, exact, overlap, note in (
        ("logistic regression", "dev", 40.0, 51.0, ""),
        ("BiDAF", "test", 68.0, 77.3, _VECTORS),
        ("DrQA", "test", 70.7, 79.4, _VECTORS),
        ("r-net", "test", 76.5, 84.3, _VECTORS),
    )
    for metric, value in (("EM", exact), ("F1", overlap))
)


def question_answering(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """EM and F1 in percent by the rules of the official SQuAD 1.1 script, calibration of `score`, and empty answers.

    Where an answer may be empty, each question is asked of its own paragraph and of one of another article, half the
    data away, which does not answer it. Where the bundle's scores were calibrated, their calibration is measured on
    the questions that this was not fitted on, if the first `limit` have any.
    """
    questions = data.read_squad(directory / data.SQUAD_DEV)
    contexts = [entry.context for entry in questions]
    elsewhere = [*contexts[len(contexts) // 2 :], *contexts[: len(contexts) // 2]][:limit]
    questions = questions[:limit]

    def ask(contexts: Sequence[str]) -> list[list[QuestionAnsweringAnswer]]:
        """The two best answers to each question, one of which may be empty."""
        settings = {"max_answer_len": MAX_ANSWER_TOKENS, "handle_impossible_answer": True, "top_k": 2}
        requests = (
            {"inputs": {"question": entry.question, "context": context}, "parameters": settings}
            for entry, context in zip(questions, contexts, strict=True)
        )
        return list(answers(loaded, requests, len(questions)))

    asked = {"its own paragraph": ask(contexts[:limit]), "a paragraph of another article": ask(elsewhere)}
    given = [next(answer for answer in pair if answer.answer) for pair in asked["its own paragraph"]]
    dataset = f"SQuAD 1.1 dev, {len(questions):,} questions"
    golds = [entry.answers for entry in questions]
    exact = np.array([best(exact_match, answer.answer, gold) for answer, gold in zip(given, golds, strict=True)])
    scores = np.array([answer.score for answer in given])
    counted, judged = np.ones(len(questions), bool), dataset
    if loaded.bundle.manifest.score_calibration is not None:
        counted = np.array([not is_fitted_on(entry) for entry in questions])
        judged = f"SQuAD 1.1 dev, {counted.sum():,} questions of articles that the calibration was not fitted on"
    overlap = [best(f1, answer.answer, gold) for answer, gold in zip(given, golds, strict=True)]
    nearest = [baselines.nearest_sentence(entry.question, entry.context) for entry in questions]
    sentence = [best(f1, text, gold) for text, gold in zip(nearest, golds, strict=True)]
    return [
        Result(BUNDLE, "EM", 100 * float(exact.mean()), dataset),
        Result(BUNDLE, "F1", 100 * float(np.mean(overlap)), dataset),
        Result("sentence nearest to the question", "F1", 100 * float(np.mean(sentence)), dataset),
        *PUBLISHED,
        *(calibration(scores[counted], exact[counted], judged) if counted.any() else ()),
        *(
            Result(BUNDLE, "no answer, %", 100 * float(np.mean([not best.answer for best, _ in pairs])), dataset, place)
            for place, pairs in asked.items()
        ),
    ]


def is_fitted_on(question: data.Question) -> bool:
    """Whether a calibration is fitted on this question of SQuAD dev: on every second article, and measured between."""
    return question.article % 2 == 0


def calibration(scores: NDArray[np.float64], correct: NDArray[np.float64], dataset: str) -> list[Result]:
    """Expected calibration error over ten bins of equal width (Guo et al. 2017, arXiv 1706.04599), and each bin.

    Args:
        scores: [questions], in [0, 1].
        correct: [questions], 1 where the answer is right.
    """
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    error, rows = 0.0, []
    for index in range(BINS):
        inside = bins == index
        if not inside.any():
            continue
        right, said = float(correct[inside].mean()), float(scores[inside].mean())
        error += float(inside.mean()) * abs(right - said)
        name = f"EM where score is {index / BINS:.1f} to {(index + 1) / BINS:.1f}"
        rows.append(
            Result(BUNDLE, name, 100 * right, dataset, f"{inside.sum():,} questions, mean score {100 * said:.2f}")
        )
    return [Result(BUNDLE, "expected calibration error", error, dataset, f"{BINS} bins of equal width"), *rows]


def best(measure: Callable[[str, str], float], answer: str, golds: Sequence[str]) -> float:
    """The measure against the accepted answer that fits best."""
    return max(measure(answer, gold) for gold in golds)


def normalize(answer: str) -> str:
    """Lower case without punctuation, articles and extra blanks, as the official SQuAD script does."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """1 where the normalized texts are the same, else 0."""
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over normalized words."""
    given, wanted = normalize(answer).split(), normalize(gold).split()
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted)) if same else 0.0
