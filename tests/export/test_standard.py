"""Graphs of standard operators beside those of ONNX Runtime's own: the runtime cannot tell, nor can the caller."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from models.export.checkpoint import open_checkpoint
from models.export.graphs import save, trace
from models.export.parity import FP32_TOLERANCE, random_rows
from models.export.replay import forward, teacher_forced
from models.export.write import export
from models.nets.standard import to_standard
from models.seq2seq import Seq2Seq
from models.session import open_graph, open_session
from tests.export.exported import Exported, made
from tests.models.embedded import run


@pytest.fixture(params=["marian", "pointer-bart"])
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """A bundle with ONNX Runtime's own operators."""
    return exports(request.param)


def test_a_step_of_standard_operators_gives_the_same_logits_and_the_same_tokens(
    exported: Exported, tmp_path: Path
) -> None:
    bundle, manifest = exported.bundle, exported.bundle.manifest
    assert manifest.generation is not None
    _, checkpoint = open_checkpoint(exported.checkpoint)
    source = checkpoint.sources(manifest.limits)["step"]
    save({"step": trace(replace(source, module=to_standard(source.module)))}, tmp_path)
    signature = bundle.graphs("fp32").graphs["step"]
    assert (_domains(tmp_path / "step.onnx"), _domains(bundle.path(signature.file))) == ({""}, {"", "com.microsoft"})

    encoder, rows = open_session(bundle, "fp32", "encoder"), random_rows(checkpoint.vocabulary, manifest)
    steps = open_session(bundle, "fp32", "step"), open_graph(tmp_path / "step.onnx", signature)
    source_length, target_length = manifest.limits.max_tokens, manifest.limits.max_new_tokens
    models = (
        Seq2Seq(encoder, step, manifest.generation, slots=64, source_length=source_length, target_length=target_length)
        for step in steps
    )
    of_own, of_standard = (run(model, dict(enumerate(rows))).tokens for model in models)
    assert of_standard == of_own
    assert len({tuple(tokens) for tokens in of_own.values()}) > 1

    rng, longest = np.random.default_rng(2), manifest.limits.max_new_tokens
    targets = [rng.integers(0, checkpoint.vocabulary, longest - index) for index in range(len(rows))]
    encoded = forward(encoder, rows)
    own, standard = (teacher_forced(encoded, step, targets) for step in steps)
    for ours, theirs in zip(standard, own, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=FP32_TOLERANCE)


def test_a_bundle_of_standard_operators_holds_none_else_in_int8_too(tmp_path: Path) -> None:
    """Its attention has a bias; that its float32 graphs decode what the checkpoint does is part of every export."""
    folder, task, recipe = made("t5", tmp_path / "checkpoint")
    bundle, parities = export(folder, task, tmp_path / "bundle", recipe, precisions=("int8",), operators="standard")
    for graph in bundle.graphs("int8").graphs.values():
        assert _domains(bundle.path(graph.file)) == {""}
    assert "none but those of ONNX itself" in (bundle.folder / "README.md").read_text()
    assert 0 < parities[-1].relative_error < 0.1


def _domains(path: Path) -> set[str]:
    """Where the graph's operators come from; those of ONNX itself have no name."""
    return {node.domain for node in onnx_ir.load(path).graph}
