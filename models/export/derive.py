"""A recipe for a checkpoint that comes without one: what its own files say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from models.bundle import Languages
from models.export.hub import Origin
from models.export.recipe import Card, Recipe

UNKNOWN_LICENCE = "not stated"


def derive(origin: Origin, task: str, languages: Languages) -> Recipe:
    """The recipe of a checkpoint from its model card.

    Args:
        languages: as the user gave them, empty where he did not.
    """
    card = _front_matter(origin.folder / "README.md")
    return Recipe(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", origin.name).strip("._-")[:64] or task,
        version=origin.version,
        source=origin.source,
        licence=_licence(card),
        languages=_languages(task, languages, card),
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


def _languages(task: str, given: Languages, card: Mapping[str, Any]) -> Languages:
    """A card lists languages without saying which is read and which is written, so that it tells nothing of a pair."""
    stated = _texts(card.get("language"))
    if task == "question-answering":
        return Languages(source=given.source or stated)
    if task == "summarization":
        return Languages(source=given.source or stated[:1], target=given.target)
    return given


def _texts(value: Any) -> tuple[str, ...]:
    """A field of a card, which may be a text or a list of them."""
    values = value if isinstance(value, list) else [value]
    return tuple(str(each) for each in values if each)


def _listed(value: Any) -> str:
    return ", ".join(_texts(value))
