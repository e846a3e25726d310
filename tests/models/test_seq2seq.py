"""Slots, caches in place, and answers that do not depend on neighbours, on the embedded translation model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.bundle import GenerationDefaults
from models.caches import HostCaches
from models.errors import BundleError
from models.export.replay import forward, teacher_forced
from models.offline import compute
from models.seq2seq import Seq2Seq
from models.session import Binding, Place, Session
from models.task import Cost, Generation, Row
from tests.models.embedded import RECOMMENDATION, SUMMARIZATION, TRANSLATION, Collected, opened, run, session

SLOTS = 8
LENGTHS = (5, 1, 16, 17, 9, 40, 33, 3, 64, 12)


class Spy(Session):
    """A real session that remembers what was bound."""

    def __init__(self, session: Session) -> None:
        super().__init__(session._session)
        self.bound: list[tuple[Mapping[str, Place], Mapping[str, Place]]] = []

    def bind(self, inputs: Mapping[str, Place], outputs: Mapping[str, Place]) -> Binding:
        self.bound.append((inputs, outputs))
        return super().bind(inputs, outputs)


def defaults() -> GenerationDefaults:
    found = opened(TRANSLATION).manifest.generation
    assert found is not None
    return found


def model(step: Session | None = None, **changes: Any) -> Seq2Seq:
    settings: dict[str, Any] = {"source_length": 64, "target_length": 24, "slots": SLOTS} | changes
    encoder, step = session(TRANSLATION, "encoder"), step or session(TRANSLATION, "step")
    return Seq2Seq(encoder, step, defaults(), **settings)


def held(model: Seq2Seq) -> HostCaches:
    assert isinstance(model._caches, HostCaches)
    return model._caches


def rows(generation: Generation) -> dict[int, Row]:
    """Rows of random tokens, each with its own seed."""
    rng = np.random.default_rng(3)
    return {
        index: Row(rng.integers(4, 7000, length), generation=replace(generation, seed=index))
        for index, length in enumerate(LENGTHS)
    }


GREEDY = Generation(max_new_tokens=20)
SAMPLED = Generation(max_new_tokens=20, do_sample=True, temperature=1.5, top_k=50, top_p=0.95)
PENALISED = Generation(max_new_tokens=20, repetition_penalty=1.5, no_repeat_ngram_size=2)
BEAMS = Generation(max_new_tokens=20, num_beams=3)


def alone(generation: Generation) -> dict[int, list[int]]:
    return {index: run(model(), {index: row}).tokens[index] for index, row in rows(generation).items()}


def mixed() -> dict[int, Row]:
    """Rows of every kind, with up to five beams."""
    kinds = [GREEDY, BEAMS, SAMPLED, replace(BEAMS, num_beams=5, early_stopping=True), PENALISED]
    kinds += [replace(BEAMS, num_beams=2, length_penalty=2.0, no_repeat_ngram_size=2)]
    return {
        index: replace(row, generation=replace(kinds[index % len(kinds)], seed=index))
        for index, row in rows(GREEDY).items()
    }


@pytest.mark.parametrize(
    "waiting",
    [rows(GREEDY), rows(SAMPLED), rows(PENALISED), mixed()],
    ids=["greedy", "sampled", "penalised", "mixed"],
)
def test_a_row_gets_the_same_tokens_alone_in_a_crowd_joining_late_and_after_swaps(waiting: dict[int, Row]) -> None:
    """Rows join one by one at every step and leave at different times, so that slots are swapped again and again."""
    waiting = {
        index: replace(row, generation=replace(row.generation or GREEDY, max_new_tokens=3 + 2 * index))
        for index, row in waiting.items()
    }
    expected = {index: run(model(), {index: row}).tokens[index] for index, row in waiting.items()}
    crowd, collected = model(slots=12), Collected()
    order = list(waiting.items())
    crowd.admit(dict(order[:3]))
    order = order[3:]
    scattered = 0
    while len(collected.finish) < len(waiting):
        collected.take(crowd.step())
        if order and crowd.cost(order[-1][1]).slots <= crowd.room().slots:
            crowd.admit(dict([order.pop()]))
        scattered += sum(np.ptp(running.slots) >= len(running.slots) for running in crowd._running.values())
    assert collected.tokens == expected
    assert bool(scattered) == any(row.generation and row.generation.num_beams > 1 for row in waiting.values())


def test_sampled_rows_differ_by_their_seed_alone() -> None:
    row = rows(SAMPLED)[5]
    assert row.generation is not None
    crowd = {seed: replace(row, generation=replace(row.generation, seed=seed)) for seed in range(SLOTS)}
    assert len({tuple(tokens) for tokens in run(model(), crowd).tokens.values()}) > SLOTS // 2


def test_int8_logits_and_keys_have_the_same_bits_alone_and_in_a_crowd() -> None:
    sources = [row.tokens for row in rows(GREEDY).values()]
    targets = [np.concatenate([[defaults().decoder_start_token_id], source[:11]]) for source in sources]
    encoder, step = session(TRANSLATION, "encoder"), session(TRANSLATION, "step")
    crossed = forward(encoder, [Row(source) for source in sources])
    together = teacher_forced(crossed, step, targets)
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alone = forward(encoder, [Row(source)])
        assert np.array_equal(alone[0]["cross"], crossed[index]["cross"])
        assert np.array_equal(teacher_forced(alone, step, [target])[0], together[index])


def test_past_and_present_share_their_memory() -> None:
    spy = Spy(session(TRANSLATION, "step"))
    seq2seq = model(spy)
    run(seq2seq, dict(list(rows(GREEDY).items())[:3]))
    assert spy.bound
    for inputs, outputs in spy.bound:
        caches = [name for name in inputs if name.startswith(("past_", "cross_"))]
        assert len(caches) == len(held(seq2seq).named) > 0
        assert all(isinstance(place, np.ndarray) for place in (*inputs.values(), *outputs.values()))
        for name in caches:
            places = [inputs[name], outputs[f"present_{name}"]]
            addresses = {place.ctypes.data for place in places if isinstance(place, np.ndarray)}
            assert addresses == {held(seq2seq).named[name].ctypes.data}


def test_a_step_writes_each_rows_own_position_and_nothing_else() -> None:
    seq2seq = model()
    few = list(rows(GREEDY).items())
    seq2seq.admit(dict(few[:2]))
    seq2seq.step()
    seq2seq.step()
    seq2seq.admit(dict(few[2:4]))
    before = {name: cache.copy() for name, cache in held(seq2seq).named.items()}
    positions = seq2seq._state["positions"][:4].copy()
    assert positions.tolist() == [2, 2, 0, 0]
    seq2seq.step()
    for name, cache in held(seq2seq).named.items():
        changed = (cache != before[name]).any(axis=(1, 3))
        expected = np.zeros_like(changed)
        if name.startswith("past_"):
            expected[np.arange(4), positions] = True
        assert np.array_equal(changed, expected), name


def test_a_row_that_moves_to_another_slot_takes_its_source_along() -> None:
    """The summarizer copies: what it reads of a source beside keys and values stands in the row's own slot."""
    generation = opened(SUMMARIZATION).manifest.generation
    assert generation is not None

    def summarizer() -> Seq2Seq:
        encoder, step = session(SUMMARIZATION, "encoder"), session(SUMMARIZATION, "step")
        return Seq2Seq(encoder, step, generation, source_length=64, target_length=24, slots=SLOTS)

    rng = np.random.default_rng(4)
    waiting = {
        index: Row(rng.integers(100, 7000, length), generation=Generation(max_new_tokens=2 + 4 * index))
        for index, length in enumerate((9, 40, 17, 33, 60))
    }
    crowd = summarizer()
    assert len(held(crowd).sources) == 2
    together = run(crowd, waiting).tokens
    for index, row in waiting.items():
        assert together[index] == run(summarizer(), {index: row}).tokens[index]
    copied = {index: set(tokens) & set(waiting[index].tokens.tolist()) for index, tokens in together.items()}
    assert all(copied[index] for index in (2, 3, 4))


