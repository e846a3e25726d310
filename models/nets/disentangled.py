"""DeBERTa's disentangled attention on packed rows: scores of contents, and of contents with relative positions."""

import torch
from torch import nn

from models.nets.packed import PackedAttention


class DisentangledAttention(PackedAttention):
    """Adds to the scores how a query's content meets the distance to a key, and a key's content that to a query.

    He et al. 2021, arXiv 2006.03654. The vectors of distances are the same for every text, so that they are tables and
    not computed again in each pass; distances that share a bucket share a row.

    Args:
        buckets: int64 [2 x most]; entry most - 1 + d is the row of a key that stands d tokens before its query.
        keys: rows that meet queries, [buckets, width]; None where the checkpoint does without.
        queries: rows that meet keys, [buckets, width]; None where the checkpoint does without.
        query_key_value, out, heads, scale: as of `PackedAttention`; `scale` multiplies every part of the scores.
    """

    buckets: torch.Tensor

    def __init__(
        self,
        query_key_value: nn.Linear,
        out: nn.Linear,
        *,
        heads: int,
        scale: float,
        buckets: torch.Tensor,
        keys: nn.Embedding | None,
        queries: nn.Embedding | None,
    ) -> None:
        super().__init__(query_key_value, out, heads=heads, scale=scale)
        self.register_buffer("buckets", buckets)
        self.keys, self.queries = keys, queries

    def scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Query and key, float [rows, heads, S, head width], to float [rows, heads, S, S]."""
        length = query.shape[2]
        query = query * self.scale
        scores = torch.matmul(query, key.transpose(2, 3))
        distances = torch.arange(2 * length) + (self.buckets.shape[0] // 2 - length)
        if self.keys is not None:
            before = self._rows(self.keys, distances.flip(0) - 1).to(query.dtype)
            scores = scores + _shifted(torch.matmul(query, before), length)
        if self.queries is not None:
            after = self._rows(self.queries, distances).to(query.dtype)
            scores = scores + _shifted(torch.matmul(key, after * self.scale), length).transpose(2, 3)
        return scores

    def _rows(self, table: nn.Embedding, distances: torch.Tensor) -> torch.Tensor:
        """Vectors of distances, float [heads, head width, 2 S]."""
        rows: torch.Tensor = table(self.buckets.index_select(0, distances))
        return rows.view(distances.shape[0], self.heads, -1).permute(1, 2, 0)


def _shifted(by_distance: torch.Tensor, length: int) -> torch.Tensor:
    """Entry [i, j] is `by_distance[i, j - i + S - 1]`, by a view instead of a gather: [..., S, 2 S] to [..., S, S].

    The trick is that of Transformer-XL (Dai et al. 2019, arXiv 1901.02860).
    """
    rows, heads = by_distance.shape[:2]
    flat = by_distance.reshape(rows, heads, 2 * length * length).narrow(2, length - 1, length * (2 * length - 1))
    return flat.view(rows, heads, length, 2 * length - 1).narrow(3, 0, length)
