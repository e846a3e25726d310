"""Both precisions of each tiny checkpoint, exported once for all tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from models.bundle import Bundle, Precision
from models.export.parity import Parity
from models.export.recipe import Decoding
from models.export.write import export
from tests.export.checkpoints import FAMILIES, recipe


@dataclass(frozen=True)
class Exported:
    family: str
    checkpoint: Path
    bundle: Bundle
    parities: Mapping[Precision, Parity]
    reference: Path


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The exported checkpoint of a family, made when it is first asked for."""

    @cache
    def make(family: str) -> Exported:
        folder = tmp_path_factory.mktemp(family)
        task, write = FAMILIES[family]
        checkpoint, reference = write(folder / "checkpoint"), folder / "reference.npz"
        bundle, parities = export(
            checkpoint,
            task,
            folder / "bundle",
            recipe(task, generation=Decoding(no_repeat_ngram_size=3)) if task == "summarization" else recipe(task),
            precisions=("fp32", "int8"),
            reference=reference,
        )
        return Exported(family, checkpoint, bundle, {parity.precision: parity for parity in parities}, reference)

    return make
