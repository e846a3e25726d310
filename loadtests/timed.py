"""A generating model put together from parts that keep the time they take."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from numpy.typing import NDArray

from models.bundle import Bundle
from models.decoding import Advance, Decoder, Logits
from models.head import Head, ShortHead, WholeHead
from models.seq2seq import Seq2Seq
from models.session import Binding, Session, open_session
from models.shortlist import Shortlist
from models.task import Event, Generation, Row

RUNNING, READING, CHOOSING, DELIVERING = "running", "reading", "choosing", "delivering"

Clock: TypeAlias = dict[str, float]
"""Seconds by what took them; of the model's step as a whole under `DELIVERING`, which is what is left beside it."""


class _TimedBinding:
    def __init__(self, binding: Binding, clock: Clock) -> None:
        self._binding, self._clock = binding, clock

    def run(self) -> None:
        began = time.perf_counter()
        self._binding.run()
        self._clock[RUNNING] += time.perf_counter() - began


class _TimedSession:
    """A session whose bindings are timed."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session, self._clock = session, clock

    def bind(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> _TimedBinding:
        return _TimedBinding(self._session.bind(inputs, outputs), self._clock)


class _TimedDecoder:
    def __init__(self, decoder: Decoder, clock: Clock) -> None:
        self.decoder, self._clock = decoder, clock

    def advance(self, likeliest: Sequence[int], logits: Logits, slots: Sequence[int]) -> Advance:
        began = time.perf_counter()
        found = self.decoder.advance(likeliest, logits, slots)
        self._clock[CHOOSING] += time.perf_counter() - began
        return found


class _TimedHead:
    def __init__(self, head: Head, clock: Clock) -> None:
        self._head, self._clock = head, clock
        self.inputs, self.outputs, self.move, self.clear = head.inputs, head.outputs, head.move, head.clear

    @property
    def layout(self) -> int:
        return self._head.layout

    def enter(self, row: Row, generation: Generation, slots: range) -> _TimedDecoder:
        return _TimedDecoder(self._head.enter(row, generation, slots), self._clock)

    def leave(self, decoder: Decoder) -> None:
        self._head.leave(cast("_TimedDecoder", decoder).decoder)

    def read(self, count: int) -> tuple[list[int], Logits]:
        began = time.perf_counter()
        found = self._head.read(count)
        self._clock[READING] += time.perf_counter() - began
        return found


class TimedModel:
    """A model whose steps are timed as a whole and in parts."""

    def __init__(self, model: Seq2Seq, head: Head, clock: Clock) -> None:
        self.clock, self.padding_tokens = clock, model.padding_tokens
        self._model, self._head = model, head
        self.cost, self.room, self.admit, self.drop, self.reset = (
            model.cost,
            model.room,
            model.admit,
            model.drop,
            model.reset,
        )

    @property
    def columns(self) -> int:
        """Words that are computed."""
        return int(self._head.outputs(1)["logits"].shape[1])

    def step(self) -> Sequence[Event]:
        began = time.perf_counter()
        events = self._model.step()
        self.clock[DELIVERING] += time.perf_counter() - began
        return events


def assembled(bundle: Bundle, *, short: bool, slots: int, source_length: int, target_length: int) -> TimedModel:
    """The bundle's int8 model on one thread, with its shortlist or without."""
    generation, shortlist, clock = bundle.manifest.generation, bundle.manifest.shortlist, defaultdict[str, float](float)
    if generation is None or shortlist is None:
        raise SystemExit(f"{bundle.folder} has no shortlist")
    step = open_session(bundle, "int8", "shortlisted" if short else "step")
    head: Head
    if short:
        words = open_session(bundle, "int8", "words")
        head = ShortHead(step, words, Shortlist.read(bundle.path(shortlist)), generation, slots)
    else:
        head = WholeHead(step, generation, slots)
    model = Seq2Seq(
        open_session(bundle, "int8", "encoder"),
        cast("Session", _TimedSession(step, clock)),
        generation,
        source_length=source_length,
        target_length=target_length,
        head=cast("Head", _TimedHead(head, clock)),
        slots=slots,
        budget_tokens=10**6,
    )
    return TimedModel(model, head, clock)
