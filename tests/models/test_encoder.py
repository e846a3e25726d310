from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.encoder import LEAST_TOKENS, LONGEST_PASS_S, MOST_PADDING, MOST_TOKENS, Encoder, Pace, _alike, _padding
from models.errors import BundleError
from models.task import Cost, Row
from tests.models.embedded import QUESTION_ANSWERING, RECOMMENDATION, TRANSLATION, run, session

LENGTHS = (20, 1, 16, 33, 90, 7)


def model(**settings: int) -> Encoder:
    return Encoder(session(QUESTION_ANSWERING, "forward"), **settings)


def rows() -> dict[int, Row]:
    rng = np.random.default_rng(5)
    return {
        index: Row(rng.integers(1000, 20000, length), segments=np.sort(rng.integers(0, 2, length)))
        for index, length in enumerate(LENGTHS)
    }


def test_every_row_gets_the_same_bits_alone_and_in_a_crowd() -> None:
    together = run(model(), rows()).arrays
    for index, row in rows().items():
        single = run(model(), {index: row}).arrays[index]
        assert single.keys() == {"start_logits", "end_logits"}
        for name, logits in single.items():
            assert logits.shape == row.tokens.shape
            assert np.array_equal(logits, together[index][name])


def test_segments_reach_the_model() -> None:
    row = rows()[0]
    plain = run(model(), {0: Row(row.tokens)}).arrays[0]["start_logits"]
    assert not np.array_equal(plain, run(model(), {0: row}).arrays[0]["start_logits"])


def test_an_output_for_the_row_is_not_split() -> None:
    encoder = Encoder(session(RECOMMENDATION, "forward"))
    histories = {0: Row(np.array([5, 6, 7])), 1: Row(np.array([7])), 2: Row(np.array([6, 5, 7]))}
    together = run(encoder, histories).arrays
    for index, row in histories.items():
        scores = run(encoder, {index: row}).arrays[index]["scores"]
        assert scores.ndim == 1
        assert np.array_equal(scores, together[index]["scores"])
    assert not np.array_equal(together[0]["scores"], together[2]["scores"]), "the order of the history has no effect"


def test_one_step_answers_every_row_and_empties_the_model() -> None:
    encoder = model(slots=8, budget_tokens=100)
    assert encoder.room() == Cost(8, 100)
    assert encoder.cost(rows()[4]) == Cost(1, 90)
    encoder.admit({0: rows()[0]})
    encoder.admit({4: rows()[4]})
    assert encoder.room() == Cost(6, 0)
    assert {(event.row, event.finish) for event in encoder.step()} == {(0, "stop"), (4, "stop")}
    assert encoder.room() == Cost(8, 100)
    assert encoder.step() == []


def test_a_pass_takes_as_many_tokens_as_passes_of_late_did_in_the_time_that_one_may_take() -> None:
    pace = Pace()
    assert pace.tokens == MOST_TOKENS, "nothing is known yet"
    for tokens in (10, 400):
        pace.measure(tokens, tokens / 200 * LONGEST_PASS_S)
    assert pace.tokens == 200
    pace.measure(10, 100.0)
    assert pace.tokens == LEAST_TOKENS
    for _ in range(200):
        pace.measure(400, LONGEST_PASS_S / 10)
    assert pace.tokens == MOST_TOKENS


def test_a_slow_model_without_a_budget_takes_less_after_its_first_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.encoder.LONGEST_PASS_S", 0.0)
    slow, told = model(), model(budget_tokens=400)
    for encoder, before, after in ((slow, MOST_TOKENS, LEAST_TOKENS), (told, 400, 400)):
        assert encoder.room().tokens == before
        encoder.admit({0: rows()[0]})
        encoder.step()
        assert encoder.room().tokens == after


def test_dropped_and_forgotten_rows_are_not_computed() -> None:
    encoder = model()
    encoder.admit(rows())
    encoder.drop({1, 3, 99})
    assert {event.row for event in encoder.step()} == {0, 2, 4, 5}
    encoder.admit(rows())
    encoder.reset()
    assert encoder.step() == []


def test_a_graph_that_is_not_packed_is_refused() -> None:
    with pytest.raises(BundleError, match="a packed graph has inputs"):
        Encoder(session(TRANSLATION, "step"))


def test_padding_fills_each_group_up_to_its_longest_row() -> None:
    assert _padding([40, 10, 11, 12], MOST_PADDING) == 3
    assert _padding([40, 10, 11, 11], 1) == 0
    assert _padding([7], MOST_PADDING) == _padding([], MOST_PADDING) == 0


@given(st.lists(st.integers(1, 512), max_size=40))
def test_rows_that_are_padded_together_have_similar_lengths(lengths: list[int]) -> None:
    groups = _alike(lengths, MOST_PADDING)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert max(lengths[index] for index in group) <= MOST_PADDING * min(lengths[index] for index in group)
    firsts = [min(lengths[index] for index in group) for group in groups]
    assert all(later > MOST_PADDING * earlier for earlier, later in pairwise(firsts))
