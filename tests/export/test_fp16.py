"""float16 graphs of each kind of attention: near the checkpoint, half the size, and answering on a CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, Graphs
from models.errors import BundleError
from models.export.sample import TOLERANCE, check_sample
from models.load import load
from models.offline import answer_all
from models.session import open_session
from tests.export.exported import FP16, Exported

Export = Callable[[str], Bundle]


@pytest.fixture
def exported(exports: Callable[[str], Exported]) -> Export:
    """A bundle of one kind with float16 and float32 graphs."""
    return lambda kind: exports(kind).bundle


@pytest.mark.parametrize("kind", FP16)
def test_it_answers_on_a_cpu_and_stays_near_the_checkpoint(exported: Export, kind: str) -> None:
    bundle = exported(kind)
    found = check_sample(bundle, "fp16")
    assert found is not None
    assert 1e-5 < found.relative_error < TOLERANCE["fp16"]
    answers: list[Any] = []
    for precision in ("fp16", "fp32"):
        loaded = load(bundle.folder, precision=precision)
        answers += answer_all(loaded, [loaded.task.request_type.model_validate(bundle.manifest.example)])
    assert all(answers)


@pytest.mark.parametrize("kind", FP16)
def test_caches_are_halved_and_logits_are_not(exported: Export, kind: str) -> None:
    bundle = exported(kind)
    for role in bundle.graphs("fp16").graphs:
        session = open_session(bundle, "fp16", role)
        for name, spec in {**session.inputs, **session.outputs}.items():
            cached = name.removeprefix("present_").startswith(("past_", "cross", "source_last"))
            if cached:
                assert spec.dtype == np.float16, name
            elif name.endswith(("logits", "scores")):
                assert spec.dtype == np.float32, name


@pytest.mark.parametrize(("kind", "part"), [("marian", 0.6), ("bert", 0.6), ("t5", 0.75)])
def test_weights_are_halved_but_for_those_that_leave_the_range_of_float16(
    exported: Export, kind: str, part: float
) -> None:
    """Tiny models are in good part alignment; a layer of T5 keeps its last map."""
    precisions = exported(kind).manifest.precisions
    assert _bytes(precisions["fp16"]) < part * _bytes(precisions["fp32"])


def test_graphs_that_are_further_away_than_float16_explains_are_refused(
    exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported("bert")
    monkeypatch.setattr("models.export.sample.TOLERANCE", {"fp16": 1e-6})
    with pytest.raises(BundleError, match=r"at most 1\.0e-06 is allowed"):
        check_sample(bundle, "fp16")


def _bytes(graphs: Graphs) -> int:
    assert graphs.weights is not None
    return graphs.weights.bytes
