"""Checkpoints of our own SASRec: one padding-free graph that scores every item."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from models.bundle import Languages, Limits, Role
from models.export.graphs import Source, packed_source
from models.nets.families import next_item
from models.nets.sasrec import SasRec
from models.task import Row


class NextItem:
    """A checkpoint of our own SASRec."""

    tasks: ClassVar[tuple[str, ...]] = ("recommendation",)

    def __init__(self, model: SasRec) -> None:
        self.model = model

    @property
    def vocabulary(self) -> int:
        return self.model.config.num_items + 1

    def architecture(self) -> str:
        config = self.model.config
        return (
            f"causal self-attention (sasrec), {config.num_layers} layers, width {config.hidden_size},"
            f" {config.num_heads} heads, {config.num_items:,} items"
            + (f", mixed with {config.num_neighbours} neighbours of each item" if config.num_neighbours else "")
        )

    def limits(self) -> Limits:
        return Limits(max_tokens=self.model.config.max_length)

    def specialise(self, task: str, languages: Languages) -> None:
        """Nothing is generated."""

    def generation(self, _limits: Limits | None = None, /) -> None:
        return None

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        if limits.max_tokens > self.model.config.max_length:
            raise ValueError(f"the checkpoint has {self.model.config.max_length} positions, not {limits.max_tokens}")
        return {"forward": packed_source(next_item(self.model), {"scores": ("rows", self.model.config.num_items)})}

    def answer(self, row: Row) -> Mapping[str, NDArray[Any]]:
        """`scores`, float32 [items]."""
        with torch.inference_mode():
            return {"scores": self.model.next_scores(torch.from_numpy(row.tokens))[1:].numpy()}
