"""The line that made right answers is found again from them, a bundle that has one gives such scores, and what these
are worth is measured on other questions.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Calibration
from models.evaluate.calibration import fit, main
from models.evaluate.question_answering import question_answering
from models.evaluate.result import Result
from models.load import load
from models.tasks.question_answering import calibrated
from models.train import data
from tests.models.embedded import QUESTION_ANSWERING, RECOMMENDATION, TRANSLATION
from tests.train.rows import CONTEXT, write_xz

FITTED, BETWEEN = 2, 3
"""Questions of the first article, on which a calibration is fitted, and of the second."""


def write_squad(root: Path) -> None:
    answers = [{"answer_start": 30, "text": "Paris"}]
    question = {"id": "1", "question": "Which city is on the Seine?", "answers": answers}
    articles = [{"paragraphs": [{"context": CONTEXT, "qas": [question] * count}]} for count in (FITTED, BETWEEN)]
    write_xz(root / data.SQUAD_DEV, json.dumps({"data": articles}))


def of_calibration(results: list[Result]) -> list[Result]:
    return [result for result in results if "calibration" in result.metric or "where score is" in result.metric]


def test_a_line_is_found_again_from_what_came_true() -> None:
    generator = np.random.default_rng(7)
    given = generator.uniform(0.02, 0.98, 20_000)
    truth = Calibration(slope=0.7, intercept=0.8)
    chances = np.array([calibrated(float(one), truth) for one in given])
    right = (generator.random(len(given)) < chances).astype(np.float64)
    found = fit(given, right)
    assert found.slope == pytest.approx(truth.slope, abs=0.05)
    assert found.intercept == pytest.approx(truth.intercept, abs=0.05)


def test_scores_rise_with_the_probability_and_stay_probabilities() -> None:
    line = Calibration(slope=0.8, intercept=0.5)
    scores = [calibrated(probability, line) for probability in (0.0, 1e-12, 0.2, 0.5, 0.9, 1.0)]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0.0, 1.0)
    assert scores[3] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert calibrated(0.3, None) == 0.3


def test_calibration_is_measured_on_articles_that_it_was_not_fitted_on(tmp_path: Path) -> None:
    write_squad(tmp_path)
    loaded = load(QUESTION_ANSWERING)
    results = question_answering(loaded, tmp_path, None)
    error, *bins = of_calibration(results)
    assert {row.dataset for row in (error, *bins)} == {
        "SQuAD 1.1 dev, 3 questions of articles that the calibration was not fitted on"
    }
    assert [row.signature.split(",")[0] for row in bins] == ["3 questions"]
    assert next(result for result in results if result.metric == "EM").dataset == "SQuAD 1.1 dev, 5 questions"
    assert of_calibration(question_answering(loaded, tmp_path, FITTED)) == []

    manifest = loaded.bundle.manifest.model_copy(update={"score_calibration": None})
    uncalibrated = dataclasses.replace(loaded, bundle=dataclasses.replace(loaded.bundle, manifest=manifest))
    found = of_calibration(question_answering(uncalibrated, tmp_path, None))
    assert {row.dataset for row in found} == {"SQuAD 1.1 dev, 5 questions"}


def test_a_calibration_without_data_or_of_another_task_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--bundle", str(TRANSLATION)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"--data: there is no file {tmp_path / data.SQUAD_DEV}" in capsys.readouterr().err
    write_squad(tmp_path)
    assert main(["--data", str(tmp_path), "--bundle", str(RECOMMENDATION)]) == 2
    assert "needs a tokenizer" in capsys.readouterr().err
