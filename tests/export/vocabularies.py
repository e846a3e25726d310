"""Small trained tokenizers of every family, saved as `save_pretrained` saves them, and texts to try them on."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES

WORDS = (
    "the a of to and in that rows row is was for on with as by at from it an are this which one two three be have not"
    " caller callers model answers answer waits waiting sentence sentences translation window windows batch beside"
    " before after another longest shorter quickly slowly writes reads written reading don't it's twenty-one e-mail"
    " (once) [twice] 1,024 2026 3.5 50% C++ x/y x_y a<b b>a why? now! said: end; things quiz jazz pump"
    " station nation national rational international walked walking talks talked harbour river mountain yesterday"
)
SYLLABLES = ["la", "mé", "çon", "eau", "qui", "œuf", "où", "tré", "vent", "ïs", "né", "Été", "d'un", "lle", "ître"]
NASTY = [
    "",
    "   ",
    "  two  blanks\tand\na line ",
    "no-break\u00a0and\u3000ideographic\u2003em",
    "Ｆｕｌｌ　ｗｉｄｔｈ １２３ ＜/s＞ ＞＞fra＜＜",
    "ﬁ ﬁ\u0301 ½ ™️ Ⓜ️ ㊗️ ﷺ",
    "e\u0301te\u0301 e\u0302\u0301 a\u0302\u0323 ê\u0301 \U0001d5f2\u0302\u0301 e\x01\u0301 \u0301 a\u0338<\u0338",
    "ｶﾞ ｷﾞ ﾊﾟ \u1112\u1161\u11ab\u1100\u116e\u11a8 \u1161\u11a8",
    "你好，世界。東京都に住む 日x本 日本 x日y 東京",
    "مَرْحَبًا بالعالم שָׁלוֹם",
    "😀 👨\u200d👩\u200d👧 🇫🇷 👍🏽 ❤️",
    "\x00",
    "a\x00b\x01c \x07 \x7f\x80",
    "</s> a</s>b <unk> <pad> <s> <mask> [SEP] <extra_id_0> <0x41>",
    ">>fra<< hello",
    ">>fra<<",
    ">>deu<<>>fra<< x",
    " >>fra<< hello",
    "hello >>fra<< there",
    "日>>fra<<>>deu<<日 日",
    ">>none<< hello",
    ">>hello world<< x",
    ">>fra<<\u0338x",
    "__fr__ hello fra_Latn fr_XX __en__",
    "▁ ▁a b▁ ▁▁ ▁",
    "\u200b zero \u200dw\u200c \ufeff soft\u00adhyphen \ufffd \u202e",
    "cœur Œuvre ŒŒ ß ÷ Ж ЖЩ αβγ α\u0301\u0342",
    "\U0010fff0\U0010fff2x\U0010fff4 \U0010fff5>>fra<< \ufff0x\ufff1",
    "I don't , know . ? ! ' n't",
    "日" * 50,
]


def english(count: int) -> list[str]:
    """English words in any order."""
    chosen, words = random.Random(5), WORDS.split()
    texts = (" ".join(chosen.choices(words, k=chosen.randint(3, 14))) for _ in range(count))
    return [f"{text[0].upper()}{text[1:]}." for text in texts]


def french(count: int) -> list[str]:
    """Made-up words with accents, and a sentence of Chinese now and then."""
    chosen = random.Random(7)
    words = ["".join(chosen.choices(SYLLABLES, k=chosen.randint(1, 3))) for _ in range(200)]
    texts = [" ".join(chosen.choices(words, k=chosen.randint(3, 9))).capitalize() + "." for _ in range(count)]
    return [text if place % 50 else text + " 東京 日本" for place, text in enumerate(texts)]


def train_sentencepiece(path: Path, lines: list[str], **options: Any) -> Path:
    """A SentencePiece model file of about 400 pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=stream,
            **{"vocab_size": 400, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2, **options},
        )
    return path


def pieces(model: Path) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return [processor.id_to_piece(place) for place in range(processor.get_piece_size())]


def _configure(folder: Path, model_type: str, **fields: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **fields}))
    return folder


