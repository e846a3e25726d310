"""Caches that stay on a device, driven by the CPU provider: the same tokens, and next to nothing crosses the bus."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models.caches import DeviceCaches
from models.errors import BundleError
from models.export.device import graphs
from models.moves import Moves
from models.seq2seq import Seq2Seq
from models.session import Binding, Place, Resident, Session
from models.task import Generation, Row
from tests.models.embedded import SUMMARIZATION, TRANSLATION, Collected, opened, run, session

KINDS = (
    Generation(max_new_tokens=20),
    Generation(max_new_tokens=20, num_beams=3),
    Generation(max_new_tokens=20, do_sample=True, temperature=1.5, top_k=50),
    Generation(max_new_tokens=20, num_beams=5, early_stopping=True),
    Generation(max_new_tokens=20, repetition_penalty=1.5, no_repeat_ngram_size=2),
)


class Bus(Session):
    """A real session that binds as on a device, and remembers which arrays of the host were bound."""

    def __init__(self, session: Session) -> None:
        super().__init__(session._session)
        self._copies_inputs = True  # on a CPU too, each run then takes what stands in the arrays
        self.crossing: list[Mapping[str, int]] = []

    def bind(self, inputs: Mapping[str, Place], outputs: Mapping[str, Place]) -> Binding:
        places = {**inputs, **outputs}
        self.crossing.append({name: place.nbytes for name, place in places.items() if isinstance(place, np.ndarray)})
        return super().bind(inputs, outputs)


@cache
def step_of(folder: Path) -> Session:
    """The step with its likeliest token, which graphs that are meant for a CPU alone leave to NumPy."""
    found = session(folder, "step")
    if "next" in found.outputs:
        return found
    graph = onnx.load(opened(folder).path(opened(folder).graphs("int8").graphs["step"].file))
    graph.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["next"], axis=1, keepdims=0))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("next", onnx.TensorProto.INT64, ["rows"]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return Session(onnxruntime.InferenceSession(graph.SerializeToString(), options))


def model(folder: Path, *, resident: bool, step: Session | None = None) -> Seq2Seq:
    generation = opened(folder).manifest.generation
    assert generation is not None
    encoder, step = session(folder, "encoder"), step or step_of(folder)
    return Seq2Seq(encoder, step, generation, source_length=64, target_length=24, slots=12, resident=resident)


def rows() -> dict[int, Row]:
    """Of every kind; they end at different times, so that slots are swapped again and again."""
    rng = np.random.default_rng(5)
    lengths = (5, 1, 16, 17, 9, 40, 33, 3, 64, 12)
    return {
        index: Row(
            rng.integers(100, 7000, length),
            generation=replace(KINDS[index % len(KINDS)], seed=index, max_new_tokens=3 + 2 * index),
        )
        for index, length in enumerate(lengths)
    }


@pytest.mark.parametrize("folder", [TRANSLATION, SUMMARIZATION], ids=["translation", "summarization"])
def test_rows_that_join_late_and_swap_slots_get_the_tokens_that_the_host_gives_them_alone(folder: Path) -> None:
    waiting = rows()
    expected = {index: run(model(folder, resident=False), {index: row}).tokens[index] for index, row in waiting.items()}
    crowd, collected = model(folder, resident=True, step=Bus(step_of(folder))), Collected()
    order = list(waiting.items())
    crowd.admit(dict(order[:3]))
    order = order[3:]
    while len(collected.finish) < len(waiting):
        collected.take(crowd.step())
        while order and crowd.cost(order[-1][1]).slots <= crowd.room().slots:
            crowd.admit(dict([order.pop()]))
    assert collected.tokens == expected


def test_rows_that_are_dropped_leave_the_others_as_they_are() -> None:
    waiting = dict(list(rows().items())[:4])
    crowd, collected = model(TRANSLATION, resident=True), Collected()
    crowd.admit(waiting)
    collected.take(crowd.step())
    crowd.drop({0, 2})
    while events := crowd.step():
        collected.take(events)
    for row in (1, 3):
        assert collected.tokens[row] == run(model(TRANSLATION, resident=False), {row: waiting[row]}).tokens[row]


def test_a_step_brings_the_numbers_of_its_rows_over_the_bus_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    picked: list[int] = []
    pick = Moves.pick

    def counted(moves: Moves, source: Resident, slots: list[int]) -> Any:
        picked.extend(slots)
        return pick(moves, source, slots)

    monkeypatch.setattr(Moves, "pick", counted)
    bus = Bus(step_of(TRANSLATION))
    crowd = model(TRANSLATION, resident=True, step=bus)
    greedy = {index: replace(row, generation=KINDS[0]) for index, row in rows().items()}
    run(crowd, greedy)
    assert picked == []
    for crossing in bus.crossing:
        assert crossing.keys() == {"tokens", "positions", "source_lengths", "total", "source_total", "next"}
        assert sum(crossing.values()) <= 12 * (8 + 4 + 4 + 8) + 8
    run(crowd, {0: replace(greedy[0], generation=KINDS[1]), 1: greedy[1]})
    assert set(picked) == {0, 1, 2}, "a row that searches beams reads its own logits"


def test_moves_copy_what_they_are_told_and_write_nothing_else() -> None:
    step = session(TRANSLATION, "step")
    moves, array = Moves(), step.resident((6, 2, 3), np.dtype(np.float32))
    numbers = np.arange(36, dtype=np.float32).reshape(6, 2, 3)
    array.owner.update_inplace(numbers)  # type: ignore[attr-defined] # an OrtValue
    moves.copy(array, np.array([0, 4]), array, np.array([4, 1]), cell=6)
    expected = numbers.copy()
    expected[[4, 1]] = numbers[[0, 4]]
    assert np.array_equal(moves.pick(array, range(6)), expected)
    with pytest.raises(BundleError, match="3 numbers of float16 are no multiple of 4 bytes"):
        moves.copy(step.resident((2, 3), np.dtype(np.float16)), np.array([0]), array, np.array([0]), cell=3)


def test_the_graphs_that_move_rows_are_those_that_the_exporter_writes() -> None:
    for path, made in graphs().items():
        assert onnx.load(path).graph == made.graph


def test_an_encoder_of_another_precision_is_refused() -> None:
    encoder = Session(session(TRANSLATION, "encoder")._session)
    encoder.outputs["cross"] = replace(encoder.outputs["cross"], dtype=np.dtype(np.float16))
    with pytest.raises(BundleError, match="the encoder gives cross as float16, the step reads float32"):
        DeviceCaches(encoder, session(TRANSLATION, "step"), slots=2, source_length=8, target_length=8)
