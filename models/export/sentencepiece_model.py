"""A SentencePiece model whose ids another vocabulary gives, as one `tokenizers.Tokenizer` that cuts text the same way.

Marian and M2M100 run SentencePiece itself and look its pieces up in `vocab.json`. Four things of that are not in
`tokenizers` and are said to it in private-use characters; a caller's own become `OTHER`, as unknown as they were (but
for models with pieces for bytes, which would spell them):

- A piece of `vocab.json` that SentencePiece never cuts (of the target language, say) must decode but never match: its
  name begins with `HIDDEN`, or with `SILENT` if it decodes to nothing.
- A run of characters that SentencePiece does not know is one unknown token, yet has an id if `vocab.json` happens to
  have the whole run: every run is put between `MARK`s, and so are the names of such entries.
- A token such as `>>fra<<` counts at the start of a text only: there it gets `LANGUAGE` before it, as its name has.
- A piece that `vocab.json` lacks is unknown: its id is past the end of `vocab.json`, see `Converted`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from models.export.charsmap import (
    BARRIER,
    SPLIT,
    InexactRules,
    character_class,
    charsmap_normalizers,
    literal,
    read_rules,
    rewritten_characters,
)

HIDDEN, SILENT, MARK, START, OTHER, LANGUAGE = map(chr, range(0x10FFF0, 0x10FFF6))
_PRIVATE = HIDDEN + SILENT + MARK + START + OTHER + LANGUAGE + BARRIER + SPLIT
_BLANK = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
NEVER = -1e4  # below every path of pieces, so that the piece is never cut from text
_WHITESPACE = "".join(rf"\x{{{code:X}}}" for code in range(0x3001) if chr(code).isspace())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the tokens of a checkpoint are called.

    Args:
        ids: token → id, 0 to len(ids) - 1.
        unknown: the token for what has no id.
        added: tokens that are found in the text before SentencePiece sees it.
        languages: tokens such as `>>fra<<` that count only at the start of a text.
    """

    ids: Mapping[str, int]
    unknown: str
    added: tuple[AddedToken, ...]
    languages: frozenset[str] | None = None


