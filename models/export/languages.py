"""How a multilingual checkpoint is told the language of a text and the one it should write."""

import re
from typing import Any

from pydantic import Field

from models.bundle import Frozen

_CODE_WITH_SCRIPT = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


class SourceTokens(Frozen):
    """Special token ids around a text of one language."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class TargetTokens(Frozen):
    """What asks for one language.

    Args:
        before: ids that come first in the source, as Marian's `>>fra<<`.
        forced_bos_token_id: what the decoder must write first.
    """

    before: tuple[int, ...] = ()
    forced_bos_token_id: int | None = Field(None, ge=0)


class LanguageTokens(Frozen):
    """Token ids by language, under the model's own codes ("fra", "fra_Latn", "fr_XX", "fr").

    Args:
        source: empty where a text looks the same in every language; the tokenizer's own special tokens then stand
            around it.
        target: every language that can be asked for.
        default_source: the language that the tokenizer's own special tokens stand for; None without `source`.
    """

    source: dict[str, SourceTokens] = Field(default_factory=dict)
    target: dict[str, TargetTokens]
    default_source: str | None = None


def language_tokens(original: Any, vocabulary: int) -> LanguageTokens | None:
    """What the checkpoint's tokenizer does for each language; None for a model of one pair.

    Args:
        original: the tokenizer as transformers loads it.
        vocabulary: how many ids the model has; languages past it are left out.

    Raises:
        ValueError: a multilingual tokenizer without a token for any language.
    """
    if type(original).__name__ == "MarianTokenizer":
        found = {code: original.convert_tokens_to_ids(code) for code in original.supported_language_codes}
        asked = {code[2:-2]: TargetTokens(before=(token,)) for code, token in sorted(found.items())}
        return LanguageTokens(target=asked) if asked else None
    if not hasattr(original, "src_lang"):
        return None
    codes = {code: token for code, token in _codes(original).items() if token < vocabulary}
    if not codes:
        raise ValueError("it has no token for any of its languages: save it with its language tokens")
    default, source = original.src_lang, {}
    try:
        for code in codes:
            original.src_lang = code
            source[code] = surroundings(original)
    finally:
        original.src_lang = default
    target = {code: TargetTokens(forced_bos_token_id=token) for code, token in codes.items()}
    return LanguageTokens(source=source, target=target, default_source=default if default in source else None)


def _codes(original: Any) -> dict[str, int]:
    known = getattr(original, "lang_code_to_id", None)
    if known is None:
        tokens = zip(original.all_special_tokens, original.all_special_ids, strict=True)
        known = {token: place for token, place in tokens if _CODE_WITH_SCRIPT.fullmatch(token)}
    return {code: token for code, token in sorted(known.items()) if token not in {None, original.unk_token_id}}


def surroundings(original: Any) -> SourceTokens:
    """The special tokens that a tokenizer puts around a text."""
    text = original.unk_token
    bare = original(text, add_special_tokens=False)["input_ids"]
    ids = original(text)["input_ids"]
    start = next(place for place in range(len(ids)) if ids[place : place + len(bare)] == bare)
    return SourceTokens(before=tuple(ids[:start]), after=tuple(ids[start + len(bare) :]))
