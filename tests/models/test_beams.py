"""Beam search against exhaustive search, against greedy search, and on the embedded translation model."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.beams import BeamSearch, Continuations, log_softmax, log_softmax_parts
from models.bundle import GenerationDefaults
from models.decoding import Decoder, SequenceDecoder
from models.export.replay import forward, teacher_forced
from models.head import Head, WholeHead
from models.load import load
from models.seq2seq import Seq2Seq
from models.task import Array, Generation, Row, Tokens
from tests.models.embedded import TRANSLATION, opened, run, session

EOS, WORDS = 1, 5
DEFAULTS = GenerationDefaults(decoder_start_token_id=0, eos_token_id=EOS, max_new_tokens=8)
untimed = settings(deadline=None, max_examples=50)  # the machine may be busy

Model = Callable[[tuple[int, ...]], Array]


def random_model(seed: int) -> Model:
    """Logits that depend on everything that was read."""
    return lambda read: np.random.default_rng([seed, *read]).normal(0, 2, WORDS).astype(np.float32)


def search(decoder: Decoder, logits_of: Model, beams: int) -> tuple[tuple[int, ...], str]:
    """Tokens and finish reason; the row's beams are the last slots, in reverse."""
    reads: list[tuple[int, ...]] = [(0,)] * beams
    slots = [2 + beams - beam for beam in range(beams)]
    output: tuple[int, ...] = ()
    while True:
        logits = np.zeros((beams + 3, WORDS), np.float32)
        logits[slots] = [logits_of(read) for read in reads]
        tokens, parents, new, finish = decoder.advance(logits.argmax(-1).tolist(), logits, slots)
        output += new
        if finish:
            return output, finish
        parents = parents or range(beams)
        reads = [(*reads[parent], token) for parent, token in zip(parents, tokens, strict=True)]


def log_probability(logits_of: Model, output: tuple[int, ...]) -> float:
    total = 0.0
    for index, token in enumerate(output):
        logits = logits_of((0, *output[:index]))[None].copy()
        log_softmax(logits)
        total += float(logits[0, token])
    return total


def outputs(longest: int) -> list[tuple[int, ...]]:
    """Every output: the end comes last or not at all, and not at all only at the longest."""
    words = [token for token in range(WORDS) if token != EOS]
    ended = [(*start, EOS) for length in range(longest) for start in product(words, repeat=length)]
    return ended + list(product(words, repeat=longest))


@untimed
@given(st.integers(0, 10**6), st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.0]), st.sampled_from([False, "never"]))
def test_as_many_beams_as_there_are_outputs_find_the_best_of_all(
    seed: int, length_penalty: float, early_stopping: bool
) -> None:
    generation = Generation(3, num_beams=90, length_penalty=length_penalty, early_stopping=early_stopping)
    logits_of = random_model(seed)
    scores = {output: log_probability(logits_of, output) / len(output) ** length_penalty for output in outputs(3)}
    best = max(scores, key=lambda output: scores[output])
    tokens, finish = search(BeamSearch(generation, DEFAULTS), logits_of, 90)
    assert (tokens, finish) == (tuple(token for token in best if token != EOS), "stop" if best[-1] == EOS else "length")


@untimed
@given(st.integers(0, 10**6))
def test_one_beam_that_stops_with_its_first_end_is_greedy(seed: int) -> None:
    generation = Generation(6, early_stopping=True)
    greedy = search(SequenceDecoder(generation, DEFAULTS), random_model(seed), 1)
    assert search(BeamSearch(generation, DEFAULTS), random_model(seed), 1) == greedy


def chain(read: tuple[int, ...]) -> Array:
    """Two words lead on, of nearly the same likelihood; the end is unlikely but never out of reach."""
    return np.array([-9, -2, 1.0 + 0.1 * (len(read) % 2), 1.05, -9], np.float32)


