"""Windows become rows, logits become ranked spans: checked against a slow enumeration of every span."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Calibration
from models.errors import InvalidInput, TooLarge
from models.evidence import span_logits
from models.explain import Explain
from models.task import Output, Row
from models.tasks.question_answering import (
    DOC_STRIDE,
    MOST_WINDOW_TOKENS,
    QuestionAnswering,
    QuestionAnsweringAnswer,
    QuestionAnsweringRequest,
)
from tests.models.tasks.bundles import bundle_of

MAX_TOKENS = 24
CONTEXT = "the quick brown fox jumps over a lazy dog and nobody knows why it would do such things in winter"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> QuestionAnswering:
    return QuestionAnswering(bundle_of("question-answering", tmp_path_factory.mktemp("bundle"), max_tokens=MAX_TOKENS))


def request(**parameters: object) -> QuestionAnsweringRequest:
    body = {"inputs": {"question": "who jumps", "context": CONTEXT}, "parameters": parameters}
    return QuestionAnsweringRequest.model_validate(body)


def answer(
    task: QuestionAnswering,
    asked: QuestionAnsweringRequest,
    mark: dict[str, tuple[float, float]],
    nothing: float = 0,
) -> tuple[list[Row], list[QuestionAnsweringAnswer]]:
    """Play the model: the words in `mark` get these start and end logits, others -5, the first token `nothing`."""
    solution = task.solve(asked)
    rows = list(next(solution))
    outputs = []
    for row in rows:
        start = np.full(len(row.tokens), -5, np.float32)
        end = start.copy()
        start[0] = end[0] = nothing
        for word, (first, last) in mark.items():
            (token,) = task._tokenizer.encode(word)[1:-1]
            places = np.flatnonzero((row.tokens == token) & (row.segments == 1))
            start[places], end[places] = first, last
        outputs.append(Output((), {"start_logits": start, "end_logits": end}, "stop"))
    with pytest.raises(StopIteration) as stop:
        solution.send(outputs)
    found = stop.value.value
    return rows, found if isinstance(found, list) else [found]


def test_long_contexts_become_overlapping_rows(task: QuestionAnswering) -> None:
    rows, _ = answer(task, request(doc_stride=4), {})
    assert len(rows) > 1
    assert all(len(row.tokens) <= MAX_TOKENS for row in rows)


def strided(context: str, doc_stride: int | None) -> QuestionAnsweringRequest:
    return QuestionAnsweringRequest.model_validate(
        {"inputs": {"question": "who", "context": context}, "parameters": {"doc_stride": doc_stride}}
    )


def test_a_stride_that_makes_too_many_windows_is_refused_with_the_most_that_fits(tmp_path: Path) -> None:
    task = QuestionAnswering(bundle_of("question-answering", tmp_path, max_tokens=384))
    context, room = "a." * 1000, 384 - 3 - task._tokenizer.count_bare("who")
    with pytest.raises(TooLarge, match=f"doc_stride may be at most .* 2000 tokens, .* got {room - 1}") as refusal:
        next(task.solve(strided(context, room - 1)))
    assert refusal.value.pointer == "/parameters/doc_stride"
    most = int(refusal.value.detail.split("at most ")[1].split()[0])
    rows = next(task.solve(strided(context, most)))
    assert 0.7 * MOST_WINDOW_TOKENS < 384 * len(rows) <= MOST_WINDOW_TOKENS
    with pytest.raises(TooLarge):
        next(task.solve(strided(context, most + 1)))
    assert len(next(task.solve(strided("a." * (room // 2), room - 1)))) == 1


def test_the_default_stride_is_never_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.tasks.question_answering.MOST_WINDOW_TOKENS", 1)
    task = QuestionAnswering(bundle_of("question-answering", tmp_path, max_tokens=384))
    default = next(task.solve(strided("a." * 1000, None)))
    assert len(next(task.solve(strided("a." * 1000, DOC_STRIDE)))) == len(default) > 1


def test_the_span_from_the_best_start_to_the_best_end(task: QuestionAnswering) -> None:
    _, (best,) = answer(task, request(), {"brown": (9, -5), "jumps": (-5, 9)})
    assert best.answer == "brown fox jumps" == CONTEXT[best.start : best.end]


def test_an_end_before_its_start_is_no_span(task: QuestionAnswering) -> None:
    _, (best,) = answer(task, request(), {"jumps": (9, -5), "brown": (-5, 8.5)})
    assert best.answer.startswith("jumps") or best.answer.endswith("brown")
    assert best.start < best.end


def test_longer_spans_than_allowed_are_not_found(task: QuestionAnswering) -> None:
    _, (best,) = answer(task, request(max_answer_len=2), {"brown": (9, -5), "jumps": (-5, 8)})
    assert best.answer.startswith("brown")
    assert "jumps" not in best.answer


def test_the_best_window_wins(task: QuestionAnswering) -> None:
    rows, (best,) = answer(task, request(), {"quick": (3, 3), "winter": (8, 8)})
    assert len(rows) > 1
    assert best.answer == "winter"


def test_scores_are_probabilities_that_leave_room_for_no_answer(task: QuestionAnswering) -> None:
    _, sure = answer(task, request(top_k=20), {"winter": (9, 9)})
    assert sure[0].score > 0.99
    _, unsure = answer(task, request(top_k=20), {"winter": (9, 9)}, nothing=9)
    assert unsure[0].score == pytest.approx(0.5, abs=0.01)
    assert sum(found.score for found in unsure) <= 1


def test_no_answer_is_given_only_when_allowed(task: QuestionAnswering) -> None:
    _, (best,) = answer(task, request(), {"winter": (2, 2)}, nothing=9)
    assert best.answer == "winter"
    _, (best,) = answer(task, request(handle_impossible_answer=True), {"winter": (2, 2)}, nothing=9)
    assert (best.answer, best.start, best.end) == ("", 0, 0)


def test_parts_of_words_are_widened_unless_told_not_to(task: QuestionAnswering) -> None:
    context = "foxdogs here"
    body = {"inputs": {"question": "who", "context": context}}
    window = next(task._tokenizer.question_windows("who", context, max_tokens=MAX_TOKENS, doc_stride=0))
    assert window.spans[0] != (0, 7), "the tokenizer must split this word for the test to mean anything"
    for to_words, expected in ((True, "foxdogs"), (False, context[slice(*window.spans[0])])):
        asked = QuestionAnsweringRequest.model_validate(body | {"parameters": {"align_to_words": to_words}})
        solution = task.solve(asked)
        (row,) = next(solution)
        first = int(np.flatnonzero(row.segments)[0]) if row.segments is not None else 0
        logits = np.full(len(row.tokens), -5, np.float32)
        logits[first] = 9
        with pytest.raises(StopIteration) as stop:
            solution.send([Output((), {"start_logits": logits, "end_logits": logits}, "stop")])
        assert stop.value.value.answer == expected


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_answer_longer_than_any_window_is_explained_by_the_one_it_was_found_in(
    task: QuestionAnswering, at: int
) -> None:
    """A word without blanks, of which the model finds a part."""
    word = "xqjz" * 6
    context = f"the quick brown fox jumps over a lazy dog {word} and"
    body = {"inputs": {"question": "who jumps", "context": context}, "explain": {"method": ["occlusion"]}}
    solution = task.solve(QuestionAnsweringRequest.model_validate(body))
    rows = list(next(solution))
    pieces = [[task._tokenizer.piece(token).removeprefix("##") for token in row.tokens.tolist()] for row in rows]
    places = [[place for place, piece in enumerate(window) if piece in set("xqjz")] for window in pieces]
    assert all(0 < len(held) < len(word) for held in places), "no window may hold the word whole"

    def marked(row: Row) -> Output:
        logits = np.full(len(row.tokens), -5, np.float32)
        if row.tokens.tolist() == rows[at].tokens.tolist():
            logits[places[at][-1]] = 9
        return Output((), {"start_logits": logits, "end_logits": logits}, "stop")

    masked = solution.send([marked(row) for row in rows])
    with pytest.raises(StopIteration) as stop:
        solution.send([marked(row) for row in masked])
    answer = stop.value.value
    assert answer.answer == word
    (part,) = answer.explanation.parts
    assert len({len(held) for held in places}) == len(rows)
    assert len(part.output) == len(places[at])
    assert all(word[unit.start : unit.end] == unit.text for unit in part.output)


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_an_explanation_counts_in_the_scores_of_the_answer_with_and_without_a_word(
    task: QuestionAnswering, may_be_empty: bool
) -> None:
    """Without a word only the window with the answer is read again; the others weigh what they did."""
    random, place = np.random.default_rng(0), 0 if may_be_empty else -2  # the last one is special too
    asked = QuestionAnsweringRequest.model_validate(
        {
            "inputs": {"question": "who jumps", "context": f"{CONTEXT}, {CONTEXT}"},
            "parameters": {
                "doc_stride": 0,
                "top_k": 100,
                "align_to_words": False,
                "handle_impossible_answer": may_be_empty,
            },
        }
    )

    def read(row: Row) -> Output:
        logits = random.normal(size=(2, len(row.tokens))).astype(np.float32)
        logits[:, place] += 3
        return Output((), {"start_logits": logits[0], "end_logits": logits[1]}, "stop")

    def scores(outputs: list[Output]) -> dict[tuple[int, int], float]:
        solution = task.solve(asked)
        next(solution)
        with pytest.raises(StopIteration) as stop:
            solution.send(outputs)
        return {(found.start, found.end): found.score for found in stop.value.value}

    solution = task.solve(asked.model_copy(update={"explain": Explain(method=("occlusion",))}))
    outputs = [read(row) for row in next(solution)]
    assert len(outputs) > 2
    without = [read(row) for row in solution.send(outputs)]
    with pytest.raises(StopIteration) as stop:
        solution.send(without)
    best = stop.value.value[0]
    (part,) = best.explanation.parts
    own, whole = (best.start, best.end), part.occlusion.log_probability
    assert (own == (0, 0)) is may_be_empty
    assert whole == pytest.approx(np.log(scores(outputs)[own]))
    of_place = [sum(logits[place] for logits in output.arrays.values()) for output in outputs]
    at = int(np.argmin(of_place) if may_be_empty else np.argmax(of_place))
    for change, output in zip(part.occlusion.changes, without, strict=True):
        changed = scores([*outputs[:at], output, *outputs[at + 1 :]])
        assert change == pytest.approx(whole - np.log(changed[own]), abs=1e-5)


def test_refusals_name_field_limit_and_value(task: QuestionAnswering) -> None:
    long = QuestionAnsweringRequest.model_validate({"inputs": {"question": "why " * 40, "context": "a"}})
    with pytest.raises(TooLarge, match="question may have at most 5 tokens beside its context, got"):
        next(task.solve(long))
    empty = QuestionAnsweringRequest.model_validate({"inputs": {"question": "why", "context": "\x07"}})
    with pytest.raises(InvalidInput, match="context must hold at least 1 token, got none in 1 characters"):
        next(task.solve(empty))
    with pytest.raises(InvalidInput, match="max_seq_len may be at most 24 for this model, got 25"):
        next(task.solve(request(max_seq_len=25)))


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_span_logits_equal_a_slow_enumeration(tokens: int, longest: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    start, end = random.normal(size=(2, tokens)).astype(np.float32)
    logits = span_logits(start, end, longest)
    expected = {
        (first, last): start[first] + end[last]
        for first in range(tokens)
        for last in range(first, min(first + longest, tokens))
    }
    found = {
        (int(first), int(first + extra)): logits[first, extra]
        for first, extra in zip(*np.nonzero(np.isfinite(logits)), strict=True)
    }
    assert found == expected


def test_a_calibration_moves_scores_and_keeps_their_order(tmp_path: Path) -> None:
    bundle = bundle_of("question-answering", tmp_path, max_tokens=64)
    line = Calibration(slope=2.0, intercept=1.0)
    manifest = bundle.manifest.model_copy(update={"score_calibration": line})
    mark = {"fox": (2.0, 2.0), "dog": (1.5, 1.5)}
    asked = request(top_k=2, max_answer_len=1)
    _, plain = answer(QuestionAnswering(bundle), asked, mark)
    _, moved = answer(QuestionAnswering(dataclasses.replace(bundle, manifest=manifest)), asked, mark)
    assert [found.answer for found in moved] == [found.answer for found in plain] == ["fox", "dog"]
    for before, after in zip(plain, moved, strict=True):
        odds = before.score / (1 - before.score)
        assert after.score / (1 - after.score) == pytest.approx(np.exp(1.0) * odds**2.0, rel=1e-4)
