"""A request for a bundle whose recipe has none: the model must answer it before it counts as ready."""

import json
from pathlib import Path

from pydantic import JsonValue

from models.bundle import LanguageTokens
from models.export.errors import ExportError

ITEMS_FILE = "items.json"

_SENTENCE = "The weather is nice today."
_PARAGRAPH = (
    "The town council has decided to close the old bridge for repairs from Monday. Engineers found cracks in two of its"
    " five arches during an inspection in spring. Buses will cross the river by the new bridge until the work is done,"
    " which is expected to take eight months and to cost four million."
)


def example(task: str, folder: Path, tokens: LanguageTokens | None) -> dict[str, JsonValue]:
    """A request that suits the task.

    Args:
        folder: the checkpoint's.
        tokens: those languages are named that the model must be told.

    Raises:
        ExportError: the catalogue of a recommender cannot be read.
    """
    if task == "recommendation":
        return {"inputs": {"history": _items(folder / ITEMS_FILE)[:2]}}
    if task == "question-answering":
        return {"inputs": {"question": "How long will the work take?", "context": _PARAGRAPH}}
    if task == "summarization":
        return {"inputs": _PARAGRAPH}
    return {"inputs": _SENTENCE, **({"parameters": named} if tokens and (named := _languages(tokens)) else {})}


def _languages(tokens: LanguageTokens) -> dict[str, JsonValue]:
    named: dict[str, JsonValue] = {}
    source = tokens.default_source
    if source is None and tokens.source:
        source = named["src_lang"] = next(iter(tokens.source))
    if tokens.default_target is None:
        named["tgt_lang"] = next(code for code in tokens.target if code != source)
    return named


def _items(path: Path) -> list[JsonValue]:
    try:
        return [entry["item"] for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f'{path} is needed: a list of {{"item", "title"}}, one for each item of the checkpoint: {error!r}'
        ) from error
