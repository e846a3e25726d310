"""Translation and summarization: which rows a text becomes, and how their outputs become one text again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import OutOfVocabulary
from models.errors import InvalidInput, TooLarge
from models.task import Generation, Output, Row
from models.tasks.summarization import Summarization, SummarizationRequest
from models.tasks.translation import Translation, TranslationRequest
from tests.models.tasks.bundles import bundle_of

Play = Callable[[Row], list[int]]


@pytest.fixture(scope="module")
def translation(tmp_path_factory: pytest.TempPathFactory) -> Translation:
    return Translation(bundle_of("translation", tmp_path_factory.mktemp("bundle"), max_tokens=12))


@pytest.fixture(scope="module")
def summarization(tmp_path_factory: pytest.TempPathFactory) -> Summarization:
    return Summarization(bundle_of("summarization", tmp_path_factory.mktemp("bundle"), max_tokens=12))


def echo(row: Row) -> list[int]:
    """A model that repeats its source."""
    return [int(token) for token in row.tokens]


def run(task: Any, body: dict[str, Any], play: Play = echo) -> tuple[list[Row], list[str]]:
    solution = task.solve(task.request_type.model_validate(body))
    try:
        rows = list(next(solution))
        solution.send([Output(tuple(play(row)), {}, "stop") for row in rows])
    except StopIteration as stop:
        return [] if "rows" not in locals() else rows, [
            next(iter(answer.model_dump().values())) for answer in stop.value
        ]
    pytest.fail("the solution did not end")


def test_each_sentence_is_a_row_and_the_layout_stays(translation: Translation) -> None:
    text = "  - the quick fox jumps.\n\nwhy?  it would.\t***\n"
    rows, answers = run(translation, {"inputs": text})
    assert len(rows) == 3
    assert answers == [text.replace("jumps.", "jumps .").replace("why?", "why ?").replace("would.", "would .")]


def test_clean_up_is_obeyed(translation: Translation) -> None:
    body = {"inputs": "the fox.", "parameters": {"clean_up_tokenization_spaces": True}}
    assert run(translation, body)[1] == ["the fox."]


def test_texts_keep_their_order_and_their_own_rows(translation: Translation) -> None:
    texts = ["the fox jumps. the dog knows.", "***", "winter"]
    rows, answers = run(translation, {"inputs": texts})
    assert len(rows) == 3
    assert answers == ["the fox jumps . the dog knows .", "***", "winter"]


def test_nothing_to_translate_needs_no_model(translation: Translation) -> None:
    rows, answers = run(translation, {"inputs": "12 - 13\n"})
    assert (rows, answers) == ([], ["12 - 13\n"])


def test_a_long_sentence_is_split_cut_or_refused(translation: Translation) -> None:
    text = "the quick brown fox jumps over a lazy dog and nobody knows why it would"
    rows, answers = run(translation, {"inputs": text})
    assert len(rows) > 1
    assert answers == [text]
    assert max(len(row.tokens) for row in rows) <= 12
    cut, (answer,) = run(translation, {"inputs": text, "parameters": {"truncation": "longest_first"}})
    assert len(cut) == 1
    assert text.startswith(answer.strip())
    request = TranslationRequest.model_validate({"inputs": text, "parameters": {"truncation": "do_not_truncate"}})
    with pytest.raises(TooLarge, match="sentences of at most 12 tokens, got one of"):
        next(translation.solve(request))


def test_a_long_text_is_summarized_in_windows_that_end_with_sentences(summarization: Summarization) -> None:
    text = "the fox jumps. the dog knows. nobody knows why. it would. a quick dog."
    rows, (answer,) = run(summarization, {"inputs": text})
    assert len(rows) > 1
    assert max(len(row.tokens) for row in rows) <= 12
    assert [sentence.lower() for sentence in answer.split(". ")] == text.split(". ")


def test_a_summary_of_one_window_is_not_ended_like_a_sentence(summarization: Summarization) -> None:
    assert run(summarization, {"inputs": " the fox jumps \n"})[1] == ["The fox jumps"]


def test_a_model_of_lower_case_gets_the_capitals_and_blanks_of_the_source(summarization: Summarization) -> None:
    assert run(summarization, {"inputs": "the Fox jumps.why?"})[1] == ["The Fox jumps.why?"]


def test_a_model_that_writes_capitals_is_left_alone(tmp_path: Path) -> None:
    bundle = bundle_of("summarization", tmp_path, max_tokens=12, lowercase=False)
    assert run(Summarization(bundle), {"inputs": "the fox jumps.why?"})[1] == ["the fox jumps . why ?"]


def test_summaries_of_windows_are_ended_like_sentences(summarization: Summarization) -> None:
    rows, (answer,) = run(summarization, {"inputs": "the fox jumps. " * 6}, lambda row: row.tokens.tolist()[1:3])
    assert len(rows) > 1
    assert answer == " ".join(["The fox."] * len(rows))


def test_pieces_that_a_summarizer_has_no_id_for_are_read_as_unknown(tmp_path: Path) -> None:
    bundle = bundle_of("summarization", tmp_path, max_tokens=12)
    (whole,), _ = run(Summarization(bundle), {"inputs": "the fox"})
    lacking = OutOfVocabulary(first_id=int(whole.tokens.max()), unknown_token_id=1)
    manifest = bundle.manifest.model_copy(update={"out_of_vocabulary": lacking})
    (row,), _ = run(Summarization(replace(bundle, manifest=manifest)), {"inputs": "the fox"})
    assert row.tokens.tolist() == [1 if token == lacking.first_id else token for token in whole.tokens.tolist()]


def test_summarization_can_be_cut_or_refused(summarization: Summarization) -> None:
    text = "the fox jumps. " * 6
    assert len(run(summarization, {"inputs": text, "parameters": {"truncation": "only_first"}})[0]) == 1
    request = SummarizationRequest.model_validate({"inputs": text, "parameters": {"truncation": "do_not_truncate"}})
    with pytest.raises(TooLarge, match="at most 12 tokens with do_not_truncate, got"):
        next(summarization.solve(request))


@pytest.mark.parametrize("kind", ["translation", "summarization"])
def test_limits_are_named(kind: str, request: pytest.FixtureRequest) -> None:
    task = request.getfixturevalue(kind)
    for inputs, error, message in (
        ([], InvalidInput, "inputs must hold at least 1 text"),
        (["a"] * 5, TooLarge, "inputs holds at most 4 texts, got 5"),
        (["a", "  "], InvalidInput, "inputs/1 must have at least 1 character that is not blank, got 2 blank ones"),
        ("a" * 2001, TooLarge, "inputs may have at most 2000 characters, got 2001"),
    ):
        with pytest.raises(error, match=message):
            next(task.solve(task.request_type.model_validate({"inputs": inputs})))


def _generation(translation: Translation, **parameters: object) -> Generation:
    rows, _ = run(translation, {"inputs": "fox", "parameters": {"generate_parameters": parameters}})
    assert rows[0].generation is not None
    return rows[0].generation


def test_decoding_follows_the_bundle_unless_told_otherwise(translation: Translation) -> None:
    assert _generation(translation).max_new_tokens == 20
    assert not _generation(translation).do_sample
    asked = {"do_sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 7, "max_new_tokens": 5}
    assert _generation(translation, **asked) == Generation(5, True, 0.5, 3, 0.9, seed=7)
    with pytest.raises(InvalidInput, match="max_new_tokens may be at most 30 for this model, got 31"):
        _generation(translation, max_new_tokens=31)


def test_samples_differ_unless_seeded(translation: Translation) -> None:
    seeds = {_generation(translation, do_sample=True).seed for _ in range(5)}
    assert len(seeds) == 5
    assert _generation(translation, do_sample=True, seed=0).seed == 0


@pytest.mark.parametrize("kind", ["translation", "summarization"])
def test_rows_of_a_request_are_numbered(kind: str, request: pytest.FixtureRequest) -> None:
    """Sentences, windows and texts: whatever would draw alike otherwise."""
    rows, _ = run(request.getfixturevalue(kind), {"inputs": ["the fox jumps. " * 6, "the fox jumps.", "winter"]})
    assert [row.generation.row for row in rows if row.generation] == list(range(len(rows)))
    assert len(rows) > 3


def test_rows_hold_int64_tokens_within_the_limit(translation: Translation) -> None:
    rows, _ = run(translation, {"inputs": "the fox"})
    assert rows[0].tokens.dtype == np.int64
