"""At which temperature does a score of question answering say how often it is right?"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from models.errors import BundleError
from models.evaluate.question_answering import MAX_ANSWER_TOKENS, best, calibration, exact_match
from models.load import Loaded, load
from models.offline import compute
from models.task import Output
from models.tasks.question_answering import QuestionAnswering, QuestionAnsweringRequest
from models.train import data

CANDIDATES = np.arange(0.3, 2.0, 0.05)
AT_ONCE = 512
_SMALLEST = 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A question, what the model computed for it, and what is accepted as its answer."""

    request: QuestionAnsweringRequest
    outputs: Sequence[Output]
    golds: Sequence[str]


def ask(loaded: Loaded, questions: Sequence[data.Question]) -> list[Asked]:
    """Compute the logits of every question once; each temperature reads them anew."""
    asked = []
    for first in track(range(0, len(questions), AT_ONCE), description="questions"):
        together = questions[first : first + AT_ONCE]
        requests = [_request(question) for question in together]
        rows = [list(next(loaded.task.solve(request))) for request in requests]
        computed = iter(compute(loaded.model, [row for each in rows for row in each]))
        asked += [
            Asked(request, [next(computed) for _ in each], question.answers)
            for question, request, each in zip(together, requests, rows, strict=True)
        ]
    return asked


def answered(
    loaded: Loaded, asked: Sequence[Asked], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores in [0, 1] and 1 for each exact match, float64 [questions], as this temperature gives them."""
    manifest = loaded.bundle.manifest.model_copy(update={"score_temperature": temperature})
    task = QuestionAnswering(dataclasses.replace(loaded.bundle, manifest=manifest))
    answers = [_answer(task, entry) for entry in asked]
    right = [best(exact_match, answer.answer, entry.golds) for answer, entry in zip(answers, asked, strict=True)]
    return np.array([answer.score for answer in answers]), np.array(right)


def fit(loaded: Loaded, asked: Sequence[Asked]) -> float:
    """The one of `CANDIDATES` under which what came true was likeliest (Guo et al. 2017, arXiv 1706.04599)."""
    return float(min(track(CANDIDATES, description="temperatures"), key=lambda value: _surprise(loaded, asked, value)))


def _surprise(loaded: Loaded, asked: Sequence[Asked], temperature: float) -> float:
    scores, right = answered(loaded, asked, temperature)
    given = np.clip(np.where(right == 1, scores, 1 - scores), _SMALLEST, 1)
    return -float(np.log(given).mean())


def _request(question: data.Question) -> QuestionAnsweringRequest:
    return QuestionAnsweringRequest.model_validate(
        {
            "inputs": {"question": question.question, "context": question.context},
            "parameters": {"max_answer_len": MAX_ANSWER_TOKENS},
        }
    )


def _answer(task: QuestionAnswering, asked: Asked) -> Any:
    solution = task.solve(asked.request)
    next(solution)
    try:
        solution.send(list(asked.outputs))
    except StopIteration as stop:
        return stop.value
    raise BundleError("question answering asked for rows a second time")


def main(arguments: list[str] | None = None) -> int:
    """Fit on every second article of SQuAD dev and show the calibration error on the articles between them."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate.temperature", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets, see models/train/data.py")
    parser.add_argument("--bundle", type=Path, required=True, help="a question answering bundle")
    parser.add_argument("--limit", type=int, help="only the first so many questions of either half")
    options = parser.parse_args(arguments)
    questions = data.read_squad(options.data / data.SQUAD_DEV)
    try:
        loaded = load(options.bundle)
        halves = [ask(loaded, [q for q in questions if q.article % 2 == half][: options.limit]) for half in (0, 1)]
    except BundleError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    temperature = fit(loaded, halves[0])
    for value in (loaded.bundle.manifest.score_temperature, temperature):
        error, *bins = calibration(*answered(loaded, halves[1], value), f"{len(halves[1]):,} questions")
        sys.stdout.write(f"temperature {value:.3f}: expected calibration error {error.value:.4f} on {error.dataset}\n")
        for row in bins:
            sys.stdout.write(f"  {row.metric}: {row.value:.1f} % ({row.signature})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
