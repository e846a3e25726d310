"""The encoder of every family, on packed rows: no linear map, norm or embedding ever computes a padded cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from models.nets.layers import DistanceBias, Embeddings, FeedForward, Residual, joined
from models.nets.neighbours import Neighbours

MASKED = -1e9
"""Added to scores of positions that must not be seen; far enough below any score that the softmax gives exactly 0."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How packed tokens [T] become rows [rows, S] for attention and packed again; see `models.packing.Packed`.

    Args:
        pad: int64 [rows, S].
        unpad: int64 [T].
        mask: float [rows, 1, 1, S], [rows, heads, S, S] where distances count, or [S, S] for causal attention; added to
            the scores.
    """

    pad: torch.Tensor
    unpad: torch.Tensor
    mask: torch.Tensor


class PackedAttention(nn.Module):
    """Multi-head self-attention of packed rows: padded for the scores only, and packed again.

    Args:
        query_key_value: [width] to [3 x heads x head width].
        out: [heads x head width] to [width].
        scale: multiplies the scores.
    """

    def __init__(self, query_key_value: nn.Linear, out: nn.Linear, *, heads: int, scale: float) -> None:
        super().__init__()
        self.query_key_value, self.out, self.heads, self.scale = query_key_value, out, heads, scale

    def forward(self, hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Float [T, width] to the same shape."""
        return self.attending(hidden, layout)[0]

    def attending(self, hidden: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` gives, and the weights behind it, float [rows, heads, S, S]."""
        rows, length = layout.pad.shape
        width = self.out.in_features
        padded = self.query_key_value(hidden).index_select(0, layout.pad.reshape(-1)).view(rows, length, 3 * width)
        query, key, value = (
            part.view(rows, length, self.heads, width // self.heads).transpose(1, 2) for part in padded.chunk(3, -1)
        )
        weights = torch.softmax(self.scores(query, key) + layout.mask, -1)
        attended = torch.matmul(weights.to(value.dtype), value)
        packed = attended.transpose(1, 2).reshape(rows * length, width).index_select(0, layout.unpad)
        return self.out(packed), weights

    def scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Query and key, float [rows, heads, S, head width], to float [rows, heads, S, S]."""
        return torch.matmul(query * self.scale, key.transpose(2, 3))


class PackedLayer(nn.Module):
    """Self-attention and feed-forward network, each in its residual."""

    def __init__(
        self,
        attention: PackedAttention,
        attention_residual: Residual,
        feed_forward: nn.Module,
        feed_forward_residual: Residual,
    ) -> None:
        super().__init__()
        self.attention, self.attention_residual = attention, attention_residual
        self.feed_forward, self.feed_forward_residual = feed_forward, feed_forward_residual

    def forward(self, hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Float [T, width] to the same shape."""
        return self.attending(hidden, layout)[0]

    def attending(self, hidden: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` gives, and the weights of its attention, float [rows, heads, S, S]."""
        kept: list[torch.Tensor] = []

        def attend(normed: torch.Tensor) -> torch.Tensor:
            attended, weights = self.attention.attending(normed, layout)
            kept.append(weights)
            return attended

        hidden = self.attention_residual(hidden, attend)
        return self.feed_forward_residual(hidden, self.feed_forward), kept[0]


def post_norm_layer(
    *,
    attention: tuple[nn.Linear, nn.Linear, nn.Linear],
    out: nn.Linear,
    attention_norm: nn.Module,
    feed_forward: FeedForward,
    feed_forward_norm: nn.Module,
    heads: int,
) -> PackedLayer:
    """A layer whose norms stand behind the sums, as those of BERT, Marian and BART do."""
    return PackedLayer(
        PackedAttention(joined(*attention), out, heads=heads, scale=(out.in_features // heads) ** -0.5),
        Residual(attention_norm, norm_first=False),
        feed_forward,
        Residual(feed_forward_norm, norm_first=False),
    )


class PackedEncoder(nn.Module):
    """Embeddings and layers over packed rows.

    Args:
        causal: a position sees itself and what stands before it.
        norm: behind the last layer, where the family has one.
        distance_bias: added to the scores of every layer, where the family has one.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        layers: Sequence[PackedLayer],
        *,
        causal: bool = False,
        norm: nn.Module | None = None,
        distance_bias: DistanceBias | None = None,
    ) -> None:
        super().__init__()
        self.embeddings, self.layers, self.causal, self.norm = embeddings, nn.ModuleList(layers), causal, norm
        self.distance_bias = distance_bias

    @property
    def heads(self) -> int:
        """Of the attention of each layer."""
        return cast("PackedLayer", self.layers[0]).attention.heads

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
        segments: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The fields of `models.packing.Packed` to hidden states, float [T, width]."""
        return self.attending(
            tokens=tokens, positions=positions, lengths=lengths, pad=pad, unpad=unpad, segments=segments
        )[0]

    def attending(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
        segments: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What `forward` gives, and the weights of each layer's attention, float [rows, heads, S, S]."""
        hidden: torch.Tensor = self.embeddings(tokens, positions, segments)
        layout = Layout(pad, unpad, self._mask(lengths, pad.shape[1]))
        every = []
        for layer in self.layers:
            hidden, weights = cast("PackedLayer", layer).attending(hidden, layout)
            every.append(weights)
        return hidden if self.norm is None else self.norm(hidden), every

    def _mask(self, lengths: torch.Tensor, length: int) -> torch.Tensor:
        """Padding stands at the end of a row, so that a causal mask hides it by itself."""
        place = torch.arange(length)
        if self.causal:
            return torch.where(place[None, :] <= place[:, None], 0.0, MASKED)
        mask = torch.where(place[None, :] < lengths[:, None], 0.0, MASKED)[:, None, None, :]
        return mask if self.distance_bias is None else mask + self.distance_bias(place, place)


