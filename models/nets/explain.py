"""What a model attended to: its own modules once over a whole row and its finished output, giving weights alone."""

from typing import cast

import torch
from torch import nn

from models.nets.copying import CopyingEncoder, CopyingStep
from models.nets.packed import MASKED, CrossAttentionEncoder, PackedEncoder
from models.nets.step import DecoderLayer, DecoderStep


class EncoderAttention(nn.Module):
    """The attention of an encoder, for a single row."""

    def __init__(self, encoder: PackedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor | None = None,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
    ) -> torch.Tensor:
        """One packed row to `encoder_attention`, float32 [layers, heads, S, S]: from each position to each."""
        _, weights = self.encoder.attending(
            tokens=tokens, positions=positions, segments=segments, lengths=lengths, pad=pad, unpad=unpad
        )
        return _by_layer(weights)


class TeacherForced(nn.Module):
    """The attention of an encoder-decoder that is given its whole output, for a single row.

    Args:
        encoder: as it is exported.
        step: the decoder step as it is exported; its layers are run over all positions at once.
    """

    def __init__(self, encoder: CrossAttentionEncoder | CopyingEncoder, step: DecoderStep | CopyingStep) -> None:
        super().__init__()
        self.encoder, self.step = encoder, step

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        pad: torch.Tensor,
        unpad: torch.Tensor,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """One packed row, and what its decoder read.

        Args:
            target: int64 [U], start token first.

        Returns:
            `cross_attention`, float32 [decoder layers, heads, U, T]; `encoder_attention`, float32 [encoder layers,
            heads, S, S]; from a model that copies also `copy_attention`, float32 [U, T], and `copy_share`, float32 [U]:
            where it would copy from, and how likely it copies rather than writes.
        """
        plain = self.encoder.encoder if isinstance(self.encoder, CopyingEncoder) else self.encoder
        decoder = self.step.decoder if isinstance(self.step, CopyingStep) else self.step
        encoded, own = plain.encoder.attending(
            tokens=tokens, positions=positions, lengths=lengths, pad=pad, unpad=unpad
        )
        cross = plain.cross(encoded)
        places = torch.arange(target.shape[0])
        hidden = decoder.embeddings(target, places)
        mask = torch.where(places[None, :] <= places[:, None], 0.0, MASKED)
        if decoder.distance_bias is not None:
            mask = mask + decoder.distance_bias(places, places)
        every = []
        for index, layer in enumerate(decoder.layers):
            hidden, weights = _run(
                cast("DecoderLayer", layer), hidden, mask, cross[:, 2 * index], cross[:, 2 * index + 1]
            )
            every.append(weights)
        found = (torch.stack(every).to(torch.float32), _by_layer(own))
        if not (isinstance(self.encoder, CopyingEncoder) and isinstance(self.step, CopyingStep)):
            return found
        if decoder.norm is not None:
            hidden = decoder.norm(hidden)
        pointer = self.step.pointer
        queries = pointer.queries(hidden, decoder.embeddings.tokens(target))
        scores = torch.matmul(queries, self.encoder.keys(encoded, tokens, positions).transpose(0, 1))
        share = torch.sigmoid(-pointer.gate(hidden).to(torch.float32))[:, 0]
        return *found, torch.softmax(scores.to(torch.float32), -1), share


def _by_layer(weights: list[torch.Tensor]) -> torch.Tensor:
    """Of each layer float [rows, heads, S, S] to those of the first row, float32 [layers, heads, S, S]."""
    return torch.stack([layer[0] for layer in weights]).to(torch.float32)


def _run(
    layer: DecoderLayer, hidden: torch.Tensor, mask: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A decoder layer over all positions of an output.

    Args:
        hidden: float [U, width].
        mask: float [U, U] or [heads, U, U], added to the scores of self-attention.
        keys, values: of the source, float [T, heads, head width].

    Returns:
        Float [U, width], and the weights of the attention to the source, float [heads, U, T].
    """
    heads, scale = layer.attention.heads, layer.attention.scale
    kept: list[torch.Tensor] = []

    def by_head(joined: torch.Tensor) -> torch.Tensor:
        return joined.view(joined.shape[0], heads, -1)

    def to_self(normed: torch.Tensor) -> torch.Tensor:
        query, key, value = (by_head(part) for part in layer.query_key_value(normed).chunk(3, -1))
        attended, _ = _attend(query * scale, key, value, mask)
        out: torch.Tensor = layer.self_out(attended)
        return out

    def to_source(normed: torch.Tensor) -> torch.Tensor:
        attended, weights = _attend(by_head(layer.cross_query(normed)) * scale, keys, values)
        kept.append(weights)
        out: torch.Tensor = layer.cross_out(attended)
        return out

    hidden = layer.self_residual(hidden, to_self)
    hidden = layer.cross_residual(hidden, to_source)
    return layer.feed_forward_residual(hidden, layer.feed_forward), kept[0]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of float [U, heads, head width] to keys and values [T, heads, head width]: [U, heads x head width] and weights
    [heads, U, T].
    """
    scores = torch.matmul(query.transpose(0, 1), key.permute(1, 2, 0))
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    attended = torch.matmul(weights.to(value.dtype), value.transpose(0, 1))
    return attended.transpose(0, 1).flatten(1), weights
