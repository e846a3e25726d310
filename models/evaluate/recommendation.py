"""HR@10 and NDCG@10 of a recommender: the last item of each history, and the last invoice, among all items."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.errors import BundleError
from models.evaluate import baselines
from models.evaluate.result import BUNDLE, Result, answers
from models.load import Loaded
from models.tasks.recommendation import Recommendation
from models.train import data

HIT_AT = 10
S3_REC = "from the paper on S3-Rec, Zhou et al. 2020"
PUBLISHED = tuple(
    Result(f"{system} (published)", metric, value, "Amazon Beauty, leave one out", S3_REC)
    for system, hits, gain in (
        ("SASRec", 0.0605, 0.0318),
        ("BERT4Rec", 0.0347, 0.0170),
        ("S3-Rec", 0.0647, 0.0327),
    )
    for metric, value in ((f"HR@{HIT_AT}", hits), (f"NDCG@{HIT_AT}", gain))
)


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """What is known and what is wanted.

    Args:
        counted: the histories that baselines count.
        asked: for each question the history, ids from 1.
        wanted: for each question the items that came next.
    """

    name: str
    counted: Sequence[Sequence[int]]
    asked: Sequence[Sequence[int]]
    wanted: Sequence[Sequence[int]]


def recommendation(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """Leave-one-out on the data that the bundle's catalogue is of, and for Online Retail the split by last invoice.

    Every item is ranked, those of the history are removed.

    Raises:
        BundleError: the catalogue is of neither Online Retail nor Amazon Beauty, or of one whose file is not there.
    """
    if loaded.bundle.manifest.catalogue is None:
        raise BundleError(f"{loaded.bundle.folder}: no catalogue")
    catalogue = json.loads(loaded.bundle.path(loaded.bundle.manifest.catalogue).read_bytes())
    items = tuple(entry["item"] for entry in catalogue)
    beauty, retail = directory / data.BEAUTY, directory / data.ONLINE_RETAIL
    if beauty.is_file() and items == (purchases := data.read_beauty(beauty)).items:
        return [*_measure(loaded, leave_one_out(purchases, "Amazon Beauty"), items, limit), *PUBLISHED]
    if retail.is_file() and items == (purchases := data.read_online_retail(retail)).items:
        splits = [leave_one_out(purchases, "Online Retail"), leave_last_invoice(purchases, "Online Retail")]
        return [result for split in splits for result in _measure(loaded, split, items, limit)]
    absent = "".join(f"; there is no file {path}" for path in (retail, beauty) if not path.is_file())
    raise BundleError(
        f"{loaded.bundle.folder}: its catalogue must be of {data.ONLINE_RETAIL} or {data.BEAUTY} as they are in"
        f" {directory}{absent}"
    )


def leave_one_out(purchases: data.Purchases, name: str) -> Split:
    """The last item of every history is wanted."""
    known = [history[:-1] for history in purchases.histories]
    return Split(f"{name}, leave one out", known, known, [history[-1:] for history in purchases.histories])


def leave_last_invoice(purchases: data.Purchases, name: str) -> Split:
    """All items of the last invoice are wanted; of customers with a single invoice nothing is."""
    halves = [
        (history[:start], history[start:])
        for history, start in zip(purchases.histories, purchases.last_invoices, strict=True)
    ]
    asked = [(known, wanted) for known, wanted in halves if known]
    counted = [known or wanted for known, wanted in halves]
    return Split(f"{name}, last invoice", counted, [known for known, _ in asked], [wanted for _, wanted in asked])


def _measure(loaded: Loaded, split: Split, items: Sequence[str], limit: int | None) -> list[Result]:
    asked, wanted = split.asked[:limit], split.wanted[:limit]
    loaded = _with_room_for(max(map(len, asked)), loaded)
    followed = baselines.markov(split.counted, len(items))
    similar = baselines.item_similarity(split.counted, len(items))
    popular = baselines.popularity(split.counted, len(items))
    scorers: dict[str, Callable[[Sequence[int]], baselines.Scores]] = {
        "popularity": lambda _: popular,
        f"item-kNN, recency {baselines.RECENCY}": lambda history: baselines.neighbours(similar, history),
        "item-kNN": lambda history: baselines.neighbours(similar, history, recency=1),
        "first-order Markov": lambda history: followed[history[-1] - 1],
    }
    requests = (
        {"inputs": {"history": [items[item - 1] for item in history]}, "parameters": {"top_k": HIT_AT}}
        for history in asked
    )
    ids = {item: index for index, item in enumerate(items, start=1)}
    ranked = {
        BUNDLE: [[ids[answer.item] for answer in response] for response in answers(loaded, requests, len(asked))],
        **{name: [_best(score(history), history) for history in asked] for name, score in scorers.items()},
    }
    dataset = f"{split.name}, {len(asked):,} customers"
    return [
        Result(system, metric, float(np.mean(values)), dataset)
        for system, lists in ranked.items()
        for metric, values in (
            (f"HR@{HIT_AT}", [hit(found, right) for found, right in zip(lists, wanted, strict=True)]),
            (f"NDCG@{HIT_AT}", [gain(found, right) for found, right in zip(lists, wanted, strict=True)]),
        )
    ]


def _with_room_for(history: int, loaded: Loaded) -> Loaded:
    """The same for histories of so many items, of which the model reads the newest, and none is recommended."""
    bundle = loaded.bundle
    limits = bundle.manifest.limits
    limits = limits.model_copy(update={"max_items": max(limits.max_items, history)})
    manifest = bundle.manifest.model_copy(update={"limits": limits})
    return dataclasses.replace(loaded, task=Recommendation(dataclasses.replace(bundle, manifest=manifest)))


def hit(found: Sequence[int], wanted: Sequence[int]) -> float:
    """1 where any of the wanted items was found, else 0."""
    return float(not set(found).isdisjoint(wanted))


def gain(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Discounted cumulative gain by the largest possible (Järvelin and Kekäläinen 2002); each wanted item counts 1."""
    discounts = 1 / np.log2(np.arange(len(found)) + 2)
    right = np.array([item in wanted for item in found])
    return float(discounts[right].sum() / discounts[: len(wanted)].sum())


def _best(scores: baselines.Scores, seen: Sequence[int]) -> list[int]:
    unseen = scores.copy()
    unseen[np.array(seen) - 1] = -np.inf
    return [int(index) + 1 for index in np.argsort(-unseen, kind="stable")[:HIT_AT]]
