"""The arithmetic of explanations against values worked out by hand."""

import numpy as np
import pytest

from models import attribution


def test_rollout_of_two_layers() -> None:
    first, second = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    layers = np.stack([np.stack([first, first]), np.stack([second, second])])
    # With residuals [[1, 0], [.25, .75]] and [[.5, .5], [.5, .5]]; their product, the later one first:
    assert attribution.rollout(np.eye(2), layers) == pytest.approx(np.array([[0.625, 0.375], [0.625, 0.375]]))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [9, 4, 1], -1.0),
        ([1, 2, 2, 4], [1, 3, 2, 4], 0.9486832980505138),  # ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_rank_correlation(first: list[float], second: list[float], expected: float | None) -> None:
    assert attribution.rank_correlation(first, second) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't go, 3 x!", ["Don't", "go", ",", "3", "x", "!"]),
        ("我在家 ok", ["我", "在", "家", "ok"]),
        ("snake_case", ["snake", "_", "case"]),
        (" \n", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in attribution.words(text)] == expected


def test_a_word_leaves_with_one_of_its_blanks() -> None:
    text = "see the cat."
    left = [attribution.without(text, word) for word in attribution.words(text)]
    assert left == ["the cat.", "see cat.", "see the .", "see the cat"]


def test_tokens_add_up_to_words() -> None:
    weights = np.array([[0.1, 0.2, 0.3, 0.4]])
    tokens = [(0, 2), (2, 5), (6, 9), None]
    assert attribution.by_word(weights, tokens, [(0, 5), (6, 9)]) == pytest.approx(np.array([[0.3, 0.3]]))


def test_written_letters_are_found_in_an_answer_with_other_blanks_and_capitals() -> None:
    written, answer = "graph - based étude.", "- Graph-based etude!."
    spans = [(0, 5), (6, 7), (8, 13), (14, 19), (19, 20), None]
    found = attribution.placed(spans, written, answer, 0, len(answer))
    assert [span and answer[slice(*span)] for span in found] == ["Graph", "-", "based", "etude", ".", None]
    assert found[0] == (2, 7)
