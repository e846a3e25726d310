"""From checkpoints of encoders with a question answering head to packed span scorers, a function for each family."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from models.nets.disentangled import DisentangledAttention
from models.nets.layers import (
    Embeddings,
    FeedForward,
    PositionsWithoutPadding,
    Residual,
    Unsupported,
    activation_of,
    first_positions,
    in_float32,
    joined,
    table,
)
from models.nets.packed import PackedEncoder, PackedLayer, SpanScorer, post_norm_layer
from models.packing import WIDTH_MULTIPLE


def question_answering(model: Any, *, length: int) -> SpanScorer:
    """Packed span scorer of a question answering model of transformers.

    Args:
        model: of a family that `PACKED_FAMILIES` names.
        length: positions that the encoder keeps.

    Raises:
        Unsupported: the family has no packed form, or the checkpoint has a part that the packed modules do not have.
        ValueError: the model has fewer positions than asked for.
    """
    config = model.config
    if config.model_type not in _ENCODERS:
        raise Unsupported(f"{config.model_type} has no packed form")
    if getattr(config, "is_decoder", False):
        raise Unsupported("is_decoder hides what follows a token")
    return SpanScorer(_ENCODERS[config.model_type](model, length), model.qa_outputs).eval()


def _bert(model: Any, length: int) -> PackedEncoder:
    """BERT, and ELECTRA, whose embeddings may be narrower than its layers."""
    body = model.base_model
    norm = body.embeddings.LayerNorm
    projection = getattr(body, "embeddings_project", None)
    return PackedEncoder(
        _bert_embeddings(
            body.embeddings, length, norm if projection is None else nn.Sequential(norm, in_float32(projection))
        ),
        _bert_layers(body.encoder.layer, model.config),
    )


def _roberta(model: Any, length: int) -> PackedEncoder:
    """RoBERTa, XLM-RoBERTa and CamemBERT: positions start behind that of padding, and there is one segment."""
    embeddings = model.base_model.embeddings
    padding = embeddings.padding_idx
    positions = torch.cat(
        [
            embeddings.position_embeddings.weight[padding : padding + 1],
            first_positions(embeddings.position_embeddings.weight[padding + 1 :], length).weight,
        ]
    )
    return PackedEncoder(
        PositionsWithoutPadding(
            embeddings.word_embeddings,
            positions=table(positions + embeddings.token_type_embeddings.weight[0]),
            norm=embeddings.LayerNorm,
            padding_token=padding,
        ),
        _bert_layers(model.base_model.encoder.layer, model.config),
    )


def _distilbert(model: Any, length: int) -> PackedEncoder:
    """DistilBERT: BERT without segments."""
    config, embeddings = model.config, model.distilbert.embeddings
    activation = activation_of(config.activation)
    return PackedEncoder(
        Embeddings(
            embeddings.word_embeddings,
            positions=first_positions(embeddings.position_embeddings.weight, length),
            norm=embeddings.LayerNorm,
        ),
        [
            post_norm_layer(
                attention=(layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
                out=layer.attention.out_lin,
                attention_norm=layer.sa_layer_norm,
                feed_forward=FeedForward(layer.ffn.lin1, layer.ffn.lin2, activation),
                feed_forward_norm=layer.output_layer_norm,
                heads=config.n_heads,
            )
            for layer in model.distilbert.transformer.layer
        ],
    )


def _albert(model: Any, length: int) -> PackedEncoder:
    """ALBERT: narrow embeddings, and layers that stand several times in a row with the same weights."""
    config, embeddings, encoder = model.config, model.albert.embeddings, model.albert.encoder
    activation = activation_of(config.hidden_act)
    groups = [
        [
            post_norm_layer(
                attention=(layer.attention.query, layer.attention.key, layer.attention.value),
                out=layer.attention.dense,
                attention_norm=layer.attention.LayerNorm,
                feed_forward=FeedForward(layer.ffn, layer.ffn_output, activation),
                feed_forward_norm=layer.full_layer_layer_norm,
                heads=config.num_attention_heads,
            )
            for layer in group.albert_layers
        ]
        for group in encoder.albert_layer_groups
    ]
    return PackedEncoder(
        _bert_embeddings(
            embeddings, length, nn.Sequential(embeddings.LayerNorm, in_float32(encoder.embedding_hidden_mapping_in))
        ),
        [
            layer
            for index in range(config.num_hidden_layers)
            for layer in groups[int(index / (config.num_hidden_layers / config.num_hidden_groups))]
        ],
    )


def _deberta(model: Any, length: int) -> PackedEncoder:
    """DeBERTa-v2 and v3: distances in every attention, absolute positions and segments only where configured."""
    config, embeddings, encoder = model.config, model.deberta.embeddings, model.deberta.encoder
    if encoder.conv is not None:
        raise Unsupported("the convolution beside the first layer has no packed form")
    activation = activation_of(config.hidden_act)
    positions, segments, projection = (
        getattr(embeddings, name) for name in ("position_embeddings", "token_type_embeddings", "embed_proj")
    )
    norm = embeddings.LayerNorm
    distances = encoder.get_rel_embedding()
    if segments is not None and segments.num_embeddings == 1:
        raise Unsupported("a single segment has no packed form")
    return PackedEncoder(
        Embeddings(
            embeddings.word_embeddings,
            positions=None if positions is None else first_positions(positions.weight, length),
            segments=segments,
            norm=norm if projection is None else nn.Sequential(in_float32(projection), norm),
        ),
        [
            PackedLayer(
                _disentangled(layer.attention, distances, length),
                Residual(layer.attention.output.LayerNorm, norm_first=False),
                FeedForward(layer.intermediate.dense, layer.output.dense, activation),
                Residual(layer.output.LayerNorm, norm_first=False),
            )
            for layer in encoder.layer
        ],
    )


_ENCODERS: Mapping[str, Callable[[Any, int], PackedEncoder]] = {
    "albert": _albert,
    "bert": _bert,
    "camembert": _roberta,
    "deberta-v2": _deberta,
    "distilbert": _distilbert,
    "electra": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}

PACKED_FAMILIES = tuple(_ENCODERS)
"""What `model_type` says of the checkpoints that have a padding-free graph."""


def _bert_embeddings(embeddings: Any, length: int, norm: nn.Module) -> Embeddings:
    """A single segment is part of every position."""
    positions, segments = embeddings.position_embeddings.weight, embeddings.token_type_embeddings
    several = segments.num_embeddings > 1
    return Embeddings(
        embeddings.word_embeddings,
        positions=first_positions(positions if several else positions + segments.weight[0], length),
        segments=segments if several else None,
        norm=norm,
    )


def _bert_layers(layers: Any, config: Any) -> list[PackedLayer]:
    activation = activation_of(config.hidden_act)
    return [
        post_norm_layer(
            attention=(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
            out=layer.attention.output.dense,
            attention_norm=layer.attention.output.LayerNorm,
            feed_forward=FeedForward(layer.intermediate.dense, layer.output.dense, activation),
            feed_forward_norm=layer.output.LayerNorm,
            heads=config.num_attention_heads,
        )
        for layer in layers
    ]


def _disentangled(attention: Any, distances: torch.Tensor | None, length: int) -> DisentangledAttention:
    """Attention of one layer; `distances` [2 x span, width] are None where the checkpoint has no relative attention."""
    own = attention.self
    kinds = [kind for kind in ("c2p", "p2c") if kind in own.pos_att_type]
    keys = queries = None
    buckets = torch.zeros(0, dtype=torch.int64)
    if distances is not None:
        shared = own.share_att_key
        if "c2p" in kinds:
            keys = _projected(own.key_proj if shared else own.pos_key_proj, distances, own.pos_ebd_size)
        if "p2c" in kinds:
            queries = _projected(own.query_proj if shared else own.pos_query_proj, distances, own.pos_ebd_size)
        buckets = _buckets(own, length)
    return DisentangledAttention(
        joined(own.query_proj, own.key_proj, own.value_proj),
        attention.output.dense,
        heads=own.num_attention_heads,
        scale=(own.attention_head_size * (1 + len(kinds))) ** -0.5,
        buckets=buckets,
        keys=keys,
        queries=queries,
    )


def _projected(projection: nn.Linear, distances: torch.Tensor, span: int) -> nn.Embedding:
    with torch.no_grad():
        return table(projection(distances[: 2 * span]))


def _buckets(attention: Any, length: int) -> torch.Tensor:
    """Rows of distances for every width that rows of up to `length` tokens are padded to."""
    most = -(-length // WIDTH_MULTIPLE) * WIDTH_MULTIPLE + 1
    apart = torch.arange(1 - most, most + 1)
    if attention.position_buckets > 0 and attention.max_relative_positions > 0:
        apart = make_log_bucket_position(apart, attention.position_buckets, attention.max_relative_positions)
    span = int(attention.pos_ebd_size)
    return (apart.to(torch.int64) + span).clamp(0, 2 * span - 1)
