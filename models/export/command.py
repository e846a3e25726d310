"""What `heedful export` does: find the checkpoint, derive what no recipe says, export, and tell how near it came."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from models.bundle import Languages, Name, Precision
from models.export.derive import derive
from models.export.errors import ExportError
from models.export.hub import Origin, find
from models.export.recipe import Operators, Recipe, read_recipe
from models.export.staging import require_place


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Args:
        source: a directory or a model id of the hub.
        operators: what the graphs are made of; see `models.export.write.export`.
        revision: on the hub.
        name: wins over that of the recipe, as the languages do.
        recipe: a TOML file; None derives one.
        shortlist: a parallel text to learn one from.
        replace_bundle: a bundle at `out` may be replaced.
    """

    source: str
    task: str
    out: Path
    precision: Precision
    operators: Operators = "onnxruntime"
    revision: str | None = None
    name: str | None = None
    source_languages: tuple[str, ...] = ()
    target_languages: tuple[str, ...] = ()
    recipe: Path | None = None
    shortlist: Path | None = None
    replace_bundle: bool = False


def export_order(order: Order, report: Callable[[str], None]) -> tuple[Table, str]:
    """Carry out an order.

    Args:
        report: is told what is being done.

    Returns:
        Parity as a table for the terminal, and one line on the bundle.

    Raises:
        ExportError: it cannot be done; nothing is left behind.
    """
    require_place(order.out, replace=order.replace_bundle)
    if order.name is not None:
        _require_name(order.name)
    report(f"looking for {order.source}")
    origin = find(order.source, order.revision)
    report("loading torch")
    from transformers.utils import logging

    from models.export.card import PARITY_COLUMNS, parity_row
    from models.export.checkpoint import recognise
    from models.export.write import export

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    recognise(origin.folder, order.task)
    bundle, parities = export(
        origin.folder,
        order.task,
        order.out,
        _recipe(order, origin),
        precisions=(order.precision,),
        operators=order.operators,
        parallel=order.shortlist,
        replace_bundle=order.replace_bundle,
        report=report,
    )
    table = Table(*PARITY_COLUMNS, title="Parity with the checkpoint", title_justify="left")
    for parity in parities:
        table.add_row(*parity_row(parity))
    size = sum(file.bytes for file in bundle.manifest.files())
    return table, f"{order.out}: {bundle.manifest.name} {bundle.manifest.version}, {size / 1e6:.1f} MB"


def _require_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ExportError(
            f"--name must have at most 64 letters, digits, dots, underscores and hyphens, and begin with one of the"
            f" first two, got {name!r}"
        ) from None


def _recipe(order: Order, origin: Origin) -> Recipe:
    languages = Languages(source=order.source_languages, target=order.target_languages)
    recipe = derive(origin, order.task, languages) if order.recipe is None else read_recipe(order.recipe)
    given = {
        "name": order.name or recipe.name,
        "languages": {
            "source": languages.source or recipe.languages.source,
            "target": languages.target or recipe.languages.target,
        },
    }
    return Recipe.model_validate(recipe.model_dump() | given)
