"""A bundle with a shortlist: learned from a parallel text, and answers that depend on no neighbour's candidates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import head
from models.bundle import Bundle, Languages, Precision, open_bundle
from models.errors import BundleError
from models.export.errors import ExportError
from models.export.lexicon import Pair, lexicon
from models.export.shortlisting import learn
from models.export.tokenizer import converted_tokenizer
from models.export.write import export
from models.load import load_model
from models.seq2seq import Seq2Seq
from models.shortlist import Shortlist, needed_tokens
from models.task import Generation, Row
from tests.export.checkpoints import VOCABULARY, WORDS, marian, recipe, write_tokenizer
from tests.models.embedded import Collected, run

PARALLEL = "the cat sat\tthe mat\nthe cat\tthe mat\na cat sat\ta mat was\nthe mat\tthe cat\n"
PAIR = Languages(source=("en",), target=("fr",))
GREEDY = Generation(9)
KINDS = (
    GREEDY,
    replace(GREEDY, num_beams=3),
    replace(GREEDY, do_sample=True, temperature=1.5),
    replace(GREEDY, repetition_penalty=1.4, no_repeat_ngram_size=2),
    replace(GREEDY, num_beams=2, length_penalty=2.0, forced_bos_token_id=33),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of 64 words in int8; its shortlist is random, so that every row has candidates of its own."""
    folder = tmp_path_factory.mktemp("shortlisted")
    (folder / "parallel.tsv").write_text(PARALLEL)
    made, _ = export(
        marian(folder / "checkpoint"),
        "translation",
        folder / "bundle",
        recipe("translation"),
        precisions=("fp32", "int8"),
        parallel=folder / "parallel.tsv",
    )
    return made


def _with(bundle: Bundle, likely: list[list[int]], folder: Path) -> Bundle:
    """The same bundle with another shortlist, which stands in `folder`."""
    assert bundle.manifest.shortlist is not None
    starts = np.cumsum([0, *map(len, likely)])
    Shortlist(np.array([3, 4]), starts, np.concatenate(likely).astype(np.int64)).save(folder / "other.npz")
    file = bundle.manifest.shortlist.model_copy(update={"path": str(folder / "other.npz")})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"shortlist": file}))


