"""Every family's tokenizer, converted, against transformers' own: id by id and text by text."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from models.bundle import OutOfVocabulary
from models.export.errors import ExportError
from models.export.tokenizer import Comparison, Converted, compare, converted_tokenizer, original_tokenizer
from models.text import Tokenizer
from tests.export import vocabularies
from tests.export.vocabularies import FROM_WORDS, NASTY, WITH_SENTENCEPIECE, english, french

ENGLISH = english(720)
FRENCH = french(600)
TRAINING = [*ENGLISH[:600], *FRENCH[:300]]
TEXTS = [*NASTY, *ENGLISH[-120:], *FRENCH[-60:]]
CODES = (">>fra<<", ">>deu<<", ">>zho_Hans<<")

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SentencePiece models of English and of made-up French."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    return {
        "english": vocabularies.train_sentencepiece(folder / "english", ENGLISH[:600]),
        "french": vocabularies.train_sentencepiece(folder / "french", FRENCH, character_coverage=1.0),
    }


@pytest.fixture(scope="module")
def marian(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian") / "checkpoint"
    return vocabularies.marian(folder, trained["english"], trained["french"], codes=CODES)


@pytest.fixture(scope="module")
def converted(marian: Path) -> Converted:
    return converted_tokenizer(marian)


def compared(checkpoint: Path, targets: list[str]) -> Comparison:
    return compare(converted_tokenizer(checkpoint), original_tokenizer(checkpoint), TEXTS, targets)


def exact(found: Comparison) -> bool:
    """Nothing differs, but for a tie at most."""
    return found.texts > len(NASTY) and not (found.encoded or found.decoded) and len(found.tied) <= 1


@pytest.mark.parametrize("family", WITH_SENTENCEPIECE)
def test_families_with_sentencepiece_keep_their_tokens(family: str, tmp_path: Path) -> None:
    save, options = WITH_SENTENCEPIECE[family]
    model = vocabularies.train_sentencepiece(tmp_path / "model", TRAINING, **options)
    found = compared(save(tmp_path / "checkpoint", model), [])
    if family == "m2m100-bytes":  # spells characters that the conversion uses itself
        assert all(any(ord(character) >= 0x10FFF0 for character in text) for text in found.encoded)
        found = replace(found, encoded=())
    assert exact(found)


@pytest.mark.parametrize("family", FROM_WORDS)
def test_families_with_words_keep_their_tokens(family: str, tmp_path: Path) -> None:
    assert exact(compared(FROM_WORDS[family](tmp_path / "checkpoint", TRAINING), []))


def test_marian_keeps_its_tokens_in_both_languages(marian: Path) -> None:
    assert exact(compared(marian, [*NASTY, *FRENCH[-100:]]))


def test_marian_with_pieces_that_have_no_id(trained: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = vocabularies.marian(tmp_path / "lacking", trained["french"], trained["english"], lacking=60)
    converted = converted_tokenizer(checkpoint)
    assert converted.out_of_vocabulary == OutOfVocabulary(
        first_id=converted.vocabulary, unknown_token_id=converted.unknown_token_id
    )
    assert max(max(converted.tokenizer.encode(text).ids) for text in FRENCH) >= converted.vocabulary
    assert max(max(converted.encode(text)) for text in FRENCH) < converted.vocabulary
    assert exact(compared(checkpoint, ENGLISH[-50:]))


def test_a_language_token_counts_at_the_start_only(marian: Path, converted: Converted) -> None:
    ids = json.loads((marian / "vocab.json").read_text())
    assert converted.encode(">>fra<< the rows")[0] == ids[">>fra<<"]
    assert converted.encode(">>fra<< the rows")[1:] == converted.encode("the rows")
    assert ids[">>fra<<"] not in converted.encode("the rows >>fra<<")
    assert converted.encode(">>none<< the rows") == [ids["<unk>"], *converted.encode("the rows")]


def test_pieces_of_the_target_decode_and_are_not_cut_from_the_source(marian: Path, converted: Converted) -> None:
    ids = json.loads((marian / "vocab.json").read_text())
    only_french = next(piece for piece in ids if "é" in piece and len(piece) > 2)
    assert converted.tokenizer.decode([ids[only_french]]) == only_french.replace("▁", "")
    assert ids[only_french] not in converted.encode(only_french.replace("▁", " "))


def test_what_was_converted_is_what_a_bundle_opens(converted: Converted, tmp_path: Path) -> None:
    converted.tokenizer.save(str(tmp_path / "tokenizer.json"))
    opened = Tokenizer(tmp_path / "tokenizer.json")
    for text in TEXTS:
        assert opened.encode(text).tolist() == converted.encode(text)
        assert "".join(opened.split(text, 64)) == text


@pytest.mark.parametrize(
    ("family", "asked", "tokens"),
    [
        ("m2m100", "fr", ["__fr__", "{text}", "</s>"]),
        ("mbart", "fr_XX", ["{text}", "</s>", "fr_XX"]),
        ("mbart50", "fr_XX", ["fr_XX", "{text}", "</s>"]),
        ("nllb", "fra_Latn", ["fra_Latn", "{text}", "</s>"]),
    ],
)
def test_languages_around_a_text_and_forced_first(family: str, asked: str, tokens: list[str], tmp_path: Path) -> None:
    save, options = WITH_SENTENCEPIECE[family]
    checkpoint = save(
        tmp_path / "checkpoint", vocabularies.train_sentencepiece(tmp_path / "model", TRAINING, **options)
    )
    converted = converted_tokenizer(checkpoint)
    languages = converted.languages
    assert languages is not None
    assert len(languages.source) == len(languages.target) >= 25
    around = languages.source[asked]
    names = [
        str(converted.tokenizer.id_to_token(token)).strip("\U0010fff0") for token in (*around.before, *around.after)
    ]
    assert names == [token for token in tokens if token != "{text}"]
    assert len(around.before) == tokens.index("{text}")
    original = original_tokenizer(checkpoint)
    original.src_lang = asked
    bare = converted.tokenizer.encode("Three rows.", add_special_tokens=False).ids
    assert [*around.before, *bare, *around.after] == original("Three rows.")["input_ids"]
    forced = languages.target[asked].forced_bos_token_id
    assert forced == original.convert_tokens_to_ids(tokens[-1] if family == "mbart" else tokens[0])
    default = languages.source[languages.default_source or ""]
    assert converted.encode("Three rows.") == [*default.before, *bare, *default.after]


def test_marian_asks_for_a_language_in_the_source(marian: Path, converted: Converted) -> None:
    ids = json.loads((marian / "vocab.json").read_text())
    assert converted.languages is not None
    assert not converted.languages.source
    assert {code: target.before for code, target in converted.languages.target.items()} == {
        "fra": (ids[">>fra<<"],),
        "deu": (ids[">>deu<<"],),
        "zho_Hans": (ids[">>zho_Hans<<"],),
    }


def test_a_model_of_one_pair_names_no_languages(trained: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = vocabularies.marian(tmp_path / "pair", trained["english"], trained["french"])
    assert converted_tokenizer(checkpoint).languages is None


def test_a_tokenizer_of_no_transformers_class_is_taken_as_it_is(tmp_path: Path) -> None:
    written = RustTokenizer(models.WordLevel({"<unk>": 0, "rows": 1}, "<unk>"))
    written.pre_tokenizer = pre_tokenizers.Whitespace()
    written.save(str(tmp_path / "tokenizer.json"))
    assert converted_tokenizer(tmp_path).encode("rows of") == [1, 0]
    with pytest.raises(ExportError, match="has 2 tokens, the model 1"):
        converted_tokenizer(tmp_path, 1)


def test_a_tokenizer_that_differs_is_found_out(marian: Path, converted: Converted) -> None:
    other = RustTokenizer.from_str(converted.tokenizer.to_str())
    other.normalizer = normalizers.Sequence([normalizers.Lowercase(), converted.tokenizer.normalizer])
    changed = Converted(other, converted.vocabulary, converted.unknown_token_id, None)
    found = compare(changed, original_tokenizer(marian), ["the rows", "The rows"])
    assert found == Comparison(2, encoded=("The rows",), tied=(), decoded=())


@pytest.mark.parametrize(("whole", "kind"), [(-5.0 - 1e-9, "tied"), (-5.1, "encoded")])
def test_cuts_of_the_same_score_are_told_from_wrong_ones(
    whole: float, kind: str, marian: Path, converted: Converted
) -> None:
    raw = json.loads(converted.tokenizer.to_str())
    scores = {"▁": -5.0, "t": 0.0, "h": 0.0, "e": 0.0, "▁the": whole}
    raw["model"]["vocab"] = [[name, scores.get(name, -1000.0)] for name, _ in raw["model"]["vocab"]]
    other = RustTokenizer.from_str(json.dumps(raw))
    changed = Converted(other, converted.vocabulary, converted.unknown_token_id, None)
    assert other.encode("the").tokens == ["▁", "t", "h", "e", "</s>"]
    assert getattr(compare(changed, original_tokenizer(marian), ["the"]), kind) == ("the",)


def test_refusals(marian: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no tokenizer, one of tokenizer\.json"):
        converted_tokenizer(tmp_path)
    with pytest.raises(ExportError, match="tokens, the model 10"):
        converted_tokenizer(marian, 10)
    gap = vocabularies.marian(tmp_path / "gap", trained["english"], trained["french"])
    ids = json.loads((gap / "vocab.json").read_text())
    (gap / "vocab.json").write_text(json.dumps(ids | {"the-last": len(ids) + 5}))
    with pytest.raises(ExportError, match="its ids are not 0 to"):
        converted_tokenizer(gap)
    (gap / "source.spm").write_bytes(b"cut off")
    with pytest.raises(ExportError, match="the tokenizer cannot be loaded"):
        converted_tokenizer(gap)
    two = vocabularies.marian(tmp_path / "two", trained["english"], trained["french"])
    settings = json.loads((two / "tokenizer_config.json").read_text())
    (two / "tokenizer_config.json").write_text(json.dumps(settings | {"separate_vocabs": True}))
    (two / "target_vocab.json").write_text((two / "vocab.json").read_text())
    with pytest.raises(ExportError, match="one vocabulary for the source and another for the target"):
        converted_tokenizer(two)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "word"}, "neither unigram nor BPE"),
        ({"model_type": "bpe", "user_defined_symbols": ["rows"]}, "user-defined pieces"),
        ({"user_defined_symbols": ["ﬁ"]}, "user-defined piece 'ﬁ'"),
        ({"treat_whitespace_as_suffix": True}, "come last"),
    ],
)
def test_sentencepiece_that_cannot_be_followed_is_refused(
    options: dict[str, object], reason: str, tmp_path: Path
) -> None:
    model = vocabularies.train_sentencepiece(tmp_path / "model", TRAINING, **options)
    with pytest.raises(ExportError, match=reason):
        converted_tokenizer(vocabularies.m2m100(tmp_path / "checkpoint", model))
