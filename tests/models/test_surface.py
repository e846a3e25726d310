"""Lower-case text gets back the surface of the source that it speaks of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.surface import Surface

SOURCE = (
    "Deep networks are studied. We apply BERT to the Poincaré map (PM) of $K_3$-free graphs, and compare deep"
    " Q-learning with k-means. Wikipedia is read; 90.5% of eBay's tables are in Paris, and so is the Paris Observatory."
)


@pytest.mark.parametrize(
    ("written", "restored"),
    [
        ("bert for poincare maps", "BERT for Poincaré maps"),
        ("networks of deep graphs", "Networks of deep graphs"),
        ("on wikipedia", "On wikipedia"),
        ("the pm of $ k _ 3 $ - free graphs", "The PM of $K_3$-free graphs"),
        ("ebay ' s 90 . 5 % in paris", "eBay's 90.5% in Paris"),
        ("graph - based tables ( bert ) : a study , and / or more", "Graph-based tables (BERT): a study, and/or more"),
        ("", ""),
    ],
)
def test_words_are_written_as_in_the_source(written: str, restored: str) -> None:
    assert Surface(SOURCE).restore(written) == restored


def test_blanks_stand_where_the_source_has_them() -> None:
    assert Surface("The trade - off").restore("a trade - off") == "A trade - off"
    assert Surface("The trade-off").restore("a trade - off") == "A trade-off"


@given(st.text("aáÁbB1-._,()' \n"), st.text("aáÁbB1-._,()' \n"))
def test_only_blanks_capitals_and_accents_change(source: str, text: str) -> None:
    def plain(of: str) -> str:
        return "".join(of.lower().replace("á", "a").split())

    assert plain(Surface(source).restore(text)) == plain(text)
