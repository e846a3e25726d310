"""A generating encoder-decoder behind the `Model` contract: rows in dense slots, attention caches changed in place."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import GenerationDefaults
from models.decoding import RowDecoder
from models.errors import BundleError
from models.packing import check_packed, pack
from models.session import Binding, Session
from models.task import Cost, Event, Row, RowId

_STATE = ("tokens", "positions", "source_lengths", "source_last")
_TOTALS = ("total", "source_total")


@dataclass(frozen=True, slots=True)
class _Running:
    row: RowId
    decoder: RowDecoder


class Seq2Seq:
    """Decodes up to `slots` rows side by side, one token each per step.

    Running rows fill slots 0 to n-1 without a hole, so that a step computes nothing for empty slots; when a row leaves,
    the last one moves into its place. The step graph reads and writes the caches at the same addresses, and adds only
    the one position that a row has reached.

    Memory: 2 x layers x slots x (source_length + target_length) x width x 4 bytes, of which the operating system gives
    only what has been touched. For 2 layers, 32 slots, 512 + 64 positions and width 384: 113 MB at most.

    Args:
        encoder: the graph from packed tokens to `cross` [tokens, 2 x layers, heads, head width], keys and values of
            each decoder layer's cross-attention.
        step: the graph of one decoder step.
        generation: start and end tokens of the model.
        source_length: longest source, in tokens.
        target_length: most new tokens of a row.
        slots: rows that decode side by side.
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
        slots: int = 32,
        budget_tokens: int = 512,
    ) -> None:
        _check(encoder, step)
        self._encoder, self._step, self._generation = encoder, step, generation
        self._slots, self._budget_tokens = slots, budget_tokens
        self._lengths = {"source": source_length, "target": target_length}
        self._running: list[_Running] = []
        self._bindings: dict[int, Binding] = {}
        self._caches = {name: self._cache(name) for name in step.inputs if name.startswith(("past_", "cross_"))}
        self._cross = [cache for name, cache in self._caches.items() if name.startswith("cross_")]
        self._state: dict[str, NDArray[Any]] = {
            "tokens": np.zeros(slots, np.int64),
            "positions": np.zeros(slots, np.int32),
            "source_lengths": np.zeros(slots, np.int32),
            "source_last": np.zeros((slots, *_sizes(step.inputs["source_last"].shape[1:])), np.float32),
        }
        self._totals = {name: np.zeros((), np.int32) for name in _TOTALS}
        self._next = np.zeros(slots, np.int64)
        self._logits = np.zeros((slots, *_sizes(step.outputs["logits"].shape[1:])), np.float32)

    def cost(self, row: Row) -> Cost:
        """One slot, and the source's tokens."""
        return Cost(slots=1, tokens=len(row.tokens))

    def room(self) -> Cost:
        """Free slots, and how many source tokens one `admit` may encode."""
        return Cost(slots=self._slots - len(self._running), tokens=self._budget_tokens)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Encode the rows in one packed pass; they take the slots behind those that run.

        Raises:
            ValueError: more rows than free slots, or a row that does not fit the caches.
        """
        if len(rows) > self.room().slots:
            raise ValueError(f"{len(rows)} rows were admitted to {self.room().slots} free slots")
        decoders = [self._decoder(row) for row in rows.values()]
        packed = pack(list(rows.values()))
        cross = self._encoder.run(packed.feeds(self._encoder.inputs))["cross"]
        for row, decoder, keys_and_values in zip(rows, decoders, packed.split(cross), strict=True):
            slot, length = len(self._running), len(keys_and_values)
            for index, cache in enumerate(self._cross):
                cache[slot, :, :length] = keys_and_values[:, index].swapaxes(0, 1)
            self._state["tokens"][slot] = self._generation.decoder_start_token_id
            self._state["positions"][slot] = 0
            self._state["source_lengths"][slot] = length
            self._state["source_last"][slot] = keys_and_values[-1]
            self._running.append(_Running(row, decoder))

    def step(self) -> Sequence[Event]:
        """One token for every running row; rows that end leave their slots."""
        count = len(self._running)
        if not count:
            return []
        state = {name: array[:count] for name, array in self._state.items()}
        self._totals["total"][...] = state["positions"].max() + 1
        self._totals["source_total"][...] = state["source_lengths"].max()
        self._binding(count).run()
        likeliest = self._next[:count].tolist()
        chosen = [
            running.decoder.choose(likeliest[slot], self._logits[slot]) for slot, running in enumerate(self._running)
        ]
        state["tokens"][:] = chosen
        state["positions"] += 1
        events = []
        for running, token in zip(self._running, chosen, strict=True):
            finish = running.decoder.accept(token)
            events.append(Event(running.row, tokens=() if finish == "stop" else (token,), finish=finish))
        for slot in reversed([slot for slot, event in enumerate(events) if event.finish]):
            self._leave(slot)
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Free the slots of these rows; unknown ids are ignored."""
        for slot in reversed(range(len(self._running))):
            if self._running[slot].row in ids:
                self._leave(slot)

    def reset(self) -> None:
        """Free every slot."""
        self._running.clear()

    def _decoder(self, row: Row) -> RowDecoder:
        if row.generation is None:
            raise ValueError("a row without generation settings came to a model that generates")
        source, target = len(row.tokens), row.generation.max_new_tokens
        if source > self._lengths["source"] or target > self._lengths["target"]:
            limits = f"{self._lengths['source']} and {self._lengths['target']}"
            raise ValueError(f"a row has {source} source and up to {target} new tokens, the caches hold {limits}")
        return RowDecoder(row.generation, self._generation)

    def _leave(self, slot: int) -> None:
        """Move the last running row into this slot: its state, and as much of its caches as it has filled."""
        last = len(self._running) - 1
        if slot != last:
            for array in self._state.values():
                array[slot] = array[last]
            filled = {"past": int(self._state["positions"][last]), "cross": int(self._state["source_lengths"][last])}
            for name, cache in self._caches.items():
                length = filled[name.split("_")[0]]
                cache[slot, :, :length] = cache[last, :, :length]
            self._running[slot] = self._running[last]
        self._running.pop()

    def _binding(self, count: int) -> Binding:
        """The step graph bound to the first `count` slots.

        Logits are always bound: the graph computes them anyway, and where it writes them makes no difference.
        """
        if count not in self._bindings:
            caches = {name: cache[:count] for name, cache in self._caches.items()}
            state = {name: array[:count] for name, array in self._state.items()}
            outputs: dict[str, NDArray[Any]] = {"next": self._next[:count], "logits": self._logits[:count]}
            outputs |= {f"present_{name}": cache for name, cache in caches.items()}
            self._bindings[count] = self._step.bind(state | self._totals | caches, outputs)
        return self._bindings[count]

    def _cache(self, name: str) -> NDArray[np.float32]:
        """Zeros [slots, heads, length, head width] for one cache input of the step graph."""
        heads, width = _sizes((self._step.inputs[name].shape[1], self._step.inputs[name].shape[3]))
        length = self._lengths["source" if name.startswith("cross_") else "target"]
        return np.zeros((self._slots, heads, length, width), np.float32)


