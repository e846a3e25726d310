"""SentencePiece's normalisation, from its own table, against SentencePiece."""

import random
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import normalizers

from models.export.charsmap import InexactRules, character_class, charsmap_normalizers, read_rules
from tests.export.vocabularies import NASTY, english, train_sentencepiece

START = "\U0010fff3"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_sentencepiece(tmp_path_factory.mktemp("charsmap") / "model", english(300), vocab_size=300)


@pytest.fixture(scope="module")
def charsmap(model: Path) -> bytes:
    return table_of(model)


def table_of(model: Path) -> bytes:
    schema: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    table: bytes = schema.ModelProto.FromString(model.read_bytes()).normalizer_spec.precompiled_charsmap
    return table


def test_rules(charsmap: bytes) -> None:
    rules = read_rules(charsmap)
    expected = {"ﬁ": "fi", "\u00a0": " ", "\x01": "", "e\u0302\u0301": "ế", "ｶﾞ": "ガ", "\u1112\u1161\u11ab": "한"}
    assert {key: rules.get(key) for key in expected} == expected
    assert not {"a", "é", "ガ", "한"} & rules.keys()
    assert read_rules(b"") == {}


@pytest.mark.parametrize("alphabet", ["abcdefghijklmnopqrstuvwxyz ▁", "everything"])
def test_any_sequence_is_rewritten_alike(alphabet: str, model: Path, charsmap: bytes) -> None:
    rules = read_rules(charsmap)
    plane = {character for key, text in rules.items() for character in key + text if ord(character) < 0x10000}
    known = frozenset(plane if alphabet == "everything" else alphabet)
    unknown = re.compile(f"[^{''.join(map(re.escape, sorted(known)))}▁]+")
    ours = normalizers.Sequence([normalizers.Prepend(START), *charsmap_normalizers(charsmap, known)])
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    chosen = random.Random(3)
    keys = [key for key in sorted(rules) if all(ord(character) < 0x10000 for character in key)]
    marks = sorted({key[-1] for key in keys if len(key) > 1})
    lots = [keys, marks, [*"ae x", "é", "\u1100\u1161", "ﬁ"]]
    drawn = ["".join(chosen.choice(chosen.choice(lots)) for _ in range(chosen.randint(1, 6))) for _ in range(2000)]
    for text in [*(nasty for nasty in NASTY if "\ufff0" not in nasty), *drawn]:
        blanks = re.sub(" +", " ", ours.normalize_str(text).replace(START, "")).strip(" ")
        found = re.sub("▁+$", "", f"▁{blanks}".replace(" ", "▁")) if text else ""
        assert unknown.sub("?", found) == unknown.sub("?", theirs.normalize(text)), ascii(text)


def test_rules_that_nfc_does_not_know(tmp_path: Path) -> None:
    """Two letters become another; in the second table, what one rule ends with starts the other."""
    for text, rules, fine in (
        ("a b ab", "61 62\t78\n", True),
        ("a b c", "61 62\t78\n62 63\t79\n", False),
    ):
        table = tmp_path / "rules.tsv"
        table.write_text(rules)
        path = train_sentencepiece(
            tmp_path / "model",
            [f"{text} xyz {number}" for number in range(99)],
            normalization_rule_tsv=str(table),
            vocab_size=30,
        )
        charsmap = table_of(path)
        if fine:
            ours = normalizers.Sequence(
                [normalizers.Prepend(START), *charsmap_normalizers(charsmap, frozenset("abxyz"))]
            )
            assert ours.normalize_str("aabb ab") == f"{START}axb x"
        else:
            with pytest.raises(InexactRules, match="joins 'b' both"):
                charsmap_normalizers(charsmap, frozenset("abxyz"))


def test_character_class() -> None:
    assert character_class("cab\U0001f600") == r"\x{61}-\x{63}\x{1F600}-\x{1F600}"
    assert character_class("") == ""
