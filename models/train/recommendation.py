"""Trains SASRec on the order of first purchases in UCI Online Retail."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.nets.sasrec import ITEMS_FILE, SasRec, SasRecConfig
from models.train import data
from models.train.loop import Batch, Optimization

FILES = (data.ONLINE_RETAIL,)
BATCH_ROWS = 64


class Recommendation:
    """Full softmax over all items at every position; the last two items of each history are held out."""

    optimization = Optimization(peak_lr=2e-3, warmup=0.03, weight_decay=0.01)

    def __init__(self, purchases: data.Purchases) -> None:
        self.purchases = purchases
        self.histories = [np.array(history[:-2], dtype=np.int64) for history in self.purchases.histories]
        self.config = SasRecConfig(
            num_items=len(self.purchases.items),
            hidden_size=128,
            num_layers=2,
            num_heads=4,
            intermediate_size=256,
            max_length=100,
            dropout=0.3,
        )
        self.model = SasRec(self.config)
        self.hyperparameters: Mapping[str, Any] = {"batch_rows": BATCH_ROWS}

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """A random stretch of every history, in batches of similar length."""
        longest = self.config.max_length + 1
        self.stretches = []
        for history in self.histories:
            start = rng.integers(0, max(0, len(history) - longest) + 1)
            self.stretches.append(torch.from_numpy(history[start : start + longest]))
        lengths = np.array([len(stretch) for stretch in self.stretches])
        order = np.argsort(lengths + rng.uniform(0, 10, len(lengths)))
        batches = np.array_split(order, -(-len(order) // BATCH_ROWS))
        return [batches[index] for index in rng.permutation(len(batches))]

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """Int64 `history` [rows, length + 1], padded on the right with 0."""
        return {"history": torch.nn.utils.rnn.pad_sequence([self.stretches[row] for row in rows], batch_first=True)}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of each next item among all items."""
        history = batch["history"]
        targets = history[:, 1:].reshape(-1)
        wanted = targets != 0
        hidden = self.model(history[:, :-1]).reshape(-1, self.config.hidden_size)[wanted]
        return functional.cross_entropy(self.model.scores(hidden), targets[wanted])

    def save(self, directory: Path) -> None:
        """The layout that models/nets/sasrec.py describes."""
        self.model.save(directory)
        catalogue = [
            {"item": item, "title": title}
            for item, title in zip(self.purchases.items, self.purchases.titles, strict=True)
        ]
        (directory / ITEMS_FILE).write_text(
            json.dumps(catalogue, ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
        )


def prepare(directory: Path, _out: Path) -> Recommendation:
    """The recipe for the data in `directory`."""
    return Recommendation(data.read_online_retail(directory / data.ONLINE_RETAIL))
