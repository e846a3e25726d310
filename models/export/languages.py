"""Which languages a checkpoint has, and how it is told that of a text and the one it should write."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import GenerationDefaults, Languages, LanguageTokens, SourceTokens, TargetTokens
from models.export.errors import ExportError

_LISTED = 12
_CODE_WITH_SCRIPT = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


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


def settled(folder: Path, task: str, asked: Languages, known: LanguageTokens | None) -> Languages:
    """What a bundle reads and writes: what was asked for, else what the tokenizer knows, else what its settings say.

    Args:
        folder: the checkpoint's.
        known: of the checkpoint's tokenizer.

    Raises:
        ExportError: the checkpoint does not have what was asked for, or nothing tells what the task needs to know.
    """
    if task == "summarization":
        found = Languages(source=asked.source, target=asked.target or asked.source)
    elif task == "translation":
        sources, targets = (known.source, known.target) if known else ({}, {})
        _require("--source-language", asked.source, sources)
        _require("--target-language", asked.target, targets)
        settings = _json(folder / "tokenizer_config.json")
        found = Languages(
            source=asked.source or tuple(sources) or _texts(settings.get("source_lang")),
            target=asked.target or tuple(targets) or _texts(settings.get("target_lang")),
        )
    else:
        return asked
    if not found.source or not found.target:
        needed = "--source-language and --target-language" if task == "translation" else "--source-language"
        pairs = f"; it has settings for {_some(pairs)}" if (pairs := _pairs(folder)) else ""
        raise ExportError(f"nothing in {folder.name} tells its languages: give {needed}, such as en{pairs}")
    return found


def require_pair(folder: Path, languages: Languages) -> None:
    """Refuse languages that a T5 has no prefix for: it would read a source without knowing what to do with it.

    Raises:
        ExportError: its settings name pairs of languages, and this is none of them.
    """
    asked = " to ".join("_".join(codes) for codes in (languages.source, languages.target))
    if (pairs := _pairs(folder)) and asked not in pairs:
        raise ExportError(
            f"the checkpoint has settings for {_some(pairs)}, not for {asked}: give one of these pairs with"
            " --source-language and --target-language, or the prefix of another as generation.prefix in a recipe"
        )


def narrowed(known: LanguageTokens, languages: Languages, generation: GenerationDefaults) -> LanguageTokens:
    """The tokens of these languages, and which of them the checkpoint takes when nobody says any.

    A decoder that starts with the token of a language, as that of an mBART of one pair does, writes that one alone.

    Raises:
        ExportError: another one was asked for.
    """
    source = {code: tokens for code, tokens in known.source.items() if code in languages.source}
    target = {code: known.target[code] for code in languages.target}
    forced = {
        tokens.forced_bos_token_id: code
        for code, tokens in known.target.items()
        if tokens.forced_bos_token_id is not None
    }
    first = forced.get(generation.decoder_start_token_id)
    if first is not None:
        if first not in target:
            raise ExportError(f"the checkpoint's decoder starts with {first}: give --target-language {first} or none")
        target = {first: TargetTokens()}
    own_source = known.default_source
    own_target = None if generation.forced_bos_token_id is None else forced.get(generation.forced_bos_token_id)
    return LanguageTokens(
        source=source,
        target=target,
        default_source=own_source if own_source in source else _only(source),
        default_target=own_target if own_target in target else _only(target),
    )


def _some(codes: Iterable[str]) -> str:
    """As many as a sentence bears."""
    listed = list(codes)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def _require(option: str, asked: Sequence[str], known: Mapping[str, object]) -> None:
    unknown = [code for code in asked if known and code not in known]
    if unknown:
        raise ExportError(f"the checkpoint does not know {option} {unknown[0]}: it knows {_some(known)}")


def _only(codes: Mapping[str, object]) -> str | None:
    return next(iter(codes)) if len(codes) == 1 else None


def _pairs(folder: Path) -> list[str]:
    """`en to de` for each `translation_en_to_de` among a T5's `task_specific_params`."""
    tasks = _json(folder / "config.json").get("task_specific_params")
    return [
        name.removeprefix("translation_").replace("_to_", " to ")
        for name in (tasks if isinstance(tasks, dict) else ())
        if name.startswith("translation_")
    ]


def _json(path: Path) -> Mapping[str, Any]:
    """An object; a file that is absent or broken has nothing in it."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else ()


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
