"""Rows of different lengths as one sequence of tokens without padding, or padded for graphs that know no better."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.task import Row, Tokens

WIDTH_MULTIPLE = 16
"""Attention re-pads rows to a multiple of this.

Whole vector registers then hold the same part of a row whoever its neighbours are, so that its sums are added up in
the same order.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The inputs of a padding-free graph, all int64; T is the number of tokens, S the width that attention pads to.

    Args:
        tokens: [T] token ids, row after row.
        positions: [T] each token's position in its row.
        segments: [T] which of two texts a token belongs to, 0 where its row does not say.
        lengths: [rows] tokens of each row.
        pad: [rows, S] the index in T of each padded cell; cells behind a row's end repeat some token.
        unpad: [T] each token's cell among rows x S.
        starts: [rows] the index in T of each row's first token.
    """

    tokens: Tokens
    positions: Tokens
    segments: Tokens
    lengths: Tokens
    pad: Tokens
    unpad: Tokens
    starts: Tokens

    def feeds(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """The inputs that a graph names, all of them fields of this class."""
        return {name: getattr(self, name) for name in names}

    def split(self, per_token: NDArray[Any]) -> list[NDArray[Any]]:
        """An array [T, ...] as one view [length, ...] for each row."""
        return np.split(per_token, self.starts[1:])

    def by_row(self, output: NDArray[Any], dims: Sequence[int | str]) -> list[NDArray[Any]]:
        """An output with these dimensions for each row: `tokens` come first where there is an entry for each token."""
        return self.split(output) if dims[0] == "tokens" else list(output)


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """The inputs of a graph that pads, all int64; S is the length of the longest row.

    Args:
        padded_tokens: [rows, S] token ids; what stands behind a row's end is not read.
        padded_segments: [rows, S] which of two texts a token belongs to, 0 where its row does not say.
        lengths: [rows] tokens of each row.
    """

    padded_tokens: Tokens
    padded_segments: Tokens
    lengths: Tokens

    def feeds(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """The inputs that a graph names, all of them fields of this class."""
        return {name: getattr(self, name) for name in names}

    def by_row(self, output: NDArray[Any], dims: Sequence[int | str]) -> list[NDArray[Any]]:
        """An output with these dimensions for each row: `rows`, then `width` where there is an entry for each token."""
        if "width" in dims[1:2]:
            return [row[:length] for row, length in zip(output, self.lengths.tolist(), strict=True)]
        return list(output)


def check_packed(inputs: Collection[str]) -> None:
    """Refuse a graph that asks for something that packed rows do not have.

    Raises:
        BundleError: an input that is no field of `Packed`.
    """
    _check(inputs, "packed", Packed)


def is_padded(inputs: Collection[str]) -> bool:
    """Whether a graph with these inputs takes padded rows.

    Raises:
        BundleError: the inputs are neither fields of `Packed` nor of `Padded`.
    """
    if "padded_tokens" not in inputs:
        check_packed(inputs)
        return False
    _check(inputs, "padded", Padded)
    return True


def _check(inputs: Collection[str], kind: str, fed: type[Packed] | type[Padded]) -> None:
    known = {field.name for field in fields(fed)}
    if unknown := sorted(set(inputs) - known):
        raise BundleError(f"a {kind} graph has inputs {', '.join(unknown)}, known are {', '.join(sorted(known))}")


def pack(rows: Sequence[Row]) -> Packed:
    """Lay rows side by side; there is at least one row, and no row is empty."""
    lengths = np.array([len(row.tokens) for row in rows], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    width = -(-int(lengths.max()) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    positions = np.arange(total, dtype=np.int64) - np.repeat(starts, lengths)
    return Packed(
        tokens=np.concatenate([row.tokens for row in rows]).astype(np.int64, copy=False),
        positions=positions,
        segments=np.concatenate(
            [np.zeros_like(row.tokens) if row.segments is None else row.segments for row in rows]
        ).astype(np.int64, copy=False),
        lengths=lengths,
        pad=np.minimum(starts[:, None] + np.arange(width, dtype=np.int64), total - 1),
        unpad=np.repeat(np.arange(len(rows), dtype=np.int64) * width, lengths) + positions,
        starts=starts,
    )


def pad(rows: Sequence[Row]) -> Padded:
    """Fill rows up to the length of the longest; there is at least one row, and no row is empty."""
    lengths = np.array([len(row.tokens) for row in rows], dtype=np.int64)
    tokens, segments = np.zeros((2, len(rows), int(lengths.max())), np.int64)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        if row.segments is not None:
            segments[index, : len(row.tokens)] = row.segments
    return Padded(tokens, segments, lengths)
