"""How likely given outputs are under an encoder-decoder: its own graphs, with the output given instead of chosen."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import GenerationDefaults
from models.packing import WIDTH_MULTIPLE, pack
from models.session import Binding, Session
from models.task import Array, Cost, Event, Row, RowId, Tokens

MOST_ROWS = 4
"""Rows of a step. Few, so that a step is short: an answer that arrives meanwhile shares the processor with it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Rows that are scored side by side, and what their steps read and write."""

    targets: Mapping[RowId, Tokens]
    state: Mapping[str, NDArray[Any]]
    logits: Array
    binding: Binding
    found: Mapping[RowId, list[float]]


class Scorer:
    """Scores rows of the purpose `score`, a group at a time: they start together and nobody joins them midway.

    Args:
        encoder: the graph that answers, see `models.seq2seq.Seq2Seq`.
        open_step: gives the graph of a step that scores the whole vocabulary; asked when first needed.
        budget_tokens: `room` lets one `admit` encode so many source tokens.
    """

    def __init__(
        self,
        encoder: Session,
        open_step: Callable[[], Session],
        generation: GenerationDefaults,
        *,
        budget_tokens: int = 128,
    ) -> None:
        self._encoder, self._open_step, self._generation = encoder, open_step, generation
        self._step: Session | None = None
        self._budget_tokens = budget_tokens
        self.padding_tokens = 0
        self._group: _Group | None = None
        self._left: set[RowId] = set()

    def cost(self, row: Row) -> Cost:
        """One slot, and the source's tokens."""
        return Cost(slots=1, tokens=len(row.tokens))

    def room(self) -> Cost:
        """Nothing while a group is being scored."""
        return Cost(slots=0 if self._left else MOST_ROWS, tokens=self._budget_tokens)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Encode the rows in one packed pass.

        Raises:
            ValueError: a row has no target, or others are being scored.
        """
        if self._left:
            raise ValueError("rows were admitted while others are being scored")
        targets = {id_: row.target for id_, row in rows.items() if row.target is not None and len(row.target)}
        if len(targets) < len(rows):
            raise ValueError("a row without a target came to be scored")
        if self._step is None:
            self._step = self._open_step()
        step = self._step
        packed = pack(list(rows.values()))
        encoded = {
            name: packed.split(array) for name, array in self._encoder.run(packed.feeds(self._encoder.inputs)).items()
        }
        sizes = {
            "rows": len(rows),
            "source_length": -(-max(len(row.tokens) for row in rows.values()) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE,
            "target_length": max(len(target) for target in targets.values()),
        }
        feeds: dict[str, NDArray[Any]] = {
            name: np.zeros([sizes[size] if isinstance(size, str) else size for size in spec.shape], spec.dtype)
            for name, spec in step.inputs.items()
        }
        keys_and_values = [name for name in feeds if name.startswith("cross_")]
        for index, row in enumerate(rows.values()):
            length = len(row.tokens)
            cross = encoded["cross"][index]
            feeds["source_lengths"][index], feeds["source_last"][index] = length, cross[-1]
            for layer, name in enumerate(keys_and_values):
                feeds[name][index, :, :length] = cross[:, layer].swapaxes(0, 1)
            for name in encoded.keys() & feeds.keys():
                feeds[name][index, :length] = encoded[name][index]
        feeds["source_total"][...] = feeds["source_lengths"].max()
        feeds["tokens"][:] = self._generation.decoder_start_token_id
        outputs: dict[str, NDArray[Any]] = {
            name: feeds[name.removeprefix("present_")]
            if name.startswith("present_")
            else np.zeros([sizes[size] if isinstance(size, str) else size for size in spec.shape], spec.dtype)
            for name, spec in step.outputs.items()
        }
        binding = step.bind(feeds, outputs)
        self._group = _Group(targets, feeds, outputs["logits"], binding, {id_: [] for id_ in rows})
        self._left = set(rows)

    def step(self) -> Sequence[Event]:
        """One position of every row; a row that has been read to its end brings `log_probabilities`."""
        group = self._group
        if group is None or not self._left:
            return []
        at = int(group.state["positions"][0])
        group.state["total"][...] = at + 1
        group.binding.run()
        group.state["positions"] += 1
        shifted = group.logits - group.logits.max(-1, keepdims=True)
        totals = np.log(np.exp(shifted).sum(-1))
        events = []
        for index, (id_, target) in enumerate(group.targets.items()):
            if at >= len(target):
                continue
            said = int(target[at])
            group.found[id_].append(float(shifted[index, said] - totals[index]))
            group.state["tokens"][index] = said
            ended = at + 1 == len(target)
            arrays = {"log_probabilities": np.array(group.found[id_], np.float32)} if ended else {}
            if id_ in self._left:
                events.append(Event(id_, arrays=arrays, finish="stop" if ended else None))
        self.drop([event.row for event in events if event.finish])
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Forget rows; their cells are computed on as long as others of the group are left."""
        self._left.difference_update(ids)
        if not self._left:
            self._group = None

    def reset(self) -> None:
        """Forget every row."""
        self._left.clear()
        self._group = None