def build(proto: Any, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer, without the special tokens around a text.

    Args:
        proto: `ModelProto` of the SentencePiece model.

    Raises:
        InexactRules: the model does something that `tokenizers` cannot do.
    """
    pieces = {piece.piece: piece for piece in proto.pieces}
    cut = {name for name, piece in pieces.items() if piece.type in (_NORMAL, _USER_DEFINED)}
    known = frozenset("".join(cut))
    verbatim = {token.content for token in vocabulary.added} | {vocabulary.unknown}
    runs = {token for token in vocabulary.ids.keys() - cut - verbatim if known.isdisjoint(token)}
    if proto.trainer_spec.byte_fallback:
        runs = set()
    _check(proto, cut, known, runs, vocabulary)
    unigram = proto.trainer_spec.model_type == proto.trainer_spec.UNIGRAM
    typed = any(not known.issuperset(token) for token in verbatim)
    mark = _mark_runs(known) if runs or (unigram and typed) else normalizers.Sequence([])

    def name(token: str) -> str:
        if token in cut or token in verbatim or (token in pieces and pieces[token].type == _BYTE):
            return token
        if token in runs:
            return MARK + token + MARK
        if vocabulary.languages is not None and token in vocabulary.languages:
            marked: str = mark.normalize_str(LANGUAGE + token)
            return marked
        return (SILENT if token in pieces and pieces[token].type == _CONTROL else HIDDEN) + token

    names = [name(token) for token in sorted(vocabulary.ids, key=vocabulary.ids.__getitem__)]
    names += sorted(cut - vocabulary.ids.keys())
    model = _unigram(proto, names, vocabulary) if unigram else _bpe(proto, names, vocabulary)
    tokenizer = Tokenizer(model)
    told_apart = known.union(*runs)
    if proto.trainer_spec.byte_fallback:
        told_apart |= rewritten_characters(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence(_normalizers(proto, told_apart, mark, vocabulary))
    tokenizer.decoder = decoders.Sequence(_decoders(byte_fallback=proto.trainer_spec.byte_fallback))
    tokenizer.add_tokens([_raw(token) for token in vocabulary.added])
    return tokenizer


def _raw(token: AddedToken) -> AddedToken:
    """The token as transformers looks for it: in the text as it is typed."""
    return AddedToken(token.content, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=token.special)


def _check(
    proto: Any, cut: Collection[str], known: frozenset[str], runs: Collection[str], vocabulary: Vocabulary
) -> None:
    """Refuse what the conversion would get wrong."""
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    types = (_NORMAL, _USER_DEFINED) if runs else (_NORMAL,)
    together = [piece.piece for piece in proto.pieces if piece.type in types]
    lone = {character for piece in together if len(piece) > 1 for character in piece if character not in cut}
    unigram = trainer.model_type == trainer.UNIGRAM
    symbols = any(piece.type == _USER_DEFINED for piece in proto.pieces)
    checks = {
        "its SentencePiece model is neither unigram nor BPE": trainer.model_type not in (trainer.UNIGRAM, trainer.BPE),
        f"its pieces have characters that are no pieces: {min(lone, default='')!r}": lone,
        "it has no piece for a blank": _BLANK not in known,
        "its blanks are not escaped or come last": (
            not normalizer.escape_whitespaces or trainer.treat_whitespace_as_suffix
        ),
        f"vocab.json has {min(runs, default='')!r}, of characters that its BPE model does not know": (
            runs and not unigram
        ),
        "it rewrites text when it decodes": proto.denormalizer_spec.precompiled_charsmap,
        "its BPE model has user-defined pieces": not unigram and symbols,
        "its BPE model has unused pieces": not unigram and any(piece.type == _UNUSED for piece in proto.pieces),
        "its pieces have private-use characters that the conversion needs": not set(_PRIVATE).isdisjoint(known),
        "an added token must be a whole word": any(token.single_word for token in vocabulary.added),
        "it has language tokens, and pieces for bytes or no blank before the first word": (
            vocabulary.languages is not None
            and (trainer.byte_fallback or not normalizer.add_dummy_prefix or not normalizer.remove_extra_whitespaces)
        ),
        "its special tokens have characters without a piece, which become bytes": trainer.byte_fallback
        and not known.issuperset("".join(token.content for token in vocabulary.added)),
        "its language tokens are pieces of SentencePiece too": not set(cut).isdisjoint(vocabulary.languages or ()),
    }
    for refusal, found in checks.items():
        if found:
            raise InexactRules(refusal)


def _unigram(proto: Any, names: list[str], vocabulary: Vocabulary) -> models.Unigram:
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    best = max(0.0, *scores.values())
    scores |= {  # SentencePiece's own formula
        piece.piece: len(piece.piece.encode()) * best - 0.1 for piece in proto.pieces if piece.type == _USER_DEFINED
    }
    entries = [(name, 0.0 if name.startswith((MARK, LANGUAGE)) else scores.get(name, NEVER)) for name in names]
    return models.Unigram(
        entries, unk_id=vocabulary.ids[vocabulary.unknown], byte_fallback=proto.trainer_spec.byte_fallback
    )


def _bpe(proto: Any, names: list[str], vocabulary: Vocabulary) -> models.BPE:
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    ids = {name: place for place, name in enumerate(names)}
    merges = [
        (piece[:end], piece[end:])
        for piece in sorted(scores, key=scores.__getitem__, reverse=True)
        for end in range(1, len(piece))
        if piece[:end] in scores and piece[end:] in scores
    ]
    return models.BPE(
        ids, merges, unk_token=vocabulary.unknown, fuse_unk=True, byte_fallback=proto.trainer_spec.byte_fallback
    )


def _normalizers(
    proto: Any, known: frozenset[str], mark: normalizers.Normalizer, vocabulary: Vocabulary
) -> list[normalizers.Normalizer]:
    """What happens to a text before it is cut.

    Args:
        known: characters that are not all one unknown token.
        mark: puts `MARK`s around what SentencePiece does not know.
    """
    spec = proto.normalizer_spec
    symbols = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    steps = [normalizers.Replace(Regex(f"[{_PRIVATE}]"), OTHER), normalizers.Prepend(START)]
    if vocabulary.languages is not None:
        steps += _language_marks(vocabulary.languages, read_rules(spec.precompiled_charsmap))
    steps += charsmap_normalizers(spec.precompiled_charsmap, known, symbols)
    if spec.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(START + " ", START),
            normalizers.Replace(Regex(f"[{START} {_BLANK}]+\\z"), ""),
        ]
    steps.append(mark)
    if not spec.add_dummy_prefix:
        steps.append(normalizers.Replace(START, ""))
    return [*steps, normalizers.Replace(Regex(f"[ {START}]"), _BLANK)]


def _mark_runs(known: frozenset[str]) -> normalizers.Normalizer:
    run = f"[^{character_class(known | {MARK, LANGUAGE, START, ' '})}]"
    return normalizers.Replace(Regex(f"(?<!{run})(?={run})|(?<={run})(?!{run})"), MARK)


def _language_marks(languages: Collection[str], rules: Mapping[str, str]) -> list[normalizers.Normalizer]:
    """`LANGUAGE` before a text's language token; one unknown run instead of a language token that the model lacks."""
    if changed := [token for token in languages if not rules.keys().isdisjoint(token)]:
        raise InexactRules(f"its normalisation rewrites the language token {min(changed)}")
    steps = []
    if languages:
        tokens = [literal(token) for token in sorted(languages)]
        behind = "|".join(literal(LANGUAGE) + token for token in tokens)
        steps += [
            normalizers.Replace(Regex(f"{START}(?={'|'.join(tokens)})"), LANGUAGE),
            normalizers.Replace(Regex(f"(?<={behind})(?=[\\s\\S])"), START),
        ]
    return [*steps, normalizers.Replace(Regex(f"\\A{START}>>[\\s\\S]*?<<"), MARK + OTHER + START)]


def _decoders(*, byte_fallback: bool) -> list[decoders.Decoder]:
    steps: list[decoders.Decoder] = [
        decoders.Replace(Regex(f"{SILENT}.*"), ""),
        decoders.Replace(Regex(f"[{HIDDEN}{MARK}{LANGUAGE}]"), ""),
        decoders.Replace(_BLANK, " "),
    ]
    if byte_fallback:
        steps.append(decoders.ByteFallback())
    return [*steps, decoders.Fuse(), decoders.Replace(Regex(f"\\A[{_WHITESPACE}]+|[{_WHITESPACE}]+\\z"), "")]