def _rows() -> dict[int, Row]:
    rng = np.random.default_rng(7)
    return {
        index: Row(
            rng.integers(4, VOCABULARY, 1 + index % 3),
            generation=replace(KINDS[index % len(KINDS)], seed=index, max_new_tokens=3 + index % 7),
        )
        for index in range(20)
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_where_every_word_is_a_candidate_the_tokens_are_those_without_a_shortlist(
    bundle: Bundle, precision: Precision, tmp_path: Path
) -> None:
    everything = _with(bundle, [list(range(VOCABULARY))] * VOCABULARY, tmp_path)
    without = replace(bundle, manifest=bundle.manifest.model_copy(update={"shortlist": None}))
    expected = run(load_model(without, precision, slots=64), _rows())
    found = run(load_model(everything, precision, slots=64), _rows())
    assert found.tokens == expected.tokens
    assert found.finish == expected.finish
    assert len({tuple(tokens) for tokens in found.tokens.values()}) > 12


def test_a_row_writes_its_candidates_whoever_runs_beside_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows join and leave one by one, so that columns are taken, given up and laid out anew, more of them and fewer."""
    monkeypatch.setattr(head, "_MULTIPLE", 8)
    rng = np.random.default_rng(6)
    random = _with(bundle, [rng.choice(VOCABULARY, 5, replace=False).tolist() for _ in range(VOCABULARY)], tmp_path)
    waiting = _rows()
    expected = {
        index: run(load_model(random, "int8", slots=12), {index: row}).tokens[index] for index, row in waiting.items()
    }
    crowd, collected = load_model(random, "int8", slots=12), Collected()
    assert isinstance(crowd, Seq2Seq)
    shortlist, defaults = Shortlist.read(tmp_path / "other.npz"), bundle.manifest.generation
    assert defaults is not None
    candidates = {
        index: set(shortlist.candidates(row.tokens, needed_tokens(row.generation or GREEDY, defaults)).tolist())
        for index, row in waiting.items()
    }
    order, columns = list(waiting.items()), []
    while len(collected.finish) < len(waiting):
        if order and crowd.cost(order[-1][1]).slots <= crowd.room().slots:
            crowd.admit(dict([order.pop()]))
        allowed = np.isfinite(crowd._head.inputs(len(crowd._occupants))["allowed"])
        assert allowed.sum(1).tolist() == [len(candidates[running.row]) for running in crowd._occupants]
        columns.append(allowed.shape[1])
        collected.take(crowd.step())
    assert collected.tokens == expected
    assert len(set(columns)) > 2
    assert all({*tokens} <= candidates[index] for index, tokens in collected.tokens.items())
    crowd.admit({0: waiting[0]})
    assert crowd._head.inputs(1)["allowed"].shape[1] < max(columns)
    crowd.reset()
    assert run(crowd, {1: waiting[1]}).tokens[1] == expected[1]


def test_a_bundle_says_that_it_has_a_shortlist_and_checks_it(bundle: Bundle) -> None:
    assert "Shortlist" in (bundle.folder / "README.md").read_text()
    assert bundle.manifest.shortlist is not None
    path = bundle.path(bundle.manifest.shortlist)
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1])
        with pytest.raises(BundleError, match=r"shortlist.npz: \d+ bytes, the manifest says"):
            open_bundle(bundle.folder)
    finally:
        path.write_bytes(content)


def test_words_that_stand_together_more_often_than_apart_translate_each_other() -> None:
    """Brown et al.'s point: 3 stands beside 1 and beside 2, and is told apart by the sentence where 2 is alone."""
    pairs = [Pair([1, 2], [13, 12]), Pair([2], [12]), Pair([1, 4], [14, 13]), Pair([4], [14])]
    found, used = lexicon(pairs, 20, 1)
    assert [found[token].tolist() for token in (1, 2, 4)] == [[13], [12], [14]]
    assert not len(found[5])
    assert used == len(pairs)


def test_a_shortlist_is_learned_from_pairs_of_sentences(bundle: Bundle) -> None:
    assert bundle.manifest.shortlist is not None
    learned = Shortlist.read(bundle.path(bundle.manifest.shortlist))
    words = {word: index for index, word in enumerate(WORDS)}
    assert words["mat"] in learned.candidates(np.array([words["cat"]]), ())


@pytest.mark.parametrize(
    ("content", "task", "message"),
    [
        ("the cat\tthe mat\nno tab\n", "translation", "parallel.tsv: line 2 has no tab"),
        ("", "translation", "no pair of sentences"),
        ("\xff", "translation", "cannot be read as a parallel text"),
        ("the cat\tthe mat\n", "summarization", "a summarization model cannot have one"),
    ],
)
def test_what_no_shortlist_can_be_learned_from_is_refused(
    content: str, task: str, message: str, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path)
    path = tmp_path / "parallel.tsv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ExportError, match=message):
        learn(path, tmp_path, task, converted_tokenizer(tmp_path), VOCABULARY, languages=PAIR)


@pytest.mark.parametrize(
    ("languages", "got"),
    [
        (Languages(source=("en",), target=("de", "fr")), "got 1 to read and 2 to write"),
        (Languages(source=("en", "de"), target=("fr",)), "got 2 to read and 1 to write"),
    ],
)
def test_a_shortlist_of_several_pairs_of_languages_is_refused_at_once(
    languages: Languages, got: str, tmp_path: Path
) -> None:
    """Its text says which words translate those of one pair, and no other could write anything else."""
    write_tokenizer(tmp_path)
    absent = tmp_path / "parallel.tsv"
    with pytest.raises(ExportError, match=f"of one pair of languages, {got}: give --source-language and --target-lang"):
        learn(absent, tmp_path, "translation", converted_tokenizer(tmp_path), VOCABULARY, languages=languages)
