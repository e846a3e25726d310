"""Each tiny checkpoint, exported once for all tests: in float32, and in what else its kind of graph is tested in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle, Precision
from models.export.checkpoint import Checkpoint, open_checkpoint
from models.export.parity import Parity
from models.export.recipe import Decoding, Recipe
from models.export.write import export
from tests.export import encoders
from tests.export.checkpoints import FAMILIES, recipe
from tests.export.encoder_decoders import ENCODER_DECODERS, MULTILINGUAL

_CHANGES: Mapping[str, Mapping[str, Any]] = {"bart": {"generation": Decoding(no_repeat_ngram_size=3)}, **MULTILINGUAL}
"""What a family's recipe has that the others' do not."""

FP16 = ("marian", "pointer-bart", "t5", "bert", "sasrec", "electra", "deberta-v2")
"""Absolute positions, a pointer, a bias for distances; one text read whole, causal attention, a map between embeddings
and layers, disentangled attention: no other family has a part that these have not. `make parity` shows them all.
"""
INT8 = ("marian", "pointer-bart", "flan", "bert", "sasrec", "sasrec-neighbours", "albert", "deberta-v2")
"""The same, with gated networks in place of T5's first ones, and a table of neighbours."""


@dataclass(frozen=True)
class Exported:
    family: str
    checkpoint: Path
    bundle: Bundle
    parities: Mapping[Precision, Parity]
    reference: Path

    @property
    def original(self) -> Checkpoint:
        """The checkpoint, loaded anew."""
        return open_checkpoint(self.checkpoint)[1]


def made(family: str, folder: Path) -> tuple[Path, str, Recipe]:
    """A family's checkpoint, written to `folder`, with its task and recipe."""
    changes = _CHANGES.get(family, {})
    if family in FAMILIES:
        task, write = FAMILIES[family]
        return write(folder), task, recipe(task, **changes)
    if family in ENCODER_DECODERS:
        task, limits, write = ENCODER_DECODERS[family]
        return write(folder), task, recipe(task, limits=limits, **changes)
    return encoders.checkpoint(folder, family), "question-answering", encoders.recipe(family)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The exported checkpoint of a family, made when it is first asked for."""

    @cache
    def make(family: str) -> Exported:
        folder = tmp_path_factory.mktemp(family)
        reference = folder / "reference.npz"
        checkpoint, task, asked = made(family, folder / "checkpoint")
        asked_for: Sequence[tuple[Precision, Sequence[str]]] = (("int8", INT8), ("fp16", FP16))
        precisions = ("fp32", *(precision for precision, families in asked_for if family in families))
        bundle, parities = export(
            checkpoint, task, folder / "bundle", asked, precisions=precisions, reference=reference
        )
        return Exported(family, checkpoint, bundle, {parity.precision: parity for parity in parities}, reference)

    return make
