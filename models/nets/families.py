"""From checkpoints of each family to the modules that are exported: what differs between families stands here.

A further family (T5, Pegasus, ...) is one more function: it says where the norms stand, which norm and activation it
uses and how positions enter.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.nets.layers import Activation, Embeddings, FeedForward, Residual, joined, table
from models.nets.packed import (
    CrossAttentionEncoder,
    NextItemScorer,
    PackedAttention,
    PackedEncoder,
    PackedLayer,
    SpanScorer,
)
from models.nets.step import DecoderLayer, DecoderStep

_ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "swish": F.silu}

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
    activation = _activation(config.activation_function)
    packed = PackedEncoder(
        _absolute_embeddings(encoder, config, source_length),
        [
            _post_norm_layer(
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


def question_answering(model: Any, *, length: int) -> SpanScorer:
    """Packed span scorer of a `BertForQuestionAnswering`.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    config, embeddings = model.config, model.bert.embeddings
    packed = PackedEncoder(
        Embeddings(
            embeddings.word_embeddings,
            positions=_first_positions(embeddings.position_embeddings.weight, length),
            segments=embeddings.token_type_embeddings,
            norm=embeddings.LayerNorm,
        ),
        [
            _post_norm_layer(
                attention=(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
                out=layer.attention.output.dense,
                attention_norm=layer.attention.output.LayerNorm,
                feed_forward=FeedForward(layer.intermediate.dense, layer.output.dense, _activation(config.hidden_act)),
                feed_forward_norm=layer.output.LayerNorm,
                heads=config.num_attention_heads,
            )
            for layer in model.bert.encoder.layer
        ],
    )
    return SpanScorer(packed, model.qa_outputs).eval()


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


def _post_norm_layer(
    *,
    attention: tuple[nn.Linear, nn.Linear, nn.Linear],
    out: nn.Linear,
    attention_norm: nn.Module,
    feed_forward: FeedForward,
    feed_forward_norm: nn.Module,
    heads: int,
) -> PackedLayer:
    return PackedLayer(
        PackedAttention(joined(*attention), out, heads=heads, scale=(out.in_features // heads) ** -0.5),
        Residual(attention_norm, norm_first=False),
        feed_forward,
        Residual(feed_forward_norm, norm_first=False),
    )


def _absolute_embeddings(part: Any, config: Any, length: int) -> Embeddings:
    """Embeddings of a Marian or BART encoder or decoder."""
    is_bart = config.model_type == "bart"
    positions = part.embed_positions.weight[_BART_POSITION_OFFSET if is_bart else 0 :]
    return Embeddings(
        part.embed_tokens,
        scale=math.sqrt(config.d_model) if config.scale_embedding else 1.0,
        positions=_first_positions(positions, length),
        norm=part.layernorm_embedding if is_bart else None,
    )


def _first_positions(weight: torch.Tensor, length: int) -> nn.Embedding:
    if length > len(weight):
        raise ValueError(f"the checkpoint has {len(weight)} positions, {length} were asked for")
    return table(weight[:length])


def _activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
