"""One decoder step for rows at their own positions, the same module for every encoder-decoder family."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn

from models.nets.layers import DistanceBias, Embeddings, Residual

Cache: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, float [rows, heads, length, head width] each."""


class CachedAttention(nn.Module):
    """Attention of one new position to a cache that ONNX Runtime's GroupQueryAttention extends in place.

    The operator appends the new key and value at the row's own position and attends to all up to it, so that rows of
    different lengths share a step without a mask, and no padded position is computed. When past and present have the
    same address, nothing but that one position is written.

    Eager mode has no such operator: the module can be exported, not run.
    """

    def __init__(self, *, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale

    def forward(
        self,
        query: torch.Tensor,
        new: tuple[torch.Tensor, torch.Tensor] | None,
        cache: Cache,
        last: torch.Tensor,
        total: torch.Tensor,
        *,
        bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Cache]:
        """Attend.

        Args:
            query: float [rows, heads x head width], or with the new key and value behind it, [rows, 3 x ...].
            new: new key and value, float [rows, 1, heads x head width] each; None where `query` carries them.
            cache: what the rows hold already.
            last: int32 [rows], the position that the new key and value take; everything up to it is attended to.
            total: int32 [], largest of `last` + 1.
            bias: float [rows, heads, 1, total], added to the scores.

        Returns:
            float [rows, heads x head width] and the extended cache.
        """
        keys, values = cache
        key, value = (None, None) if new is None else new
        width = self.heads * keys.shape[3]
        attended, keys, values = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [query[:, None, :], key, value, keys, values, last, total, *([] if bias is None else [None] * 3 + [bias])],
            {"num_heads": self.heads, "kv_num_heads": self.heads, "scale": self.scale},
            dtypes=[query.dtype] * 3,
            shapes=[(query.shape[0], 1, width), keys.shape, values.shape],
            version=1,
        )
        return attended.squeeze(1), (keys, values)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each in its residual.

    Args:
        heads: of both attentions.
        scale: multiplies attention scores.
        query_key_value: [width] to [3 x heads x head width].
        cross_query: [width] to [heads x head width]; keys and values come from the encoder.
    """

    def __init__(
        self,
        *,
        heads: int,
        scale: float,
        query_key_value: nn.Linear,
        self_out: nn.Linear,
        self_residual: Residual,
        cross_query: nn.Linear,
        cross_out: nn.Linear,
        cross_residual: Residual,
        feed_forward: nn.Module,
        feed_forward_residual: Residual,
    ) -> None:
        super().__init__()
        self.attention = CachedAttention(heads=heads, scale=scale)
        self.query_key_value, self.self_out, self.self_residual = query_key_value, self_out, self_residual
        self.cross_query, self.cross_out, self.cross_residual = cross_query, cross_out, cross_residual
        self.feed_forward, self.feed_forward_residual = feed_forward, feed_forward_residual

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        past: Cache,
        positions: torch.Tensor,
        total: torch.Tensor,
        cross: Cache,
        source_last: tuple[torch.Tensor, torch.Tensor],
        source_lengths: torch.Tensor,
        source_total: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> tuple[torch.Tensor, Cache, Cache]:
        """Float [rows, width] to the same shape, with both caches as they are afterwards."""
        caches: list[Cache] = []

        def attend_to_self(normed: torch.Tensor) -> torch.Tensor:
            attended, present = self.attention(self.query_key_value(normed), None, past, positions, total, bias=bias)
            caches.append(present)
            out: torch.Tensor = self.self_out(attended)
            return out

        def attend_to_source(normed: torch.Tensor) -> torch.Tensor:
            # The operator always appends: it is given the source's last position, which it finds there already.
            query = self.cross_query(normed)
            attended, present = self.attention(query, source_last, cross, source_lengths - 1, source_total)
            caches.append(present)
            out: torch.Tensor = self.cross_out(attended)
            return out

        hidden = self.self_residual(hidden, attend_to_self)
        hidden = self.cross_residual(hidden, attend_to_source)
        hidden = self.feed_forward_residual(hidden, self.feed_forward)
        return hidden, caches[0], caches[1]


class DecoderStep(nn.Module):
    """From each row's newest token to the logits of its next.

    Args:
        norm: behind the last layer, where the family has one.
        head: [width] to [vocabulary].
        distance_bias: added to the scores of every self-attention, where the family has one.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        layers: Sequence[DecoderLayer],
        head: nn.Linear,
        *,
        norm: nn.Module | None = None,
        distance_bias: DistanceBias | None = None,
    ) -> None:
        super().__init__()
        self.embeddings, self.layers, self.norm, self.head = embeddings, nn.ModuleList(layers), norm, head
        self.distance_bias = distance_bias

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        total: torch.Tensor,
        source_lengths: torch.Tensor,
        source_total: torch.Tensor,
        source_last: torch.Tensor,
        past: list[Cache],
        cross: list[Cache],
    ) -> tuple[torch.Tensor, torch.Tensor, list[Cache], list[Cache]]:
        """One step.

        Args:
            tokens: int64 [rows].
            positions: int32 [rows], how many tokens each row has cached.
            total: int32 [], largest position + 1.
            source_lengths: int32 [rows].
            source_total: int32 [], longest source.
            source_last: [rows, 2 x layers, heads, head width], of the caches' dtype: cross keys and values of each
                row's last source token.
            past: self-attention cache of each layer.
            cross: cross-attention keys and values of each layer.

        Returns:
            `next` int64 [rows], the likeliest token; `logits` float [rows, vocabulary]; the caches afterwards, which
            are meant to have the addresses of `past` and `cross`.
        """
        hidden, presents, crosses = self.states(
            tokens=tokens,
            positions=positions,
            total=total,
            source_lengths=source_lengths,
            source_total=source_total,
            source_last=source_last,
            past=past,
            cross=cross,
        )
        logits: torch.Tensor = self.head(hidden).to(torch.float32)
        return likeliest(logits), logits, presents, crosses

    def states(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        total: torch.Tensor,
        source_lengths: torch.Tensor,
        source_total: torch.Tensor,
        source_last: torch.Tensor,
        past: list[Cache],
        cross: list[Cache],
    ) -> tuple[torch.Tensor, list[Cache], list[Cache]]:
        """What the output layer reads, float [rows, width], and the caches afterwards; arguments are `forward`'s."""
        hidden = self.embeddings(tokens, positions)
        bias = None
        if self.distance_bias is not None:
            bias = self.distance_bias(positions.long(), torch.arange(total.item())).transpose(0, 1)[:, :, None, :]
            bias = bias.to(past[0][0].dtype)
        last = torch.split(source_last.flatten(2), 1, dim=1)
        presents, crosses = [], []
        for index, (layer, own, source) in enumerate(zip(self.layers, past, cross, strict=True)):
            newest = (last[2 * index], last[2 * index + 1])
            hidden, present, same = layer(
                hidden,
                past=own,
                positions=positions,
                total=total,
                cross=source,
                source_last=newest,
                source_lengths=source_lengths,
                source_total=source_total,
                bias=bias,
            )
            presents.append(present)
            crosses.append(same)
        return hidden if self.norm is None else self.norm(hidden), presents, crosses


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Float [rows, vocabulary] to the place of each row's largest logit, int64 [rows]."""
    return torch.topk(logits, 1, -1)[1][:, 0]
