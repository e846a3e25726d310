"""Recommendation: what a customer with this history of items is likely to take next."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models.bundle import Bundle
from models.errors import BundleError, InvalidInput, TooLarge
from models.generation import Closed
from models.task import Row, Solution

TOP_K = 10


class CatalogueItem(BaseModel):
    """One item of the bundle's catalogue; its id in the model is its position + 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    item: str
    title: str


def read_catalogue(path: Path) -> list[CatalogueItem]:
    """A bundle's items in the order of their ids in the model.

    Raises:
        BundleError: the file is not a catalogue.
    """
    try:
        return TypeAdapter(list[CatalogueItem]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path}: not a catalogue: {error}") from error


class RecommendationInputs(Closed):
    """What is known of the customer."""

    history: list[str] = Field(description="Items taken so far, oldest first. The model reads the most recent ones.")


class RecommendationParameters(Closed):
    """What may be recommended."""

    top_k: int | None = Field(None, ge=1, description=f"So many items, best first; {TOP_K} when left out.")
    exclude: list[str] | None = Field(None, description="Items that must not be recommended.")
    exclude_history: bool | None = Field(None, description="Recommend nothing from the history; true if left out.")


class RecommendationRequest(Closed):
    """One customer's history."""

    inputs: RecommendationInputs
    parameters: RecommendationParameters | None = None


class RecommendationAnswer(Closed):
    """One recommended item and its probability among the items that may be recommended."""

    item: str
    title: str
    score: float


class Recommendation:
    """Recommends with a sequence model that gives `scores` float32 [items] for the item that comes next."""

    id: ClassVar[str] = "recommendation"
    request_type: ClassVar[type[BaseModel]] = RecommendationRequest
    response_type: ClassVar[Any] = list[RecommendationAnswer]

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if manifest.catalogue is None:
            raise BundleError(f"{bundle.folder}: a recommendation bundle needs a catalogue")
        self._catalogue = read_catalogue(bundle.path(manifest.catalogue))
        self._ids = {entry.item: index for index, entry in enumerate(self._catalogue, start=1)}
        self._limits = manifest.limits

    def solve(self, request: RecommendationRequest) -> Solution[list[RecommendationAnswer]]:
        """One row with the most recent items of the history.

        Raises:
            InvalidInput: an empty history, an unknown item, or a `top_k` over the limit.
            TooLarge: a history or an `exclude` of more than `max_items`.
        """
        parameters = request.parameters or RecommendationParameters()
        top_k = parameters.top_k or TOP_K
        if top_k > self._limits.max_top_k:
            detail = f"parameters/top_k may be at most {self._limits.max_top_k} for this model, got {top_k}"
            raise InvalidInput(detail, pointer="/parameters/top_k")
        history = self._look_up(request.inputs.history, "inputs/history")
        if not history:
            raise InvalidInput("inputs/history must hold at least 1 item, got an empty list", pointer="/inputs/history")
        excluded = self._look_up(parameters.exclude or [], "parameters/exclude")
        if parameters.exclude_history is not False:
            excluded = excluded + history
        (output,) = yield [Row(np.array(history[-self._limits.max_tokens :], np.int64))]
        scores = output.arrays["scores"].astype(np.float64)
        scores[np.array(excluded, np.int64) - 1] = -np.inf
        ranked = np.argsort(-scores, kind="stable")[:top_k]
        total = np.logaddexp.reduce(scores)
        return [
            RecommendationAnswer(
                item=self._catalogue[index].item,
                title=self._catalogue[index].title,
                score=float(np.exp(scores[index] - total)),
            )
            for index in ranked.tolist()
            if np.isfinite(scores[index])
        ]

    def _look_up(self, items: list[str], field: str) -> list[int]:
        if len(items) > self._limits.max_items:
            raise TooLarge(
                f"{field} may hold at most {self._limits.max_items} items, got {len(items)}", pointer=f"/{field}"
            )
        ids = []
        for index, item in enumerate(items):
            if item not in self._ids:
                shown = item if len(item) <= 40 else item[:40] + "…"
                raise InvalidInput(
                    f"{field}/{index} must be one of the model's {len(self._ids)} items, got {shown!r}",
                    pointer=f"/{field}/{index}",
                )
            ids.append(self._ids[item])
        return ids