def _sizes(dimensions: Sequence[int | str]) -> tuple[int, ...]:
    if not all(isinstance(size, int) for size in dimensions):
        raise BundleError(f"the step graph leaves a size open that must be fixed: {dimensions}")
    return tuple(int(size) for size in dimensions)


def _check(encoder: Session, step: Session) -> None:
    """Every name that this module uses is there, and the encoder's keys and values are what the step's caches hold."""
    check_packed(encoder.inputs)
    caches = [name for name in step.inputs if name.startswith(("past_", "cross_"))]
    for graph, kind, found, needed in (
        ("encoder", "output", encoder.outputs, ["cross"]),
        ("step", "input", step.inputs, [*_STATE, *_TOTALS]),
        ("step", "output", step.outputs, ["next", "logits", *(f"present_{name}" for name in caches)]),
    ):
        if missing := [name for name in needed if name not in found]:
            raise BundleError(f"the {graph} graph has no {kind} {', '.join(missing)}")
    held = [step.inputs[name].shape for name in caches if name.startswith("cross_")]
    encoded = encoder.outputs["cross"].shape[1:]
    if {(len(held), shape[1], shape[3]) for shape in held} != {encoded}:
        raise BundleError(f"the encoder graph gives keys and values {encoded}, the step graph holds {held}")
