"""Shortlists: what a row may write, and decoding by places among that."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.beams import BeamSearch
from models.bundle import GenerationDefaults
from models.errors import BundleError
from models.shortlist import Renumbered, Shortlist, needed_tokens
from models.task import Generation

VOCABULARY = 20
LIKELY: Sequence[Sequence[int]] = ([], [], [9, 4], [], [], [17], [4])


def shortlist() -> Shortlist:
    lists = [np.array(words, np.int64) for words in LIKELY] + [np.zeros(0, np.int64)] * (VOCABULARY - len(LIKELY))
    starts = np.concatenate([[0], np.cumsum([len(words) for words in lists])])
    return Shortlist(np.array([3, 8]), starts, np.concatenate(lists))


def test_candidates_are_frequent_likely_copied_and_needed_words() -> None:
    generation = Generation(4, forced_bos_token_id=12)
    defaults = GenerationDefaults(decoder_start_token_id=19, eos_token_id=1, forced_eos_token_id=0, max_new_tokens=4)
    needed = needed_tokens(generation, defaults)
    assert shortlist().candidates(np.array([2, 5, 2]), needed).tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 12, 17, 19]
    assert shortlist().candidates(np.array([11]), ()).tolist() == [3, 8, 11]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    shortlist().save(tmp_path / "shortlist.npz")
    read = Shortlist.read(tmp_path / "shortlist.npz")
    for source in ([2, 5, 2], [11], [6]):
        expected = shortlist().candidates(np.array(source), {1})
        assert read.candidates(np.array(source), {1}).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("frequent", "starts", "message"),
    [([20], [0] * 21, "vocabulary of 20"), ([1], [0] * 20 + [3], "starts must rise"), ([1], [1] * 21, "starts must")],
)
def test_a_file_that_is_no_shortlist_is_refused(
    frequent: list[int], starts: list[int], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "shortlist.npz"
    np.savez(path, frequent=frequent, starts=starts, likely=np.zeros(0, np.int64))
    with pytest.raises(BundleError, match=message):
        Shortlist.read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(BundleError, match="not a shortlist"):
        Shortlist.read(path)


def test_beams_over_candidates_are_those_over_a_vocabulary_that_has_nothing_else() -> None:
    """Forced, suppressed and repeated tokens keep their meaning when words are numbered by their place."""
    candidates = np.array([0, 1, 4, 5, 9, 12, 17])
    defaults = GenerationDefaults(
        decoder_start_token_id=4,
        eos_token_id=5,
        forced_bos_token_id=12,
        suppressed_token_ids=(4, 3),
        bad_words=((9, 0), (3, 4), (17, 1)),
        min_new_tokens=5,
        max_new_tokens=8,
    )
    generation = Generation(8, num_beams=2, no_repeat_ngram_size=2, repetition_penalty=1.2)
    whole = BeamSearch(generation, defaults)
    short = Renumbered(BeamSearch, generation, defaults, candidates)
    rng = np.random.default_rng(5)
    for _ in range(8):
        narrow = rng.normal(size=(2, len(candidates))).astype(np.float32)
        wide = np.full((2, VOCABULARY), -np.inf, np.float32)
        wide[:, candidates] = narrow
        expected, found = whole.advance([], wide, [0, 1]), short.advance([], narrow, [0, 1])
        assert [list(part) if isinstance(part, tuple | list) else part for part in found] == [
            list(part) if isinstance(part, tuple | list) else part for part in expected
        ]
        if found.finish:
            break
    assert found.finish
    assert len(set(found.new)) > 2
