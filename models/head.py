"""The output layer of running rows: the whole vocabulary, or the words that their sources make likely."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.beams import BeamSearch
from models.bundle import GenerationDefaults
from models.decoding import Decoder, Logits, SequenceDecoder
from models.errors import BundleError
from models.moves import Moves
from models.session import Place, Session
from models.shortlist import Renumbered, Shortlist, needed_tokens
from models.task import Array, Generation, Row, Tokens

_MULTIPLE = 512
"""Columns are computed in such portions: a binding is made for a number of rows and of columns, and kept."""


class Head(Protocol):
    """What follows a decoder step: for each slot the likeliest token, and logits for whoever reads them."""

    @property
    def layout(self) -> int:
        """Changes when the arrays of `inputs` and `outputs` do: what was bound before is stale then."""
        ...

    def enter(self, row: Row, generation: Generation, slots: range) -> Decoder:
        """A row takes these slots; how it decodes what `likeliest` and `logits` give."""
        ...

    def move(self, source: int, slot: int) -> None:
        """What stands in one slot goes on in another, whose row has left."""
        ...

    def leave(self, decoder: Decoder) -> None:
        """A row has ended."""
        ...

    def clear(self) -> None:
        """All rows have ended."""
        ...

    def inputs(self, count: int) -> Mapping[str, NDArray[Any]]:
        """What the step graph reads for the first `count` slots, beside what it reads with any head."""
        ...

    def outputs(self, count: int) -> Mapping[str, Place]:
        """Where the step graph writes for the first `count` slots."""
        ...

    def read(self, count: int) -> tuple[list[int], Logits]:
        """For each slot its likeliest token, and logits, in the numbering of the row's decoder."""
        ...


def decoder_of(generation: Generation, defaults: GenerationDefaults) -> Decoder:
    """What decodes a row."""
    return (BeamSearch if generation.num_beams > 1 else SequenceDecoder)(generation, defaults)


class WholeHead:
    """Every row chooses from the whole vocabulary; the likeliest is the graph's `next`, where it has that output."""

    layout = 0

    def __init__(self, step: Session, defaults: GenerationDefaults, slots: int) -> None:
        self._defaults = defaults
        self._next = np.zeros(slots, np.int64)
        self._tells_next = "next" in step.outputs
        self._logits = np.zeros((slots, _vocabulary(step)), np.float32)

    def enter(self, _row: Row, generation: Generation, _slots: range) -> Decoder:
        return decoder_of(generation, self._defaults)

    def move(self, source: int, slot: int) -> None:
        """Nothing is kept from one step to the next."""

    def leave(self, decoder: Decoder) -> None:
        """Nothing was kept."""

    def clear(self) -> None:
        """Nothing was kept."""

    def inputs(self, _count: int) -> Mapping[str, NDArray[Any]]:
        return {}

    def outputs(self, count: int) -> Mapping[str, Place]:
        """Logits are always bound: the graph computes them anyway, and where it writes them makes no difference."""
        likeliest = {"next": self._next[:count]} if self._tells_next else {}
        return {**likeliest, "logits": self._logits[:count]}

    def read(self, count: int) -> tuple[list[int], Logits]:
        likeliest = self._next[:count] if self._tells_next else self._logits[:count].argmax(1)
        return likeliest.tolist(), self._logits


class DeviceHead(WholeHead):
    """As `WholeHead`, but logits stay on the device: a row that does not take the likeliest token fetches its own."""

    def __init__(self, step: Session, defaults: GenerationDefaults, slots: int) -> None:
        super().__init__(step, defaults, slots)
        self._resident = step.resident(self._logits.shape, self._logits.dtype)
        self._moves = Moves()

    def outputs(self, count: int) -> Mapping[str, Place]:
        logits = self._resident.part(0, (count, *self._resident.shape[1:]))
        return {"next": self._next[:count], "logits": logits}

    def read(self, count: int) -> tuple[list[int], Logits]:
        return self._next[:count].tolist(), self

    def __getitem__(self, slots: Sequence[int]) -> Array:
        """Logits of one row's slots, float32 [slots, vocabulary]."""
        return self._moves.pick(self._resident, slots)


