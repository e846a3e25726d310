import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import MANIFEST, sha256_of
from models.encoder import Encoder
from models.errors import BundleError
from models.load import load, preferred
from models.seq2seq import Seq2Seq
from models.task import Cost
from models.tasks.recommendation import Recommendation
from models.tasks.translation import Translation
from tests.models.embedded import RECOMMENDATION, TRANSLATION


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a bundle whose manifest says something else."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / MANIFEST).read_text())
    change(manifest)
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


def test_a_bundle_is_loaded_with_its_task_and_its_kind_of_model() -> None:
    generating, scoring = load(TRANSLATION, slots=4), load(RECOMMENDATION, slots=6)
    assert isinstance(generating.task, Translation)
    assert isinstance(generating.model, Seq2Seq)
    assert generating.model.room() == Cost(4, 512)
    assert isinstance(scoring.task, Recommendation)
    assert isinstance(scoring.model, Encoder)
    assert scoring.model.room() == Cost(6, 512)
    assert (generating.precision, scoring.precision) == ("int8", "int8")
    assert scoring.bundle.manifest.task == "recommendation"


@pytest.mark.parametrize(("provider", "fastest"), [("CPUExecutionProvider", "int8"), ("CUDAExecutionProvider", "fp16")])
def test_what_is_fastest_here_is_preferred_where_it_is_carried(
    monkeypatch: pytest.MonkeyPatch, provider: str, fastest: str
) -> None:
    monkeypatch.setattr("models.load.provider", lambda: provider)
    assert preferred(["fp32", "fp16", "int8"]) == fastest
    assert preferred(["fp32"]) == "fp32"


def test_a_precision_that_is_not_carried_is_refused() -> None:
    with pytest.raises(BundleError, match="no fp16 graphs, the bundle carries int8"):
        load(RECOMMENDATION, precision="fp16")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "divination", "task 'divination' is unknown, this release has .*translation"),
        ("generation", None, "a model with a step graph needs the field generation"),
    ],
)
def test_a_manifest_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, field: str, value: str | None, message: str
) -> None:
    folder = changed(TRANSLATION, tmp_path / "bundle", lambda manifest: manifest.update({field: value}))
    with pytest.raises(BundleError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (lambda items: items[:-1], "must list the 3145 items that its model scores, got 3144"),
        (lambda items: [*items, {"item": "more", "title": "More"}], "3145 items that its model scores, got 3146"),
        (lambda items: [*items[:-1], items[0]], "each item may stand in a catalogue once, .* stands there 2 times"),
    ],
)
def test_a_catalogue_that_is_not_the_models_is_refused(
    tmp_path: Path, entries: Callable[[list[Any]], list[Any]], message: str
) -> None:
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_text(json.dumps(entries(json.loads((RECOMMENDATION / "catalogue.json").read_text()))))
    described = {"sha256": sha256_of(catalogue), "bytes": catalogue.stat().st_size}
    folder = changed(RECOMMENDATION, tmp_path / "bundle", lambda manifest: manifest["catalogue"].update(described))
    shutil.copyfile(catalogue, folder / "catalogue.json")
    with pytest.raises(BundleError, match=message):
        load(folder)


def test_graphs_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    def without_step(manifest: dict[str, Any]) -> None:
        del manifest["precisions"]["int8"]["graphs"]["step"]

    folder = changed(TRANSLATION, tmp_path / "bundle", without_step)
    with pytest.raises(BundleError, match="graphs must be encoder and step, or forward alone"):
        load(folder)


def test_beams_are_limited_by_the_slots(tmp_path: Path) -> None:
    assert load(TRANSLATION, slots=32).bundle.manifest.limits.max_beams == 8
    assert load(TRANSLATION, slots=3).bundle.manifest.limits.max_beams == 3
    folder = changed(TRANSLATION, tmp_path / "bundle", lambda manifest: manifest["generation"].update(num_beams=4))
    assert load(folder, slots=4).bundle.manifest.limits.max_beams == 4
    with pytest.raises(BundleError, match="decodes with 4 beams, which need as many slots, got 3"):
        load(folder, slots=3)
