"""A generating encoder-decoder behind the `Model` contract: rows in dense slots, attention caches changed in place."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import GenerationDefaults
from models.caches import DeviceCaches, HostCaches, check_caches
from models.decoding import Decoder
from models.head import DeviceHead, Head, WholeHead
from models.packing import pack
from models.session import Binding, Session
from models.task import Cost, Event, Generation, Row, RowId


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
        resident: caches and logits stay on the device; right where the step graph reads its caches there.
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
        resident: bool = False,
        budget_tokens: int = 512,
    ) -> None:
        check_caches(encoder, step)
        self.padding_tokens = 0  # sources are packed, and a step computes one token for each row
        self._step, self._generation = step, generation
        if head is None:
            head = (DeviceHead if resident else WholeHead)(step, generation, slots)
        self._head = head
        self._slots, self._budget_tokens = slots, budget_tokens
        self._lengths = {"source": source_length, "target": target_length}
        self._running: dict[RowId, _Running] = {}
        self._occupants: list[_Running] = []
        self._bindings: dict[int, Binding] = {}
        self._bound_layout = self._head.layout
        self._caches = (DeviceCaches if resident else HostCaches)(
            encoder, step, slots=slots, source_length=source_length, target_length=target_length
        )
        self._state: dict[str, NDArray[Any]] = {
            "tokens": np.zeros(slots, np.int64),
            "positions": np.zeros(slots, np.int32),
            "source_lengths": np.zeros(slots, np.int32),
        }
        self._totals = {name: np.zeros((), np.int32) for name in ("total", "source_total")}

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
        spans: list[range] = []
        for row in rows.values():
            start = spans[-1].stop if spans else len(self._occupants)
            spans.append(range(start, start + self.cost(row).slots))
        self._caches.enter(pack(list(rows.values())), spans)
        for (id_, row), generation, span in zip(rows.items(), settings, spans, strict=True):
            decoder = self._head.enter(row, generation, span)
            taken = slice(span.start, span.stop)
            self._state["tokens"][taken] = self._generation.decoder_start_token_id
            self._state["positions"][taken] = 0
            self._state["source_lengths"][taken] = len(row.tokens)
            self._running[id_] = running = _Running(id_, decoder, list(span))
            self._occupants += [running] * len(span)

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
        copies: list[tuple[int, int]] = []
        events = []
        for running in self._running.values():
            tokens, parents, new, finish = running.decoder.advance(likeliest, logits, running.slots)
            events.append(Event(running.row, tokens=new, finish=finish))
            if finish is None:
                if parents:
                    copies += _regroup(running, parents)
                for slot, token in zip(running.slots, tokens, strict=True):
                    read[slot] = token
        if copies:
            self._caches.fork(copies, state["positions"])
        state["tokens"][:] = read
        self.drop([event.row for event in events if event.finish])
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Free the slots of these rows; unknown ids are ignored."""
        left = [running for id_ in ids if (running := self._running.pop(id_, None)) is not None]
        for running in left:
            self._head.leave(running.decoder)
        if left:
            self._leave({slot for running in left for slot in running.slots})

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

    def _leave(self, free: Collection[int]) -> None:
        """Move the last slots into these, so that there is no hole."""
        count = len(self._occupants) - len(free)
        last = [slot for slot in range(count, len(self._occupants)) if slot not in free]
        copies = list(zip(last, sorted(slot for slot in free if slot < count), strict=True))
        for source, slot in copies:
            for array in self._state.values():
                array[slot] = array[source]
            self._head.move(source, slot)
            self._occupants[slot] = moved = self._occupants[source]
            moved.slots[moved.slots.index(source)] = slot
        if copies:
            self._caches.move(copies, self._state["positions"], self._state["source_lengths"])
        del self._occupants[count:]

    def _binding(self, count: int) -> Binding:
        """The step graph bound to the first `count` slots, and to the head's words as they are now."""
        if self._bound_layout != self._head.layout:
            self._bindings.clear()
            self._bound_layout = self._head.layout
        if count not in self._bindings:
            state = {name: array[:count] for name, array in self._state.items()}
            caches, presents = self._caches.places(count)
            self._bindings[count] = self._step.bind(
                {**state, **self._totals, **caches, **self._head.inputs(count)},
                {**self._head.outputs(count), **presents},
            )
        return self._bindings[count]


def _regroup(running: _Running, parents: Sequence[int]) -> list[tuple[int, int]]:
    """Let every beam go on from its parent; from which slots to which others self-attention caches must be copied.

    A parent's first child keeps its slot; further ones take those of beams without children. What the beams read of
    the source is the same.
    """
    childless = [slot for beam, slot in enumerate(running.slots) if beam not in parents]
    copies: list[tuple[int, int]] = []
    slots: list[int] = []
    for parent in parents:
        slot = running.slots[parent]
        if slot in slots:
            source, slot = slot, childless.pop()
            copies.append((source, slot))
        slots.append(slot)
    running.slots = slots
    return copies
