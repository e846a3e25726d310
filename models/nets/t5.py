"""T5 and mT5: pre-norm by root mean square, no biases, no scaled scores, distances instead of positions.

The first T5 has a plain feed-forward network, and divides what enters its output layer; T5 1.1, FLAN-T5 and mT5 have a
gated network, and mostly an output layer of their own.
"""

from typing import Any

import torch
from torch import nn

from models.nets.layers import (
    DistanceBias,
    Embeddings,
    FeedForward,
    GatedFeedForward,
    Residual,
    RmsNorm,
    activation_of,
    in_float32,
    joined,
    output_layer,
    vocabulary,
)
from models.nets.packed import CrossAttentionEncoder, PackedAttention, PackedEncoder, PackedLayer
from models.nets.step import DecoderLayer, DecoderStep

_SCORE_SCALE = 1.0


def t5(model: Any) -> tuple[CrossAttentionEncoder, DecoderStep]:
    """Encoder and decoder step of a `T5ForConditionalGeneration` or `MT5ForConditionalGeneration`.

    Raises:
        ValueError: the model has an activation that is not known here.
    """
    config, encoder, decoder = model.config, model.encoder, model.decoder
    packed = PackedEncoder(
        Embeddings(vocabulary(encoder.embed_tokens.weight)),
        [_encoder_layer(block.layer, config) for block in encoder.block],
        norm=_norm(encoder.final_layer_norm),
        distance_bias=_distance_bias(encoder),
    )
    scaled = getattr(config, "scale_decoder_outputs", False)
    step = DecoderStep(
        Embeddings(vocabulary(decoder.embed_tokens.weight)),
        [_decoder_layer(block.layer, config) for block in decoder.block],
        output_layer(model.lm_head.weight),
        norm=_norm(decoder.final_layer_norm, scale=config.d_model**-0.5 if scaled else 1.0),
        distance_bias=_distance_bias(decoder),
    )
    sources = [block.layer[1].EncDecAttention for block in decoder.block]
    cross = joined(*(part for source in sources for part in (source.k, source.v)))
    return CrossAttentionEncoder(packed, cross, layers=len(sources), heads=config.num_heads).eval(), step.eval()


def _encoder_layer(parts: Any, config: Any) -> PackedLayer:
    own, feed_forward = parts
    return PackedLayer(
        PackedAttention(_query_key_value(own), own.SelfAttention.o, heads=config.num_heads, scale=_SCORE_SCALE),
        _residual(own),
        _feed_forward(feed_forward.DenseReluDense, config),
        _residual(feed_forward),
    )


def _decoder_layer(parts: Any, config: Any) -> DecoderLayer:
    own, source, feed_forward = parts
    return DecoderLayer(
        heads=config.num_heads,
        scale=_SCORE_SCALE,
        query_key_value=_query_key_value(own),
        self_out=own.SelfAttention.o,
        self_residual=_residual(own),
        cross_query=source.EncDecAttention.q,
        cross_out=source.EncDecAttention.o,
        cross_residual=_residual(source),
        feed_forward=_feed_forward(feed_forward.DenseReluDense, config),
        feed_forward_residual=_residual(feed_forward),
    )


def _query_key_value(part: Any) -> nn.Linear:
    return joined(part.SelfAttention.q, part.SelfAttention.k, part.SelfAttention.v)


def _feed_forward(part: Any, config: Any) -> nn.Module:
    activate = activation_of(config.dense_act_fn)
    outer = in_float32(part.wo)  # as transformers keeps it
    if config.is_gated_act:
        return GatedFeedForward(joined(part.wi_0, part.wi_1), outer, activate)
    return FeedForward(part.wi, outer, activate)


def _residual(part: Any) -> Residual:
    return Residual(_norm(part.layer_norm), norm_first=True)


def _norm(norm: Any, *, scale: float = 1.0) -> RmsNorm:
    return RmsNorm(norm.weight * scale, norm.variance_epsilon)


def _distance_bias(stack: Any) -> DistanceBias:
    """The first layer's, which all layers share."""
    attention = stack.block[0].layer[0].SelfAttention
    reach = attention.relative_attention_max_distance
    square = attention.compute_bias(reach + 1, reach + 1)[0]
    return DistanceBias(torch.cat([square[:, -1, :], square[:, 0, 1:]], 1))