def marian(folder: Path, source: Path, target: Path, *, codes: tuple[str, ...] = (), lacking: int = 0) -> Path:
    """As the OPUS models: one vocab.json for both languages, the padding token last.

    Args:
        codes: language tokens, which only vocab.json has.
        lacking: leave so many of the source's last pieces out of vocab.json.
    """
    folder.mkdir()
    shutil.copy(source, folder / "source.spm")
    shutil.copy(target, folder / "target.spm")
    known = pieces(source)[: -lacking or None]
    tokens = dict.fromkeys(["</s>", "<unk>", *known, *pieces(target), *codes, "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    kind: Any = transformers.MarianTokenizer
    kind(*(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json"))).save_pretrained(folder)
    return _configure(folder, "marian", pad_token_id=len(tokens) - 1, decoder_start_token_id=len(tokens) - 1)


def m2m100(folder: Path, model: Path) -> Path:
    folder.mkdir()
    spm = shutil.copy(model, folder / "sentencepiece.bpe.model")
    tokens = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *pieces(model)])
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    codes = transformers.M2M100Tokenizer(str(vocab), str(spm)).lang_token_to_id
    transformers.M2M100Tokenizer(str(vocab), str(spm), extra_special_tokens=list(codes)).save_pretrained(folder)
    return _configure(folder, "m2m_100")


def from_sentencepiece(name: str, model_type: str, file: str, folder: Path, model: Path, **options: Any) -> Path:
    """A directory that transformers made of a SentencePiece file."""
    made = folder / "made"
    made.mkdir(parents=True)
    _configure(made, model_type)
    shutil.copy(model, made / file)
    getattr(transformers, name).from_pretrained(made, **options).save_pretrained(folder)
    return _configure(folder, model_type)


def wordpiece(name: str, model_type: str, folder: Path, lines: list[str]) -> Path:
    folder.mkdir()
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    )
    vocabulary = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    _configure(folder, model_type)
    getattr(transformers, name).from_pretrained(folder, clean_up_tokenization_spaces=True).save_pretrained(folder)
    return folder


def byte_level(name: str, model_type: str, folder: Path, lines: list[str]) -> Path:
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.model.save(str(folder))
    _configure(folder, model_type)
    getattr(transformers, name).from_pretrained(folder).save_pretrained(folder)
    return folder


_SPIECE = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
_ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
_DEBERTA = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]"}
_DEBERTA |= {"eos_piece": "[SEP]", "unk_piece": "[UNK]"}
_PEGASUS = {**_SPIECE, "user_defined_symbols": ["<mask_1>", "<mask_2>", *(f"<unk_{n}>" for n in range(2, 103))]}

WITH_SENTENCEPIECE: Mapping[str, tuple[Callable[..., Path], Mapping[str, Any]]] = {
    "t5": (partial(from_sentencepiece, "T5Tokenizer", "t5", "spiece.model"), _SPIECE),
    "mt5": (partial(from_sentencepiece, "T5Tokenizer", "mt5", "spiece.model", extra_ids=0), _SPIECE),
    "pegasus": (partial(from_sentencepiece, "PegasusTokenizer", "pegasus", "spiece.model"), _PEGASUS),
    "mbart": (
        partial(from_sentencepiece, "MBartTokenizer", "mbart", "sentencepiece.bpe.model", src_lang="en_XX"),
        {},
    ),
    "mbart50": (
        partial(from_sentencepiece, "MBart50Tokenizer", "mbart", "sentencepiece.bpe.model", src_lang="en_XX"),
        {},
    ),
    "nllb": (
        partial(
            from_sentencepiece,
            "NllbTokenizer",
            "m2m_100",
            "sentencepiece.bpe.model",
            src_lang="eng_Latn",
            extra_special_tokens=list(NLLB_CODES),
        ),
        {"model_type": "bpe"},
    ),
    "albert": (partial(from_sentencepiece, "AlbertTokenizer", "albert", "spiece.model"), _ALBERT),
    "deberta-v2": (partial(from_sentencepiece, "DebertaV2Tokenizer", "deberta-v2", "spm.model"), _DEBERTA),
    "m2m100": (m2m100, {"character_coverage": 1.0}),
    "m2m100-bpe": (m2m100, {"model_type": "bpe"}),
    "m2m100-as-typed": (m2m100, {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}),
    "m2m100-bytes": (m2m100, {"byte_fallback": True, "vocab_size": 700, "character_coverage": 1.0}),
    "m2m100-symbols": (m2m100, {"user_defined_symbols": ["rows", "naïve"], "add_dummy_prefix": False}),
}
FROM_WORDS = {
    "bert": partial(wordpiece, "BertTokenizer", "bert"),
    "distilbert": partial(wordpiece, "DistilBertTokenizer", "distilbert"),
    "electra": partial(wordpiece, "ElectraTokenizer", "electra"),
    "roberta": partial(byte_level, "RobertaTokenizer", "roberta"),
    "bart": partial(byte_level, "BartTokenizer", "bart"),
}