def ends_early(read: tuple[int, ...]) -> Array:
    """The end has a probability of 0.4, then of 0.6, and then none worth the name."""
    end = {1: 0.4, 2: 0.6}.get(len(read), 1e-12)
    return np.log(np.array([1e-13, end, 1 - end, 1e-13, 1e-13], np.float32))


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty", "length"),
    [
        (True, 0.5, 1),
        (False, 0.5, 1),
        ("never", 0.5, 8),
        (True, 1.0, 1),
        (False, 1.0, 8),
        (False, 0.0, 0),
        ("never", 0.1, 0),
    ],
)
def test_when_the_search_ends(early_stopping: bool, length_penalty: float, length: int) -> None:
    """After two steps two outputs have ended, and one goes on that could become 8 tokens long.

    Their log-probabilities are log 0.4 = -0.916, log(0.6 x 0.6) = -1.022 and log(0.6 x 0.4) = -1.427. Divided by their
    lengths 1, 2 and 2 to the power of 0.5 that is -0.916, -0.722 and -1.009: the second wins unless the length of 8
    counts, -0.505. To the power of 1 the third is better than the first already, -0.714, and goes on to win.
    """
    generation = Generation(8, num_beams=2, early_stopping=early_stopping, length_penalty=length_penalty)
    tokens, _ = search(BeamSearch(generation, DEFAULTS), ends_early, 2)
    assert len(tokens) == length


def test_forced_tokens_come_first_and_last() -> None:
    defaults = DEFAULTS.model_copy(update={"forced_bos_token_id": 4, "forced_eos_token_id": EOS})
    tokens, finish = search(BeamSearch(Generation(4, num_beams=3), defaults), chain, 3)
    assert (tokens[0], len(tokens), finish) == (4, 3, "length")
    assert search(BeamSearch(Generation(1, num_beams=3), defaults), chain, 3) == ((), "length")
    own, _ = search(BeamSearch(Generation(4, num_beams=3, forced_bos_token_id=2), defaults), chain, 3)
    assert own[0] == 2


def test_the_end_at_the_last_place_is_the_models_own_unless_it_is_forced() -> None:
    def ends_third(read: tuple[int, ...]) -> Array:
        return np.array([-9, 9 if len(read) == 3 else -9, 1, 0, -9], np.float32)

    assert search(BeamSearch(Generation(3, num_beams=2), DEFAULTS), ends_third, 2) == ((2, 2), "stop")
    forced = DEFAULTS.model_copy(update={"forced_eos_token_id": EOS})
    assert search(BeamSearch(Generation(3, num_beams=2), forced), ends_third, 2) == ((2, 2), "length")


def test_filters_follow_each_beams_own_tokens() -> None:
    generation = Generation(8, num_beams=4, no_repeat_ngram_size=2)
    tokens, _ = search(BeamSearch(generation, DEFAULTS), chain, 4)
    read = (0, *tokens)
    assert len(tokens) > 3
    assert len(set(pairwise(read))) == len(tokens)


def test_probabilities_may_be_normalised_after_words_are_forbidden() -> None:
    """Behind word 2 nearly all probability is forbidden, so that only a new sum makes its other words likely."""

    def logits_of(read: tuple[int, ...]) -> Array:
        rows = {0: [-9, -9, 1.0, 0.5, -9], 2: [-9, 3, -9, -9, 9], 3: [-9, 1, 0, 0, -9]}
        return np.array(rows[read[-1]], np.float32)

    for renormalize, expected in ((False, (3,)), (True, (2,))):
        defaults = DEFAULTS.model_copy(update={"suppressed_token_ids": (4,), "renormalize_logits": renormalize})
        assert search(BeamSearch(Generation(2, num_beams=2), defaults), logits_of, 2)[0] == expected


def best(scores: Array, count: int, beams: int) -> tuple[Array, Tokens]:
    nothing = np.zeros((beams, 1), np.float32)
    return Continuations(scores.reshape(beams, -1), nothing, nothing, nothing).best(count)


@untimed
@given(
    st.lists(st.sampled_from([-np.inf, -3.0, -1.0, 0.0, 0.5]) | st.floats(-50, 0, width=32), min_size=16, max_size=64),
    st.integers(1, 80),
    st.integers(1, 16),
    st.sampled_from([1, 2, 3]),
)
def test_the_best_are_those_of_a_full_sort(values: list[float], repeats: int, count: int, beams: int) -> None:
    scores = np.tile(np.array(values, np.float32), repeats * beams)
    found, indices = best(scores, count, beams)
    assert scores[indices].tolist() == found.tolist() == sorted(scores.tolist(), reverse=True)[:count]
    assert len(set(indices.tolist())) == count


