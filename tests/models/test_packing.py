import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BundleError
from models.packing import WIDTH_MULTIPLE, check_packed, is_padded, pack, pad
from models.task import Row

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def rows_of(lengths: list[int]) -> list[Row]:
    """Rows whose tokens are all different."""
    ends = np.cumsum(lengths)
    return [
        Row(np.arange(end - length, end), segments=np.full(length, end))
        for length, end in zip(lengths, ends, strict=True)
    ]


@given(lengths)
def test_a_padded_row_begins_with_its_own_tokens_and_packs_back(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    packed = pack(rows)
    padded = packed.tokens[packed.pad]
    for row, line in zip(rows, padded, strict=True):
        assert line[: len(row.tokens)].tolist() == row.tokens.tolist()
    assert padded.ravel()[packed.unpad].tolist() == packed.tokens.tolist()


@given(lengths)
def test_width_is_the_next_multiple_above_the_longest_row(lengths: list[int]) -> None:
    width = pack(rows_of(lengths)).pad.shape[1]
    assert width % WIDTH_MULTIPLE == 0
    assert 0 <= width - max(lengths) < WIDTH_MULTIPLE


@given(lengths)
def test_split_gives_each_row_its_own_part(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    packed = pack(rows)
    assert [part.tolist() for part in packed.split(packed.tokens)] == [row.tokens.tolist() for row in rows]
    assert [part.tolist() for part in packed.split(packed.positions)] == [list(range(length)) for length in lengths]
    assert [set(part.tolist()) for part in packed.split(packed.segments)] == [{row.segments[0]} for row in rows]  # type: ignore[index]


def test_a_row_without_segments_is_all_first_text() -> None:
    rows = [Row(np.array([1, 2])), Row(np.array([3]), segments=np.array([1]))]
    assert pack(rows).segments.tolist() == [0, 0, 1]


def test_a_graph_that_asks_for_something_else_is_refused() -> None:
    check_packed(["tokens", "pad"])
    with pytest.raises(BundleError, match="has inputs attention_mask, known are"):
        check_packed(["tokens", "attention_mask"])


@given(lengths)
def test_padding_stands_behind_a_row_and_is_cut_off_again(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    padded = pad(rows)
    assert padded.padded_tokens.shape == padded.padded_segments.shape == (len(rows), max(lengths))
    dims = ("rows", "width")
    tokens, segments = padded.by_row(padded.padded_tokens, dims), padded.by_row(padded.padded_segments, dims)
    assert [part.tolist() for part in tokens] == [row.tokens.tolist() for row in rows]
    assert [part.tolist() for part in segments] == [row.segments.tolist() for row in rows if row.segments is not None]
    assert [part.shape for part in padded.by_row(padded.padded_tokens, ("rows", 50))] == [(max(lengths),)] * len(rows)


def test_the_inputs_of_a_graph_say_whether_it_pads() -> None:
    assert is_padded(["padded_tokens", "lengths"])
    assert not is_padded(["tokens", "pad"])
    with pytest.raises(BundleError, match="a padded graph has inputs positions, known are"):
        is_padded(["padded_tokens", "positions"])
