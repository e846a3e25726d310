from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import GenerationDefaults
from models.decoding import Filter, RowDecoder, greedy, no_repeat_ngram, repetition_penalty, sampling, suppress
from models.task import Array, Generation

DEFAULTS = GenerationDefaults(decoder_start_token_id=0, eos_token_id=1, max_new_tokens=8)


def filtered(apply: Filter, logits: Sequence[float], read: Sequence[int]) -> list[float]:
    array = np.array(logits, np.float32)
    apply(array, read)
    return [float(value) for value in array]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    assert filtered(repetition_penalty(2.0), [4.0, -4.0, 4.0, 0.0], [0, 1, 0, 3]) == [2.0, -8.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("size", "read", "forbidden"),
    [
        (2, [0, 5, 6, 5], {6}),
        (3, [0, 5, 6, 7, 5, 6], {7}),
        (3, [0, 5, 6, 7, 6, 5], set()),
        (2, [0, 5, 6, 5, 7, 5], {6, 7}),
        (1, [0, 5], {0, 5}),
        (3, [0, 0], set()),
        (3, [0, 0, 0], {0}),
        (3, [0], set()),
    ],
)
def test_no_repeat_ngram_forbids_what_would_complete_a_known_ngram(
    size: int, read: list[int], forbidden: set[int]
) -> None:
    logits = filtered(no_repeat_ngram(size), [0.0] * 8, read)
    assert {token for token, logit in enumerate(logits) if logit == -np.inf} == forbidden


def test_suppressed_tokens_are_never_chosen() -> None:
    assert filtered(suppress([1, 3]), [1.0, 2.0, 3.0, 4.0], []) == [1.0, -np.inf, 3.0, -np.inf]


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert greedy(np.array([1.0, 3.0, 3.0], np.float32)) == 1


vectors = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30).map(lambda v: np.array(v, np.float32))


def allowed(logits: Array, generation: Generation) -> set[int]:
    """Tokens that may be drawn, the slow and obvious way."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    order = order[: generation.top_k or None]
    weights = np.exp((logits[order].astype(float) - logits[order[0]]) / generation.temperature)
    before = np.cumsum(weights) - weights
    return {token for token, mass in zip(order, before, strict=True) if mass < generation.top_p * weights.sum() + 1e-9}


@given(vectors, st.integers(0, 10), st.floats(0.05, 1.0), st.floats(0.1, 5.0), st.integers(0, 2**63 - 1))
def test_sampling_stays_within_top_k_and_top_p(
    logits: Array, top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    generation = Generation(8, do_sample=True, top_k=top_k, top_p=top_p, temperature=temperature, seed=seed)
    choose, within = sampling(generation), allowed(logits, generation)
    tied = {float(logits[token]) for token in within}
    assert all(float(logits[choose(logits.copy())]) in tied for _ in range(5))


@given(vectors, st.integers(0, 2**63 - 1))
def test_the_same_seed_draws_the_same_tokens(logits: Array, seed: int) -> None:
    one, two = (sampling(Generation(8, do_sample=True, seed=seed)) for _ in range(2))
    assert [one(logits.copy()) for _ in range(10)] == [two(logits.copy()) for _ in range(10)]


def test_other_seeds_draw_other_tokens() -> None:
    logits = np.zeros(1000, np.float32)
    assert len({sampling(Generation(8, do_sample=True, seed=seed))(logits) for seed in range(50)}) > 40


def test_drawn_frequencies_are_the_softmax_at_the_temperature() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    choose = sampling(Generation(8, do_sample=True, temperature=0.5, seed=7))
    draws = 4000
    counts = Counter(choose(logits.copy()) for _ in range(draws))
    expected = np.array([0.25, 0.09, 0.04]) / 0.38
    for token, probability in enumerate(expected):
        deviation = np.sqrt(draws * probability * (1 - probability))
        assert abs(counts[token] - draws * probability) < 4 * deviation


def test_forbidden_tokens_are_not_drawn() -> None:
    logits = np.array([5.0, -np.inf, 5.0], np.float32)
    choose = sampling(Generation(8, do_sample=True, temperature=5.0))
    assert {choose(logits.copy()) for _ in range(200)} == {0, 2}


def test_a_row_ends_with_the_end_token_or_at_its_length() -> None:
    decoder = RowDecoder(Generation(max_new_tokens=2), DEFAULTS)
    assert [decoder.accept(5), decoder.accept(6)] == [None, "length"]
    decoder = RowDecoder(Generation(max_new_tokens=2), DEFAULTS)
    assert [decoder.accept(5), decoder.accept(1)] == [None, "stop"]


def test_a_forced_first_token_comes_first_and_only_first() -> None:
    decoder = RowDecoder(Generation(max_new_tokens=3), DEFAULTS.model_copy(update={"forced_bos_token_id": 7}))
    logits = np.arange(8, dtype=np.float32)[::-1].copy()
    assert decoder.choose(0, logits) == 7
    decoder.accept(7)
    assert decoder.choose(0, logits) == 0


def test_a_greedy_row_takes_the_likeliest_token_unless_it_is_suppressed() -> None:
    defaults = DEFAULTS.model_copy(update={"suppressed_token_ids": (0,)})
    logits = np.array([9.0, 1.0, 2.0, 8.0], np.float32)
    assert RowDecoder(Generation(8), DEFAULTS).choose(0, logits.copy()) == 0
    assert RowDecoder(Generation(8), defaults).choose(0, logits.copy()) == 3
    assert RowDecoder(Generation(8), defaults).choose(2, logits.copy()) == 2


def test_filters_see_the_start_token_and_all_that_was_accepted() -> None:
    decoder = RowDecoder(Generation(8, no_repeat_ngram_size=2), DEFAULTS)
    for token in (5, 0):
        decoder.accept(token)
    assert decoder.choose(5, np.array([1.0, 0.0, 0.0, 0.0, 0.0, 9.0], np.float32)) == 0


def test_a_penalised_greedy_row_chooses_from_filtered_logits() -> None:
    decoder = RowDecoder(Generation(8, repetition_penalty=10.0), DEFAULTS)
    decoder.accept(2)
    assert decoder.choose(2, np.array([0.0, 1.0, 3.0, 2.0], np.float32)) == 3
