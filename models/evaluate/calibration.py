"""How a question answering model's probability becomes a score that says how often it is right."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Calibration
from models.errors import ModelError
from models.evaluate.question_answering import MAX_ANSWER_TOKENS, best, calibration, exact_match, is_fitted_on
from models.evaluate.result import answers
from models.load import Loaded, load
from models.tasks.question_answering import QuestionAnswering, calibrated
from models.train import data

Scores = NDArray[np.float64]

STEPS = 20
_SMALLEST = 1e-6


def probabilities(loaded: Loaded, questions: Sequence[data.Question]) -> tuple[Scores, Scores]:
    """Of each best answer, without any calibration, and 1 for each exact match, [questions]."""
    manifest = loaded.bundle.manifest.model_copy(update={"score_calibration": None})
    task = QuestionAnswering(dataclasses.replace(loaded.bundle, manifest=manifest))
    bodies = (
        {
            "inputs": {"question": question.question, "context": question.context},
            "parameters": {"max_answer_len": MAX_ANSWER_TOKENS},
        }
        for question in questions
    )
    found = list(answers(dataclasses.replace(loaded, task=task), bodies, len(questions)))
    right = [best(exact_match, one.answer, question.answers) for one, question in zip(found, questions, strict=True)]
    return np.array([one.score for one in found]), np.array(right)


def fit(given: Scores, right: Scores) -> Calibration:
    """The line through the log-odds that makes what came true likeliest (Platt 1999), by Newton's method.

    Args:
        given: [questions], probabilities of the model.
        right: [questions], 1 where the answer is right.
    """
    kept = np.clip(given, _SMALLEST, 1 - _SMALLEST)
    features = np.stack([np.log(kept) - np.log1p(-kept), np.ones_like(kept)], axis=1)
    line = np.array([1.0, 0.0])
    for _ in range(STEPS):
        score = 1 / (1 + np.exp(-features @ line))
        curvature = (features * (score * (1 - score))[:, None]).T @ features
        line = line + np.linalg.solve(curvature, features.T @ (right - score))
    return Calibration(slope=round(float(line[0]), 3), intercept=round(float(line[1]), 3))


def main(arguments: list[str] | None = None) -> int:
    """Fit on every second article of SQuAD dev and show the calibration error on the articles between them."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate.calibration", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets, see models/train/data.py")
    parser.add_argument("--bundle", type=Path, required=True, help="a question answering bundle")
    parser.add_argument("--limit", type=int, help="only the first so many questions of either half")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    if not (options.data / data.SQUAD_DEV).is_file():
        parser.error(f"--data: there is no file {options.data / data.SQUAD_DEV}")
    try:
        _fit_and_measure(load(options.bundle), data.read_squad(options.data / data.SQUAD_DEV), options.limit)
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _fit_and_measure(loaded: Loaded, questions: Sequence[data.Question], limit: int | None) -> None:
    fitted, between = ([one for one in questions if is_fitted_on(one) == fits][:limit] for fits in (True, False))
    found = fit(*probabilities(loaded, fitted))
    sys.stdout.write(f"slope {found.slope}, intercept {found.intercept}, fitted on {len(fitted):,} questions\n")
    given, right = probabilities(loaded, between)
    for name, line in (("without calibration", None), ("with it", found)):
        scores = np.array([calibrated(float(one), line) for one in given])
        error, *bins = calibration(scores, right, f"{len(between):,} questions of other articles")
        sys.stdout.write(f"{name}: expected calibration error {error.value:.4f} on {error.dataset}\n")
        for row in bins:
            sys.stdout.write(f"  {row.metric}: {row.value:.1f} % ({row.signature})\n")


if __name__ == "__main__":
    sys.exit(main())
