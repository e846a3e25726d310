"""`python -m models.evaluate TASK --data DIR`: the numbers on the model cards."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

import models
from models.bundle import MANIFEST, Precision, read_manifest
from models.errors import BundleError, InvalidInput, ModelError
from models.evaluate.question_answering import question_answering
from models.evaluate.recommendation import recommendation
from models.evaluate.result import Result
from models.evaluate.summarization import summarization
from models.evaluate.translation import translation
from models.load import Loaded, load
from models.train import data

COLUMNS = ("system", "metric", "value", "dataset", "signature")
BUNDLES = Path(models.__file__).parent / "bundles"
MEASURES: dict[str, Callable[[Loaded, Path, int | None], list[Result]]] = {
    "translation": translation,
    "summarization": summarization,
    "question-answering": question_answering,
    "recommendation": recommendation,
}
FILES: Mapping[str, Sequence[str]] = {
    "translation": (data.TRANSLATION_TESTS,),
    "summarization": (data.arxiv_file("test"), data.SCITLDR_DEV),
    "question-answering": (data.SQUAD_DEV,),
    "recommendation": (),  # the bundle's catalogue says which of two
}
LANGUAGES = {"/parameters/src_lang": "--source-language", "/parameters/tgt_lang": "--target-language"}
"""The options that fill fields of a request."""


def main(arguments: list[str] | None = None) -> int:
    """Measure one bundle and print a table; exit status 2 when bundle or data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m models.evaluate")
    parser.add_argument("task", choices=sorted(MEASURES))
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets, see models/train/data.py")
    parser.add_argument("--bundle", type=Path, help="default: the task's embedded bundle")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: int8 where it is carried")
    parser.add_argument("--limit", type=int, help="only the first so many examples")
    parser.add_argument("--source-language", help="for translation: English, by the model's code for it")
    parser.add_argument("--target-language", help="for translation: French, by the model's code for it")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    asked = {"src_lang": options.source_language, "tgt_lang": options.target_language}
    languages = {name: code for name, code in asked.items() if code is not None}
    if languages and options.task != "translation":
        parser.error(f"languages can be given for translation only, the task is {options.task}: leave them out")
    missing = [options.data / name for name in FILES[options.task] if not (options.data / name).is_file()]
    if missing:
        parser.error(f"--data: there is no file {missing[0]}")
    measure = partial(translation, languages=languages) if languages else MEASURES[options.task]
    try:
        loaded = _load(options.task, options.bundle, options.precision)
        results = measure(loaded, options.data, options.limit)
    except ModelError as error:
        sys.stderr.write(f"{_said(error)}\n")
        return 2
    _print(results, f"{loaded.bundle.manifest.name} {loaded.bundle.manifest.version}, {loaded.precision}")
    return 0


def _said(error: ModelError) -> str:
    """What is wrong, with the option in place of the field that it fills."""
    if isinstance(error, InvalidInput) and error.pointer in LANGUAGES:
        return error.detail.replace(error.pointer.removeprefix("/"), LANGUAGES[error.pointer], 1)
    return str(error)


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
