"""What a recipe says anew comes into card and manifest without another export, or is refused in a sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Languages, Limits, read_manifest
from models.export.describe import describe_bundle, main
from models.export.errors import ExportError
from models.export.recipe import Decoding, read_recipe
from models.export.write import export
from tests.export.checkpoints import recipe, sasrec
from tests.export.exported import Exported
from tests.models.embedded import BUNDLES

RECIPES = BUNDLES.parent / "export" / "recipes"


def test_words_and_quality_change_without_another_export(tmp_path: Path) -> None:
    checkpoint, out = sasrec(tmp_path / "checkpoint"), tmp_path / "bundle"
    export(checkpoint, "recommendation", out, recipe("recommendation"), precisions=("fp32",))
    described = tmp_path / "described"
    shutil.copytree(out, described)
    changed = recipe(
        "recommendation",
        source="a shop | its cellar",
        licence="MIT",
        languages=Languages(source=("de", "en")),
        quality=[{"metric": "HR@10", "value": 0.5, "dataset": "a shop", "command": "measure"}],
        card={
            "summary": "Recommends.\n\nIt says why.",
            "data": "Ours.\n\n## How it was gathered\n\nBy hand.",
            "failures": "It fails.",
            "comparison": "Markov .4",
        },
    )
    for asked in (changed, recipe("recommendation", card={"data": ""}), changed):
        describe_bundle(described, asked)
        export(checkpoint, "recommendation", out, asked, precisions=("fp32",), replace_bundle=True)
        assert (described / "README.md").read_text() == (out / "README.md").read_text()
        assert (described / "bundle.json").read_bytes() == (out / "bundle.json").read_bytes()
    with pytest.raises(ExportError, match="holds tiny-recommendation 1, the recipe is of tiny-recommendation 2"):
        describe_bundle(described, recipe("recommendation", version="2"))


@pytest.mark.parametrize("name", [path.name for path in sorted(RECIPES.glob("*.toml"))])
def test_the_embedded_cards_are_what_their_recipes_say(tmp_path: Path, name: str) -> None:
    asked = read_recipe(RECIPES / name)
    (folder,) = (path.parent for path in BUNDLES.glob("*/bundle.json") if read_manifest(path.parent).name == asked.name)
    described = tmp_path / "described"
    shutil.copytree(folder, described)
    describe_bundle(described, asked)
    assert (described / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    assert read_manifest(described) == read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"languages": Languages(source=("de",), target=("fr",))}, "languages"),
        ({"limits": Limits(max_tokens=41, max_new_tokens=16)}, "limits"),
        ({"generation": Decoding(num_beams=2), "example": {"inputs": "the mat"}}, "generation and example"),
    ],
)
def test_what_only_an_export_can_change_is_refused(
    exports: Callable[[str], Exported], changes: dict[str, Any], fields: str
) -> None:
    folder = exports("marian").bundle.folder
    before = (folder / "README.md").read_bytes()
    with pytest.raises(ExportError, match=f"was exported with other {fields} than the recipe's: export it anew"):
        describe_bundle(folder, recipe("translation", card={"summary": "New."}, **changes))
    assert (folder / "README.md").read_bytes() == before


def test_a_bundle_without_its_card_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLES / "recommendation", folder)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("| Source |", "| Origin |"))
    arguments = [str(folder), "--recipe", str(RECIPES / "online-retail.toml")]
    with pytest.raises(SystemExit, match="error: this model card was not written by an export, it lacks Source"):
        main(arguments)
    (folder / "README.md").write_text("# Somebody's\n\nOwn words.\n")
    with pytest.raises(SystemExit, match="it lacks Data, Languages, Licence of the weights, Quality, "):
        main(arguments)
    (folder / "README.md").unlink()
    with pytest.raises(SystemExit, match=r"README\.md is missing, which only an export can write: export it anew"):
        main(arguments)
