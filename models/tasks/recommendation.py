"""Recommendation: what a customer with this history of items is likely to take next."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models import attribution
from models.bundle import Bundle
from models.errors import BundleError, InvalidInput, TooLarge
from models.explain import Attention, Explain, Explanation, Occlusion, Part, Unit, check_explain, rounded, shown
from models.generation import Closed
from models.task import Output, Row, Solution

TOP_K = 10


class CatalogueItem(BaseModel):
    """One item of the bundle's catalogue; its id in the model is its position + 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    item: str
    title: str


def read_catalogue(path: Path) -> list[CatalogueItem]:
    """A bundle's items in the order of their ids in the model.

    Raises:
        BundleError: the file is not a catalogue, or an item stands in it twice.
    """
    try:
        entries = TypeAdapter(list[CatalogueItem]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path}: not a catalogue: {error}") from error
    item, times = Counter(entry.item for entry in entries).most_common(1)[0] if entries else ("", 0)
    if times > 1:
        raise BundleError(f"{path}: each item may stand in a catalogue once, {item!r} stands there {times} times")
    return entries


def check_catalogue(path: Path, scored: int) -> None:
    """Refuse a catalogue that does not name each of the items that the model scores.

    Raises:
        BundleError: it has more or fewer, or see `read_catalogue`.
    """
    if (listed := len(read_catalogue(path))) != scored:
        raise BundleError(f"{path}: a catalogue must list the {scored} items that its model scores, got {listed}")


class RecommendationInputs(Closed):
    """What is known of the customer."""

    history: list[str] = Field(
        fail_fast=True, description="Items taken so far, oldest first. The model reads the most recent ones."
    )


class RecommendationParameters(Closed):
    """What may be recommended."""

    top_k: int | None = Field(None, ge=1, description=f"So many items, best first; {TOP_K} when left out.")
    exclude: list[str] | None = Field(None, fail_fast=True, description="Items that must not be recommended.")
    exclude_history: bool | None = Field(None, description="Recommend nothing from the history; true if left out.")


class RecommendationRequest(Closed):
    """One customer's history."""

    inputs: RecommendationInputs
    parameters: RecommendationParameters | None = None
    explain: Explain | None = None


class RecommendationAnswer(Closed):
    """One recommended item and its probability among the items that may be recommended."""

    item: str
    title: str
    score: float
    explanation: Explanation | None = Field(None, description="Where `explain` asks for it.")


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
        self._bundle, self._limits = bundle, manifest.limits

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
        row = Row(np.array(history[-self._limits.max_tokens :], np.int64))
        if request.explain is not None:
            left_out = len(row.tokens) if len(row.tokens) > 1 else 0
            check_explain(request.explain, self._bundle, row_tokens=[len(row.tokens)], left_out=[left_out])
        (output,) = yield [row]
        log_probabilities = _among_allowed(output, excluded)
        ranked = [
            index
            for index in np.argsort(-log_probabilities, kind="stable")[:top_k].tolist()
            if np.isfinite(log_probabilities[index])
        ]
        answers = [
            RecommendationAnswer(
                item=self._catalogue[index].item,
                title=self._catalogue[index].title,
                score=float(np.exp(log_probabilities[index])),
            )
            for index in ranked
        ]
        if request.explain is None:
            return answers
        explanations = yield from self._explain(
            request.explain, row, output, given=len(history), excluded=excluded, ranked=ranked
        )
        return [
            answer.model_copy(update={"explanation": explanation})
            for answer, explanation in zip(answers, explanations, strict=True)
        ]

    def _explain(
        self, asked: Explain, row: Row, output: Output, *, given: int, excluded: list[int], ranked: list[int]
    ) -> Solution[list[Explanation]]:
        """Of each recommended item by the items of the history that the model has read.

        Args:
            given: items of the whole history.
            ranked: recommended items, indices in the catalogue.
        """
        length = len(row.tokens)
        source = [
            Unit(text=self._catalogue[id_ - 1].title, pointer=f"/inputs/history/{given - length + place}")
            for place, id_ in enumerate(row.tokens.tolist())
        ]
        rows = [replace(row, purpose="attention")] if "attention" in asked.method else []
        places = range(length if length > 1 and "occlusion" in asked.method else 0)
        rows += [Row(np.delete(row.tokens, place), purpose="score") for place in places]
        computed = list((yield rows) if rows else ())
        attention = None
        attended = np.zeros(length)
        if "attention" in asked.method:
            weights = computed.pop(0).arrays["encoder_attention"]
            attended = weights[:, :, -1].mean((0, 1))
            attention = Attention(
                kind="self-attention",
                weights=shown(attended[None], asked),
                rollout=shown(attribution.rollout(np.eye(length)[-1:], weights), asked),
                heads=shown(weights[:, :, -1:], asked) if asked.heads == "each" else None,
            )
        with_all = _among_allowed(output, excluded)
        without = [_among_allowed(each, excluded) for each in computed]
        parts = []
        for index in ranked:
            occlusion = correlation = None
            if "occlusion" in asked.method:
                changes = np.array([with_all[index] - each[index] for each in without])
                units = source if len(changes) else []
                occlusion = Occlusion(log_probability=float(with_all[index]), units=units, changes=rounded(changes))
                if attention is not None and len(changes):
                    correlation = attribution.rank_correlation(attended.tolist(), np.abs(changes).tolist())
            parts.append(
                Part(
                    source=source,
                    output=[Unit(text=self._catalogue[index].title)],
                    attention=attention,
                    occlusion=occlusion,
                    rank_correlation=correlation,
                )
            )
        return [Explanation(parts=[part]) for part in parts]

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


def _among_allowed(output: Output, excluded: list[int]) -> NDArray[np.float64]:
    """Log-probabilities float64 [items] among those that are not excluded, which have minus infinity."""
    scores: NDArray[np.float64] = output.arrays["scores"].astype(np.float64)
    scores[np.array(excluded, np.int64) - 1] = -np.inf
    total = np.logaddexp.reduce(scores)
    return scores - total if np.isfinite(total) else scores
