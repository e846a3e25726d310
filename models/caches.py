"""Where running rows keep what they attend to, in slots: on the host, or on the device that computes."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.moves import Moves
from models.packing import Packed, check_packed
from models.session import Place, Resident, Session
from models.task import Tokens

_STATE = ("tokens", "positions", "source_lengths", "source_last", "total", "source_total")

Copies: TypeAlias = Sequence[tuple[int, int]]
"""From a slot to another; no slot is both."""


class Places(NamedTuple):
    """What the step graph reads, and what it writes: the same memory under the names of `inputs` and `outputs`."""

    inputs: Mapping[str, Place]
    outputs: Mapping[str, Place]


class Caches(Protocol):
    """Keys and values of all slots, and what else the step graph reads of sources."""

    def enter(self, packed: Packed, spans: Sequence[range]) -> None:
        """Encode rows in one pass; each takes the slots of its span, all of which read the same source."""
        ...

    def fork(self, copies: Copies, filled: NDArray[np.int32]) -> None:
        """What slots have written goes on in others of the same row; `filled` positions of each slot count."""
        ...

    def move(self, copies: Copies, filled: NDArray[np.int32], read: NDArray[np.int32]) -> None:
        """What stands in slots goes on in others; each has `filled` positions and `read` source tokens."""
        ...

    def places(self, count: int) -> Places:
        """What is bound for the first `count` slots."""
        ...


class HostCaches:
    """NumPy arrays, which the CPU provider reads and writes where they are.

    Args:
        encoder: see `models.seq2seq.Seq2Seq`, as the others.
    """

    def __init__(self, encoder: Session, step: Session, *, slots: int, source_length: int, target_length: int) -> None:
        self._encoder = encoder
        sizes = _Sizes(step, slots, source_length, target_length)
        self.past, self.cross, self.last = (np.zeros(*each) for each in (sizes.past, sizes.cross, sizes.last))
        self.sources = {name: np.zeros(*each) for name, each in sizes.sources.items()}
        named = (("past", self.past), ("cross", self.cross))
        self.named = {name: cache for kind, all_ in named for name, cache in zip(_names(step, kind), all_, strict=True)}

    def enter(self, packed: Packed, spans: Sequence[range]) -> None:
        encoded = {
            name: packed.split(array) for name, array in self._encoder.run(packed.feeds(self._encoder.inputs)).items()
        }
        for index, (span, cross) in enumerate(zip(spans, encoded["cross"], strict=True)):
            taken, length = slice(span.start, span.stop), len(cross)
            self.cross[:, taken, :, :length] = cross.transpose(1, 2, 0, 3)[:, None]
            self.last[taken] = cross[-1]
            for name, cache in self.sources.items():
                cache[taken, :length] = encoded[name][index]

    def fork(self, copies: Copies, filled: NDArray[np.int32]) -> None:
        for source, slot in copies:
            self.past[:, slot, :, : filled[source]] = self.past[:, source, :, : filled[source]]

    def move(self, copies: Copies, filled: NDArray[np.int32], read: NDArray[np.int32]) -> None:
        self.fork(copies, filled)
        for source, slot in copies:
            length = read[source]
            self.cross[:, slot, :, :length] = self.cross[:, source, :, :length]
            self.last[slot] = self.last[source]
            for cache in self.sources.values():
                cache[slot, :length] = cache[source, :length]

    def places(self, count: int) -> Places:
        caches = {name: cache[:count] for name, cache in self.named.items()}
        sources = {name: cache[:count] for name, cache in self.sources.items()}
        return Places(
            {**caches, **sources, "source_last": self.last[:count]},
            {f"present_{name}": cache for name, cache in caches.items()},
        )


class DeviceCaches:
    """Memory of the device, in which a small graph moves what must be moved: only the numbers of rows cross the bus.

    Whole slots are copied, and not what is filled of them: that is a few megabytes, which a device copies in
    microseconds, and one address for each slot instead of one for each position.

    Args:
        encoder: see `models.seq2seq.Seq2Seq`, as the others; its outputs stay on the device too.

    Raises:
        BundleError: the encoder's numbers are of another type than the step's, which nobody would convert.
    """

    def __init__(self, encoder: Session, step: Session, *, slots: int, source_length: int, target_length: int) -> None:
        self._encoder, self._moves = encoder, Moves()
        self._slots, self._source_length = slots, source_length
        sizes = _Sizes(step, slots, source_length, target_length)
        for name, (_, dtype) in {"cross": sizes.cross, **sizes.sources}.items():
            if encoder.outputs[name].dtype != dtype:
                raise BundleError(f"the encoder gives {name} as {encoder.outputs[name].dtype}, the step reads {dtype}")
        self.past, self.cross, self.last = (step.resident(*each) for each in (sizes.past, sizes.cross, sizes.last))
        self.sources = {name: step.resident(*each) for name, each in sizes.sources.items()}
        self._names = {kind: _names(step, kind) for kind in ("past", "cross")}

    def enter(self, packed: Packed, spans: Sequence[range]) -> None:
        encoded = self._encoder.run_resident(packed.feeds(self._encoder.inputs))
        tokens, slots, positions = _spread(packed, spans)
        count, _, heads, length, width = self.cross.shape
        cache, head = np.arange(count)[:, None, None], np.arange(heads)[:, None]
        froms = (tokens * count + cache) * heads + head
        tos = ((cache * self._slots + slots) * heads + head) * length + positions
        self._moves.copy(encoded["cross"], froms.ravel(), self.cross, tos.ravel(), cell=width)
        ends = np.repeat(packed.starts + packed.lengths - 1, [len(span) for span in spans])
        self._moves.copy(encoded["cross"], ends, self.last, np.concatenate(spans), cell=count * heads * width)
        for name, cache_ in self.sources.items():
            tos = slots * self._source_length + positions
            self._moves.copy(encoded[name], tokens, cache_, tos, cell=prod(cache_.shape[2:]))

    def fork(self, copies: Copies, _filled: NDArray[np.int32]) -> None:
        self._copy_slots(self.past, copies, layers=len(self._names["past"]))

    def move(self, copies: Copies, filled: NDArray[np.int32], _read: NDArray[np.int32]) -> None:
        self.fork(copies, filled)
        self._copy_slots(self.cross, copies, layers=len(self._names["cross"]))
        for cache in (self.last, *self.sources.values()):
            self._copy_slots(cache, copies, layers=1)

    def places(self, count: int) -> Places:
        caches = {
            name: all_.part(index * prod(all_.shape[1:]), (count, *all_.shape[2:]))
            for kind, all_ in (("past", self.past), ("cross", self.cross))
            for index, name in enumerate(self._names[kind])
        }
        rest = {"source_last": self.last, **self.sources}
        return Places(
            {**caches, **{name: cache.part(0, (count, *cache.shape[1:])) for name, cache in rest.items()}},
            {f"present_{name}": cache for name, cache in caches.items()},
        )

    def _copy_slots(self, cache: Resident, copies: Copies, *, layers: int) -> None:
        first = np.arange(layers)[:, None] * self._slots
        sources, slots = ((first + np.array(each)).ravel() for each in zip(*copies, strict=True))
        self._moves.copy(cache, sources, cache, slots, cell=prod(cache.shape) // (layers * self._slots))


def _spread(packed: Packed, spans: Sequence[range]) -> tuple[Tokens, Tokens, Tokens]:
    """For each token and each slot that reads it: where it is among the tokens, the slot, and its position there."""
    tokens, slots = [], []
    for start, length, span in zip(packed.starts.tolist(), packed.lengths.tolist(), spans, strict=True):
        tokens += [np.arange(start, start + length)] * len(span)
        slots += [np.full(length, slot) for slot in span]
    all_tokens = np.concatenate(tokens)
    return all_tokens, np.concatenate(slots), packed.positions[all_tokens]


class _Sizes:
    """Shape and type of what the slots hold, for the step graph's inputs.

    Args:
        step: its caches are [rows, heads, length, head width], what it reads of sources is [rows, length, ...].
    """

    def __init__(self, step: Session, slots: int, source_length: int, target_length: int) -> None:
        def cache(kind: str, length: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
            names = _names(step, kind)
            spec = step.inputs[names[0]]
            (heads, width) = _sizes((spec.shape[1], spec.shape[3]))
            return (len(names), slots, heads, length, width), spec.dtype

        self.past, self.cross = cache("past", target_length), cache("cross", source_length)
        self.last = (slots, *_sizes(step.inputs["source_last"].shape[1:])), self.cross[1]
        self.sources = {
            name: ((slots, source_length, *_sizes(step.inputs[name].shape[2:])), step.inputs[name].dtype)
            for name in _of_source_tokens(step)
        }


def slot_bytes(step: Session, source_length: int, target_length: int) -> int:
    """Bytes of one slot on a device: its caches, and its logits twice, since the graph holds another copy."""
    sizes = _Sizes(step, 1, source_length, target_length)
    held = (sizes.past, sizes.cross, sizes.last, *sizes.sources.values())
    logits = step.outputs["logits"]
    return sum(prod(shape) * dtype.itemsize for shape, dtype in held) + 2 * prod(_sizes(logits.shape[1:])) * 4


def reads_caches_on_device(step: Session) -> bool:
    """Whether `DeviceCaches` serve this graph: what they hold is all read there, and so is the likeliest token."""
    names = [*_names(step, "past"), *_names(step, "cross"), "source_last", *_of_source_tokens(step)]
    return "next" in step.outputs and step.reads_on_device(names)


def check_caches(encoder: Session, step: Session) -> None:
    """Every name that slots need is there, and the encoder's keys and values are what the step's caches hold.

    Raises:
        BundleError: the two graphs are not an encoder and a step that fit each other.
    """
    check_packed(encoder.inputs)
    caches = {kind: _names(step, kind) for kind in ("past", "cross")}
    presents = [f"present_{name}" for names in caches.values() for name in names]
    for graph, kind, found, needed in (
        ("step", "input", step.inputs, _STATE),
        ("encoder", "output", encoder.outputs, ["cross", *_of_source_tokens(step)]),
        ("step", "output", step.outputs, ["logits", *presents]),
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


def _names(step: Session, kind: str) -> list[str]:
    return [name for name in step.inputs if name.startswith(f"{kind}_")]


def _of_source_tokens(step: Session) -> list[str]:
    known = {*_STATE, *(name for kind in ("past", "cross", "head") for name in _names(step, kind)), "allowed"}
    return [name for name in step.inputs if name not in known]


def _sizes(dimensions: Sequence[int | str]) -> tuple[int, ...]:
    if not all(isinstance(size, int) for size in dimensions):
        raise BundleError(f"the step graph leaves a size open that must be fixed: {dimensions}")
    return tuple(int(size) for size in dimensions)
