"""What counts as going in circles, and which numbers are invented."""

import pytest

from models.evaluate.summarization import goes_in_circles, invented_numbers


@pytest.mark.parametrize(
    ("summary", "circles"),
    [
        ("A simple approach to matrix group group group", True),
        ("the performance of the performance", True),
        ("a blackjackjackjack player", True),
        ("Graph-based learning on graphs of graphs", False),
        ("Deep learning for learning deep", False),
        ("Aaaa", False),
    ],
)
def test_circles(summary: str, circles: bool) -> None:
    assert goes_in_circles(summary) == circles


def test_numbers_are_compared_as_they_are_written() -> None:
    source = "In 2019 we saw 1,000 stars, 0.5 of them red, with a 3D camera."
    assert invented_numbers("1,000 stars of 2019 in 3D, 0.5 red", source) == set()
    assert invented_numbers("1000 stars of 201", source) == {"1000", "201"}
    assert invented_numbers("5 stars", source) == {"5"}
