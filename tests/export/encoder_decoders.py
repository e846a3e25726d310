"""Tiny checkpoints of the encoder-decoder families with tokenizers of their own, and limits as far as each goes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from models.bundle import Languages, Limits
from models.export.tokenizer import original_tokenizer
from models.nets.pointer import PointerBart, PointerBartConfig
from tests.export import vocabularies
from tests.export.checkpoints import SIZES, TEXT, draw_biases, write_tokenizer
from tests.export.vocabularies import english, french, train_sentencepiece

BART_SIZES: Mapping[str, Any] = {**SIZES, "decoder_layers": 1}
T5_SIZES: Mapping[str, Any] = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
T5_TASKS: Mapping[str, Any] = {
    "translation_en_to_de": {"prefix": "translate English to German: "},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "no_repeat_ngram_size": 2},
}
OPUS_LANGUAGES = ("deu", "fra", "zho_Hans")
WORDS = [*english(400), *french(200)]

_DRAWN_WIDELY = ("decoder.layer_norm.weight", "decoder.final_layer_norm.weight", "relative_attention_bias.weight")
_LAYER_OUTPUTS = ("out_proj.weight", "fc2.weight", "Attention.o.weight", "wo.weight")


def opus(folder: Path) -> Path:
    """A Marian that writes several languages: a source begins with the one asked for."""
    torch.manual_seed(11)
    models = [train_sentencepiece(folder.parent / name, words) for name, words in _OPUS_WORDS.items()]
    vocabularies.marian(folder, *models, codes=tuple(f">>{code}<<" for code in OPUS_LANGUAGES))
    ids = _ids(folder)
    start = ids["pad_token_id"]
    config = MarianConfig(
        **{
            **BART_SIZES,
            **ids,
            "decoder_start_token_id": start,
            "activation_function": "swish",
            "scale_embedding": True,
        }
    )
    model = MarianMTModel(config)
    model.final_logits_bias.normal_()
    model.generation_config.bad_words_ids = [[start]]
    model.generation_config.num_beams = 2
    model.generation_config.no_repeat_ngram_size = 2
    return _varied(model, folder)


def mbart(folder: Path) -> Path:
    """Norms before sublayers, behind the embeddings and at the end; scaled embeddings; a language to start with."""
    torch.manual_seed(5)
    ids = _speaking(folder, "mbart50")
    config = MBartConfig(
        **{**BART_SIZES, **ids, "decoder_start_token_id": ids["eos_token_id"], "activation_function": "gelu"},
        scale_embedding=True,
    )
    model = MBartForConditionalGeneration(config)
    model.final_logits_bias.normal_()
    model.generation_config.forced_bos_token_id = original_tokenizer(folder).convert_tokens_to_ids("fr_XX")
    model.generation_config.no_repeat_ngram_size = 2
    return _varied(model, folder)


def pegasus(folder: Path) -> Path:
    """Norms before sublayers and at the end, static sinusoidal positions, relu."""
    torch.manual_seed(6)
    ids = _speaking(folder, "pegasus")
    config = PegasusConfig(
        **{**BART_SIZES, **ids, "activation_function": "relu", "scale_embedding": True, "decoder_start_token_id": 0}
    )
    model = PegasusForConditionalGeneration(config)
    model.final_logits_bias.normal_()
    model.generation_config.no_repeat_ngram_size = 3
    return _varied(model, folder)


def m2m_100(folder: Path) -> Path:
    """Positions that start behind the padding's, which padding itself never takes; no bias of the logits."""
    torch.manual_seed(7)
    ids = _speaking(folder, "m2m100")
    config = M2M100Config(
        **{**BART_SIZES, **ids, "decoder_start_token_id": ids["eos_token_id"], "activation_function": "relu"}
    )
    model = M2M100ForConditionalGeneration(config)
    model.generation_config.bad_words_ids = [[ids["pad_token_id"]]]
    model.generation_config.no_repeat_ngram_size = 2
    return _varied(model, folder)


def t5(folder: Path, **changes: Any) -> Path:
    """The first T5: relu, an output layer that is the embeddings, scaled; a prefix and settings for its tasks."""
    torch.manual_seed(8)
    sizes = {**T5_SIZES, **_speaking(folder, "t5"), "feed_forward_proj": "relu", "task_specific_params": T5_TASKS}
    config = T5Config(**sizes | changes)
    return _varied(T5ForConditionalGeneration(config), folder)