class ShortHead:
    """Rows choose from their candidates; what is computed is the union of those, in columns, in any order.

    A column holds a word with its weights for as long as a running row has it among its candidates, and on until
    another word needs the place. Each slot is masked to its own row's candidates, and a row's decoder sees these alone,
    in their own order: no answer depends on which other columns there are.

    Memory: a column has the word's weights, and 12 bytes for each slot. For 58,101 words of width 512 in int8 and 32
    slots 52 MB at most, of which the operating system gives only what has been touched.

    Args:
        step: the graph of a decoder step whose output layer is read from `head_weight` [words, ...], further inputs
            `head_...` and `allowed` float32 [rows, words], which is added to the logits; `next` int64 [rows, 2] are the
            columns of the two largest.
        words: the graph from `words` int64 [n] to `head_bias` float32 [n] and what the step graph reads of each word.
        shortlist: which words are candidates.

    Raises:
        BundleError: the two graphs do not fit each other.
    """

    def __init__(
        self, step: Session, words: Session, shortlist: Shortlist, defaults: GenerationDefaults, slots: int
    ) -> None:
        self._words, self._shortlist, self._defaults = words, shortlist, defaults
        vocabulary = shortlist.vocabulary
        heads = [name for name in step.inputs if name.startswith("head_")]
        if missing := {*heads, "head_bias"} - words.outputs.keys():
            raise BundleError(f"the graph of words has no output {', '.join(sorted(missing))}")
        self._heads = {name: _table(vocabulary, step, name) for name in heads}
        self._bias = np.zeros(vocabulary, np.float32)
        self._next = np.zeros((slots, 2), np.int64)
        self._slots = slots
        self._logits, self._allowed = (np.zeros(slots * vocabulary, np.float32) for _ in range(2))
        self._places = np.zeros((slots, vocabulary), np.int32)
        self._column_of = np.full(vocabulary, -1, np.int64)
        self._word_in = np.full(vocabulary, -1, np.int64)
        self._holders = np.zeros(vocabulary, np.int32)
        self._entered: dict[Decoder, NDArray[np.int64]] = {}
        self._row_in: list[Decoder | None] = [None] * slots
        self.layout = 0
        self._columns = 0
        self._holders[self._columns_of(shortlist.frequent)] += 1

    def enter(self, row: Row, generation: Generation, slots: range) -> Decoder:
        """Its candidates get columns; weights are gathered for those that are not held yet."""
        candidates = self._shortlist.candidates(row.tokens, needed_tokens(generation, self._defaults))
        columns = self._columns_of(candidates)
        decoder = Renumbered(decoder_of, generation, self._defaults, candidates)
        self._holders[columns] += 1
        self._entered[decoder] = columns
        for slot in slots:
            self._row_in[slot] = decoder
            self._mask(slot, columns)
        return decoder

    def move(self, source: int, slot: int) -> None:
        self._row_in[slot] = self._row_in[source]
        allowed = self._wide(self._allowed)
        allowed[slot] = allowed[source]
        self._places[slot, : self._columns] = self._places[source, : self._columns]

    def leave(self, decoder: Decoder) -> None:
        self._holders[self._entered.pop(decoder)] -= 1

    def clear(self) -> None:
        for decoder in list(self._entered):
            self.leave(decoder)

    def inputs(self, count: int) -> Mapping[str, NDArray[Any]]:
        heads = {name: array[: self._columns] for name, array in self._heads.items()}
        return heads | {"allowed": self._wide(self._allowed)[:count]}

    def outputs(self, count: int) -> Mapping[str, NDArray[Any]]:
        return {"next": self._next[:count], "logits": self._wide(self._logits)[:count]}

    def read(self, count: int) -> tuple[list[int], Logits]:
        """Among equals the likeliest is the word with the lowest id, wherever its column is."""
        slots, columns = np.arange(count), self._next[:count]
        places = self._places[slots, columns[:, 0]].tolist()
        best = self._wide(self._logits)[slots[:, None], columns]
        for slot in np.flatnonzero(best[:, 0] == best[:, 1]).tolist():
            places[slot] = int(self[[slot]].argmax())
        return places, self

    def __getitem__(self, slots: Sequence[int]) -> Array:
        """Logits of one row's slots, float32 [slots, candidates]."""
        decoder = self._row_in[slots[0]]
        if decoder is None:
            raise ValueError(f"no row stands in slot {slots[0]}")
        return np.take(self._wide(self._logits)[slots], self._entered[decoder], 1)

    def _wide(self, flat: Array) -> Array:
        """A buffer as [slots, columns]: rows stand side by side in memory, as a binding wants them."""
        return flat[: self._slots * self._columns].reshape(self._slots, self._columns)

    def _columns_of(self, words: Tokens) -> NDArray[np.int64]:
        """The columns of these words, each once; those that have none take some that no running row needs."""
        columns = self._column_of[words]
        held = columns[columns >= 0]
        live = int(np.count_nonzero(self._holders)) + len(words) - int(np.count_nonzero(self._holders[held]))
        fitting = min(-(-live // _MULTIPLE) * _MULTIPLE, len(self._word_in))
        if fitting > self._columns or 2 * fitting <= self._columns:
            self._lay_out(fitting)
            columns = self._column_of[words]
        absent = np.flatnonzero(columns < 0)
        if len(absent):
            is_free = self._holders[: self._columns] == 0
            is_free[columns[columns >= 0]] = False
            columns[absent] = taken = np.flatnonzero(is_free)[: len(absent)]
            self._gather(words[absent], taken)
        return columns

    def _gather(self, words: Tokens, columns: NDArray[np.int64]) -> None:
        """Put these words and their weights into these columns, in place of what was there."""
        gathered = self._words.run({"words": words})
        evicted = self._word_in[columns]
        self._column_of[evicted[evicted >= 0]] = -1
        self._word_in[columns], self._column_of[words] = words, columns
        self._bias[columns] = gathered["head_bias"]
        for name, array in self._heads.items():
            array[columns] = gathered[name]

    def _lay_out(self, columns: int) -> None:
        """Compute so many columns from now on, the ones that running rows need in front."""
        kept = np.flatnonzero(self._holders)
        count = len(kept)
        allowed = self._wide(self._allowed)[:, kept]
        self._columns = columns
        self.layout += 1
        wide = self._wide(self._allowed)
        wide[:, :count], wide[:, count:] = allowed, -np.inf
        self._places[:, :count] = self._places[:, kept]
        arrays: list[NDArray[Any]] = [self._word_in, self._holders, self._bias, *self._heads.values()]
        for array in arrays:
            array[:count] = array[kept]
        self._word_in[count:], self._holders[count:], self._column_of[:] = -1, 0, -1
        self._column_of[self._word_in[:count]] = moved = np.arange(count)
        now_at = np.zeros(len(self._holders), np.int64)
        now_at[kept] = moved
        self._entered = {decoder: now_at[held] for decoder, held in self._entered.items()}

    def _mask(self, slot: int, columns: NDArray[np.int64]) -> None:
        """Let this slot choose among these columns alone, numbered as they come."""
        allowed = self._wide(self._allowed)[slot]
        allowed[:] = -np.inf
        allowed[columns] = self._bias[columns]
        self._places[slot, columns] = np.arange(len(columns))


def _table(vocabulary: int, step: Session, name: str) -> NDArray[Any]:
    """Zeros for each word of what the step graph reads of it."""
    spec = step.inputs[name]
    if not all(isinstance(size, int) for size in spec.shape[1:]):
        raise BundleError(f"the step graph leaves a size open that must be fixed: {name} {spec.shape}")
    return np.zeros((vocabulary, *(int(size) for size in spec.shape[1:])), spec.dtype)


def _vocabulary(step: Session) -> int:
    size = step.outputs["logits"].shape[1]
    if not isinstance(size, int):
        raise BundleError(f"the step graph leaves a size open that must be fixed: logits {size}")
    return size
