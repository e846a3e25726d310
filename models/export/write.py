"""Puts a bundle together in a temporary folder, proves it there, and moves it into place whole."""

import gc
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue, ValidationError

from models.bundle import (
    MANIFEST,
    Bundle,
    File,
    GenerationDefaults,
    Languages,
    Limits,
    Manifest,
    Precision,
    open_bundle,
)
from models.errors import BundleError, InvalidInput
from models.export.card import model_card
from models.export.checkpoint import Checkpoint, open_checkpoint, recognise
from models.export.errors import ExportError
from models.export.examples import ITEMS_FILE
from models.export.examples import example as example_request
from models.export.languages import narrowed, require_pair, settled
from models.export.memory import trim
from models.export.parity import Parity, answers, compare, random_rows, require_parity
from models.export.precisions import BYTES_PER_PARAMETER, Report, describe, write_graphs
from models.export.recipe import Operators, Recipe
from models.export.reference import save_reference
from models.export.shortlisting import SHORTLIST_FILE, learn
from models.export.staging import require_place, require_space, staging
from models.export.tokenizer import TOKENIZER_FILE, Converted, converted_tokenizer
from models.task import Row, Task
from models.tasks import TASKS
from models.tasks.recommendation import Recommendation, check_catalogue
from models.tasks.translation import Translation

CATALOGUE_FILE = "catalogue.json"
PARITY_FILE = "parity.npz"
CARD_FILE = "README.md"
PARITY_ROWS = 8
REFERENCE_NEW_TOKENS = 32


def export(
    source: Path,
    task: str,
    out: Path,
    recipe: Recipe,
    *,
    precisions: Sequence[Precision] = ("int8",),
    operators: Operators = "onnxruntime",
    replace_bundle: bool = False,
    reference: Path | None = None,
    parallel: Path | None = None,
    report: Report = lambda _step: None,
) -> tuple[Bundle, tuple[Parity, ...]]:
    """Export a checkpoint directory to a bundle at `out`.

    Everything is written next to `out` first, opened as any bundle is, and compared with the checkpoint; only then is
    it renamed. A bundle that is replaced is replaced at the end, and left alone when anything fails.

    Args:
        precisions: any of `fp32`, `fp16` and `int8`; float32 graphs are always made and compared, and kept where named.
        operators: `onnxruntime` uses its own where they are faster, `standard` none but those of ONNX itself.
        replace_bundle: a bundle at `out` may be replaced.
        reference: also write the checkpoint's answers to the recipe's requests there.
        parallel: a parallel text from which the bundle gets a shortlist, see `models.export.shortlisting.learn`.
        report: is told what is being done.

    Raises:
        ExportError: the checkpoint, the recipe or the folder does not fit, or the graphs do not compute the same.
    """
    require_place(out, replace=replace_bundle)
    made: tuple[Precision, ...] = ("fp32", *(precision for precision in precisions if precision != "fp32"))
    found = recognise(source, task)
    report("converting the tokenizer")
    converted = None if task == Recommendation.id else converted_tokenizer(source, found.vocabulary, _texts(recipe))
    languages, learned = _languages(source, task, recipe, converted), None
    if parallel is not None:
        report(f"learning a shortlist from {parallel}")
        learned = learn(parallel, source, task, converted, found.vocabulary, languages=languages)
    report(f"reading {source}")
    family, checkpoint = open_checkpoint(source)
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    with staging(out) as staged:
        require_space(out.parent, int(parameters * sum(BYTES_PER_PARAMETER[precision] for precision in made)))
        checkpoint.specialise(task, languages)
        limits = recipe.limits or checkpoint.limits()
        generation, tokens = _generation(checkpoint, limits, recipe), None
        if task == Translation.id and generation and converted and converted.languages:
            tokens = narrowed(converted.languages, languages, generation)
            languages = Languages(source=languages.source, target=tuple(tokens.target))
        example = recipe.example or example_request(task, source, tokens)
        if task == Recommendation.id:
            _require_items(source / ITEMS_FILE, checkpoint.vocabulary - 1)
        manifest = Manifest.model_construct(  # unchecked, since a bundle has graphs: it is checked when it is opened
            schema_version=1,
            name=recipe.name,
            task=task,
            version=recipe.version,
            source=recipe.source,
            licence=recipe.licence,
            family=family,
            parameters=parameters,
            languages=languages,
            language_tokens=tokens,
            precisions={},
            tokenizer=_saved(converted, staged / TOKENIZER_FILE),
            out_of_vocabulary=converted.out_of_vocabulary if converted else None,
            catalogue=_compact(source / ITEMS_FILE, staged / CATALOGUE_FILE),
            generation=generation,
            limits=limits,
            score_calibration=recipe.score_calibration,
            quality=recipe.quality,
            example=example,
            created_by=_created_by(),
        )
        requests = _reference_rows(Bundle(staged, manifest), (example, *recipe.references))
        graphs = write_graphs(
            checkpoint,
            limits,
            staged,
            precisions=made,
            explained=precisions if recipe.explain else (),
            operators=operators,
            shortlisted=learned is not None,
            report=report,
        )
        manifest = manifest.model_copy(update={"precisions": graphs})
        bundle = seal(manifest, staged)
        report("comparing with the checkpoint")
        rows = [*requests, *random_rows(checkpoint.vocabulary, manifest)]
        expected, architecture = answers(checkpoint, rows), checkpoint.architecture()
        del checkpoint
        gc.collect()  # what tracing left in circles
        trim()
        parities = tuple(compare(bundle, precision, rows, expected) for precision in manifest.precisions)
        for parity in parities:
            require_parity(parity)
        if reference is not None:
            save_reference(reference, requests, expected[: len(requests)])
        for dropped in set(manifest.precisions) - set(precisions):
            shutil.rmtree(staged / dropped)
        save_reference(staged / PARITY_FILE, requests[:PARITY_ROWS], expected[: len(requests)][:PARITY_ROWS])
        kept = {precision: manifest.precisions[precision] for precision in precisions}
        manifest = manifest.model_copy(update={"precisions": kept, "parity": describe(staged, staged / PARITY_FILE)})
        if learned is not None:
            learned.shortlist.save(staged / SHORTLIST_FILE)
            manifest = manifest.model_copy(update={"shortlist": describe(staged, staged / SHORTLIST_FILE)})
        card = model_card(manifest, recipe.card, architecture, operators, parities)
        (staged / CARD_FILE).write_text(card, encoding="utf-8")
        seal(manifest, staged)
    return open_bundle(out), parities


