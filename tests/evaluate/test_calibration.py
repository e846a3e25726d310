"""The line that made right answers is found again from them, and a bundle that has one gives such scores."""

import numpy as np
import pytest

from models.bundle import Calibration
from models.evaluate.calibration import fit
from models.tasks.question_answering import calibrated


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
