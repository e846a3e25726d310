"""Tiny checkpoints of each family with random weights, as training would leave them on disk."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForQuestionAnswering,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from models.bundle import Languages, Limits
from models.export.recipe import Recipe
from models.nets.sasrec import SasRec, SasRecConfig

WORDS = [
    "<pad>",
    "</s>",
    "<s>",
    "<unk>",
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "another",
    "was",
    "there",
]
VOCABULARY = 64
END_BIAS = 3.0
"""Makes outputs of random weights end at any length."""

SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
    "init_std": 0.2,
}


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 2), ("</s>", 1)]
    )
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    save_tokenizer(tokenizer, folder, **special)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **special: str) -> None:
    """As `save_pretrained` of a tokenizer of no family's own class does."""
    kind: Any = PreTrainedTokenizerFast
    kind(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def marian(folder: Path, **changes: Any) -> Path:
    """Static sinusoidal positions, scaled embeddings, silu; a pad token that must not be produced."""
    torch.manual_seed(1)
    config = MarianConfig(**{**SIZES, "activation_function": "swish", "scale_embedding": True, **changes})
    model = MarianMTModel(config)
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, 1] = END_BIAS
    model.generation_config.bad_words_ids = [[0], [7, 8], [1]]
    model.generation_config.forced_eos_token_id = 1
    model.generation_config.num_beams = 3
    model.generation_config.renormalize_logits = True
    return _saved(model, folder)


def bart(folder: Path, **changes: Any) -> Path:
    """Learned positions, normalised embeddings, gelu; forced tokens at both ends, and what summaries are made with."""
    torch.manual_seed(2)
    model = BartForConditionalGeneration(BartConfig(**{**SIZES, "activation_function": "gelu", **changes}))
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, 1] = END_BIAS
    model.generation_config.forced_bos_token_id = 5
    model.generation_config.forced_eos_token_id = [1]
    model.generation_config.max_length = 12
    model.generation_config.min_length = 4
    model.generation_config.no_repeat_ngram_size = 2
    model.generation_config.repetition_penalty = 1.3
    model.generation_config.num_beams = 4
    model.generation_config.length_penalty = 2.0
    model.generation_config.early_stopping = True
    return _saved(model, folder)


def bert(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.2, **{**sizes, **changes}
    )
    return _saved(BertForQuestionAnswering(config), folder)


def sasrec(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(4)
    folder.mkdir()
    sizes = {"num_items": 50, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}
    config = SasRecConfig(**sizes, max_length=24, dropout=0.5, **changes)
    model = SasRec(config)
    torch.nn.init.normal_(model.item_bias)
    if model.neighbours is not None:
        model.neighbours.ids.random_(0, 51)
        model.neighbours.weights.uniform_(0, 0.1)
    model.save(folder)
    items = [{"item": f"item {index}", "title": f"Title {index}"} for index in range(1, 51)]
    (folder / "items.json").write_text(json.dumps(items, indent=2))
    return folder


def _saved(model: Any, folder: Path) -> Path:
    draw_biases(model)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def sasrec_with_neighbours(folder: Path) -> Path:
    """Mixed with a table in which, as in a real one, an item may not stand at all."""
    return sasrec(folder, num_neighbours=5, neighbour_share=0.5, neighbour_recency=0.7)


def draw_biases(model: Any) -> None:
    """Biases and norms at random; new models have them at zero and one, where a mistake does not show."""
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight", "Norm.weight")):
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)


FAMILIES: Mapping[str, tuple[str, Callable[[Path], Path]]] = {
    "marian": ("translation", marian),
    "bart": ("summarization", bart),
    "bert": ("question-answering", bert),
    "sasrec": ("recommendation", sasrec),
    "sasrec-neighbours": ("recommendation", sasrec_with_neighbours),
}

TEXT = "the cat sat on a mat and saw another cat"
EXAMPLES: Mapping[str, Any] = {
    "translation": {"inputs": TEXT},
    "summarization": {"inputs": TEXT},
    "question-answering": {"inputs": {"question": "was that there", "context": f"{TEXT} {TEXT} {TEXT}"}},
    "recommendation": {"inputs": {"history": ["item 3", "item 7", "item 1"]}},
}


def recipe(task: str, **changes: Any) -> Recipe:
    """A recipe for a tiny checkpoint that serves this task."""
    fields = {
        "name": f"tiny-{task}",
        "source": "random weights",
        "licence": "CC0-1.0",
        "languages": Languages(source=("en",), target=("fr",)),
        "limits": Limits(max_tokens=24) if task == "recommendation" else Limits(max_tokens=40, max_new_tokens=16),
        "example": EXAMPLES[task],
        "explain": False,
    }
    return Recipe.model_validate(fields | changes)
