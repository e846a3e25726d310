"""Measures by hand on cases small enough to count, and the splits that recommenders are measured on."""

import numpy as np
import pytest

from models.evaluate.baselines import nearest_sentence
from models.evaluate.question_answering import best, calibration, exact_match, f1
from models.evaluate.recommendation import gain, hit, leave_last_invoice, leave_one_out
from models.train.data import Purchases


def test_gain_counts_places_and_is_one_for_the_best_order() -> None:
    assert gain([7, 8, 9], [8]) == pytest.approx(1 / np.log2(3))
    assert gain([7, 8, 9], [8, 7, 9, 5, 6]) == pytest.approx(1.0)
    assert gain([7, 8, 9], [9, 7]) == pytest.approx((1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3)))
    assert (gain([7, 8, 9], [1]), hit([7, 8, 9], [1]), hit([7, 8, 9], [1, 9])) == (0.0, 0.0, 1.0)


def test_the_wanted_is_never_among_what_is_known_or_counted() -> None:
    purchases = Purchases(("a", "b", "c"), ("", "", ""), histories=((1, 2, 3), (3, 1, 2)), last_invoices=(1, 0))
    one, whole = leave_one_out(purchases, "shop"), leave_last_invoice(purchases, "shop")
    assert (one.counted, one.asked, one.wanted) == ([(1, 2), (3, 1)], [(1, 2), (3, 1)], [(3,), (2,)])
    assert (whole.counted, whole.asked, whole.wanted) == ([(1,), (3, 1, 2)], [(1,)], [(2, 3)])


def test_calibration_is_the_weighted_distance_of_confidence_and_accuracy() -> None:
    scores, correct = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 1.0]), np.array([1, 1, 1, 0, 0, 1])
    error, *bins = calibration(scores, correct, "here")
    assert error.value == pytest.approx(5 / 6 * abs(4.8 / 5 - 4 / 5) + 1 / 6 * 0.15)
    assert [(row.metric, row.value) for row in bins] == [
        ("EM where score is 0.1 to 0.2", 0.0),
        ("EM where score is 0.9 to 1.0", 80.0),
    ]


def test_answers_are_compared_as_the_official_script_does() -> None:
    assert exact_match("The  Eiffel-Tower!", "eiffeltower") == 1.0
    assert f1("the green cat", "a cat") == pytest.approx(2 / 3)
    assert best(f1, "green cat", ["dog", "the cat", "Green cat."]) == 1.0


def test_the_nearest_sentence_shares_most_words_with_the_question() -> None:
    context = "The Seine is a river. It rises near Dijon. It ends at Le Havre."
    assert nearest_sentence("Near which city (Dijon?) does it begin?", context).strip() == "It rises near Dijon."
