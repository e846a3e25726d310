"""The export command: a checkpoint directory and a recipe to a bundle."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from models.bundle import Precision
from models.errors import ModelError
from models.export.recipe import read_recipe
from models.export.write import export
from models.tasks import TASKS

_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "int8": ("int8",),
    "fp16": ("fp16",),
    "fp32": ("fp32",),
    "both": ("int8", "fp32"),
}


def main(arguments: list[str] | None = None) -> None:
    """Turn a checkpoint directory into a bundle that can be served."""
    parser = argparse.ArgumentParser(
        prog="python -m models.export",
        description=main.__doc__,
        epilog="example: python -m models.export checkpoints/translation --task translation"
        " --recipe models/export/recipes/en-fr.toml --out models/bundles/en-fr",
    )
    parser.add_argument("source", type=Path, help="directory with config.json and model.safetensors")
    parser.add_argument("--task", required=True, choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle; a bundle there is replaced")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, see models/export/recipe.py")
    parser.add_argument("--precision", default="int8", choices=sorted(_PRECISIONS), help="graphs to keep")
    parser.add_argument("--reference", type=Path, help="also write the checkpoint's answers for tests, as .npz")
    parser.add_argument("--shortlist", type=Path, help="lines of a source, a tab and its translation, .xz or not")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        with console.status("reading") as status:
            bundle, parities = export(
                options.source,
                options.task,
                options.out,
                read_recipe(options.recipe),
                precisions=_PRECISIONS[options.precision],
                replace_bundle=True,
                reference=options.reference,
                parallel=options.shortlist,
                report=status.update,
            )
    except ModelError as error:
        sys.exit(f"error: {error}")
    size = sum(file.bytes for file in bundle.manifest.files())
    console.print(f"{options.out}: {bundle.manifest.name} {bundle.manifest.version}, {size / 1e6:.1f} MB")
    for parity in parities:
        console.print(
            f"{parity.precision}: largest difference {parity.largest_difference:.1e}, relative error"
            f" {parity.relative_error:.1e}, same choice {parity.agreement:.1%}"
            + ("" if parity.greedy is None else f", same greedy output {parity.greedy:.0%}")
            + ("" if parity.beams is None else f", with beams {parity.beams:.0%}")
        )


if __name__ == "__main__":
    main()
