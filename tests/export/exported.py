"""fp32 and int8 of each tiny checkpoint, exported once for all tests."""

from collections.abc import Callable, Mapping
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
        precisions: tuple[Precision, ...] = ("fp32",) if family in encoders.PADDED else ("fp32", "int8")
        bundle, parities = export(
            checkpoint, task, folder / "bundle", asked, precisions=precisions, reference=reference
        )
        return Exported(family, checkpoint, bundle, {parity.precision: parity for parity in parities}, reference)

    return make
