"""A recipe for a checkpoint that comes without one: what its own files say, and a request that suits the task."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from pydantic import JsonValue

from models.bundle import Languages
from models.export.errors import ExportError
from models.export.hub import Origin
from models.export.recipe import Card, Recipe

UNKNOWN_LICENCE = "not stated"

_PARAGRAPH = (
    "The town council has decided to close the old bridge for repairs from Monday. Engineers found cracks in two of its"
    " five arches during an inspection in spring. Buses will cross the river by the new bridge until the work is done,"
    " which is expected to take eight months and to cost four million."
)
_EXAMPLES: Mapping[str, dict[str, JsonValue]] = {
    "translation": {"inputs": "The weather is nice today."},
    "summarization": {"inputs": _PARAGRAPH},
    "question-answering": {"inputs": {"question": "How long will the work take?", "context": _PARAGRAPH}},
}


def derive(origin: Origin, task: str, languages: Languages) -> Recipe:
    """The recipe of a checkpoint from its model card, its tokenizer's settings and its catalogue.

    Args:
        languages: as the user gave them, empty where he did not.

    Raises:
        ExportError: the languages are needed and nothing tells them, or the catalogue cannot be read.
    """
    card = _front_matter(origin.folder / "README.md")
    return Recipe(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", origin.name).strip("._-")[:64] or task,
        version=origin.version,
        source=origin.source,
        licence=_licence(card),
        languages=_languages(origin, task, languages, card),
        example=_items_example(origin.folder) if task == "recommendation" else _EXAMPLES[task],
        card=Card(
            summary=f"Exported from {origin.source}.",
            data=_listed(card.get("datasets")) or "Not stated by the checkpoint; see its own model card.",
            failures="Not stated; see the checkpoint's own model card.",
        ),
    )


def _front_matter(path: Path) -> Mapping[str, Any]:
    """YAML at the top of a model card; a card that is absent or broken says nothing."""
    try:
        return metadata_load(path) or {}
    except Exception:  # noqa: BLE001 - the card is anybody's text, and YAML has many ways to fail
        return {}


def _licence(card: Mapping[str, Any]) -> str:
    """As the card spells it; `other` has its name beside it."""
    licence = _listed(card.get("license"))
    return _listed(card.get("license_name")) or licence if licence == "other" else licence or UNKNOWN_LICENCE


def _languages(origin: Origin, task: str, given: Languages, card: Mapping[str, Any]) -> Languages:
    if task == "recommendation":
        return given
    stated = _texts(card.get("language"))
    if task == "question-answering":
        return Languages(source=given.source or stated)
    if task == "summarization":
        source = given.source or stated[:1]
        target = given.target or source
    else:
        settings = _tokenizer_settings(origin.folder)
        source = given.source or _texts(settings.get("source_lang"))
        target = given.target or _texts(settings.get("target_lang"))
    if not source or not target:
        needed = "--source-language and --target-language" if task == "translation" else "--source-language"
        raise ExportError(f"nothing in {origin.name} tells its languages: give {needed}, such as en")
    return Languages(source=source, target=target)


def _tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _items_example(folder: Path) -> dict[str, JsonValue]:
    path = folder / "items.json"
    try:
        items = [entry["item"] for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f'{path} is needed: a list of {{"item", "title"}}, one for each item of the checkpoint: {error!r}'
        ) from error
    return {"inputs": {"history": items[:2]}}


def _texts(value: Any) -> tuple[str, ...]:
    """A field of a card, which may be a text or a list of them."""
    values = value if isinstance(value, list) else [value]
    return tuple(str(each) for each in values if each)


def _listed(value: Any) -> str:
    return ", ".join(_texts(value))
