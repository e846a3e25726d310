"""Tiny checkpoints of the encoder-decoder families beside Marian and BART, with limits as far as each of them goes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from models.bundle import Limits
from models.nets.pointer import PointerBart, PointerBartConfig
from tests.export.checkpoints import SIZES, VOCABULARY, _saved

BART_SIZES: Mapping[str, Any] = {**SIZES, "decoder_layers": 1}
T5_SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
T5_TASKS: Mapping[str, Any] = {"summarization": {"prefix": "saw on : ", "no_repeat_ngram_size": 2}}

_DRAWN_WIDELY = ("decoder.layer_norm.weight", "decoder.final_layer_norm.weight", "relative_attention_bias.weight")
_LAYER_OUTPUTS = ("out_proj.weight", "fc2.weight", "Attention.o.weight", "wo.weight")


def mbart(folder: Path, **changes: Any) -> Path:
    """Norms before sublayers, behind the embeddings and at the end; scaled embeddings; a language to start with."""
    torch.manual_seed(5)
    config = MBartConfig(**{**BART_SIZES, "activation_function": "gelu", "scale_embedding": True, **changes})
    model = MBartForConditionalGeneration(config)
    model.final_logits_bias.normal_()
    model.generation_config.forced_bos_token_id = 7
    model.generation_config.no_repeat_ngram_size = 2
    return _varied(model, folder)


def pegasus(folder: Path, **changes: Any) -> Path:
    """Norms before sublayers and at the end, static sinusoidal positions, relu."""
    torch.manual_seed(6)
    config = PegasusConfig(**{**BART_SIZES, "activation_function": "relu", "scale_embedding": True, **changes})
    model = PegasusForConditionalGeneration(config)
    model.final_logits_bias.normal_()
    model.generation_config.no_repeat_ngram_size = 3
    return _varied(model, folder)


def m2m_100(folder: Path, **changes: Any) -> Path:
    """Positions that start behind the padding's, which padding itself never takes; no bias of the logits."""
    torch.manual_seed(7)
    config = M2M100Config(**{**BART_SIZES, "activation_function": "relu", "decoder_start_token_id": 1, **changes})
    model = M2M100ForConditionalGeneration(config)
    model.generation_config.bad_words_ids = [[0]]
    model.generation_config.no_repeat_ngram_size = 2
    return _varied(model, folder)


def t5(folder: Path, **changes: Any) -> Path:
    """The first T5: relu, an output layer that is the embeddings, scaled; a prefix and settings for its task."""
    torch.manual_seed(8)
    config = T5Config(**{**T5_SIZES, "feed_forward_proj": "relu", "task_specific_params": T5_TASKS, **changes})
    return _varied(T5ForConditionalGeneration(config), folder)


def flan(folder: Path, **changes: Any) -> Path:
    """T5 1.1: a gated network, an output layer of its own, not scaled."""
    torch.manual_seed(9)
    config = T5Config(**{**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, **changes})
    return _varied(_with_own_output(T5ForConditionalGeneration(config)), folder)


def mt5(folder: Path, **changes: Any) -> Path:
    """As T5 1.1, under another name."""
    torch.manual_seed(10)
    config = MT5Config(**{**T5_SIZES, "feed_forward_proj": "gated-gelu", "num_layers": 1, **changes})
    return _varied(_with_own_output(MT5ForConditionalGeneration(config)), folder)


def _with_own_output(model: Any) -> Any:
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.5)
    return model


def _varied(model: Any, folder: Path) -> Path:
    """Save with layers that outweigh the token before, which else is repeated for ever, and distances that show."""
    _saved(model, folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(_DRAWN_WIDELY):
                parameter.normal_()
            elif name.endswith(_LAYER_OUTPUTS):
                parameter.mul_(4)
    model.save_pretrained(folder)
    return folder


def pointer_bart(folder: Path, **changes: Any) -> Path:
    """BART with a pointer to the source, whose share is drawn widely, so that rows both say and copy."""
    torch.manual_seed(11)
    model = PointerBart(PointerBartConfig(**{**BART_SIZES, "activation_function": "gelu", "copy_width": 24, **changes}))
    model.final_logits_bias.normal_()
    model.continue_copies()
    model.generation_config.no_repeat_ngram_size = 3
    _varied(model, folder)
    with torch.no_grad():
        model.pointer.gate.weight.normal_()
    model.save_pretrained(folder)
    return folder


POSITIONS = Limits(max_tokens=64, max_new_tokens=64)
FURTHER_THAN_BUCKETS = Limits(max_tokens=160, max_new_tokens=140)
PAST_32 = Limits(max_tokens=160, max_new_tokens=48)

ENCODER_DECODERS: Mapping[str, tuple[str, Limits, Callable[[Path], Path]]] = {
    "mbart": ("translation", POSITIONS, mbart),
    "pointer-bart": ("summarization", POSITIONS, pointer_bart),
    "pegasus": ("summarization", POSITIONS, pegasus),
    "m2m_100": ("translation", POSITIONS, m2m_100),
    "t5": ("summarization", FURTHER_THAN_BUCKETS, t5),
    "flan": ("summarization", PAST_32, flan),
    "mt5": ("translation", PAST_32, mt5),
}