def flan(folder: Path) -> Path:
    """T5 1.1: a gated network, an output layer of its own, not scaled; FLAN has the prefixes of the first T5."""
    torch.manual_seed(9)
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "task_specific_params": T5_TASKS}
    config = T5Config(**{**T5_SIZES, **_speaking(folder, "t5"), **gated})
    return _varied(_with_own_output(T5ForConditionalGeneration(config)), folder)


def mt5(folder: Path) -> Path:
    """As T5 1.1, under another name."""
    torch.manual_seed(10)
    config = MT5Config(**{**T5_SIZES, **_speaking(folder, "mt5"), "feed_forward_proj": "gated-gelu", "num_layers": 1})
    return _varied(_with_own_output(MT5ForConditionalGeneration(config)), folder)


_OPUS_WORDS: Mapping[str, list[str]] = {"english.spm": english(400), "french.spm": french(400)}


def _speaking(folder: Path, kind: str) -> Mapping[str, Any]:
    """A tokenizer of this kind in the folder, and what a configuration says of it."""
    save, options = vocabularies.WITH_SENTENCEPIECE[kind]
    save(folder, train_sentencepiece(folder.parent / f"{folder.name}.spm", WORDS, **options))
    return _ids(folder)


def _ids(folder: Path) -> Mapping[str, Any]:
    tokenizer = original_tokenizer(folder)
    named = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    return {"vocab_size": len(tokenizer), **named}


def _with_own_output(model: Any) -> Any:
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.5)
    return model


def _varied(model: Any, folder: Path) -> Path:
    """Save with layers that outweigh the token before, which else is repeated for ever, and distances that show."""
    draw_biases(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(_DRAWN_WIDELY):
                parameter.normal_()
            elif name.endswith(_LAYER_OUTPUTS):
                parameter.mul_(4)
    model.save_pretrained(folder)
    return folder


def pointer_bart(folder: Path) -> Path:
    """BART with a pointer to the source, whose share is drawn widely, so that rows both say and copy."""
    torch.manual_seed(11)
    model = PointerBart(PointerBartConfig(**{**BART_SIZES, "activation_function": "gelu", "copy_width": 24}))
    model.final_logits_bias.normal_()
    model.continue_copies()
    model.generation_config.no_repeat_ngram_size = 3
    _varied(model, folder)
    write_tokenizer(folder)
    with torch.no_grad():
        model.pointer.gate.weight.normal_()
    model.save_pretrained(folder)
    return folder


POSITIONS = Limits(max_tokens=64, max_new_tokens=64)
FURTHER_THAN_BUCKETS = Limits(max_tokens=160, max_new_tokens=140)
PAST_32 = Limits(max_tokens=160, max_new_tokens=48)

ENCODER_DECODERS: Mapping[str, tuple[str, Limits, Callable[[Path], Path]]] = {
    "opus": ("translation", POSITIONS, opus),
    "mbart": ("translation", POSITIONS, mbart),
    "pointer-bart": ("summarization", POSITIONS, pointer_bart),
    "pegasus": ("summarization", POSITIONS, pegasus),
    "m2m_100": ("translation", POSITIONS, m2m_100),
    "t5": ("translation", FURTHER_THAN_BUCKETS, t5),
    "flan": ("translation", PAST_32, flan),
    "mt5": ("summarization", PAST_32, mt5),
}

MULTILINGUAL: Mapping[str, Mapping[str, Any]] = {
    "opus": {
        "languages": Languages(source=("en",)),
        "example": {"inputs": TEXT, "parameters": {"tgt_lang": "deu"}},
        "references": [{"inputs": TEXT, "parameters": {"tgt_lang": code}} for code in OPUS_LANGUAGES[1:]],
    },
    "mbart": {"languages": Languages(source=()), "references": [{"inputs": TEXT, "parameters": {"tgt_lang": "de_DE"}}]},
    "m2m_100": {
        "languages": Languages(source=()),
        "example": None,
        "references": [{"inputs": TEXT, "parameters": {"src_lang": "fr", "tgt_lang": "de"}}],
    },
}
"""What the recipes of models of many languages say: all of them, and requests for a few."""
