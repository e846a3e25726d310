"""Which languages a bundle gets: those asked for, those of the tokenizer, those of its settings, or a refusal."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.bundle import GenerationDefaults, Languages, LanguageTokens, SourceTokens, TargetTokens
from models.export.errors import ExportError
from models.export.examples import example
from models.export.languages import narrowed, settled

CODES = {"de_DE": 40, "en_XX": 41, "fr_XX": 42}
MANY = LanguageTokens(
    source={code: SourceTokens(after=(2, token)) for code, token in CODES.items()},
    target={code: TargetTokens(forced_bos_token_id=token) for code, token in CODES.items()},
    default_source="en_XX",
)
NONE = Languages(source=())
ALL = Languages(source=tuple(CODES), target=tuple(CODES))


def write(folder: Path, name: str, **content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def generation(start: int = 2, forced: int | None = None) -> GenerationDefaults:
    return GenerationDefaults(
        decoder_start_token_id=start, eos_token_id=2, forced_bos_token_id=forced, max_new_tokens=8
    )


def test_what_was_asked_for_wins_over_the_tokenizer_and_that_over_its_settings(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", source_lang="eng", target_lang="roa")
    asked = Languages(source=("fr_XX",), target=("de_DE",))
    assert settled(tmp_path, "translation", asked, MANY) == asked
    assert settled(tmp_path, "translation", NONE, MANY) == ALL
    in_front = LanguageTokens(target={"fra": TargetTokens(before=(9,))})
    assert settled(tmp_path, "translation", NONE, in_front) == Languages(source=("eng",), target=("fra",))
    assert settled(tmp_path, "translation", NONE, None) == Languages(source=("eng",), target=("roa",))
    english = Languages(source=("en",))
    assert settled(tmp_path, "summarization", english, MANY) == Languages(source=("en",), target=("en",))
    assert settled(tmp_path, "question-answering", NONE, None) == NONE


def test_languages_that_nothing_tells_or_that_the_checkpoint_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="tells its languages: give --source-language and --target-language, such as"):
        settled(tmp_path, "translation", Languages(source=("en",)), None)
    with pytest.raises(ExportError, match="tells its languages: give --source-language, such as en"):
        settled(tmp_path, "summarization", NONE, MANY)
    tasks: dict[str, dict[str, str]] = {
        name: {} for name in ("summarization", "translation_en_to_de", "translation_en_to_ro")
    }
    write(tmp_path, "config.json", task_specific_params=tasks)
    with pytest.raises(ExportError, match="such as en; it has settings for en to de, en to ro"):
        settled(tmp_path, "translation", NONE, None)
    with pytest.raises(ExportError, match="does not know --target-language fr: it knows de_DE, en_XX, fr_XX"):
        settled(tmp_path, "translation", Languages(source=(), target=("fr",)), MANY)


def test_the_default_is_the_language_that_the_checkpoint_begins_with_or_the_only_one() -> None:
    assert narrowed(MANY, ALL, generation()).default_target is None
    assert narrowed(MANY, ALL, generation()).default_source == "en_XX"
    assert narrowed(MANY, ALL, generation(forced=42)).default_target == "fr_XX"
    assert narrowed(MANY, ALL, generation(forced=7)).default_target is None
    pair = narrowed(MANY, Languages(source=("fr_XX",), target=("de_DE",)), generation(forced=42))
    assert (pair.default_source, pair.default_target) == ("fr_XX", "de_DE")
    assert (list(pair.source), list(pair.target)) == (["fr_XX"], ["de_DE"])


def test_a_language_before_the_source_is_never_the_default_among_several() -> None:
    in_front = LanguageTokens(target={"deu": TargetTokens(before=(8,)), "fra": TargetTokens(before=(9,))})
    english = ("en",)
    assert narrowed(in_front, Languages(source=english, target=("deu", "fra")), generation()).default_target is None
    one = narrowed(in_front, Languages(source=english, target=("fra",)), generation())
    assert one == LanguageTokens(target={"fra": TargetTokens(before=(9,))}, default_target="fra")


def test_a_decoder_that_starts_with_a_language_writes_no_other() -> None:
    one = narrowed(MANY, ALL, generation(start=42))
    assert one.target == {"fr_XX": TargetTokens()}
    assert one.default_target == "fr_XX"
    with pytest.raises(ExportError, match="starts with fr_XX: give --target-language fr_XX or none"):
        narrowed(MANY, Languages(source=tuple(CODES), target=("de_DE",)), generation(start=42))


def test_the_example_names_what_the_model_must_be_told(tmp_path: Path) -> None:
    assert "parameters" not in example("translation", tmp_path, None)
    with_default = narrowed(MANY, ALL, generation(forced=42))
    assert "parameters" not in example("translation", tmp_path, with_default)
    told = MANY.model_copy(update={"default_source": None})
    assert example("translation", tmp_path, MANY)["parameters"] == {"tgt_lang": "de_DE"}
    assert example("translation", tmp_path, told)["parameters"] == {"src_lang": "de_DE", "tgt_lang": "en_XX"}
