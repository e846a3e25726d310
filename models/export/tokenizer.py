"""Any checkpoint's tokenizer as one `tokenizers.Tokenizer` that gives the same ids and the same text."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, processors

from models.bundle import LanguageTokens, OutOfVocabulary
from models.export.charsmap import InexactRules
from models.export.errors import ExportError
from models.export.languages import language_tokens, surroundings
from models.export.sentencepiece_model import NEVER, Vocabulary, build

TOKENIZER_FILE = "tokenizer.json"
_SENTENCEPIECE_FILES = ("source.spm", "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model")
_TRANSFORMERS_FILES = ("tokenizer_config.json", *_SENTENCEPIECE_FILES, "vocab.txt", "vocab.json")
_FILES = (TOKENIZER_FILE, *_TRANSFORMERS_FILES[1:])
_SPACES_TO_CLEAN = {f" {mark}": mark for mark in ".?!,"} | {" ' ": "'"}
_SPACES_TO_CLEAN |= {f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")}
_PROBES = (
    "",
    "   ",
    "  two  blanks\tand\na line ",
    "no-break\u00a0and\u3000ideographic",
    "Ｆｕｌｌ １２３ ﬁ ½ ™️ e\u0301 e\u0302\u0301",
    "你好，東京 ｶﾞ \u1112\u1161\u11ab مَرْحَبًا",
    "😀 👨\u200d👩\u200d👧 🇫🇷",
    "a\x00b\x01c\x7f",
    "a</s>b <unk> <pad> <s> [SEP]",
    ">>fra<< hello >>fra<<",
    "__fr__ fra_Latn fr_XX ▁x ▁",
)
_SPELLED_TEXTS, _SPELLED_TOKENS = 512, 8
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Converted:
    """A checkpoint's tokenizer.

    Args:
        vocabulary: ids from here on are pieces that the checkpoint cuts text into and has no id for, or special tokens
            that its tokenizer has and its model not, as `<mask>` beside BART summarizers.
        unknown_token_id: what such an id stands for.
        languages: how languages are named to the model; None for a model of one pair.
    """

    tokenizer: Tokenizer
    vocabulary: int
    unknown_token_id: int
    languages: LanguageTokens | None

    @property
    def out_of_vocabulary(self) -> OutOfVocabulary | None:
        """The ids of `tokenizer` that must be replaced; None where it gives none."""
        if self.tokenizer.get_vocab_size() <= self.vocabulary:
            return None
        return OutOfVocabulary(first_id=self.vocabulary, unknown_token_id=self.unknown_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, special tokens around it."""
        return self.known(self.tokenizer.encode(text).ids)

    def known(self, ids: Iterable[int]) -> list[int]:
        """The ids with the unknown token's in place of those that the model does not have."""
        return [token if token < self.vocabulary else self.unknown_token_id for token in ids]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a tokenizer did against the original.

    Args:
        texts: how many were compared.
        encoded: texts that gave other ids.
        tied: texts cut differently, but equally well: SentencePiece adds scores in float32, `tokenizers` in float64.
        decoded: texts whose ids, as the original gives them, decoded to another text.
    """

    texts: int
    encoded: tuple[str, ...]
    tied: tuple[str, ...]
    decoded: tuple[str, ...]


def original_tokenizer(checkpoint: Path) -> Any:
    """The checkpoint's tokenizer as transformers loads it, offline.

    Raises:
        ExportError: no tokenizer files, or they cannot be loaded.
    """
    if not any((checkpoint / name).is_file() for name in _FILES):
        raise ExportError(
            f"{checkpoint}: no tokenizer, one of {', '.join(_FILES)} is needed: save it there with save_pretrained"
        )
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import, and may fail

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    except Exception as error:  # transformers, sentencepiece and json each raise their own
        raise ExportError(f"{checkpoint}: the tokenizer cannot be loaded: {error}") from error


def converted_tokenizer(checkpoint: Path, model_size: int | None = None, texts: Iterable[str] = ()) -> Converted:
    """Convert a checkpoint's tokenizer and hold it against the original.

    A tokenizer.json with none of transformers' own files beside it was not written by transformers, and is taken as it
    is.

    Args:
        checkpoint: directory with the tokenizer's files, as `save_pretrained` writes them.
        model_size: how many ids the model has.
        texts: on which both are compared, beside those from all over the vocabulary that always are.

    Raises:
        ExportError: no tokenizer, one that cannot be converted exactly, or more tokens than the model has.
    """
    if (checkpoint / TOKENIZER_FILE).is_file() and not any(
        (checkpoint / name).is_file() for name in _TRANSFORMERS_FILES
    ):
        return _as_it_is(checkpoint / TOKENIZER_FILE, model_size)
    original = original_tokenizer(checkpoint)
    kind = type(original).__name__
    try:
        converted = _convert(original, model_size)
    except (InexactRules, ValueError) as error:
        raise ExportError(f"{checkpoint}: {kind} cannot be converted: {error}") from error
    found = compare(converted, original, [*_PROBES, *texts, *_spelled(original, converted.vocabulary)])
    if wrong := (*found.encoded, *found.decoded):
        raise ExportError(f"{checkpoint}: {kind} was converted, but gives other tokens or text for {wrong[0]!r}")
    return converted


def compare(converted: Converted, original: Any, texts: Iterable[str], targets: Iterable[str] = ()) -> Comparison:
    """Encode texts with both, and decode what the original gives for them and for texts of the target language."""
    count = 0
    encoded: list[str] = []
    tied: list[str] = []
    decoded: list[str] = []

    def decode(text: str, ids: Sequence[int]) -> None:
        if converted.tokenizer.decode(ids, skip_special_tokens=True) != original.decode(ids, skip_special_tokens=True):
            decoded.append(text)

    for text in texts:
        count += 1
        ids = original(text)["input_ids"]
        if (ours := converted.encode(text)) != (theirs := converted.known(ids)):
            (tied if _equally_good(converted, ours, theirs) else encoded).append(text)
        decode(text, ids)
    for text in targets:
        count += 1
        decode(text, original(text_target=text)["input_ids"])
    return Comparison(count, tuple(encoded), tuple(tied), tuple(decoded))


def _as_it_is(path: Path, model_size: int | None) -> Converted:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ExportError(f"{path}: not a tokenizer: {error}") from error
    names = (getattr(tokenizer.model, "unk_token", None), "<unk>", "[UNK]")
    unknown = next((token for name in names if name and (token := tokenizer.token_to_id(name)) is not None), None)
    try:
        size = _shared_size(tokenizer, tokenizer.get_vocab_size(), model_size, unknown)
    except InexactRules as error:
        raise ExportError(f"{path}: {error}") from error
    return Converted(tokenizer, size, unknown or 0, languages=None)


def _shared_size(tokenizer: Tokenizer, size: int, model_size: int | None, unknown: int | None) -> int:
    """How many ids tokenizer and model have both; special tokens may be left over, which are then read as unknown.

    BART's summarizers have no row for `<mask>`: fairseq trained them without, and their tokenizer is that of BART.

    Raises:
        InexactRules: other tokens are left over, those that stand around every text, or nothing says what is unknown.
    """
    if model_size is None or size <= model_size:
        return size
    added = tokenizer.get_added_tokens_decoder()
    read_always = {*tokenizer.encode("").ids, model_size if unknown is None else unknown}
    if max(read_always) >= model_size or not added.keys() >= set(range(model_size, size)):
        raise InexactRules(f"it has {size} tokens, the model {model_size}")
    return model_size


def _equally_good(converted: Converted, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether the scores of two cuts of a unigram model differ by no more than float32 loses."""
    if not isinstance(converted.tokenizer.model, models.Unigram):
        return False
    scores = [score for _, score in json.loads(converted.tokenizer.to_str())["model"]["vocab"]]
    lost, won = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
    if any(scores[token] <= NEVER for token in lost | won):
        return False
    difference = sum(scores[token] * times for token, times in won.items())
    difference -= sum(scores[token] * times for token, times in lost.items())
    path = sum(abs(scores[token]) for token in ours if scores[token] > NEVER)
    return bool(abs(difference) <= _ROUNDING * path)


