"""A generating encoder-decoder behind the `Model` contract: rows in dense slots, attention caches changed in place."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import GenerationDefaults
from models.decoding import Decoder
from models.errors import BundleError
from models.head import Head, WholeHead
from models.packing import check_packed, pack
from models.session import Binding, Session
from models.task import Cost, Event, Generation, Row, RowId

_STATE = ("tokens", "positions", "source_lengths", "source_last")
_TOTALS = ("total", "source_total")


@dataclass(slots=True, eq=False)
class _Running:
    """A row, and where its beams are, in the decoder's order; a row without beams has one."""

    row: RowId
    decoder: Decoder
    slots: list[int]


class Seq2Seq:
    """Decodes rows side by side, one token per step each, in up to `slots` slots: one for each beam of a row.

    What runs fills slots 0 to n-1 without a hole, so that a step computes nothing for empty slots; when a slot is left,
    the last one moves into its place, so that the beams of a row may lie anywhere. The step graph reads and writes the
    caches at the same addresses, and adds only the one position that a row has reached.

    Memory: 2 x layers x slots x (source_length + target_length) x width x 4 bytes, or x 2 where the graph holds its
    caches in float16, of which the operating system gives only what has been touched. For 2 layers, 32 slots, 512 + 64
    positions and width 384: 113 MB at most.

    Args:
        encoder: the graph from packed tokens to `cross` [tokens, 2 x layers, heads, head width], keys and values of
            each decoder layer's cross-attention; and [tokens, ...] for every further input of the step graph, which
            reads it under the same name as [rows, source length, ...].
        step: the graph of one decoder step.
        generation: start and end tokens of the model.
        source_length: longest source, in tokens.
        target_length: most new tokens of a row.
        head: of the step graph, for as many slots; None for one that writes the whole vocabulary.
        slots: sequences that decode side by side.
        budget_tokens: `room` lets one `admit` encode so many source tokens, so that running rows do not wait longer.

    Raises:
        BundleError: the two graphs are not an encoder and a step that fit each other.
    """

    def __init__(
        self,
        encoder: Session,
        step: Session,
        generation: GenerationDefaults,
        *,
        source_length: int,
        target_length: int,
        head: Head | None = None,
        slots: int = 32,
        budget_tokens: int = 512,
    ) -> None:
        _check(encoder, step)
        self.padding_tokens = 0  # sources are packed, and a step computes one token for each row
        self._encoder, self._step, self._generation = encoder, step, generation
        self._head = WholeHead(step, generation, slots) if head is None else head
        self._slots, self._budget_tokens = slots, budget_tokens
        self._lengths = {"source": source_length, "target": target_length}
        self._running: dict[RowId, _Running] = {}
        self._occupants: list[_Running] = []
        self._bindings: dict[int, Binding] = {}
        self._bound_layout = self._head.layout
        self._past, self._cross = self._cache("past", target_length), self._cache("cross", source_length)
        self._caches = {
            **dict(zip(_names(step, "past"), self._past, strict=True)),
            **dict(zip(_names(step, "cross"), self._cross, strict=True)),
        }
        self._state: dict[str, NDArray[Any]] = {
            "tokens": np.zeros(slots, np.int64),
            "positions": np.zeros(slots, np.int32),
            "source_lengths": np.zeros(slots, np.int32),
            "source_last": np.zeros((slots, *_sizes(step.inputs["source_last"].shape[1:])), self._cross.dtype),
        }
        self._sources: dict[str, NDArray[Any]] = {
            name: np.zeros((slots, source_length, *_sizes(step.inputs[name].shape[2:])), step.inputs[name].dtype)
            for name in _of_source_tokens(step)
        }
        self._totals = {name: np.zeros((), np.int32) for name in _TOTALS}

    def cost(self, row: Row) -> Cost:
        """A slot for each beam, and the source's tokens.

        Raises:
            ValueError: more beams than slots, so that the row would wait for ever.
        """
        beams = row.generation.num_beams if row.generation else 1
        if beams > self._slots:
            raise ValueError(f"a row has {beams} beams, the model {self._slots} slots")
        return Cost(slots=beams, tokens=len(row.tokens))

    def room(self) -> Cost:
        """Free slots, and how many source tokens one `admit` may encode."""
        return Cost(slots=self._slots - len(self._occupants), tokens=self._budget_tokens)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Encode the rows in one packed pass; they take the slots behind those that run.

        Raises:
            ValueError: more beams than free slots, or a row that does not fit the caches.
        """
        needed = sum(self.cost(row).slots for row in rows.values())
        if needed > self.room().slots:
            raise ValueError(f"rows of {needed} slots were admitted to {self.room().slots} free ones")
        settings = [self._settings(row) for row in rows.values()]
        packed = pack(list(rows.values()))
        outputs = self._encoder.run(packed.feeds(self._encoder.inputs))
        by_row = {name: packed.split(output) for name, output in outputs.items()}
        for index, ((id_, row), generation) in enumerate(zip(rows.items(), settings, strict=True)):
            encoded = by_row["cross"][index]
            start, length = len(self._occupants), len(encoded)
            stop = start + self.cost(row).slots
            decoder = self._head.enter(row, generation, range(start, stop))
            self._cross[:, start:stop, :, :length] = encoded.transpose(1, 2, 0, 3)[:, None]
            for name, cache in self._sources.items():
                cache[start:stop, :length] = by_row[name][index]
            self._state["tokens"][start:stop] = self._generation.decoder_start_token_id
            self._state["positions"][start:stop] = 0
            self._state["source_lengths"][start:stop] = length
            self._state["source_last"][start:stop] = encoded[-1]
            self._running[id_] = running = _Running(id_, decoder, list(range(start, stop)))
            self._occupants += [running] * len(running.slots)

    def step(self) -> Sequence[Event]:
        """One token for every running row, or for each of its beams; rows that end leave their slots."""
        count = len(self._occupants)
        if not count:
            return []
        state = {name: array[:count] for name, array in self._state.items()}
        self._totals["total"][...] = state["positions"].max() + 1
        self._totals["source_total"][...] = state["source_lengths"].max()
        self._binding(count).run()
        state["positions"] += 1
        likeliest, logits = self._head.read(count)
        read = [0] * count
        events = []
        for running in self._running.values():
            tokens, parents, new, finish = running.decoder.advance(likeliest, logits, running.slots)
            events.append(Event(running.row, tokens=new, finish=finish))
            if finish is None:
                if parents:
                    self._regroup(running, parents)
                for slot, token in zip(running.slots, tokens, strict=True):
                    read[slot] = token
        state["tokens"][:] = read
        self.drop([event.row for event in events if event.finish])
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Free the slots of these rows; unknown ids are ignored."""
        for id_ in ids:
            if (running := self._running.pop(id_, None)) is not None:
                self._head.leave(running.decoder)
                for slot in sorted(running.slots, reverse=True):
                    self._leave(slot)

    def reset(self) -> None:
        """Free every slot."""
        self._running.clear()
        self._occupants.clear()
        self._head.clear()

    def _settings(self, row: Row) -> Generation:
        if row.generation is None:
            raise ValueError("a row without generation settings came to a model that generates")
        source, target = len(row.tokens), row.generation.max_new_tokens
        if source > self._lengths["source"] or target > self._lengths["target"]:
            limits = f"{self._lengths['source']} and {self._lengths['target']}"
            raise ValueError(f"a row has {source} source and up to {target} new tokens, the caches hold {limits}")
        return row.generation

    def _regroup(self, running: _Running, parents: Sequence[int]) -> None:
        """Let every beam go on from its parent.

        A parent's first child keeps its slot; further ones take those of beams without children, which get a copy of
        as much of the parent's self-attention caches as is filled. What the beams read of the source is the same.
        """
        childless = [slot for beam, slot in enumerate(running.slots) if beam not in parents]
        filled = self._state["positions"][running.slots[0]]
        slots: list[int] = []
        for parent in parents:
            slot = running.slots[parent]
            if slot in slots:
                source, slot = slot, childless.pop()
                self._past[:, slot, :, :filled] = self._past[:, source, :, :filled]
            slots.append(slot)
        running.slots = slots

    def _leave(self, slot: int) -> None:
        """Move the last slot into this one: its state, and as much of its caches as it has filled."""
        last = len(self._occupants) - 1
        if slot != last:
            for array in self._state.values():
                array[slot] = array[last]
            past, cross = self._state["positions"][last], self._state["source_lengths"][last]
            self._past[:, slot, :, :past] = self._past[:, last, :, :past]
            self._cross[:, slot, :, :cross] = self._cross[:, last, :, :cross]
            for cache in self._sources.values():
                cache[slot, :cross] = cache[last, :cross]
            self._head.move(last, slot)
            self._occupants[slot] = moved = self._occupants[last]
            moved.slots[moved.slots.index(last)] = slot
        self._occupants.pop()

    def _binding(self, count: int) -> Binding:
        """The step graph bound to the first `count` slots, and to the head's words as they are now."""
        if self._bound_layout != self._head.layout:
            self._bindings.clear()
            self._bound_layout = self._head.layout
        if count not in self._bindings:
            caches = {name: cache[:count] for name, cache in self._caches.items()}
            state = {name: array[:count] for name, array in (self._state | self._sources).items()}
            outputs = {**self._head.outputs(count), **{f"present_{name}": cache for name, cache in caches.items()}}
            self._bindings[count] = self._step.bind(
                {**state, **self._totals, **caches, **self._head.inputs(count)}, outputs
            )
        return self._bindings[count]

    def _cache(self, kind: str, length: int) -> NDArray[Any]:
        """Zeros [caches, slots, heads, length, head width] for the step graph's cache inputs of one kind."""
        names = _names(self._step, kind)
        spec = self._step.inputs[names[0]]
        _, heads, _, width = spec.shape
        return np.zeros((len(names), self._slots, *_sizes((heads,)), length, *_sizes((width,))), spec.dtype)