def test_the_number_of_bindings_is_bounded_by_the_slots() -> None:
    spy = Spy(session(TRANSLATION, "step"))
    seq2seq = model(spy)
    for _ in range(3):
        run(seq2seq, dict(list(rows(GREEDY).items())[:SLOTS]))
    assert len(spy.bound) <= SLOTS


def test_beams_write_only_the_slots_of_their_own_row() -> None:
    """Also when they change places: a copy is as long as what is filled, and goes from one beam to another."""
    seq2seq = model(slots=12)
    few = mixed()
    seq2seq.admit({index: few[index] for index in (0, 1, 3)})
    copied = 0
    for filled in range(1, 6):
        before = {kind: cache.copy() for kind, cache in (("past", held(seq2seq).past), ("cross", held(seq2seq).cross))}
        slots = {id_: set(running.slots) for id_, running in seq2seq._running.items()}
        assert len(seq2seq.step()) == 3
        assert {id_: set(running.slots) for id_, running in seq2seq._running.items()} == slots
        assert np.array_equal(held(seq2seq).cross, before["cross"])
        changed = (held(seq2seq).past != before["past"]).any(axis=(0, 2, 4))
        assert changed[:9, filled - 1].all()
        assert not changed[9:].any()
        assert not changed[:, filled:].any()
        (greedy,) = seq2seq._running[0].slots
        assert not changed[greedy, : filled - 1].any()
        copied += int(changed[:, : filled - 1].any(axis=1).sum())
    assert copied


