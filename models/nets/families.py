"""From checkpoints of each family to the modules that are exported: what differs between families stands here.

A further family (T5, Pegasus, ...) is one more function: it says where the norms stand, which norm and activation it
uses and how positions enter.
"""

import math
from typing import Any

from torch import nn
from torch.nn import functional as F

from models.nets.encoders import question_answering as question_answering
from models.nets.layers import Embeddings, FeedForward, Residual, activation_of, first_positions, joined
from models.nets.packed import (
    CrossAttentionEncoder,
    NextItemScorer,
    PackedAttention,
    PackedEncoder,
    PackedLayer,
    post_norm_layer,
)
from models.nets.step import DecoderLayer, DecoderStep

_BART_POSITION_OFFSET = 2


def encoder_decoder(model: Any, *, source_length: int, target_length: int) -> tuple[CrossAttentionEncoder, DecoderStep]:
    """Encoder and decoder step of a Marian or BART model of transformers.

    Both are post-norm with learned or sinusoidal absolute positions; BART alone normalises its embeddings, and starts
    its table of positions at row 2.

    Args:
        model: `MarianMTModel` or `BartForConditionalGeneration`.
        source_length: positions that the encoder keeps.
        target_length: positions that the decoder keeps.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    config, encoder, decoder = model.config, model.model.encoder, model.model.decoder
    activation = activation_of(config.activation_function)
    packed = PackedEncoder(
        _absolute_embeddings(encoder, config, source_length),
        [
            post_norm_layer(
                attention=(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                out=layer.self_attn.out_proj,
                attention_norm=layer.self_attn_layer_norm,
                feed_forward=FeedForward(layer.fc1, layer.fc2, activation),
                feed_forward_norm=layer.final_layer_norm,
                heads=config.encoder_attention_heads,
            )
            for layer in encoder.layers
        ],
    )
    heads = config.decoder_attention_heads
    cross = [part for layer in decoder.layers for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
    head = nn.Linear(config.d_model, model.lm_head.out_features)
    head.weight = model.lm_head.weight
    head.bias = nn.Parameter(model.final_logits_bias[0].detach().clone())
    step = DecoderStep(
        _absolute_embeddings(decoder, config, target_length),
        [
            DecoderLayer(
                heads=heads,
                scale=(config.d_model // heads) ** -0.5,
                query_key_value=joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                self_out=layer.self_attn.out_proj,
                self_residual=Residual(layer.self_attn_layer_norm, norm_first=False),
                cross_query=layer.encoder_attn.q_proj,
                cross_out=layer.encoder_attn.out_proj,
                cross_residual=Residual(layer.encoder_attn_layer_norm, norm_first=False),
                feed_forward=FeedForward(layer.fc1, layer.fc2, activation),
                feed_forward_residual=Residual(layer.final_layer_norm, norm_first=False),
            )
            for layer in decoder.layers
        ],
        head,
    )
    return CrossAttentionEncoder(packed, joined(*cross), layers=len(decoder.layers), heads=heads).eval(), step.eval()


def next_item(model: Any) -> NextItemScorer:
    """Packed scorer of a `models.nets.sasrec.SasRec`: pre-norm, causal, item embeddings as output layer."""
    config = model.config
    head = nn.Linear(config.hidden_size, config.num_items + 1)
    head.weight, head.bias = model.items.weight, model.item_bias
    packed = PackedEncoder(
        Embeddings(model.items, positions=model.positions),
        [
            PackedLayer(
                PackedAttention(
                    layer.query_key_value,
                    layer.attention_out,
                    heads=config.num_heads,
                    scale=(config.hidden_size // config.num_heads) ** -0.5,
                ),
                Residual(layer.attention_norm, norm_first=True),
                FeedForward(layer.inner, layer.outer, F.gelu),
                Residual(layer.feed_forward_norm, norm_first=True),
            )
            for layer in model.layers
        ],
        causal=True,
        norm=model.norm,
    )
    return NextItemScorer(packed, head).eval()


def _absolute_embeddings(part: Any, config: Any, length: int) -> Embeddings:
    """Embeddings of a Marian or BART encoder or decoder."""
    is_bart = config.model_type == "bart"
    positions = part.embed_positions.weight[_BART_POSITION_OFFSET if is_bart else 0 :]
    return Embeddings(
        part.embed_tokens,
        scale=math.sqrt(config.d_model) if config.scale_embedding else 1.0,
        positions=first_positions(positions, length),
        norm=part.layernorm_embedding if is_bart else None,
    )
