"""Brings card and manifest of a bundle up to its recipe, where words or quality changed and weights did not."""

import argparse
import sys
from pathlib import Path

from models.bundle import open_bundle
from models.errors import ModelError
from models.export.card import revised_card
from models.export.errors import ExportError
from models.export.recipe import Recipe, read_recipe
from models.export.write import CARD_FILE, seal


def describe_bundle(folder: Path, recipe: Recipe) -> None:
    """Rewrite the card of the bundle in `folder`, and quality and score calibration in its manifest.

    Raises:
        ExportError: the recipe is another model's, or the card was not written by an export.
        BundleError: the bundle is broken.
    """
    manifest = open_bundle(folder).manifest
    if (recipe.name, recipe.version) != (manifest.name, manifest.version):
        raise ExportError(
            f"{folder} holds {manifest.name} {manifest.version}, the recipe is of {recipe.name} {recipe.version}"
        )
    card = folder / CARD_FILE
    manifest = manifest.model_copy(update={"quality": recipe.quality, "score_calibration": recipe.score_calibration})
    card.write_text(revised_card(card.read_text(encoding="utf-8"), manifest, recipe.card), encoding="utf-8")
    seal(manifest, folder)


def main(arguments: list[str] | None = None) -> None:
    """Write a bundle's card, quality and score calibration anew from its recipe; its weights stay as they are."""
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
