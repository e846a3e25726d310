"""The graph of what a row attended to, from the modules of the graphs that answer, so that it shares their weights."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from models.bundle import Role
from models.export.graphs import Dims, Source, packed_source
from models.nets.copying import CopyingEncoder, CopyingStep
from models.nets.explain import EncoderAttention, TeacherForced
from models.nets.packed import CrossAttentionEncoder, NextItemScorer, PackedEncoder, SpanScorer
from models.nets.step import DecoderStep

_EXAMPLE_TARGET = 11


def explain_source(sources: Mapping[Role, Source]) -> Source | None:
    """What shows the attention of a model that these sources are traced of; None where it is padded."""
    if "forward" in sources:
        module = sources["forward"].module
        if not isinstance(module, SpanScorer | NextItemScorer):
            return None
        own = {"encoder_attention": _self_attention(module.encoder)}
        return packed_source(EncoderAttention(module.encoder), own, segments="segments" in sources["forward"].inputs)
    encoder, step = sources["encoder"].module, sources["step"].module
    if not isinstance(encoder, CrossAttentionEncoder | CopyingEncoder):
        raise TypeError(f"an encoder of {type(encoder).__name__} has no attention that is known here")
    if not isinstance(step, DecoderStep | CopyingStep):
        raise TypeError(f"a step of {type(step).__name__} has no attention that is known here")
    packed = encoder.encoder.encoder if isinstance(encoder, CopyingEncoder) else encoder.encoder
    outputs: dict[str, Dims] = {
        "cross_attention": (encoder.layers, encoder.heads, "target", "tokens"),
        "encoder_attention": _self_attention(packed),
    }
    if isinstance(encoder, CopyingEncoder):
        outputs |= {"copy_attention": ("target", "tokens"), "copy_share": ("target",)}
    source = packed_source(TeacherForced(encoder, step), outputs)
    return replace(
        source,
        arguments={**source.arguments, "target": torch.arange(_EXAMPLE_TARGET)},
        inputs={**source.inputs, "target": ("target",)},
        precisions=sources["step"].precisions,
    )


def _self_attention(encoder: PackedEncoder) -> Dims:
    return len(encoder.layers), encoder.heads, "width", "width"
