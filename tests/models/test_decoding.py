from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import GenerationDefaults
from models.decoding import (
    Filter,
    SequenceDecoder,
    bad_words,
    greedy,
    min_new_tokens,
    no_repeat_ngram,
    repetition_penalty,
    sampling,
    suppress,
)
from models.task import Array, Generation

DEFAULTS = GenerationDefaults(decoder_start_token_id=0, eos_token_id=1, max_new_tokens=8)


def filtered(apply: Filter, logits: Sequence[float], read: Sequence[int]) -> list[float]:
    """What becomes of the scores, when they are alone and when they are those of the second of two beams."""
    alone, beams = np.array([logits], np.float32), np.array([np.zeros(len(logits)), logits], np.float32)
    apply(alone, np.array([read], np.int64))
    apply(beams, np.array([np.full(len(read), len(logits) - 1), read], np.int64))
    assert np.array_equal(alone[0], beams[1])
    return [float(value) for value in alone[0]]


def forbidden(apply: Filter, read: Sequence[int]) -> set[int]:
    return {token for token, logit in enumerate(filtered(apply, [0.0] * 9, read)) if logit == -np.inf}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    assert filtered(repetition_penalty(2.0), [4.0, -4.0, 4.0, 0.0], [0, 1, 0, 3]) == [2.0, -8.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("size", "read", "expected"),
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
    size: int, read: list[int], expected: set[int]
) -> None:
    assert forbidden(no_repeat_ngram(size), read) == expected


def test_suppressed_tokens_are_never_chosen() -> None:
    assert filtered(suppress([1, 3]), [1.0, 2.0, 3.0, 4.0], [0]) == [1.0, -np.inf, 3.0, -np.inf]


@pytest.mark.parametrize(
    ("read", "expected"), [([0], set()), ([0, 5], {6}), ([0, 5, 6], {7, 1}), ([5, 6], {7, 1}), ([0, 5, 6, 5], {6})]
)
def test_the_last_token_of_a_bad_word_is_forbidden_behind_its_others(read: list[int], expected: set[int]) -> None:
    assert forbidden(bad_words([(5, 6), (5, 6, 7), (0, 5, 6, 5, 6, 8), (6, 1)]), read) == expected


def test_the_end_is_forbidden_until_there_are_enough_tokens() -> None:
    assert [forbidden(min_new_tokens(2, 1), read) for read in ([0], [0, 5], [0, 5, 5])] == [{1}, {1}, set()]


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


def test_rows_with_one_seed_draw_each_for_itself() -> None:
    logits = np.zeros(1000, np.float32)
    seeded = Generation(8, do_sample=True, seed=2**63 - 1)
    rows = [sampling(replace(seeded, row=row)) for row in range(50)]
    assert len({choose(logits) for choose in rows}) > 40
    again, alone = sampling(replace(seeded, row=49)), np.random.Generator(np.random.Philox(key=seeded.seed))
    again(logits)
    assert rows[49](logits) == again(logits)
    assert sampling(seeded)(logits) == int(alone.random() * 1000), "the first row draws by the seed alone"


def test_drawn_frequencies_are_the_softmax_at_the_temperature() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    choose = sampling(Generation(8, do_sample=True, temperature=0.5, seed=7))
    draws = 4000
    counts = Counter(choose(logits.copy()) for _ in range(draws))
    expected = np.array([0.25, 0.09, 0.04]) / 0.38
    for token, probability in enumerate(expected):
        deviation = np.sqrt(draws * probability * (1 - probability))
        assert abs(counts[token] - draws * probability) < 4 * deviation


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-9])
def test_next_to_no_temperature_leaves_the_likeliest(temperature: float) -> None:
    logits = np.array([-8.0, 9.5, 12.25, 9.5], np.float32)
    choose = sampling(Generation(8, do_sample=True, temperature=temperature))
    assert {choose(logits.copy()) for _ in range(50)} == {2}


def test_forbidden_tokens_are_not_drawn() -> None:
    logits = np.array([5.0, -np.inf, 5.0], np.float32)
    choose = sampling(Generation(8, do_sample=True, temperature=5.0))
    assert {choose(logits.copy()) for _ in range(200)} == {0, 2}


