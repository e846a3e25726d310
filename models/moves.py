"""Moves rows within the memory of a device, and from there to the host, by two small graphs."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from models.errors import BundleError
from models.session import Place, Resident, open_plain
from models.task import Array, Tokens

WORD = np.dtype(np.int32)
"""The graphs move rows as words of four bytes, whatever they hold, so that they serve every type of number."""

_FOLDER = Path(__file__).parent / "device"
COPY = _FOLDER / "copy.onnx"
"""`moved` is `to` with its rows `targets` [moves, 1] replaced by the rows `sources` [moves] of `from`."""
PICK = _FOLDER / "pick.onnx"
"""`picked` is the rows `sources` [moves] of `from`."""


class Moves:
    """Copies within the device: what crosses the bus is which rows, 16 bytes for each, and what is asked for."""

    def __init__(self) -> None:
        self._copy, self._pick = open_plain(COPY), open_plain(PICK)

    def copy(self, source: Resident, froms: Tokens, to: Resident, tos: Tokens, *, cell: int) -> None:
        """Copy cells of so many elements from places in one array to places in another, or in the same.

        All are read before any is written, and nothing else is written: `to` is changed where it is.
        """
        target = _as_words(to, cell)
        rows: dict[str, Place] = {"sources": froms, "targets": tos[:, None]}
        self._copy.bind({**rows, "from": _as_words(source, cell), "to": target}, {"moved": target}).run()

    def pick(self, source: Resident, rows: Sequence[int]) -> Array:
        """These rows of an array [rows, ...], on the host."""
        shape = (len(rows), *source.shape[1:])
        picked = np.empty(shape, source.dtype)
        words = picked.reshape(len(rows), -1).view(WORD)
        wanted: dict[str, Place] = {"sources": np.array(rows, np.int64)}
        self._pick.bind({**wanted, "from": _as_words(source, prod(shape[1:]))}, {"picked": words}).run()
        return picked


def _as_words(array: Resident, cell: int) -> Resident:
    """Rows of so many elements as [rows, words].

    Raises:
        BundleError: a row is no whole number of words.
    """
    words, rest = divmod(cell * array.dtype.itemsize, WORD.itemsize)
    if rest:
        raise BundleError(f"{cell} numbers of {array.dtype} are no multiple of {WORD.itemsize} bytes")
    return array.part(0, (prod(array.shape) // cell, words), WORD)
