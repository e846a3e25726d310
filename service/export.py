"""The export command: reaches what needs torch only when it is asked to, and says what to install where it is not."""

import warnings
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models.tasks import TASKS
from service.errors import UsageError

HOW_TO_INSTALL = "run pip install --constraint constraints.txt -e '.[cpu,export]' in the checkout"


class ExportPrecision(StrEnum):
    """Numbers that the graphs compute with."""

    int8 = "int8"
    fp16 = "fp16"
    fp32 = "fp32"


class ExportOperators(StrEnum):
    """What the graphs are made of."""

    onnxruntime = "onnxruntime"
    standard = "standard"


def export(
    source: Annotated[
        str, typer.Argument(help="A directory, or a model of the Hugging Face hub (OWNER/NAME).", show_default=False)
    ],
    *,
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The bundle's folder.", show_default=False)],
    precision: Annotated[ExportPrecision, typer.Option(help="Of the graphs.")] = ExportPrecision.int8,
    operators: Annotated[
        ExportOperators,
        typer.Option(help="ONNX Runtime's own, which are faster, or only standard ones, for where those do not serve."),
    ] = ExportOperators.onnxruntime,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; else the last part of SOURCE.")] = None,
    source_language: Annotated[
        list[str] | None, typer.Option(help="Language code that the model reads; may be repeated.")
    ] = None,
    target_language: Annotated[
        list[str] | None, typer.Option(help="Language code that it writes; may be repeated.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with what the checkpoint does not say of itself.")
    ] = None,
    shortlist: Annotated[
        Path | None,
        typer.Option(
            help="Lines of SOURCE<TAB>TRANSLATION, .xz or not: makes translation faster by the words that are likely"
            " for each source.",
            metavar="PARALLEL_TEXT",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a checkpoint into a bundle, and hold it against the checkpoint."""
    if task not in TASKS:
        raise UsageError(f"the task {task!r} is unknown; choose one of {', '.join(TASKS)}")
    _require_extra()
    from models.export.command import Order, export_order

    order = Order(
        source=source,
        task=task,
        out=out,
        precision=precision.value,
        operators=operators.value,
        revision=revision,
        name=name,
        source_languages=tuple(source_language or ()),
        target_languages=tuple(target_language or ()),
        recipe=recipe,
        shortlist=shortlist,
        replace_bundle=force,
    )
    with _progress() as progress, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of libraries to their callers; nothing that the user of a command could act on
        bar = progress.add_task(f"looking for {source}", total=None)
        table, summary = export_order(order, report=lambda step: progress.update(bar, description=step))
    console = Console()
    console.print(table)
    console.print(f"{summary}. Serve it with: HEEDFUL_BUNDLES={out.parent} heedful serve", soft_wrap=True)


def _require_extra() -> None:
    """Say what is missing before anything is downloaded."""
    for module in ("huggingface_hub", "onnxruntime", "onnxscript", "safetensors", "torch", "transformers"):
        if find_spec(module) is None:
            raise UsageError(f"exporting needs {module}, which is not installed: {HOW_TO_INSTALL}")


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
