"""Marian, BART, mBART, Pegasus and M2M100 (NLLB): encoder-decoders whose layers have BART's parts under BART's names.

They differ in where the norms of a layer stand and in how their table of positions starts. A norm of the embeddings, a
norm behind the last layer and a bias of the logits are there where the checkpoint has them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models.nets.layers import (
    Embeddings,
    FeedForward,
    PositionsWithoutPadding,
    Residual,
    activation_of,
    first_positions,
    joined,
    output_layer,
    table,
    vocabulary,
)
from models.nets.packed import CrossAttentionEncoder, PackedAttention, PackedEncoder, PackedLayer
from models.nets.step import DecoderLayer, DecoderStep


@dataclass(frozen=True, slots=True)
class _Family:
    """What the checkpoint does not show by itself.

    Args:
        norm_first: norms stand before a sublayer, not behind the sum.
        positions: of an encoder or decoder, float [positions, width], row i for position i.
        skips_padding: padding that a caller wrote in his text takes no position in the source.
    """

    norm_first: bool
    positions: Callable[[Any], torch.Tensor]
    skips_padding: bool = False


def _from_start(part: Any) -> torch.Tensor:
    weight: torch.Tensor = part.embed_positions.weight
    return weight


def _behind_two_unused(part: Any) -> torch.Tensor:
    weight: torch.Tensor = part.embed_positions.weight[2:]
    return weight


def _behind_padding(part: Any) -> torch.Tensor:
    weights: torch.Tensor = part.embed_positions.weights[part.embed_positions.padding_idx + 1 :]
    return weights


_FAMILIES: Mapping[str, _Family] = {
    "marian": _Family(norm_first=False, positions=_from_start),
    "bart": _Family(norm_first=False, positions=_behind_two_unused),
    "pointer-bart": _Family(norm_first=False, positions=_behind_two_unused),
    "mbart": _Family(norm_first=True, positions=_behind_two_unused),
    "pegasus": _Family(norm_first=True, positions=_from_start),
    "m2m_100": _Family(norm_first=True, positions=_behind_padding, skips_padding=True),
}


def bart(model: Any, *, source_length: int, target_length: int) -> tuple[CrossAttentionEncoder, DecoderStep]:
    """Encoder and decoder step of a `...ForConditionalGeneration`, or `MarianMTModel`, of one of these families.

    Args:
        source_length: positions that the encoder keeps.
        target_length: positions that the decoder keeps.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    config, encoder, decoder = model.config, model.model.encoder, model.model.decoder
    family = _FAMILIES[config.model_type]
    packed = PackedEncoder(
        _source_embeddings(encoder, config, family, source_length),
        [_encoder_layer(layer, config, family) for layer in encoder.layers],
        norm=getattr(encoder, "layer_norm", None),
    )
    step = DecoderStep(
        _embeddings(decoder, config, family, target_length),
        [_decoder_layer(layer, config, family) for layer in decoder.layers],
        output_layer(model.lm_head.weight, model.final_logits_bias[0] if hasattr(model, "final_logits_bias") else None),
        norm=getattr(decoder, "layer_norm", None),
    )
    cross = joined(
        *(part for layer in decoder.layers for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj))
    )
    heads = config.decoder_attention_heads
    return CrossAttentionEncoder(packed, cross, layers=len(decoder.layers), heads=heads).eval(), step.eval()


def _source_embeddings(encoder: Any, config: Any, family: _Family, length: int) -> Embeddings:
    plain = _embeddings(encoder, config, family, length)
    if not family.skips_padding or plain.positions is None:
        return plain
    padding, weights = encoder.embed_positions.padding_idx, encoder.embed_positions.weights
    rows = torch.cat([weights[padding : padding + 1], plain.positions.weight])
    return PositionsWithoutPadding(
        plain.tokens, scale=plain.scale, positions=table(rows), norm=plain.norm, padding_token=padding
    )


def _embeddings(part: Any, config: Any, family: _Family, length: int) -> Embeddings:
    return Embeddings(
        vocabulary(part.embed_tokens.weight),
        scale=math.sqrt(config.d_model) if config.scale_embedding else 1.0,
        positions=first_positions(family.positions(part), length),
        norm=getattr(part, "layernorm_embedding", None),
    )


def _encoder_layer(layer: Any, config: Any, family: _Family) -> PackedLayer:
    own, heads = layer.self_attn, config.encoder_attention_heads
    return PackedLayer(
        PackedAttention(
            joined(own.q_proj, own.k_proj, own.v_proj),
            own.out_proj,
            heads=heads,
            scale=(config.d_model // heads) ** -0.5,
        ),
        Residual(layer.self_attn_layer_norm, norm_first=family.norm_first),
        FeedForward(layer.fc1, layer.fc2, activation_of(config.activation_function)),
        Residual(layer.final_layer_norm, norm_first=family.norm_first),
    )


def _decoder_layer(layer: Any, config: Any, family: _Family) -> DecoderLayer:
    own, source, heads = layer.self_attn, layer.encoder_attn, config.decoder_attention_heads
    return DecoderLayer(
        heads=heads,
        scale=(config.d_model // heads) ** -0.5,
        query_key_value=joined(own.q_proj, own.k_proj, own.v_proj),
        self_out=own.out_proj,
        self_residual=Residual(layer.self_attn_layer_norm, norm_first=family.norm_first),
        cross_query=source.q_proj,
        cross_out=source.out_proj,
        cross_residual=Residual(layer.encoder_attn_layer_norm, norm_first=family.norm_first),
        feed_forward=FeedForward(layer.fc1, layer.fc2, activation_of(config.activation_function)),
        feed_forward_residual=Residual(layer.final_layer_norm, norm_first=family.norm_first),
    )
