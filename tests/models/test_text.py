"""Stretches and windows fit the model, and nothing of the caller's text is lost."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from models.errors import BundleError
from models.text import Tokenizer, clean_up_spaces

WORDS = "the quick brown fox jumps over a lazy dog and nobody knows why it would do such things in winter"


def word_pieces(*, lowercase: bool = True) -> RustTokenizer:
    """A BERT-like tokenizer trained on a few words, every letter known."""
    tokenizer = RustTokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([WORDS, "abcdefghijklmnopqrstuvwxyz . , ? !"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    word_pieces().save(str(path))
    return Tokenizer(path)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer(path)


def test_a_prefix_is_encoded_before_a_text_and_counts_where_texts_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    word_pieces().save(str(path))
    plain, prefixed = Tokenizer(path), Tokenizer(path, prefix="do it: ")
    assert prefixed.encode(WORDS).tolist() == plain.encode(f"do it: {WORDS}").tolist()
    assert prefixed.count(WORDS) == plain.count(f"do it: {WORDS}")
    parts = prefixed.split(WORDS, 12)
    assert "".join(parts) == WORDS
    assert 9 < max(prefixed.count(part) for part in parts) <= 12


@given(st.text(alphabet=f"{WORDS}\n.,é你😀 ", max_size=400), st.integers(5, 40))
def test_stretches_fit_and_lose_nothing(tokenizer: Tokenizer, text: str, max_tokens: int) -> None:
    stretches = tokenizer.split(text, max_tokens)
    assert "".join(stretches) == text
    assert all(stretches)
    assert max(map(tokenizer.count, stretches), default=0) <= max_tokens


def test_stretches_end_between_words(tokenizer: Tokenizer) -> None:
    text = " ".join([WORDS] * 5)
    assert [word for stretch in tokenizer.split(text, 12) for word in stretch.split()] == text.split()


@given(
    st.text(alphabet=f"{WORDS}.,é你😀 ", max_size=600).filter(str.strip),
    st.integers(24, 60),
    st.integers(0, 8),
)
def test_windows_cover_every_token_of_the_context(
    tokenizer: Tokenizer, context: str, max_tokens: int, doc_stride: int
) -> None:
    windows = list(tokenizer.question_windows("who knows", context, max_tokens=max_tokens, doc_stride=doc_stride))
    whole = next(iter(tokenizer.question_windows("who knows", context, max_tokens=10_000, doc_stride=0)))
    assert {span for window in windows for span in window.spans} == set(whole.spans)
    words = dict(zip(whole.spans, whole.words, strict=True))
    for window in windows:
        assert len(window.tokens) == len(window.segments) <= max_tokens
        assert len(window.spans) == len(window.words) == window.context.stop - window.context.start
        assert window.segments[window.context].all()
        assert not window.segments[: window.context.start].any()
        assert [words[span] for span in window.spans] == list(window.words)
    for left, right in pairwise(windows):
        assert left.spans[len(left.spans) - doc_stride :] == right.spans[:doc_stride]


@given(st.text(alphabet="xqj \x07.", max_size=60))
def test_words_are_those_that_the_tokenizer_says(tokenizer: Tokenizer, context: str) -> None:
    found = tokenizer._tokenizer.encode(context, add_special_tokens=False)
    window = next(tokenizer.question_windows("who knows", context, max_tokens=1000, doc_stride=0))
    assert list(window.words) == [found.word_to_chars(word) for word in found.word_ids if word is not None]


def test_a_question_is_cut_only_when_asked(tokenizer: Tokenizer) -> None:
    (whole,) = tokenizer.question_windows("why why why why", "a b", max_tokens=50, doc_stride=0)
    (cut,) = tokenizer.question_windows("why why why why", "a b", max_tokens=50, doc_stride=0, max_question_tokens=2)
    assert whole.context.start - cut.context.start == 2 * tokenizer.count_bare("why")


def test_a_long_question_that_is_cut_takes_no_memory_for_what_is_cut_off(tmp_path: Path) -> None:
    word_pieces().save(str(tmp_path / "tokenizer.json"))
    script = (
        "import resource, sys; from pathlib import Path; from models.text import Tokenizer\n"
        "def windows(asked, found):\n"
        "    read = Tokenizer(Path(sys.argv[1])).question_windows\n"
        "    return len(list(read('a ' * asked, 'b ' * found, max_tokens=40, doc_stride=0, max_question_tokens=1)))\n"
        "windows(1, 1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(windows(600, 6000), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tokenizer.json")], check=True, stdout=subprocess.PIPE, text=True
    )
    count, kib = map(int, ran.stdout.split())
    assert count == 167  # 36 of 6,000 tokens beside the question and three special tokens
    assert kib < 100 * 1024


def test_clean_up_removes_spaces_before_punctuation_and_contractions() -> None:
    assert clean_up_spaces("Well , he does n't know . He 's late !") == "Well, he doesn't know. He's late!"
