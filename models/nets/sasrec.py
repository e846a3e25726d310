"""SASRec: causal self-attention over a purchase history scores the next item (Kang and McAuley 2018, arXiv 1808.09781).

A checkpoint directory holds

- `config.json`: `{"model_type": "sasrec"}` and the fields of `SasRecConfig`;
- `model.safetensors`: the state dict of `SasRec`, float32, and with a table of neighbours its ids, int32;
- `items.json`: a list of `{"item": stock code, "title": product name}`; entry i is id i + 1, id 0 is padding.
"""

import dataclasses
import json
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from models.nets.neighbours import Neighbours

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ITEMS_FILE = "items.json"


@dataclasses.dataclass(frozen=True, slots=True)
class SasRecConfig:
    """Sizes of a SasRec. `max_length` is the number of last items that it looks at.

    Args:
        num_neighbours: of each item, in the table that the scores are mixed with; 0 where there is no table.
        neighbour_share: of the table in the mixture, from 0 to 1.
        neighbour_recency: what an item counts in the table's part, the one after it counting 1.
    """

    num_items: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_length: int
    dropout: float = 0.0
    num_neighbours: int = 0
    neighbour_share: float = 0.0
    neighbour_recency: float = 1.0


class SasRecLayer(nn.Module):
    """One pre-norm block: masked self-attention, then a feed-forward network, each added to its input."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value, self.attention_out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.inner, self.outer = nn.Linear(size, config.intermediate_size), nn.Linear(config.intermediate_size, size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [rows, length, hidden] to the same shape; position t sees positions up to t."""
        rows, length, size = hidden.shape
        mixed = self.query_key_value(self.attention_norm(hidden))
        query, key, value = mixed.view(rows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = self.attention_out(attended.transpose(1, 2).reshape(rows, length, size))
        hidden = hidden + functional.dropout(attended, self.dropout, self.training)
        inner = functional.gelu(self.inner(self.feed_forward_norm(hidden)))
        return hidden + functional.dropout(self.outer(inner), self.dropout, self.training)


class SasRec(nn.Module):
    """Histories to scores of every item; the item embeddings are also the output layer.

    Histories are padded on the right with 0. Attention is causal, so padding never reaches a real position.
    """

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.hidden_size)
        self.layers = nn.ModuleList(SasRecLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.item_bias = nn.Parameter(torch.zeros(config.num_items + 1))
        self.neighbours = (
            Neighbours(
                config.num_items,
                config.num_neighbours,
                length=config.max_length,
                recency=config.neighbour_recency,
                share=config.neighbour_share,
            )
            if config.num_neighbours
            else None
        )
        for embedding in (self.items, self.positions):
            nn.init.normal_(embedding.weight, std=config.hidden_size**-0.5)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        """Int64 item ids [rows, length], length at most `max_length`, to float hidden states [rows, length, hidden]."""
        hidden = self.items(history) + self.positions.weight[: history.shape[1]]
        hidden = functional.dropout(hidden, self.config.dropout, self.training)
        for layer in self.layers:
            hidden = layer(hidden)
        normed: torch.Tensor = self.norm(hidden)
        return normed

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., hidden] to scores [..., num_items + 1]; column i belongs to id i, column 0 to padding."""
        return functional.linear(hidden, self.items.weight, self.item_bias)

    def next_scores(self, history: torch.Tensor) -> torch.Tensor:
        """One history, int64 [length], to the scores of what comes next, mixed with the table where there is one.

        Returns:
            Float [num_items + 1].
        """
        scores = self.scores(self(history[None])[:, -1])
        if self.neighbours is not None:
            lags = torch.arange(len(history)).flip(0)
            scores = self.neighbours(scores, tokens=history, rows=torch.zeros_like(lags), lags=lags)
        return scores[0]

    def save(self, directory: Path) -> None:
        """Write config.json and model.safetensors."""
        config = {"model_type": "sasrec", **dataclasses.asdict(self.config)}
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file(self.state_dict(), directory / WEIGHTS_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The model of a checkpoint directory, in evaluation mode."""
        fields = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        if fields.pop("model_type") != "sasrec":
            raise ValueError(f"{directory / CONFIG_FILE}: model_type is not sasrec")
        model = cls(SasRecConfig(**fields))
        model.load_state_dict(load_file(directory / WEIGHTS_FILE))
        return model.eval()
