"""Checkpoints of each family through the whole exporter: exact in float32, independent of neighbours in int8."""

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import GenerationDefaults, open_bundle
from models.export.__main__ import main
from models.export.errors import ExportError
from models.export.graphs import Source, trace
from models.export.parity import FP32_TOLERANCE, Parity, answers, compare, random_rows, require_parity
from models.export.reference import load_reference
from models.export.replay import replay
from models.export.write import export
from tests.export.checkpoints import FAMILIES, recipe, sasrec
from tests.export.exported import INT8, Exported


@pytest.fixture(params=FAMILIES)
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """One family, in what it is tested in."""
    return exports(request.param)


in_int8 = pytest.mark.parametrize("exported", [family for family in FAMILIES if family in INT8], indirect=True)


def test_float32_graphs_compute_and_decode_what_the_checkpoint_does(exported: Exported) -> None:
    parity = exported.parities["fp32"]
    assert parity.largest_difference <= FP32_TOLERANCE
    assert parity.agreement == 1.0
    assert (parity.greedy, parity.beams) == ((1.0, 1.0) if exported.family in {"marian", "bart"} else (None, None))


@in_int8
def test_int8_graphs_give_a_row_the_same_bits_alone_and_in_a_crowd(exported: Exported) -> None:
    checkpoint = exported.original
    rows = random_rows(checkpoint.vocabulary, exported.bundle.manifest)
    targets = [answer.get("target") for answer in answers(checkpoint, rows)]
    together = replay(exported.bundle, "int8", rows, targets)
    for row, target, crowd in zip(rows, targets, together, strict=True):
        (alone,) = replay(exported.bundle, "int8", [row], [target])
        assert alone.keys() == crowd.keys()
        assert all(np.array_equal(alone[name], crowd[name]) for name in alone)


@in_int8
def test_int8_graphs_hold_int8_weights_and_stay_near(exported: Exported) -> None:
    """Random weights quantize worst of all; on trained ones the error is a tenth of this."""
    sizes = {
        name: graphs.weights.bytes for name, graphs in exported.bundle.manifest.precisions.items() if graphs.weights
    }
    assert sizes["int8"] < 0.5 * sizes["fp32"]
    assert 0 < exported.parities["int8"].relative_error < 0.2


def test_tied_weights_are_stored_once(exported: Exported) -> None:
    graphs = exported.bundle.manifest.precisions["fp32"]
    assert graphs.weights is not None
    checkpoint = exported.original
    padding = 64 * len(list(checkpoint.model.parameters()))
    assert graphs.weights.bytes <= 4 * exported.bundle.manifest.parameters + padding


def test_the_manifest_says_what_checkpoint_and_recipe_say(exported: Exported) -> None:
    manifest = exported.bundle.manifest
    task, _ = FAMILIES[exported.family]
    family = exported.family.removesuffix("-neighbours")
    assert (manifest.family, manifest.task, manifest.name) == (family, task, f"tiny-{task}")
    checkpoint = exported.original
    assert manifest.parameters == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert (manifest.tokenizer is None) == (family == "sasrec")
    assert (manifest.catalogue is None) == (family != "sasrec")
    shared = {"decoder_start_token_id": 0, "eos_token_id": 1, "forced_eos_token_id": 1}
    assert manifest.generation == {
        "marian": GenerationDefaults(
            **shared,
            suppressed_token_ids=(0,),
            bad_words=((7, 8),),
            max_new_tokens=16,
            num_beams=3,
            renormalize_logits=True,
        ),
        "bart": GenerationDefaults(
            **shared,
            forced_bos_token_id=5,
            max_new_tokens=11,
            min_new_tokens=3,
            repetition_penalty=1.3,
            no_repeat_ngram_size=3,
            num_beams=4,
            length_penalty=2.0,
            early_stopping=True,
        ),
    }.get(exported.family)


def test_the_card_shows_parity_and_size(exported: Exported) -> None:
    card = (exported.bundle.folder / "README.md").read_text()
    assert all(f"{parity.largest_difference:.1e}" in card for parity in exported.parities.values())
    assert f"{exported.bundle.manifest.parameters:,}" in card


def test_references_are_the_checkpoints_own_answers(exported: Exported) -> None:
    rows, expected = load_reference(exported.reference)
    found = replay(exported.bundle, "fp32", rows, [answer.get("target") for answer in expected])
    for ours, theirs in zip(found, expected, strict=True):
        for name, array in ours.items():
            kept = np.take_along_axis(array, theirs["logits_ids"], -1) if name == "logits" else array
            np.testing.assert_allclose(kept, theirs[name], atol=FP32_TOLERANCE)


