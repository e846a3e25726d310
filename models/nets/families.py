"""From checkpoints of each family to the modules that are exported; kindred families share a file."""

from typing import Any

from torch import nn
from torch.nn import functional as F

from models.nets.bart import bart
from models.nets.copying import CopyingEncoder, CopyingStep, pointer_bart
from models.nets.layers import Embeddings, FeedForward, Residual
from models.nets.packed import CrossAttentionEncoder, NextItemScorer, PackedAttention, PackedEncoder, PackedLayer
from models.nets.step import DecoderStep
from models.nets.t5 import t5


def encoder_decoder(
    model: Any, *, source_length: int, target_length: int
) -> tuple[CrossAttentionEncoder, DecoderStep] | tuple[CopyingEncoder, CopyingStep]:
    """Encoder and decoder step of a `...ForConditionalGeneration` of transformers.

    Args:
        source_length: positions that the encoder keeps; T5 has none to keep, it knows distances of any length.
        target_length: positions that the decoder keeps.

    Raises:
        ValueError: the model has an activation that is not known here, or fewer positions than asked for.
    """
    if model.config.model_type in {"t5", "mt5"}:
        return t5(model)
    if model.config.model_type == "pointer-bart":
        return pointer_bart(model, source_length=source_length, target_length=target_length)
    return bart(model, source_length=source_length, target_length=target_length)


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
    return NextItemScorer(packed, head, model.neighbours).eval()
