"""Brings card and manifest of a bundle up to its recipe, where words or quality changed and weights did not."""

import argparse
import sys
from pathlib import Path

from models.bundle import Languages, Manifest, open_bundle
from models.errors import ModelError
from models.export.card import revised_card
from models.export.errors import ExportError
from models.export.languages import settled
from models.export.recipe import Recipe, read_recipe
from models.export.write import CARD_FILE, seal
from models.tasks.translation import Translation


def describe_bundle(folder: Path, recipe: Recipe) -> None:
    """Rewrite the card of the bundle in `folder`, and in its manifest what needs no checkpoint.

    That is source, licence, quality and score calibration, and the languages of a bundle that does not translate.

    Raises:
        ExportError: the recipe is another model's or says what only an export can change, or the card is missing or
            was not written by an export.
        BundleError: the bundle is broken.
    """
    manifest = open_bundle(folder).manifest
    if (recipe.name, recipe.version) != (manifest.name, manifest.version):
        raise ExportError(
            f"{folder} holds {manifest.name} {manifest.version}, the recipe is of {recipe.name} {recipe.version}"
        )
    languages = _languages(folder, manifest, recipe.languages)
    if changed := _exported_otherwise(manifest, recipe, languages):
        raise ExportError(f"{folder} was exported with other {' and '.join(changed)} than the recipe's: export it anew")
    card = folder / CARD_FILE
    if not card.is_file():
        raise ExportError(f"{folder}: {CARD_FILE} is missing, which only an export can write: export it anew")
    said = {
        "source": recipe.source,
        "licence": recipe.licence,
        "languages": languages,
        "quality": recipe.quality,
        "score_calibration": recipe.score_calibration,
    }
    manifest = manifest.model_copy(update=said)
    card.write_text(revised_card(card.read_text(encoding="utf-8"), manifest, recipe.card), encoding="utf-8")
    seal(manifest, folder)


def _exported_otherwise(manifest: Manifest, recipe: Recipe, languages: Languages) -> list[str]:
    """Fields of the recipe in which it differs from the bundle, and that only an export can change."""
    decoding = recipe.generation.model_dump(exclude_none=True)
    carried = manifest.generation.model_dump(include=set(decoding)) if manifest.generation else decoding
    explains = any("explain" in graphs.graphs for graphs in manifest.precisions.values())
    same = {
        "languages": manifest.task != Translation.id or languages == manifest.languages,
        "limits": recipe.limits in (None, manifest.limits),
        "generation": decoding == carried,
        "example": recipe.example in (None, manifest.example),
        "explain": recipe.explain or not explains,
    }
    return [field for field, is_same in same.items() if not is_same]


def _languages(folder: Path, manifest: Manifest, asked: Languages) -> Languages:
    """What an export makes of the recipe's; where it says none, those of the bundle."""
    if manifest.task == Translation.id:
        known = manifest.languages
        return Languages(source=asked.source or known.source, target=asked.target or known.target)
    return settled(folder, manifest.task, asked, None) if asked.source else manifest.languages


def main(arguments: list[str] | None = None) -> None:
    """Write a bundle's card, and what its manifest says of itself, anew from its recipe; its weights stay."""
    parser = argparse.ArgumentParser(
        prog="python -m models.export.describe",
        description=main.__doc__,
        epilog="example: python -m models.export.describe models/bundles/translation"
        " --recipe models/export/recipes/en-fr.toml",
    )
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, see models/export/recipe.py")
    options = parser.parse_args(arguments)
    try:
        describe_bundle(options.bundle, read_recipe(options.recipe))
    except ModelError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
