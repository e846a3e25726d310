"""What stood near an item in other histories, as a sparse table that scores the next item (item-kNN by adjacency)."""

import torch
from torch import nn

_LEAST = 1e-12
"""Probability of an item that neither model nor table knows; its logarithm is still finite."""
_SEEN = -1e9
_LANES = 64
"""Rows of scores are this many columns wide or a multiple, so that vector registers hold the same part of a row
whoever its neighbours are, as `models.packing.WIDTH_MULTIPLE` does for attention."""


class Neighbours(nn.Module):
    """Mixes a model's scores with a table: `share` of the probability goes to neighbours of the history's items.

    The table's part is a mean over the history in which an item counts `recency` times the one after it. The model's
    part goes to items outside the history, as in its training; what of the history may come again, the table says.

    Args:
        items: of the vocabulary, without padding.
        most: neighbours of each item.
        length: items of the longest history.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    recencies: torch.Tensor

    def __init__(self, items: int, most: int, *, length: int, recency: float, share: float) -> None:
        super().__init__()
        self.share, self.columns = share, -(-(items + 1) // _LANES) * _LANES
        self.register_buffer("ids", torch.zeros(items + 1, most, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(items + 1, most))
        self.register_buffer("recencies", recency ** torch.arange(length), persistent=False)

    def forward(
        self, scores: torch.Tensor, *, tokens: torch.Tensor, rows: torch.Tensor, lags: torch.Tensor
    ) -> torch.Tensor:
        """Logarithm of the mixed probabilities, float [rows, items + 1]; column 0, padding, means nothing.

        Args:
            scores: of the model, float [rows, items + 1].
            tokens: int64 [T], the items of all histories.
            rows: int64 [T], the history that each belongs to.
            lags: int64 [T], how many items of its history came after it.
        """
        count, width = scores.shape[0], scores.shape[1]
        cells = count * self.columns
        seen = torch.zeros(cells).scatter(0, rows * self.columns + tokens, _SEEN).view(count, -1)
        padded = nn.functional.pad(scores[:, 1:], (1, self.columns - width), value=_SEEN)
        learned = torch.softmax(padded + seen, -1)
        recencies = self.recencies.index_select(0, lags)
        places = rows[:, None] * self.columns + self.ids.index_select(0, tokens).to(torch.int64)
        amounts = self.weights.index_select(0, tokens) * recencies[:, None]
        counted = torch.zeros(cells).scatter_add(0, places.reshape(-1), amounts.reshape(-1)).view(count, -1)
        whole = torch.zeros(count).scatter_add(0, rows, recencies)
        mixed = (1 - self.share) * learned + self.share / whole[:, None] * counted
        return torch.log(mixed.clamp(min=_LEAST))[:, :width]
