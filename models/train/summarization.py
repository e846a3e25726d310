"""Trains a small decoder that can copy, on top of the MiniLM encoder, to write the title of a scientific abstract."""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertModel, GenerationConfig

from models.errors import BundleError
from models.nets.pointer import MASKED, SMALLEST, PointerBart, PointerBartConfig
from models.train import data
from models.train.loop import TOKENIZER_FILE, Batch, Optimization
from models.train.question_answering import encoder_directory, encoder_tokenizer, save_encoder_tokenizer

FILES = (data.arxiv_file("train"),)
NEWEST = 90_000
MAX_SOURCE = 256
SHORT_SOURCE = 96
MAX_TARGET = 48
VOCABULARY_SIZE = 16_000
VOCABULARY_SAMPLE = 30_000
BATCH_ROWS = 24
LENGTH_STEP_CHARACTERS = 300
DECODER_LAYERS_FROM = (2, 5)
TRAINED_ENCODER_LAYERS = 2
NUMBER_BIAS = -20.0
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID = 0, 1, 2, 3
POSITION_OFFSET = 2


def smaller_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[Tokenizer, NDArray[np.int64]]:
    """Keep the VOCABULARY_SIZE word pieces that the texts use most, and every single character.

    Half of MiniLM's 30,522 word pieces never occur in scientific English, but would be computed at every step. Word
    pieces are matched longest first, so that a word whose piece is gone is spelled by shorter ones.

    Returns the tokenizer and, for each new id, the old one.
    """
    counts: collections.Counter[int] = collections.Counter()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.ids)
    content = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    letters = {i for piece, i in vocabulary.items() if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    special = [vocabulary[token] for token in SPECIAL_TOKENS]
    ranked = sorted(set(vocabulary.values()) - set(special), key=lambda i: (i not in letters, -counts[i], i))
    kept = special + sorted(ranked[: VOCABULARY_SIZE - len(special)])
    pieces = {index: piece for piece, index in vocabulary.items()}
    content["model"]["vocab"] = {pieces[old]: new for new, old in enumerate(kept)}
    new_ids = {old: new for new, old in enumerate(kept)}
    for token in content["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    for token in content["post_processor"]["special_tokens"].values():
        token["ids"] = [new_ids[index] for index in token["ids"]]
    return Tokenizer.from_str(json.dumps(content)), np.array(kept, dtype=np.int64)


def known_tokenizer(path: Path) -> tuple[Tokenizer, NDArray[np.int64]]:
    """A tokenizer that `smaller_tokenizer` made, and for each of its ids MiniLM's.

    Raises:
        BundleError: it has a piece that MiniLM has not.
    """
    tokenizer, encoder = Tokenizer.from_file(str(path)), encoder_tokenizer()
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    kept = [encoder.token_to_id(piece) for piece in pieces]
    if None in kept:
        raise BundleError(f"{path}: MiniLM has no piece {pieces[kept.index(None)]!r}, a summarizer is built around it")
    return tokenizer, np.array(kept, dtype=np.int64)


def pointer_around(bert: BertModel, kept: NDArray[np.int64]) -> PointerBart:
    """A BART with a pointer, a decoder of two layers and an encoder that does what `bert` does on the pieces `kept`.

    BART's encoder layer is BERT's (layer normalisation after each sum); the embedding of token type 0 is added to the
    positions. The decoder starts from the self-attention and feed-forward weights of two encoder layers
    (Rothe et al. 2020, arXiv 1907.12461); its cross-attention is new.
    """
    source = bert.config
    config = PointerBartConfig(
        vocab_size=len(kept),
        d_model=source.hidden_size,
        encoder_layers=source.num_hidden_layers,
        encoder_attention_heads=source.num_attention_heads,
        encoder_ffn_dim=source.intermediate_size,
        decoder_layers=len(DECODER_LAYERS_FROM),
        decoder_attention_heads=source.num_attention_heads,
        decoder_ffn_dim=source.intermediate_size,
        max_position_embeddings=source.max_position_embeddings,
        activation_function="gelu",
        dropout=0.0,
        scale_embedding=False,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=CLS_ID,
        eos_token_id=SEP_ID,
        decoder_start_token_id=CLS_ID,
        forced_eos_token_id=None,
    )
    model = PointerBart(config)
    weights = bert.state_dict()
    target = dict(model.state_dict())
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    with torch.no_grad():
        target["model.shared.weight"].copy_(weights["embeddings.word_embeddings.weight"][torch.from_numpy(kept)])
        for side in ("encoder", "decoder"):
            target[f"model.{side}.embed_positions.weight"][POSITION_OFFSET:].copy_(positions)
            for kind in ("weight", "bias"):
                target[f"model.{side}.layernorm_embedding.{kind}"].copy_(weights[f"embeddings.LayerNorm.{kind}"])
        places = [("encoder", layer, layer) for layer in range(source.num_hidden_layers)]
        places += [("decoder", layer, origin) for layer, origin in enumerate(DECODER_LAYERS_FROM)]
        for side, layer, origin in places:
            for ours, theirs in LAYER_NAMES.items():
                for kind in ("weight", "bias"):
                    target[f"model.{side}.layers.{layer}.{ours}.{kind}"].copy_(
                        weights[f"encoder.layer.{origin}.{theirs}.{kind}"]
                    )
    model.continue_copies()
    return model


LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}


class Summarization:
    """arXiv abstracts to titles: the decoder, the pointer and the encoder's last layers are trained.

    A share of the batches reads no more than SHORT_SOURCE tokens of the abstracts, which costs half as much; the others
    read MAX_SOURCE. Word pieces with digits are next to impossible for the decoder to say by itself, so that numbers
    are copied; where a title has a number that its abstract has not, nothing is learned from it.
    """

    optimization = Optimization(peak_lr=7e-4, warmup=0.05, slow={"model.shared": 0.1, "model.encoder": 0.15})
    short_share = 0.5

    def __init__(self, pairs: Sequence[data.Pair], tokenizer: Tokenizer, kept: NDArray[np.int64]) -> None:
        self.pairs, self.tokenizer = pairs, tokenizer
        self.lengths = np.array([(len(pair.source), len(pair.target)) for pair in pairs])
        self.longest_source = np.full(len(pairs), MAX_SOURCE)
        self.model = pointer_around(BertModel.from_pretrained(encoder_directory(), add_pooling_layer=False), kept)
        # Three times as fast on a CPU as torch's scaled_dot_product_attention, at these lengths and head widths.
        self.model.set_attn_implementation("eager")
        self.encoder = self.model.get_encoder()
        trained = self.encoder.layers[-TRAINED_ENCODER_LAYERS:]
        self.encoder.requires_grad_(False)
        trained.requires_grad_(True)
        self.model.model.shared.requires_grad_(True)
        with_digits = [index for piece, index in tokenizer.get_vocab().items() if any(map(str.isdigit, piece))]
        self.has_digit = torch.zeros(len(kept), dtype=torch.bool)
        self.has_digit[with_digits] = True
        self.model.final_logits_bias[0, self.has_digit] = NUMBER_BIAS
        self.model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            pad_token_id=PAD_ID,
            bos_token_id=CLS_ID,
            eos_token_id=SEP_ID,
            decoder_start_token_id=CLS_ID,
            num_beams=4,
            max_length=MAX_TARGET,
            no_repeat_ngram_size=3,
        )
        self.hyperparameters: Mapping[str, Any] = {
            "batch_rows": BATCH_ROWS,
            "pairs": len(pairs),
            "max_source_tokens": (SHORT_SOURCE, MAX_SOURCE),
            "short_share": self.short_share,
            "max_target_tokens": MAX_TARGET,
            "decoder_layers_from": DECODER_LAYERS_FROM,
            "trained_encoder_layers": TRAINED_ENCODER_LAYERS,
        }

    def plan(self, rng: np.random.Generator) -> Sequence[NDArray[np.int64]]:
        """Random groups of 64 batches; inside a group, abstracts and titles of similar length stand together."""
        order = rng.permutation(len(self.pairs))
        batches = []
        for start in range(0, len(order), 64 * BATCH_ROWS):
            group = order[start : start + 64 * BATCH_ROWS]
            short = rng.random(len(group)) < self.short_share
            for part, longest in ((group[short], SHORT_SOURCE), (group[~short], MAX_SOURCE)):
                self.longest_source[part] = longest
                alike = part[np.lexsort((self.lengths[part, 1], self.lengths[part, 0] // LENGTH_STEP_CHARACTERS))]
                pieces = np.array_split(alike, max(1, len(alike) // BATCH_ROWS))
                batches += [piece for piece in pieces if len(piece)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """Int64 `source` [rows, <= MAX_SOURCE] as `[CLS] … [SEP]`, `target` [rows, length] as `[CLS] … [SEP]`."""
        pairs = [self.pairs[row] for row in rows]
        return {
            "source": self._pad([pair.source for pair in pairs], int(self.longest_source[rows].max())),
            "target": self._pad([pair.target for pair in pairs], MAX_TARGET),
        }

    def _pad(self, texts: Sequence[str], max_length: int) -> torch.Tensor:
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        cut = [torch.tensor([*row[: min(len(row), max_length) - 1], SEP_ID]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(cut, batch_first=True, padding_value=PAD_ID)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean negative log-probability of the title's tokens: as `mixed` has it, but computed for these alone."""
        source, target = batch["source"], batch["target"]
        read, wanted = target[:, :-1], target[:, 1:]
        shared, pointer, mask = self.model.model.shared, self.model.pointer, source != PAD_ID
        encoded = self.encoder(inputs_embeds=shared(source).detach(), attention_mask=mask.long()).last_hidden_state
        hidden = self.model.model.decoder(
            input_ids=read, encoder_hidden_states=encoded, encoder_attention_mask=mask.long(), use_cache=False
        ).last_hidden_state
        scores = torch.matmul(pointer.queries(hidden, shared(read)), self.model.keys(encoded, source).transpose(1, 2))
        attention = torch.softmax(scores.float().masked_fill(~mask[:, None, :], MASKED), -1)
        same = source[:, None, :] == wanted[:, :, None]
        learned = (wanted != PAD_ID) & (wanted != UNK_ID) & (~self.has_digit[wanted] | same.any(-1))
        copied = (attention * same).sum(-1)[learned].clamp(min=SMALLEST).log()
        logits = self.model.lm_head(hidden[learned]) + self.model.final_logits_bias
        generated = -functional.cross_entropy(logits, wanted[learned], reduction="none")
        gate = pointer.gate(hidden[learned])[:, 0].float()
        log_sigmoid = functional.logsigmoid
        return -torch.logaddexp(log_sigmoid(gate) + generated, log_sigmoid(-gate) + copied).mean()

    def save(self, directory: Path) -> None:
        """A Hugging Face checkpoint directory."""
        self.model.save_pretrained(directory)
        save_encoder_tokenizer(self.tokenizer, directory, MAX_SOURCE, ["input_ids", "attention_mask"])


def prepare(directory: Path, out: Path) -> Summarization:
    """The recipe for the data in `directory`; the vocabulary in `out` is used again where there is one.

    Raises:
        BundleError: see `known_tokenizer`.
    """
    pairs = data.read_arxiv(directory / data.arxiv_file("train"), newest=NEWEST)
    vocabulary = out / TOKENIZER_FILE
    if vocabulary.exists():
        tokenizer, kept = known_tokenizer(vocabulary)
    else:
        sample = pairs[:: max(1, len(pairs) // VOCABULARY_SAMPLE)]
        tokenizer, kept = smaller_tokenizer(encoder_tokenizer(), (t for p in sample for t in (p.source, p.target)))
    return Summarization(pairs, tokenizer, kept)