def decoded(logits: Sequence[Sequence[float]], generation: Generation, **defaults: object) -> tuple[list[int], str]:
    """Tokens and finish reason of a decoder that is given these logits, step by step, in slot 1 of 3."""
    decoder = SequenceDecoder(generation, DEFAULTS.model_copy(update=defaults))
    output: list[int] = []
    for values in logits:
        everyone = np.stack([np.zeros(len(values)), values, np.ones(len(values))]).astype(np.float32)
        tokens, parents, new, finish = decoder.advance(everyone.argmax(-1).tolist(), everyone, [1])
        output += new
        assert not parents
        if finish:
            return output, finish
        assert tuple(tokens) == new
    raise AssertionError("the row goes on")


def likely(*tokens: int) -> list[list[float]]:
    """Logits of one step for each token, which is the likeliest, then the tokens below it."""
    return [[-float(abs(token - other)) for other in range(9)] for token in tokens]


def test_a_row_ends_with_the_end_token_or_at_its_length() -> None:
    assert decoded(likely(5, 6), Generation(2)) == ([5, 6], "length")
    assert decoded(likely(5, 1), Generation(2)) == ([5], "stop")


def test_a_forced_first_token_comes_first_and_only_first() -> None:
    assert decoded(likely(4, 4, 4), Generation(3), forced_bos_token_id=7) == ([7, 4, 4], "length")


def test_a_rows_own_first_token_comes_before_the_bundles() -> None:
    """It is the language that this row is translated into."""
    bundles: Sequence[dict[str, object]] = ({}, {"forced_bos_token_id": 7})
    for defaults in bundles:
        own = Generation(3, forced_bos_token_id=8)
        assert decoded(likely(4, 4, 4), own, **defaults) == ([8, 4, 4], "length")
        sampled, _ = decoded(likely(4, 4, 4), replace(own, do_sample=True, seed=3), **defaults)
        assert sampled[0] == 8


def test_a_forced_end_comes_last_and_only_last() -> None:
    assert decoded(likely(4, 4, 4), Generation(3), forced_eos_token_id=1) == ([4, 4], "length")
    assert decoded(likely(4, 1), Generation(3), forced_eos_token_id=1) == ([4], "stop")
    assert decoded(likely(4, 4), Generation(2), forced_eos_token_id=8) == ([4, 8], "length")
    both = {"forced_bos_token_id": 7, "forced_eos_token_id": 1}
    assert decoded(likely(4), Generation(1), **both) == ([], "length")


def test_a_sampled_row_keeps_to_forced_tokens() -> None:
    both = {"forced_bos_token_id": 7, "forced_eos_token_id": 8}
    tokens, _ = decoded(likely(4, 4, 4), Generation(3, do_sample=True, seed=3), **both)
    assert (tokens[0], tokens[2]) == (7, 8)


def test_a_greedy_row_takes_the_likeliest_token_unless_it_is_forbidden() -> None:
    assert decoded(likely(5), Generation(1)) == ([5], "length")
    assert decoded(likely(5), Generation(1), suppressed_token_ids=(5,)) == ([4], "length")
    assert decoded(likely(5), Generation(1), suppressed_token_ids=(3,)) == ([5], "length")
    assert decoded(likely(5, 6, 6), Generation(3), bad_words=((5, 6),)) == ([5, 5, 5], "length")
    assert decoded(likely(1, 1), Generation(3), min_new_tokens=1) == ([0], "stop")


def test_filters_see_the_start_token_and_all_that_was_chosen() -> None:
    assert decoded(likely(5, 0, 5), Generation(3, no_repeat_ngram_size=2)) == ([5, 0, 4], "length")


def test_a_penalised_greedy_row_chooses_from_filtered_logits() -> None:
    logits = [[0.0, 0.0, 3.0, 2.0], [0.0, 1.0, 3.0, 2.0]]
    assert decoded(logits, Generation(2, repetition_penalty=10.0)) == ([2, 3], "length")