@pytest.mark.parametrize("waiting", [rows(GREEDY), mixed()], ids=["greedy", "mixed"])
def test_dropped_rows_leave_the_others_as_they_are(waiting: dict[int, Row]) -> None:
    crowd, collected = model(slots=20), Collected()
    crowd.admit(dict(list(waiting.items())[:6]))
    for _ in range(3):
        collected.take(crowd.step())
    kept = (1, 2, 4)
    crowd.drop({0, 3, 5, 77})
    assert crowd.room().slots == 20 - sum(crowd.cost(waiting[row]).slots for row in kept)
    while events := crowd.step():
        assert {event.row for event in events} <= set(kept)
        collected.take(events)
    for row in kept:
        assert collected.tokens[row] == run(model(), {row: waiting[row]}).tokens[row]
    assert crowd.room().slots == 20


@pytest.mark.parametrize("generation", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_reset_frees_every_slot_and_the_model_goes_on(generation: Generation) -> None:
    used = model()
    used.admit(dict(list(rows(generation).items())[: SLOTS // generation.num_beams]))
    used.step()
    used.reset()
    assert used.room().slots == SLOTS
    assert used.step() == []
    assert run(used, {2: rows(generation)[2]}).tokens[2] == alone(generation)[2]


def test_a_row_ends_at_its_length_or_with_the_end_token_which_is_not_an_output() -> None:
    collected = run(model(), {0: replace(rows(GREEDY)[0], generation=Generation(max_new_tokens=1))})
    assert (len(collected.tokens[0]), collected.finish[0]) == (1, "length")
    (first,) = collected.tokens[0]
    ends_at_once = defaults().model_copy(update={"eos_token_id": first})
    seq2seq = Seq2Seq(
        session(TRANSLATION, "encoder"), session(TRANSLATION, "step"), ends_at_once, source_length=64, target_length=24
    )
    collected = run(seq2seq, {0: rows(GREEDY)[0]})
    assert (collected.tokens[0], collected.finish[0]) == ([], "stop")


def test_cost_and_room() -> None:
    seq2seq = model(budget_tokens=100)
    few = dict(list(rows(GREEDY).items())[:3])
    assert [seq2seq.cost(row) for row in few.values()] == [Cost(1, 5), Cost(1, 1), Cost(1, 16)]
    assert seq2seq.room() == Cost(slots=SLOTS, tokens=100)
    seq2seq.admit(few)
    assert seq2seq.room() == Cost(slots=SLOTS - 3, tokens=100)
    assert seq2seq.cost(rows(BEAMS)[0]) == Cost(3, 5)
    seq2seq.admit({7: rows(BEAMS)[0]})
    assert seq2seq.room() == Cost(slots=SLOTS - 6, tokens=100)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row(np.ones(65, np.int64), generation=GREEDY), "65 source and up to 20 new tokens, the caches hold 64 and 24"),
        (Row(np.ones(5, np.int64), generation=Generation(25)), "5 source and up to 25 new tokens"),
        (Row(np.ones(5, np.int64)), "without generation settings"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_it_takes_a_slot(row: Row, message: str) -> None:
    seq2seq = model()
    with pytest.raises(ValueError, match=message):
        seq2seq.admit({0: rows(GREEDY)[0], 1: row})
    assert seq2seq.room().slots == SLOTS


def test_more_rows_than_free_slots_are_refused() -> None:
    seq2seq = model()
    with pytest.raises(ValueError, match="rows of 10 slots were admitted to 8 free ones"):
        seq2seq.admit(rows(GREEDY))
    with pytest.raises(ValueError, match="rows of 9 slots were admitted to 8 free ones"):
        seq2seq.admit(dict(list(rows(BEAMS).items())[:3]))


def test_a_row_with_more_beams_than_the_model_has_slots_is_refused_instead_of_waiting_for_ever() -> None:
    row = rows(replace(BEAMS, num_beams=9))[0]
    with pytest.raises(ValueError, match="a row has 9 beams, the model 8 slots"):
        model().cost(row)
    with pytest.raises(ValueError, match="a row has 9 beams, the model 8 slots"):
        compute(model(), [row])


def test_graphs_that_do_not_fit_each_other_are_refused() -> None:
    step, encoder = session(TRANSLATION, "step"), session(TRANSLATION, "encoder")
    sizes: dict[str, Any] = {"source_length": 8, "target_length": 8}
    with pytest.raises(BundleError, match=r"keys and values .*, the step graph holds"):
        Seq2Seq(session(SUMMARIZATION, "encoder"), step, defaults(), **sizes)
    with pytest.raises(BundleError, match="the encoder graph has no output copy_keys, source_tokens"):
        Seq2Seq(encoder, session(SUMMARIZATION, "step"), defaults(), **sizes)
    with pytest.raises(BundleError, match="the encoder graph has no output cross"):
        Seq2Seq(session(RECOMMENDATION, "forward"), step, defaults(), **sizes)
    with pytest.raises(
        BundleError, match="the step graph has no input source_lengths, source_last, total, source_total"
    ):
        Seq2Seq(encoder, encoder, defaults(), **sizes)