def test_a_traced_graph_is_all_that_holds_its_weights() -> None:
    """The optimizer's rules would keep those of the last graph that they saw, and so a second model in memory."""
    module = torch.nn.Linear(64, 64)
    held = weakref.ref(module.weight)
    source = Source(module, {"input": torch.zeros(3, 64)}, {"input": ("rows", 64)}, {"output": ("rows", 64)})
    graph = trace(source)
    del module, source
    gc.collect()
    assert held() is not None
    del graph
    gc.collect()
    assert held() is None


def test_parity_notices_other_weights(exported: Exported) -> None:
    checkpoint = exported.original
    rows = random_rows(checkpoint.vocabulary, exported.bundle.manifest)
    expected = answers(checkpoint, rows)
    name = next(name for name in ("logits", "start_logits", "scores") if name in expected[0])
    wrong = [{**answer, name: answer[name] + 0.001 * max(1, np.abs(answer[name]).max())} for answer in expected]
    parity = compare(exported.bundle, "fp32", rows, wrong)
    assert parity.largest_difference >= parity.scaled_difference > 0.0009
    with pytest.raises(ExportError, match=r"differ from the checkpoint by \d\.\de-0"):
        require_parity(parity)


def test_other_tokens_than_the_checkpoints_are_refused() -> None:
    none: dict[str, float] = dict.fromkeys(("largest_difference", "scaled_difference", "relative_error"), 0.0)
    same = Parity("fp32", **none, agreement=1.0, greedy=1.0, beams=1.0)
    require_parity(same)
    with pytest.raises(ExportError, match="25% of the rows decode greedily to other tokens"):
        require_parity(replace(same, greedy=0.75))
    with pytest.raises(ExportError, match="50% of the rows decode with beams to other tokens"):
        require_parity(replace(same, beams=0.5))


@pytest.fixture
def shop(exports: Callable[[str], Exported], tmp_path: Path) -> Exported:
    """A bundle of one's own, and the checkpoint beside it."""
    made = exports("sasrec")
    shutil.copytree(made.checkpoint, tmp_path / "checkpoint")
    shutil.copytree(made.bundle.folder, tmp_path / "bundle")
    return replace(made, checkpoint=tmp_path / "checkpoint", bundle=open_bundle(tmp_path / "bundle"))


def test_a_bundle_is_replaced_whole_and_equal_checkpoints_give_equal_bytes(tmp_path: Path, shop: Exported) -> None:
    out = shop.bundle.folder
    asked = recipe("recommendation", version="2")
    second, _ = export(shop.checkpoint, "recommendation", out, asked, precisions=("fp32",), replace_bundle=True)
    first = shop.bundle
    assert (first.manifest.version, second.manifest.version) == ("1", "2")
    assert second.manifest.precisions == {"fp32": first.manifest.precisions["fp32"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "checkpoint"]
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "bundle.json",
        "catalogue.json",
        "parity.npz",
        "fp32/forward.onnx",
        "fp32/weights.bin",
    }


def test_a_failed_export_leaves_everything_as_it_was(
    tmp_path: Path, shop: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure comes late: graphs are there, but compute something else than the checkpoint."""
    out, asked = shop.bundle.folder, recipe("recommendation", version="2")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("models.nets.packed.MASKED", 0.0)
    with pytest.raises(ExportError, match="the fp32 graphs differ from the checkpoint"):
        export(shop.checkpoint, "recommendation", out, asked, precisions=("fp32",), replace_bundle=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "checkpoint"]


def test_a_recipe_with_a_request_that_the_task_does_not_take_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("models.export.precisions.trace")
    broken = recipe("recommendation", example={"inputs": {"history": ["item 999"]}})
    with pytest.raises(ExportError, match=r"the recipe's request .*item 999.* is not one of recommendation"):
        export(sasrec(tmp_path / "checkpoint"), "recommendation", tmp_path / "bundle", broken)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(ExportError, match="precious exists and is no bundle"):
        export(tmp_path, "recommendation", tmp_path / "precious", recipe("recommendation"))


def test_the_command_writes_a_bundle_and_says_how_near_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(
        'name = "shop"\nsource = "here"\nlicence = "CC0-1.0"\nlanguages = { source = [] }\n'
        'example = { inputs = { history = ["item 1"] } }\n'
    )
    checkpoint = sasrec(tmp_path / "checkpoint")
    arguments = [str(checkpoint), "--task", "recommendation", "--recipe", str(tmp_path / "recipe.toml")]
    main([*arguments, "--precision", "fp32", "--out", str(tmp_path / "bundle")])
    said = capsys.readouterr().err
    assert "shop 1" in said
    assert "fp32: largest difference" in said
    shutil.rmtree(checkpoint)
    with pytest.raises(SystemExit, match=r"^error: .*no checkpoint, config\.json with a model_type is needed"):
        main([*arguments, "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