def _names(step: Session, kind: str) -> list[str]:
    return [name for name in step.inputs if name.startswith(f"{kind}_")]


def _of_source_tokens(step: Session) -> list[str]:
    known = {*_STATE, *_TOTALS, *(name for kind in ("past", "cross", "head") for name in _names(step, kind)), "allowed"}
    return [name for name in step.inputs if name not in known]


def _sizes(dimensions: Sequence[int | str]) -> tuple[int, ...]:
    if not all(isinstance(size, int) for size in dimensions):
        raise BundleError(f"the step graph leaves a size open that must be fixed: {dimensions}")
    return tuple(int(size) for size in dimensions)


def _check(encoder: Session, step: Session) -> None:
    """Every name that this module uses is there, and the encoder's keys and values are what the step's caches hold."""
    check_packed(encoder.inputs)
    caches = {kind: _names(step, kind) for kind in ("past", "cross")}
    presents = [f"present_{name}" for names in caches.values() for name in names]
    for graph, kind, found, needed in (
        ("step", "input", step.inputs, [*_STATE, *_TOTALS]),
        ("encoder", "output", encoder.outputs, ["cross", *_of_source_tokens(step)]),
        ("step", "output", step.outputs, ["next", "logits", *presents]),
    ):
        if missing := [name for name in needed if name not in found]:
            raise BundleError(f"the {graph} graph has no {kind} {', '.join(missing)}")
    encoded = encoder.outputs["cross"].shape[1:]
    for names in caches.values():
        held = [step.inputs[name].shape for name in names]
        if {(len(held), shape[1], shape[3]) for shape in held} != {encoded}:
            raise BundleError(f"the encoder graph gives keys and values {encoded}, the step graph holds {held}")
    for name in _of_source_tokens(step):
        given, read = encoder.outputs[name].shape[1:], step.inputs[name].shape[2:]
        if given != read:
            raise BundleError(f"the encoder graph gives {name} {given}, the step graph reads {read}")
