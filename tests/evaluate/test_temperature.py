"""A temperature that made the answers is found again from the answers."""

from pathlib import Path

import numpy as np

from models.encoder import Encoder
from models.evaluate.temperature import Asked, answered, fit
from models.explainer import Explainer
from models.load import Loaded
from models.task import Output
from models.tasks.question_answering import QuestionAnswering, QuestionAnsweringRequest
from tests.models.tasks.bundles import bundle_of

CONTEXT = "the quick brown fox jumps over a lazy dog"
QUESTIONS = 400
TRUE_TEMPERATURE = 0.5


def test_scores_of_a_model_that_doubts_too_much_are_sharpened_as_much_as_they_should(tmp_path: Path) -> None:
    bundle = bundle_of("question-answering", tmp_path, max_tokens=24)
    task = QuestionAnswering(bundle)
    model = Encoder.__new__(Encoder)
    loaded = Loaded(bundle, "fp32", task, model, Explainer(model, None, None))
    body = {"inputs": {"question": "who jumps", "context": CONTEXT}, "parameters": {"max_answer_len": 1}}
    request = QuestionAnsweringRequest.model_validate(body)
    (row,) = next(task.solve(request))
    words = CONTEXT.split()
    generator = np.random.default_rng(7)
    asked = []
    for _ in range(QUESTIONS):
        start = np.full(len(row.tokens), -40, np.float32)
        end = np.zeros(len(row.tokens), np.float32)
        places = np.flatnonzero(row.segments == 1)[: len(words)]
        logits = generator.normal(0, 1, len(words)).astype(np.float32)
        start[places] = logits
        chances = np.exp(logits / TRUE_TEMPERATURE)
        gold = generator.choice(words, p=chances / chances.sum())
        asked.append(Asked(request, [Output((), {"start_logits": start, "end_logits": end}, "stop")], [str(gold)]))

    found = fit(loaded, asked)
    assert abs(found - TRUE_TEMPERATURE) < 0.11
    scores, right = answered(loaded, asked, found)
    assert abs(scores.mean() - right.mean()) < 0.05
    doubting, same = answered(loaded, asked, 1.0)
    assert doubting.mean() < right.mean() - 0.1
    assert (right == same).all()
