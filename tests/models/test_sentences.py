"""Sentences and their layout: nothing of the caller's text is lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sentences import pieces


@given(st.text())
def test_pieces_joined_give_the_text_again(text: str) -> None:
    assert "".join(piece.text for piece in pieces(text, "en")) == text


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith is here. He waits.", ["Dr. Smith is here.", "He waits."]),
        ("  - One item\n  - Another one\n", ["One item", "Another one"]),
        ("1. First.\n2) Second!", ["First.", "Second!"]),
        ("# Title\n\nSome text", ["Title", "Some text"]),
        ("3.5 %\n---\n😀", []),
        ("你好。再见。", ["你好。", "再见。"]),
        ("Plan A\u00a0. It works", ["Plan A\u00a0.", "It works"]),
        ("C\u3000.", ["C\u3000."]),
    ],
)
def test_sentences_without_their_layout(text: str, sentences: list[str]) -> None:
    assert [piece.text for piece in pieces(text, "en") if piece.is_sentence] == sentences


def test_a_line_at_which_the_splitting_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.sentences._WIDE_BLANK", re.compile("(?!)"))
    found = [piece.text for piece in pieces("It fails. Plan A\u00a0. It works\nIt does. So be it.", "en")]
    assert found[0] == "It fails. Plan A\u00a0. It works"
    assert found[-1] == "So be it."
