"""Checkpoints of real size with random weights, since no hub is at hand: speed and memory depend on sizes alone.

Their tokenizers are trained here, on the repository's own prose and programs.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

_REPOSITORY = Path(__file__).parents[1]
_WORDS = 8_000
"""Of a tokenizer; what a model has beyond them never comes in, and is left out when it comes out."""


def opus_mt(out: Path) -> Path:
    """Helsinki-NLP/opus-mt-en-de: Marian, 6 + 6 layers of width 512, 58,101 words, 74 million parameters."""
    config = MarianConfig(
        vocab_size=58_101,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=58_100,
        decoder_start_token_id=58_100,
        eos_token_id=0,
        forced_eos_token_id=None,
    )
    model = _random(MarianMTModel, config)
    model.generation_config.bad_words_ids = [[58_100]]
    model.generation_config.forced_eos_token_id = 0
    model.generation_config.num_beams = 4
    model.generation_config.max_length = 512
    return _written(model, _pieces(["</s>", "<unk>"], "$A </s>"), out)


def distilbart(out: Path) -> Path:
    """sshleifer/distilbart-cnn-12-6: BART, 12 + 6 layers of width 1,024, 50,264 words, 306 million parameters."""
    config = BartConfig(
        vocab_size=50_264,
        d_model=1024,
        encoder_layers=12,
        decoder_layers=6,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
        max_position_embeddings=1024,
        forced_eos_token_id=None,
    )
    model = _random(BartForConditionalGeneration, config)
    model.generation_config.update(
        num_beams=4,
        length_penalty=2.0,
        min_length=56,
        max_length=142,
        no_repeat_ngram_size=3,
        early_stopping=True,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return _written(model, _pieces(["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"), out)


def t5_small(out: Path) -> Path:
    """google-t5/t5-small: 6 + 6 layers of width 512, 32,128 words, 61 million parameters."""
    config = T5Config(  # type: ignore[call-arg] # settings of generation go into it too
        vocab_size=32_128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        decoder_start_token_id=0,
        task_specific_params={"summarization": {"prefix": "summarize: ", "num_beams": 4, "max_length": 200}},
    )
    return _written(_random(T5ForConditionalGeneration, config), _pieces(["<pad>", "</s>", "<unk>"], "$A </s>"), out)


def distilbert(out: Path) -> Path:
    """distilbert-base-uncased-distilled-squad: 6 layers of width 768, 30,522 words, 66 million parameters."""
    return _written(_random(DistilBertForQuestionAnswering, DistilBertConfig()), _word_pieces(), out)


MODELS: Mapping[str, tuple[str, Callable[[Path], Path]]] = {
    "opus-mt": ("translation", opus_mt),
    "distilbart-12-6": ("summarization", distilbart),
    "t5-small": ("summarization", t5_small),
    "distilbert": ("question-answering", distilbert),
}
"""By name: the task that the checkpoint serves, and what writes it to a folder that is not there yet."""


def _random(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return kind(config)


def _written(model: Any, tokenizer: Tokenizer, out: Path) -> Path:
    model.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    return out


def _text() -> Iterator[str]:
    for pattern in ("LICENSE", "*.md", "docs/*.md", "models/*.py", "service/*.py"):
        for path in sorted(_REPOSITORY.glob(pattern)):
            yield path.read_text(encoding="utf-8")


def _pieces(special: list[str], template: str) -> Tokenizer:
    """Byte pairs; ids begin with the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_WORDS, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_text(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, special.index(token)) for token in special if token in template]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(_text(), trainers.WordPieceTrainer(vocab_size=_WORDS, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer
