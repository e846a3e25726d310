"""`python -m models.evaluate TASK --data DIR`: the numbers on the model cards."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

import models
from models.bundle import MANIFEST, Precision, read_manifest
from models.errors import BundleError
from models.evaluate.question_answering import question_answering
from models.evaluate.recommendation import recommendation
from models.evaluate.result import Result
from models.evaluate.summarization import summarization
from models.evaluate.translation import translation
from models.load import Loaded, load

COLUMNS = ("system", "metric", "value", "dataset", "signature")
BUNDLES = Path(models.__file__).parent / "bundles"
MEASURES: dict[str, Callable[[Loaded, Path, int | None], list[Result]]] = {
    "translation": translation,
    "summarization": summarization,
    "question-answering": question_answering,
    "recommendation": recommendation,
}


def main() -> int:
    """Measure one bundle and print a table; exit status 2 when the bundle cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m models.evaluate")
    parser.add_argument("task", choices=sorted(MEASURES))
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets, see models/train/data.py")
    parser.add_argument("--bundle", type=Path, help="default: the task's embedded bundle")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: int8 where it is carried")
    parser.add_argument("--limit", type=int, help="only the first so many examples")
    options = parser.parse_args()
    try:
        loaded = _load(options.task, options.bundle, options.precision)
        results = MEASURES[options.task](loaded, options.data, options.limit)
    except BundleError as error:
        Console(stderr=True).print(str(error))
        return 2
    _print(results, f"{loaded.bundle.manifest.name} {loaded.bundle.manifest.version}, {loaded.precision}")
    return 0


def _load(task: str, folder: Path | None, precision: Precision | None) -> Loaded:
    loaded = load(folder or _embedded(task), precision=precision)
    if loaded.bundle.manifest.task != task:
        raise BundleError(f"{folder}: a {loaded.bundle.manifest.task} bundle, not {task}")
    return loaded


def _embedded(task: str) -> Path:
    for manifest in sorted(BUNDLES.glob(f"*/{MANIFEST}")):
        if read_manifest(manifest.parent).task == task:
            return manifest.parent
    raise BundleError(f"{BUNDLES}: no bundle for {task}; name one with --bundle")


def _print(results: list[Result], title: str) -> None:
    table = Table(*(Column(name, overflow="fold") for name in COLUMNS), title=title)
    for result in results:
        digits = 0 if isinstance(result.value, int) else 4 if result.value <= 1 else 2
        table.add_row(result.system, result.metric, f"{result.value:.{digits}f}", result.dataset, result.signature)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
