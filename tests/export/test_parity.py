"""What counts as the same numbers: rounding grows with the logits, and a mistake is none."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.bundle import Limits
from models.export.errors import ExportError
from models.export.parity import FP32_TOLERANCE
from models.export.write import export
from models.nets import t5 as family
from models.nets.layers import DistanceBias
from tests.export.checkpoints import recipe
from tests.export.encoder_decoders import flan


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLAN whose logits are a hundred times as large."""
    folder = flan(tmp_path_factory.mktemp("loud") / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 100
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


exported = partial(export, task="translation", precisions=("fp32",))
RECIPE = recipe("translation", limits=Limits(max_tokens=40, max_new_tokens=16))


def test_large_logits_may_differ_by_as_much_more(loud: Path, tmp_path: Path) -> None:
    _, (parity,) = exported(loud, out=tmp_path / "bundle", recipe=RECIPE)
    assert parity.largest_difference > FP32_TOLERANCE > 10 * parity.scaled_difference


def test_a_mistake_shows_beside_large_logits_too(loud: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the bias of every distance is that of its neighbour."""
    right = family._distance_bias

    def wrong(stack: Any) -> DistanceBias:
        return DistanceBias(torch.roll(right(stack).values, 1, 1))

    monkeypatch.setattr(family, "_distance_bias", wrong)
    with pytest.raises(ExportError, match=r"differ from the checkpoint by .* of the largest beside one, at most 1e-04"):
        exported(loud, out=tmp_path / "bundle", recipe=RECIPE)
