"""Translation among many languages: what stands around a source, what comes out first, and who is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.bundle import (
    Languages,
    LanguageTokens,
    OutOfVocabulary,
    SourceTokens,
    TargetTokens,
)
from models.errors import BundleError, InvalidInput
from models.sentences import pieces
from models.task import Row
from models.tasks.translation import Translation, TranslationRequest
from tests.models.tasks.bundles import bundle_of

CLS, SEP, ENGLISH, FRENCH = 2, 3, 101, 102
BETWEEN = LanguageTokens(
    source={
        "eng_Latn": SourceTokens(before=(ENGLISH,), after=(SEP,)),
        "fra_Latn": SourceTokens(before=(FRENCH,), after=(SEP,)),
    },
    target={
        "eng_Latn": TargetTokens(forced_bos_token_id=ENGLISH),
        "fra_Latn": TargetTokens(forced_bos_token_id=FRENCH),
    },
    default_source="eng_Latn",
)
IN_FRONT = LanguageTokens(target={"deu": TargetTokens(before=(7,)), "fra": TargetTokens(before=(8, 9))})

Make = Callable[..., Translation]


@pytest.fixture
def translation(tmp_path: Path) -> Make:
    bundle = bundle_of("translation", tmp_path, max_tokens=12)

    def make(tokens: LanguageTokens, **changes: Any) -> Translation:
        languages = Languages(source=tuple(tokens.source) or ("en",), target=tuple(tokens.target))
        changed = {"language_tokens": tokens, "languages": languages, **changes}
        return Translation(replace(bundle, manifest=bundle.manifest.model_copy(update=changed)))

    return make


def rows(task: Translation, text: str, **parameters: Any) -> list[Row]:
    return list(next(task.solve(TranslationRequest.model_validate({"inputs": text, "parameters": parameters}))))


def forced(row: Row) -> int | None:
    assert row.generation is not None
    return row.generation.forced_bos_token_id


def test_special_tokens_are_those_of_the_languages_asked_for(translation: Make) -> None:
    task = translation(BETWEEN)
    (row,) = rows(task, "winter", tgt_lang="fra_Latn")
    bare = row.tokens.tolist()[1:-1]
    assert bare
    assert row.tokens.tolist() == [ENGLISH, *bare, SEP]
    assert forced(row) == FRENCH
    (row,) = rows(task, "winter", src_lang="fra_Latn", tgt_lang="eng_Latn")
    assert row.tokens.tolist() == [FRENCH, *bare, SEP]
    assert forced(row) == ENGLISH


def test_tokens_of_the_target_come_first_in_the_source(translation: Make) -> None:
    task = translation(IN_FRONT)
    (german,), (french,) = (rows(task, "winter", tgt_lang=code) for code in ("deu", "fra"))
    assert german.tokens.tolist()[:2] == [7, CLS]
    assert french.tokens.tolist()[:3] == [8, 9, CLS]
    assert german.tokens.tolist()[1:] == french.tokens.tolist()[2:]
    assert forced(german) is None


def test_long_sentences_are_cut_to_the_room_that_language_tokens_leave(translation: Make) -> None:
    words = "the quick brown fox jumps over the lazy dog and the cat " * 3
    for task in (translation(BETWEEN), translation(IN_FRONT)):
        target = "fra_Latn" if "fra_Latn" in task._languages.target else "fra"
        found = rows(task, words, tgt_lang=target)
        assert len(found) > 2
        assert max(len(row.tokens) for row in found) in {11, 12}


def test_what_a_model_has_no_default_for_must_be_said(translation: Make) -> None:
    with pytest.raises(
        InvalidInput, match="parameters/tgt_lang must be one of eng_Latn, fra_Latn for this model, got"
    ) as e:
        rows(translation(BETWEEN), "winter")
    assert e.value.pointer == "/parameters/tgt_lang"
    assert str(e.value).endswith("got nothing, and the model has no default")
    with_default = BETWEEN.model_copy(update={"default_target": "fra_Latn", "default_source": None})
    with pytest.raises(InvalidInput, match=r"parameters/src_lang must be .* got nothing"):
        rows(translation(with_default), "winter")
    (row,) = rows(translation(with_default), "winter", src_lang="eng_Latn")
    assert forced(row) == FRENCH


def test_an_unknown_language_is_named_beside_a_few_that_there_are_nearest_first(translation: Make) -> None:
    many = LanguageTokens(target={f"{first}{last}": TargetTokens() for first in "abf" for last in "abcdefrz"})
    with pytest.raises(InvalidInput) as error:
        rows(translation(many), "winter", tgt_lang="fr_XX" + "!" * 1000)
    assert "must be one of fr, aa, ab, ac, ad, ae, af, ar, az, ba, bb, bc and 12 more for this model" in str(
        error.value
    )
    assert len(str(error.value)) < 250
    with pytest.raises(InvalidInput, match="parameters/src_lang must be one of en for this model, got 'fr'"):
        rows(translation(many), "winter", src_lang="fr", tgt_lang="aa")


def test_pieces_that_the_model_has_no_id_for_are_unknown_to_it(translation: Make) -> None:
    whole = rows(translation(IN_FRONT), "the winter", tgt_lang="deu")[0].tokens
    highest = int(whole.max())
    task = translation(IN_FRONT, out_of_vocabulary=OutOfVocabulary(first_id=highest, unknown_token_id=1))
    found = rows(task, "the winter", tgt_lang="deu")[0].tokens
    assert found.tolist() == [1 if token == highest else token for token in whole.tolist()]


def test_a_bundle_without_languages_is_refused(translation: Make) -> None:
    with pytest.raises(BundleError, match="needs a tokenizer, generation defaults and its languages"):
        translation(IN_FRONT, languages=Languages(source=("en",)))


@pytest.mark.parametrize("code", ["de", "deu", "deu_Latn", "de_DE"])
def test_sentences_are_cut_by_the_rules_of_the_language_however_it_is_spelled(code: str) -> None:
    """`bzw.` ends no sentence in German."""
    assert [piece.text for piece in pieces("Eins bzw. Zwei. Drei.", code) if piece.is_sentence] == [
        "Eins bzw. Zwei.",
        "Drei.",
    ]
    assert len(list(pieces("Eins bzw. Zwei. Drei.", "eng"))) > 3
