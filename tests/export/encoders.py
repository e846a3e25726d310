"""Tiny question answering checkpoints of each encoder family, with the kind of tokenizer that the family has."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForQuestionAnswering

from models.bundle import Languages, Limits
from models.export.recipe import Recipe
from tests.export.checkpoints import save_tokenizer

TEXT = (
    "The lighthouse on the northern cape was built in 1871 by Anna Lindqvist, who had studied in Kiel. It burned down"
    " twice; since 1932 it has been electric.  Its keeper, Olaf Berg, lived there with two dogs and a parrot until the"
    " winter of 1960, when the last boat could not land."
)
QUESTION = "Who built the lighthouse on the cape?"


def word_pieces() -> Tokenizer:
    """As BERT, DistilBERT, ELECTRA and MPNet split."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator([TEXT, QUESTION], trainers.WordPieceTrainer(vocab_size=160, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_pairs() -> Tokenizer:
    """As RoBERTa splits, the blank before a word being part of its first token, and of its offsets too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT, QUESTION], trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigrams(template: str, special: tuple[str, ...]) -> Callable[[], Tokenizer]:
    """As SentencePiece splits, a blank being a letter of the word behind it."""

    def train() -> Tokenizer:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=list(special), unk_token="<unk>")
        tokenizer.train_from_iterator([TEXT, QUESTION], trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template.split(" $B", maxsplit=1)[0],
            pair=template,
            special_tokens=[(name, special.index(name)) for name in special if name in template],
        )
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
        return tokenizer

    return train


_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
_ALBERT = ("<pad>", "<unk>", "[CLS]", "[SEP]")
_PIECES_OF_ROBERTA = unigrams("<s> $A </s> </s> $B </s>", _ROBERTA)
_PIECES_OF_ALBERT = unigrams("[CLS] $A [SEP] $B:1 [SEP]:1", _ALBERT)

SIZES: Mapping[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 130,
    "initializer_range": 0.3,
}
_BEHIND_PADDING: Mapping[str, Any] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DISTANCES: Mapping[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}

PACKED: Mapping[str, tuple[Callable[[], Tokenizer], Mapping[str, Any]]] = {
    "distilbert": (word_pieces, {}),
    "roberta": (byte_pairs, _BEHIND_PADDING),
    "xlm-roberta": (_PIECES_OF_ROBERTA, {**_BEHIND_PADDING, "type_vocab_size": 1}),
    "camembert": (_PIECES_OF_ROBERTA, _BEHIND_PADDING),
    "electra": (word_pieces, {"embedding_size": 16}),
    "albert": (
        _PIECES_OF_ALBERT,
        {"embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2, "initializer_range": 0.15},
    ),
    "deberta-v2": (
        _PIECES_OF_ALBERT,
        {
            **_DISTANCES,
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
}
"""Families with a padding-free graph, their tokenizer and what their configuration has beyond `SIZES`, or None where
it does not have a name of these.
"""

PADDED: Mapping[str, tuple[Callable[[], Tokenizer], Mapping[str, Any]]] = {
    "mpnet": (word_pieces, {}),
    "gpt2": (byte_pairs, {}),
    "convbert": (word_pieces, {"embedding_size": 32}),
    "modernbert": (
        word_pieces,
        {
            "pad_token_id": 0,
            "bos_token_id": 2,
            "cls_token_id": 2,
            "eos_token_id": 3,
            "sep_token_id": 3,
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
        },
    ),
}
"""A few of the families that have none."""

UNTRACED: Mapping[str, tuple[Callable[[], Tokenizer], Mapping[str, Any]]] = {
    "xlnet": (
        _PIECES_OF_ALBERT,
        {
            "d_model": 32,
            "n_layer": 2,
            "n_head": 4,
            "d_inner": 48,
            **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
            "max_position_embeddings": None,
        },
    ),
}
"""Loaded by transformers, but not traced by torch."""

FAMILIES = {**PACKED, **PADDED}
TESTED = [family for family in FAMILIES if family not in {"xlm-roberta", "camembert", "mpnet"}]
"""Of the others, two have the graphs of `roberta` and one is exported as `gpt2` is: `make parity` shows them."""


def checkpoint(folder: Path, family: str, **changes: Any) -> Path:
    """A checkpoint directory as training would leave it."""
    train, fields = {**FAMILIES, **UNTRACED}[family]
    torch.manual_seed(5)
    auto: Any = AutoModelForQuestionAnswering
    settings = {name: value for name, value in {**SIZES, **fields, **changes}.items() if value is not None}
    model = auto.from_config(AutoConfig.for_model(family, **settings))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight", "Norm.weight")):
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    model.save_pretrained(folder)
    save_tokenizer(train(), folder)
    return folder


REQUEST: Mapping[str, Any] = {"inputs": {"question": QUESTION, "context": TEXT}, "parameters": {"top_k": 5}}


def recipe(family: str = "tiny") -> Recipe:
    """Windows that are shorter than the context."""
    return Recipe(
        name=family,
        source="random weights",
        licence="CC0-1.0",
        languages=Languages(source=("en",)),
        limits=Limits(max_tokens=100),
        example=dict(REQUEST),
        explain=False,
    )