def _languages(source: Path, task: str, recipe: Recipe, converted: Converted | None) -> Languages:
    languages = settled(source, task, recipe.languages, converted.languages if converted else None)
    if task == Translation.id and recipe.generation.prefix is None:
        require_pair(source, languages)
    return languages


def _require_items(path: Path, scored: int) -> None:
    try:
        check_catalogue(path, scored)
    except BundleError as error:
        raise ExportError(str(error)) from error


def _compact(source: Path, target: Path) -> File | None:
    """Copy a JSON file, where the checkpoint has it, without blanks that nobody reads."""
    if not source.is_file():
        return None
    content = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return describe(target.parent, target)


def _saved(converted: Converted | None, target: Path) -> File | None:
    if converted is None:
        return None
    converted.tokenizer.save(str(target), pretty=False)
    return describe(target.parent, target)


def _texts(recipe: Recipe) -> list[str]:
    """Every text that the recipe's requests have anywhere."""
    texts: list[str] = []
    values: list[JsonValue] = [recipe.example, *recipe.references]
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict | list):
            values.extend(value.values() if isinstance(value, dict) else value)
    return texts


def _generation(checkpoint: Checkpoint, limits: Limits, recipe: Recipe) -> GenerationDefaults | None:
    defaults = checkpoint.generation(limits)
    return defaults and defaults.model_copy(update=recipe.generation.model_dump(exclude_none=True))


def _created_by() -> str:
    names = ("heedful", "torch", "transformers", "onnx")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def seal(manifest: Manifest, staged: Path) -> Bundle:
    """Write the manifest and open the folder as a server would."""
    (staged / MANIFEST).write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    return open_bundle(staged)


def _reference_rows(bundle: Bundle, requests: Sequence[JsonValue]) -> list[Row]:
    """The rows that the task makes of the example and of the recipe's further requests."""
    task = cast("Callable[[Bundle], Task[Any, Any]]", TASKS[bundle.manifest.task])(bundle)
    rows: list[Row] = []
    for request in requests:
        try:
            rows.extend(next(task.solve(task.request_type.model_validate(request))))
        except (InvalidInput, ValidationError) as error:
            raise ExportError(f"the recipe's request {json.dumps(request)} is not one of {task.id}: {error}") from error
    return [_shortened(row, min(REFERENCE_NEW_TOKENS, bundle.manifest.limits.max_new_tokens)) for row in rows]


def _shortened(row: Row, max_new_tokens: int) -> Row:
    if row.generation is None:
        return row
    return replace(row, generation=replace(row.generation, max_new_tokens=max_new_tokens))