def _convert(original: Any, model_size: int | None) -> Converted:
    if original.split_special_tokens:
        raise InexactRules("split_special_tokens is set")
    tokenizer, size, unknown = _from_rust(original) if original.is_fast else _from_sentencepiece(original)
    size = _shared_size(tokenizer, size, model_size, unknown)
    tokenizer.decoder = _cleaning(original, tokenizer.decoder)
    return Converted(tokenizer, size, unknown or 0, language_tokens(original, size))


def _from_rust(original: Any) -> tuple[Tokenizer, int, int | None]:
    tokenizer = Tokenizer.from_str(original.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, tokenizer.get_vocab_size(), original.unk_token_id


def _from_sentencepiece(original: Any) -> tuple[Tokenizer, int, int | None]:
    """Rebuild a tokenizer that runs SentencePiece in Python."""
    ids = _ids(original)
    if original.sp_model_kwargs:
        raise InexactRules(f"sp_model_kwargs is {original.sp_model_kwargs}")
    marian = type(original).__name__ == "MarianTokenizer"
    schema: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    proto = schema.ModelProto()
    proto.ParseFromString(Path(original.spm_files[0] if marian else original.spm_file).read_bytes())
    vocabulary = Vocabulary(
        ids=ids,
        unknown=original.unk_token,
        added=tuple(token for _, token in sorted(original.added_tokens_decoder.items())),
        languages=frozenset(t for t in ids if t.startswith(">>") and t.find("<<") == len(t) - 2) if marian else None,
    )
    tokenizer = build(proto, vocabulary)
    around = surroundings(original)
    parts = {"before": list(around.before), "$A": [], "after": list(around.after)}
    single = [part for part, tokens in parts.items() if tokens or part == "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=[side for part in single for side in (("$A", "$B") if part == "$A" else (part,))],
        special_tokens=[
            {"id": part, "ids": tokens, "tokens": original.convert_ids_to_tokens(tokens)}
            for part, tokens in parts.items()
            if tokens
        ],
    )
    return tokenizer, len(ids), ids[original.unk_token]


def _ids(original: Any) -> dict[str, int]:
    kind = type(original).__name__
    if kind == "MarianTokenizer" and not original.separate_vocabs:
        ids = dict(original.encoder)
    elif kind == "M2M100Tokenizer":
        ids = original.encoder | original.lang_token_to_id
    elif kind == "MarianTokenizer":
        raise InexactRules("it has one vocabulary for the source and another for the target")
    else:
        raise InexactRules("it runs in Python, and only Marian's and M2M100's are known")
    ids |= {str(token): place for place, token in original.added_tokens_decoder.items()}
    if sorted(ids.values()) != list(range(len(ids))):
        raise InexactRules(f"its ids are not 0 to {len(ids) - 1}, once each")
    return ids


def _cleaning(original: Any, decoder: decoders.Decoder) -> decoders.Decoder:
    """The decoder, and after it what `clean_up_tokenization_spaces` of the checkpoint asks for."""
    bpe = original.is_fast and isinstance(original.backend_tokenizer.model, models.BPE)
    if not original.clean_up_tokenization_spaces or bpe:
        return decoder
    cleaned = [decoders.Replace(spaced, tight) for spaced, tight in _SPACES_TO_CLEAN.items()]
    return decoders.Sequence([decoder, decoders.Fuse(), *cleaned])


def _spelled(original: Any, vocabulary: int) -> list[str]:
    """Texts that together have pieces from all over the vocabulary."""
    step = max(_SPELLED_TOKENS, vocabulary // _SPELLED_TEXTS)
    blocks = (range(start, min(start + _SPELLED_TOKENS, vocabulary)) for start in range(0, vocabulary, step))
    return [original.decode(list(block), skip_special_tokens=True) for block in blocks]
