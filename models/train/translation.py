"""Trains a small Marian translator from English to French on everyday sentences and on debates of a parliament."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from models.train import data
from models.train.loop import TOKENIZER_FILE, Batch, Optimization, batches_by_length

FILES = (data.TATOEBA_TRAIN, data.EUROPARL_TRAIN)
VOCABULARY_SIZE = 8000
MAX_LENGTH = 256
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
PAD_ID, END_ID = 0, 1
SPECIAL_TOKENS = [PAD, END, UNKNOWN]

BATCH_TOKENS = 1000
LABEL_SMOOTHING = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """`steps` updates, in which sentences of Europarl of so many words are that share of the tokens."""

    steps: int
    europarl_max_words: int
    europarl_share: float
    dropout: float


# Short sentences cost little, and from them a new model learns words; how a long one is built comes after.
STAGES = (
    Stage(steps=6_000, europarl_max_words=20, europarl_share=0.2, dropout=0.05),
    Stage(steps=13_580, europarl_max_words=40, europarl_share=0.6, dropout=0.0),
)


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A byte-pair vocabulary for both languages, 256 byte pieces included, so that every text survives a round trip.

    Punctuation (but not apostrophes and hyphens inside words) and digits are pieces of their own. `</s>` ends every
    encoded text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    punctuation = pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}\p{N}▁'’-]|\p{N}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, punctuation])
    pieces = VOCABULARY_SIZE - len(SPECIAL_TOKENS) - 256
    trainer = trainers.BpeTrainer(vocab_size=pieces, limit_alphabet=400, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = _with_byte_pieces(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, END_ID)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _with_byte_pieces(tokenizer: Tokenizer) -> Tokenizer:
    # A trainer can only add byte pieces as special tokens, which would then be matched inside texts.
    content = json.loads(tokenizer.to_str())
    learned = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    pieces = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    content["model"].update(
        vocab={piece: index for index, piece in enumerate(pieces)}, unk_token=UNKNOWN, byte_fallback=True
    )
    result = Tokenizer.from_str(json.dumps(content))
    result.add_special_tokens(SPECIAL_TOKENS)
    return result


class Translation:
    """Tatoeba, with a fresh sample of Europarl sentences in every epoch."""

    optimization = Optimization(peak_lr=1e-3, warmup=0.05)

    def __init__(
        self, everyday: Sequence[data.Pair], parliament: Sequence[data.Pair], tokenizer: Tokenizer, stage: Stage
    ) -> None:
        self.tokenizer, self.stage = tokenizer, stage
        self.everyday, self.parliament = self._encode(everyday), list(parliament)
        self.model = MarianMTModel(
            MarianConfig(
                vocab_size=tokenizer.get_vocab_size(),
                d_model=256,
                encoder_layers=4,
                decoder_layers=2,
                encoder_attention_heads=8,
                decoder_attention_heads=8,
                encoder_ffn_dim=1024,
                decoder_ffn_dim=1024,
                max_position_embeddings=MAX_LENGTH,
                activation_function="swish",
                dropout=stage.dropout,
                scale_embedding=True,
                share_encoder_decoder_embeddings=True,
                tie_word_embeddings=True,
                init_std=0.05,
                pad_token_id=PAD_ID,
                eos_token_id=END_ID,
                forced_eos_token_id=None,
                decoder_start_token_id=PAD_ID,
            )
        )
        self.model.set_attn_implementation("eager")  # a quarter faster than SDPA on a CPU at these lengths
        self.model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            pad_token_id=PAD_ID,
            eos_token_id=END_ID,
            decoder_start_token_id=PAD_ID,
            bad_words_ids=[[PAD_ID]],
            num_beams=4,
            max_length=MAX_LENGTH,
        )
        self.hyperparameters: Mapping[str, Any] = {
            "batch_tokens": BATCH_TOKENS,
            "label_smoothing": LABEL_SMOOTHING,
            "europarl_share_of_tokens": stage.europarl_share,
            "europarl_max_words": stage.europarl_max_words,
            "dropout": stage.dropout,
        }

    def _encode(self, pairs: Sequence[data.Pair]) -> list[tuple[list[int], list[int]]]:
        sources = self.tokenizer.encode_batch([pair.source for pair in pairs])
        targets = self.tokenizer.encode_batch([pair.target for pair in pairs])
        encoded = ((source.ids, target.ids) for source, target in zip(sources, targets, strict=True))
        return [ids for ids in encoded if max(len(ids[0]), len(ids[1])) < MAX_LENGTH]

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """All of Tatoeba and a sample of Europarl in batches of similar length; at most BATCH_TOKENS on either side."""
        share = self.stage.europarl_share
        wanted = share / (1 - share) * sum(len(target) for _, target in self.everyday)
        sample: list[tuple[list[int], list[int]]] = []
        order = rng.permutation(len(self.parliament))
        for start in range(0, len(order), 1000):
            if wanted <= 0:
                break
            more = self._encode([self.parliament[index] for index in order[start : start + 1000]])
            wanted -= sum(len(target) for _, target in more)
            sample.extend(more)
        self.examples = self.everyday + sample
        lengths = np.array([max(len(source), len(target)) for source, target in self.examples])
        return batches_by_length(lengths, BATCH_TOKENS, rng, cost=lambda rows, longest: rows * longest)

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """Int64 `source` and `target` [rows, length], padded on the right; both end with `</s>`."""
        pairs = [self.examples[row] for row in rows]
        return {"source": _pad([pair[0] for pair in pairs]), "target": _pad([pair[1] for pair in pairs])}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean smoothed cross-entropy of the target tokens."""
        source, target = batch["source"], batch["target"]
        decoder_input = functional.pad(target[:, :-1], (1, 0), value=PAD_ID)
        logits = self.model(
            input_ids=source, attention_mask=(source != PAD_ID).long(), decoder_input_ids=decoder_input, use_cache=False
        ).logits
        return functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            target.reshape(-1),
            ignore_index=PAD_ID,
            label_smoothing=LABEL_SMOOTHING,
        )

    def save(self, directory: Path) -> None:
        """A Hugging Face checkpoint directory."""
        self.model.save_pretrained(directory)
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self.tokenizer,
            pad_token=PAD,
            eos_token=END,
            unk_token=UNKNOWN,
            model_max_length=MAX_LENGTH,
        ).save_pretrained(directory)


def _pad(rows: Sequence[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD_ID)


def prepare(directory: Path, out: Path, stage: Stage) -> Translation:
    """The recipe of a stage for the data in `directory`; the vocabulary in `out` is used again where there is one."""
    everyday = data.read_translation(directory / data.TATOEBA_TRAIN)
    parliament = data.read_translation(directory / data.EUROPARL_TRAIN, max_words=stage.europarl_max_words)
    vocabulary = out / TOKENIZER_FILE
    if vocabulary.exists():
        tokenizer = Tokenizer.from_file(str(vocabulary))
    else:
        sample = [*everyday, *parliament[:: max(1, len(parliament) // 60_000)]]
        tokenizer = train_tokenizer(text for pair in sample for text in (pair.source, pair.target))
    return Translation(everyday, parliament, tokenizer, stage)
