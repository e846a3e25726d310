"""Tokens become text in reading order, whatever order the rows bring them in."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from models.surface import Surface
from models.task import Draft, FinishReason
from models.tasks.summarization import Summarization, SummarizationRequest
from models.tasks.translation import Translation, TranslationRequest
from models.text import Tokenizer
from service.contract import StreamToken
from service.rows import Progress
from service.streaming import Transcript
from tests.models.embedded import SUMMARIZATION, TRANSLATION, opened

SENTENCES = ("Le prix est de 1 000 € !", "Ça va 😀 très bien ?", "Zażółć gęślą jaźń, 東京は大きい都市です。", "Oui.")
LAYOUT = "- One here.\n\n  Two is there.  Three is gone.\n***\n4. Four."


def translation(text: str, **parameters: Any) -> Draft:
    request = TranslationRequest.model_validate({"inputs": text, "stream": True, "parameters": parameters})
    return Translation(opened(TRANSLATION)).draft(request)


def tokens_of(texts: Sequence[str]) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer(TRANSLATION / "tokenizer.json")
    return [tuple(tokenizer.encode(text).tolist()[:-1]) for text in texts]


def whole(draft: Draft, written: Sequence[Sequence[int]]) -> str:
    (text,) = draft.join([draft.decode(tokens) for tokens in written], True)
    return text


def tell(draft: Draft, written: Sequence[tuple[int, ...]], *, seed: int = 0) -> list[StreamToken]:
    """What a transcript tells when the rows bring a token at a time, in an order that the seed decides."""
    transcript = Transcript(draft)
    told: list[StreamToken] = []
    turns = [row for row, tokens in enumerate(written) for _ in tokens or "-"]
    random.Random(seed).shuffle(turns)
    done = [0] * len(written)
    for row in turns:
        done[row] += 1
        finish: FinishReason | None = "stop" if done[row] >= len(written[row]) else None
        told += transcript.hear(Progress(row, written[row][: done[row]], finish))
    return [*told, StreamToken(id=None, text=transcript.rest(whole(draft, written)))]


@pytest.mark.parametrize("clean_up", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_texts_of_all_tokens_are_the_whole_text(seed: int, clean_up: bool) -> None:
    draft = translation(LAYOUT, clean_up_tokenization_spaces=clean_up)
    written = tokens_of(SENTENCES)
    told = tell(draft, written, seed=seed)
    assert len(draft.rows) == len(written)
    assert "".join(token.text for token in told) == whole(draft, written)
    assert [token.id for token in told] == [*(token for tokens in written for token in tokens), None]


@pytest.mark.parametrize("clean_up", [False, True])
def test_rows_that_change_the_end_of_what_was_read_are_told_as_they_are_joined(clean_up: bool) -> None:
    draft = translation("One. Two.\nThree.  Four. Five.\nSix.", clean_up_tokenization_spaces=clean_up)
    written = [*tokens_of(["Un  !", ". Deux"]), (), *tokens_of(["'s", "� é 😀"]), ()]
    told = tell(draft, written)
    assert "".join(token.text for token in told) == whole(draft, written)
    assert [token.id for token in told] == [*(token for tokens in written for token in tokens), None]


@pytest.mark.parametrize("clean_up", [False, True])
def test_what_was_told_is_not_read_again_for_each_token(clean_up: bool) -> None:
    draft = translation("One here. " * 300, clean_up_tokenization_spaces=clean_up)
    (tokens,) = tokens_of(["Il y en a un ici."])
    read: list[int] = []

    def add(so_far: str, row: int, text: str) -> str:
        read.append(len(so_far))
        return draft.add(so_far, row, text)

    def join(_texts: Sequence[str], _whole: bool) -> list[str]:
        raise AssertionError("all rows are joined anew")

    transcript = Transcript(replace(draft, add=add, join=join))
    told = [token for row in range(300) for token in transcript.hear(Progress(row, tokens, "stop"))]
    assert len(told) == 300 * len(tokens)
    assert max(read) < 20, "a word and the blank before it are enough"


def test_a_character_of_several_tokens_is_told_whole() -> None:
    written = tokens_of(["😀 est là et là aussi, 東京は大きい都市です。そして人がたくさん住んでいます。"])
    told = tell(translation("One."), written)
    assert len(written[0]) > 60  # bytes, since the vocabulary has no such characters
    assert not any("\N{REPLACEMENT CHARACTER}" in token.text for token in told)
    assert sum(bool(token.text) for token in told) > 10, "told only at the end"


def test_words_are_told_as_soon_as_the_next_one_begins() -> None:
    tokenizer = Tokenizer(TRANSLATION / "tokenizer.json")
    (tokens,) = tokens_of(["Elle vit dans une maison."])
    transcript = Transcript(translation("One."))
    read = ""
    for end in range(1, len(tokens) + 1):
        read += "".join(token.text for token in transcript.hear(Progress(0, tokens[:end], None)))
        assert len(tokenizer.decode(tokens[:end]).split()) - len(read.split()) <= 1


def test_a_row_that_starts_again_is_not_told_twice() -> None:
    draft = translation("One.")
    (tokens,) = tokens_of(SENTENCES[:1])
    transcript = Transcript(draft)
    told = list(transcript.hear(Progress(0, tokens[:4], None)))
    for end in (1, 2, 3, 4):
        assert not list(transcript.hear(Progress(0, tokens[:end], None)))
    told += transcript.hear(Progress(0, tokens, "stop"))
    assert [token.id for token in told] == list(tokens)
    assert "".join(token.text for token in told) + transcript.rest(SENTENCES[0]) == whole(draft, [tokens])


def summaries(sentences: int) -> tuple[Draft, list[tuple[int, ...]]]:
    """A draft of several windows, and what they bring; the third one brings nothing."""
    task = Summarization(opened(SUMMARIZATION))
    text = "We study graphs with very few labels. " * sentences
    draft = task.draft(SummarizationRequest.model_validate({"inputs": text, "stream": True}))
    tokenizer = Tokenizer(SUMMARIZATION / "tokenizer.json")
    written = [
        tuple(tokenizer.encode(f"summary {row} of a long text").tolist()[1:-1]) if row != 2 else ()
        for row, _ in enumerate(draft.rows)
    ]
    return draft, written


@pytest.mark.parametrize("seed", range(4))
def test_summaries_of_windows_are_told_as_they_are_joined(seed: int) -> None:
    draft, written = summaries(200)
    assert len(written) > 3
    assert "".join(token.text for token in tell(draft, written, seed=seed)) == whole(draft, written)


def test_each_summary_is_restored_for_its_own_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    draft, written = summaries(400)
    restore, restored = Surface.restore, []

    def counted(surface: Surface, text: str) -> str:
        restored.append(text)
        return restore(surface, text)

    monkeypatch.setattr(Surface, "restore", counted)
    transcript = Transcript(draft)
    told = [token for row, tokens in enumerate(written) for token in transcript.hear(Progress(row, tokens, "stop"))]
    assert len(told) == sum(map(len, written))
    assert len(restored) == len(told) + len(written)
