"""Trains SASRec on the order of first purchases in UCI Online Retail, and counts the table that it is mixed with."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from models.nets.sasrec import ITEMS_FILE, SasRec, SasRecConfig
from models.train import data
from models.train.loop import Batch, Optimization
from models.train.neighbours import count_neighbours

FILES = (data.ONLINE_RETAIL,)
BATCH_ROWS = 64
SCORED_POSITIONS = 1024
REVERSED = 0.5
DROPOUT = 0.4
NUM_NEIGHBOURS = 64
NEIGHBOUR_SHARE = 0.9
NEIGHBOUR_RECENCY = 0.98
_UNSEEN_BEFORE = -1e9


class WithWords(nn.Module):
    """Adds to the embedding of an item those of its words, so that items of one kind start out alike.

    It ends with the training: a checkpoint holds the sums.

    Args:
        words: of each item, from id 1.
        size: width of the embeddings.
    """

    def __init__(self, words: Sequence[Sequence[str]], size: int) -> None:
        super().__init__()
        counts = Counter(word for of_item in words for word in of_item)
        known = {word: index for index, word in enumerate(word for word in counts if counts[word] > 1)}
        bags = [[], *([known[word] for word in of_item if word in known] for of_item in words)]
        sizes = torch.tensor([len(bag) for bag in bags])
        self.embedding = nn.EmbeddingBag(len(known), size, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.5 * size**-0.5)
        self.bags = torch.tensor([word for bag in bags for word in bag], dtype=torch.int64)
        self.starts = sizes.cumsum(0) - sizes
        self.norms = sizes.clamp(min=1).sqrt()[:, None]

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Float [items + 1, size] to the same shape."""
        added: torch.Tensor = self.embedding(self.bags, self.starts) / self.norms
        return items + added


class Recommendation:
    """Softmax over all items that the history does not hold, at a sample of the positions of a batch.

    Args:
        histories: to learn from, ids from 1.
        words: of each item, from id 1; empty where nothing is known of items.
    """

    optimization = Optimization(peak_lr=2e-3, warmup=0.03, weight_decay=0.01)

    def __init__(self, purchases: data.Purchases, histories: Sequence[Sequence[int]], words: Sequence[Sequence[str]]):
        self.purchases = purchases
        self.histories = [np.array(history, dtype=np.int64) for history in histories if len(history) > 1]
        self.config = SasRecConfig(
            num_items=len(self.purchases.items),
            hidden_size=128,
            num_layers=2,
            num_heads=4,
            intermediate_size=256,
            max_length=100,
            dropout=DROPOUT,
            num_neighbours=NUM_NEIGHBOURS,
            neighbour_share=NEIGHBOUR_SHARE,
            neighbour_recency=NEIGHBOUR_RECENCY,
        )
        self.model = SasRec(self.config)
        if any(words):
            parametrize.register_parametrization(self.model.items, "weight", WithWords(words, self.config.hidden_size))
        if self.model.neighbours is not None:
            ids, weights = count_neighbours(self.histories, self.config.num_items, self.config.num_neighbours)
            self.model.neighbours.ids.copy_(torch.from_numpy(ids))
            self.model.neighbours.weights.copy_(torch.from_numpy(weights))
        self.hyperparameters: Mapping[str, Any] = {
            "batch_rows": BATCH_ROWS,
            "scored_positions": SCORED_POSITIONS,
            "reversed": REVERSED,
        }

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """A random stretch of every history, half of them backwards, in batches of similar length."""
        longest = self.config.max_length + 1
        self.stretches = []
        for history in self.histories:
            start = rng.integers(0, max(0, len(history) - longest) + 1)
            stretch = history[start : start + longest]
            self.stretches.append(torch.from_numpy(stretch[::-1].copy() if rng.random() < REVERSED else stretch))
        lengths = np.array([len(stretch) for stretch in self.stretches])
        order = np.argsort(lengths + rng.uniform(0, 10, len(lengths)))
        batches = np.array_split(order, -(-len(order) // BATCH_ROWS))
        return [batches[index] for index in rng.permutation(len(batches))]

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """Int64 `history` [rows, length + 1], padded on the right with 0."""
        return {"history": torch.nn.utils.rnn.pad_sequence([self.stretches[row] for row in rows], batch_first=True)}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the next item among those that did not come before it."""
        history = batch["history"]
        rows, positions = history[:, 1:].nonzero(as_tuple=True)
        chosen = torch.randperm(len(rows))[:SCORED_POSITIONS]
        rows, positions = rows[chosen], positions[chosen]
        with parametrize.cached():
            scores = self.model.scores(self.model(history[:, :-1])[rows, positions]).float()
        before = torch.arange(history.shape[1]) <= positions[:, None]
        seen = torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, history[rows] * before, True)
        return functional.cross_entropy(scores.masked_fill(seen, _UNSEEN_BEFORE), history[rows, positions + 1])

    def save(self, directory: Path) -> None:
        """The layout that models/nets/sasrec.py describes."""
        state = {name: value for name, value in self.model.state_dict().items() if "parametrizations" not in name}
        with torch.device("meta"):
            model = SasRec(self.config)
        model.load_state_dict(state | {"items.weight": self.model.items.weight.detach()}, assign=True)
        model.save(directory)
        catalogue = [
            {"item": item, "title": title}
            for item, title in zip(self.purchases.items, self.purchases.titles, strict=True)
        ]
        (directory / ITEMS_FILE).write_text(
            json.dumps(catalogue, ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
        )


def known_histories(purchases: data.Purchases) -> list[Sequence[int]]:
    """What a model may learn from that is measured on the last item and on the last invoice alike.

    The last invoice of every customer is left out; of customers with a single one, its last item.
    """
    return [
        history[:start] if start else history[:-1]
        for history, start in zip(purchases.histories, purchases.last_invoices, strict=True)
    ]


def words(item: str, title: str) -> list[str]:
    """Those of the title, and the first three and four digits of the stock code: the shop numbered kindred articles
    one after the other.
    """
    return [*dict.fromkeys(re.findall(r"[a-z0-9]+", title.lower())), f"#{item[:3]}", f"#{item[:4]}"]


def prepare(directory: Path, _out: Path) -> Recommendation:
    """The recipe for the data in `directory`."""
    purchases = data.read_online_retail(directory / data.ONLINE_RETAIL)
    of_items = [words(item, title) for item, title in zip(purchases.items, purchases.titles, strict=True)]
    return Recommendation(purchases, known_histories(purchases), of_items)
