"""The items that a recommendation model knows, searched by title, for whoever puts a history together."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query

from models.bundle import read_manifest
from models.tasks.recommendation import CatalogueItem, read_catalogue
from service.contract import ModelCard
from service.settings import Settings


def catalogues(cards: Sequence[ModelCard], settings: Settings) -> APIRouter:
    """`GET {route}/items` for every model with a catalogue.

    Args:
        cards: of the models in the settings, in their order.
        settings: say where the bundles are.

    Raises:
        BundleError: a catalogue is broken.
    """
    router = APIRouter()
    for card, model in zip(cards, settings.models, strict=True):
        if (file := read_manifest(model.bundle).catalogue) is None:
            continue
        found = _search(read_catalogue(model.bundle / file.path))
        for route in card.routes:
            router.add_api_route(
                f"{route}/items",
                found,
                tags=[card.task],
                summary=f"Items that {card.name} knows",
                operation_id=f"items{'' if route == f'/v1/{card.task}' else '_' + card.name}",
            )
    return router


def _search(catalogue: Sequence[CatalogueItem]) -> Callable[..., Coroutine[Any, Any, list[CatalogueItem]]]:
    async def items(
        search: Annotated[str, Query(max_length=200, description="Words of the title, or of the id.")] = "",
        limit: Annotated[int, Query(ge=1, le=100, description="At most so many items.")] = 20,
    ) -> list[CatalogueItem]:
        return list(islice(matching(catalogue, search), limit))

    return items


def matching(catalogue: Iterable[CatalogueItem], search: str) -> Iterable[CatalogueItem]:
    """Items with every word of `search` in their title or id, whatever the case; all of them without a word."""
    words = search.casefold().split()
    return (entry for entry in catalogue if all(word in f"{entry.item} {entry.title}".casefold() for word in words))