class CrossAttentionEncoder(nn.Module):
    """The encoder of an encoder-decoder, as far as the decoder needs it.

    Args:
        keys_and_values: [width] to the keys and values of every decoder layer, side by side.
        heads: of the decoder.
    """

    def __init__(self, encoder: PackedEncoder, keys_and_values: nn.Linear, *, layers: int, heads: int) -> None:
        super().__init__()
        self.encoder, self.keys_and_values, self.layers, self.heads = encoder, keys_and_values, layers, heads
        self.head_width = keys_and_values.out_features // (2 * layers * heads)

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
    ) -> torch.Tensor:
        """Packed rows to `cross`, float [T, 2 x layers, heads, head width], key before value."""
        return self.cross(self.encoder(tokens=tokens, positions=positions, lengths=lengths, pad=pad, unpad=unpad))

    def cross(self, hidden: torch.Tensor) -> torch.Tensor:
        """States of the encoder, float [T, width], to what `forward` gives."""
        cross: torch.Tensor = self.keys_and_values(hidden).view(-1, 2 * self.layers, self.heads, self.head_width)
        return cross


class SpanScorer(nn.Module):
    """Extractive question answering: how well each token starts or ends the answer."""

    def __init__(self, encoder: PackedEncoder, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor | None = None,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed rows to `start_logits` and `end_logits`, float [T] each."""
        hidden = self.encoder(
            tokens=tokens, positions=positions, segments=segments, lengths=lengths, pad=pad, unpad=unpad
        )
        start, end = self.head(hidden).to(torch.float32).unbind(-1)
        return start, end


class NextItemScorer(nn.Module):
    """Sequential recommendation: how well each item follows the last one of a row.

    Args:
        head: hidden states to scores of ids, id 0 being padding.
        neighbours: the table that the scores are mixed with, where there is one.
    """

    def __init__(self, encoder: PackedEncoder, head: nn.Linear, neighbours: Neighbours | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.neighbours = encoder, head, neighbours

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
    ) -> torch.Tensor:
        """Packed rows to `scores`, float [rows, items]; column i belongs to id i + 1."""
        hidden = self.encoder(tokens=tokens, positions=positions, lengths=lengths, pad=pad, unpad=unpad)
        last = hidden.index_select(0, torch.cumsum(lengths, 0) - 1)
        scores: torch.Tensor = self.head(last).to(torch.float32)
        if self.neighbours is not None:
            rows = torch.div(unpad, pad.shape[1], rounding_mode="floor")
            lags = lengths.index_select(0, rows) - 1 - positions
            scores = self.neighbours(scores, tokens=tokens, rows=rows, lags=lags)
        return scores[:, 1:]