def test_the_first_of_equals_comes_first() -> None:
    scores = np.full(5000, -1.0, np.float32)
    scores[[4000, 300, 20]] = 0
    for beams in (1, 4):
        assert best(scores, 5, beams)[1].tolist() == [20, 300, 4000, 0, 1]
    scores[4999] = 1
    assert best(scores, 5, 1)[1].tolist() == [4999, 20, 300, 4000, 0]


@untimed
@given(st.integers(0, 10**6))
def test_the_best_have_the_bits_of_log_probabilities_that_are_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, scores = (rng.normal(0, 3, size).astype(np.float32) for size in ((3, 1000), (3, 1)))
    found, indices = Continuations(logits, *log_softmax_parts(logits), scores).best(6)
    log_softmax(logits)
    logits += scores
    assert found.tolist() == logits.ravel()[indices].tolist() == np.sort(logits.ravel())[: -6 - 1 : -1].tolist()


SENTENCES = (
    "I would like to thank the rapporteur for her excellent report.",
    "Where is the nearest train station, and when does the last train leave?",
    "He said that the Commission would present its proposal before the end of the year.",
    "Tom did not want to go home.",
    "We must protect the rights of the citizens of Europe.",
    "The harvest was ruined by hail.",
    "The mayor opened the new bridge on Monday in front of a large crowd.",
    "The agreement that was reached last week is a good compromise for all of us.",
)


def sources() -> list[Tokens]:
    loaded = load(TRANSLATION)
    requests = loaded.task.request_type.model_validate({"inputs": list(SENTENCES)})
    return [row.tokens for row in next(loaded.task.solve(requests))]


class OneBeam(WholeHead):
    """Decodes by beam search also where a row asks for a single beam."""

    def enter(self, _row: Row, generation: Generation, _slots: range) -> Decoder:
        return BeamSearch(generation, self._defaults)


def embedded(slots: int, head: Head | None = None) -> tuple[Seq2Seq, GenerationDefaults]:
    defaults = opened(TRANSLATION).manifest.generation
    assert defaults is not None
    encoder, step = session(TRANSLATION, "encoder"), session(TRANSLATION, "step")
    return Seq2Seq(encoder, step, defaults, source_length=64, target_length=64, head=head, slots=slots), defaults


def test_beams_find_likelier_translations_than_greedy_search() -> None:
    """Without a length penalty the winner is the likeliest that was found.

    Greedy search's own output may still be likelier now and then: its beginning is dropped when as many others are
    likelier at that length, although it would have been the best in the end.
    """
    greedy = Generation(max_new_tokens=60)
    beams = replace(greedy, num_beams=4, length_penalty=0.0, early_stopping="never")
    rows = sources()
    seq2seq, defaults = embedded(4 * len(rows))
    totals: dict[int, list[float]] = {}
    for generation in (greedy, beams):
        found = run(seq2seq, {index: Row(row, generation=generation) for index, row in enumerate(rows)})
        assert set(found.finish.values()) == {"stop"}
        targets = [[defaults.decoder_start_token_id, *found.tokens[index]] for index in range(len(rows))]
        encoded = forward(session(TRANSLATION, "encoder"), [Row(row) for row in rows])
        logits = teacher_forced(encoded, session(TRANSLATION, "step"), [np.array(row) for row in targets])
        for index, (target, row) in enumerate(zip(targets, logits, strict=True)):
            log_softmax(row)
            chosen = [*target[1:], defaults.eos_token_id]
            totals.setdefault(index, []).append(float(row[np.arange(len(chosen)), chosen].sum()))
    gains = np.array([beam - greedy for greedy, beam in totals.values()])
    assert (gains >= -1e-4).mean() >= 0.8
    assert (gains > 0.1).any()


def test_one_beam_is_greedy_search_on_the_embedded_model() -> None:
    seq2seq, defaults = embedded(8)
    generation = Generation(max_new_tokens=40, early_stopping=True)
    greedy = run(seq2seq, {index: Row(row, generation=generation) for index, row in enumerate(sources())})
    seq2seq, _ = embedded(8, OneBeam(session(TRANSLATION, "step"), defaults, 8))
    for index, row in enumerate(sources()[:3]):
        assert run(seq2seq, {0: Row(row, generation=generation)}).tokens[0] == greedy.tokens[index]
