"""Checkpoints with a question answering head: padding-free graphs where the family has them, padded ones elsewhere."""

from collections.abc import Mapping
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.bundle import Languages, Limits, Role
from models.export.graphs import Dims, Source, packed_source, padded_source
from models.nets.encoders import question_answering
from models.nets.layers import Unsupported
from models.nets.padded import PaddedSpanScorer
from models.task import Row

LONGEST_PADDED = 512
"""Tokens of a window where the recipe does not say: models that could read more are rarely tuned on longer ones."""


class SpanScoring:
    """Any checkpoint that `AutoModelForQuestionAnswering` loads.

    Raises:
        ValueError: the head does not give one start and one end logit.
    """

    tasks: ClassVar[tuple[str, ...]] = ("question-answering",)

    def __init__(self, model: Any) -> None:
        if model.config.num_labels != 2:
            raise ValueError(f"num_labels must be 2, a start and an end logit, got {model.config.num_labels}")
        self.model = model
        self._segments = _takes_segments(model)

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)

    def architecture(self) -> str:
        config = self.model.config
        return (
            f"encoder ({config.model_type}), {config.num_hidden_layers} layers, width {config.hidden_size},"
            f" {config.num_attention_heads} heads, vocabulary {config.vocab_size:,}"
        )

    def limits(self) -> Limits:
        return Limits(max_tokens=min(self._positions(), LONGEST_PADDED))

    def specialise(self, task: str, languages: Languages) -> None:
        """Nothing is generated."""

    def generation(self, _limits: Limits | None = None, /) -> None:
        return None

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        if limits.max_tokens > self._positions():
            raise ValueError(f"the checkpoint has {self._positions()} positions, {limits.max_tokens} were asked for")
        try:
            packed = question_answering(self.model, length=limits.max_tokens)
        except Unsupported:
            scorer, outputs = PaddedSpanScorer(self.model).eval(), self._outputs("rows", "width")
            try:
                masked = not scorer.reads_padding()
            except Exception as error:  # transformers and torch each raise their own
                raise ValueError(f"this checkpoint cannot run padded rows: {error!r}".splitlines()[0]) from error
            return {"forward": padded_source(scorer, outputs, segments=self._segments, masked=masked)}
        return {"forward": packed_source(packed, self._outputs("tokens"), segments=self._segments)}

    def answer(self, row: Row) -> Mapping[str, NDArray[Any]]:
        """`start_logits` and `end_logits`, float32 [length]."""
        given = {"input_ids": torch.from_numpy(row.tokens)[None]}
        if self._segments:
            segments = np.zeros_like(row.tokens) if row.segments is None else row.segments
            given["token_type_ids"] = torch.from_numpy(segments)[None]
        with torch.inference_mode():
            found = self.model(**given)
        return {name: found[name][0].numpy() for name in self._outputs()}

    def _positions(self) -> int:
        """How long a row may be; XLNet, which knows distances alone, says that it has -1 positions."""
        most = int(getattr(self.model.config, "max_position_embeddings", -1))
        return most - _first_position(self.model) if most > 0 else LONGEST_PADDED

    def _outputs(self, *dims: str) -> dict[str, Dims]:
        return {"start_logits": dims, "end_logits": dims}


def _first_position(model: Any) -> int:
    """0, or behind that of padding in RoBERTa and its descendants."""
    tables = [
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.Embedding) and name.endswith("position_embeddings")
    ]
    return max((part.padding_idx + 1 for part in tables if part.padding_idx is not None), default=0)


def _takes_segments(model: Any) -> bool:
    """Whether the checkpoint's tokenizer would tell question from context by segments; RoBERTa's never does."""
    if "token_type_ids" not in signature(model.forward).parameters or _first_position(model):
        return False
    return model.config.model_type == "xlnet" or getattr(model.config, "type_vocab_size", 0) > 1
